"""Drive headless Chromium over the W3C WebDriver protocol: JSON over HTTP to chromedriver, nothing else.

A test reads as what a user does: `window.type("User name", "alice")`, `window.press("Log in")`,
`window.wait_for_text("Welcome")`. A name in such a call is an accessible name: the text of a label, of a button or its
aria-label. Every wait has a limit, and says what was expected and what the page showed.
"""

import http.client
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

WAIT_SECONDS = 10.0
POLL_SECONDS = 0.05
STOP_SECONDS = 5.0
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, fixed by the W3C
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NO_SPARE_CONNECTIONS = {"net.network_prediction_options": 2}  # a server would wait 10 seconds for a request on one
TAB, ENTER, SPACE = "\ue004", "\ue007", " "
UP, RIGHT, DOWN = "\ue013", "\ue014", "\ue015"

# Finds the visible control, section or log that has an accessible name.
FIND = """
const [name] = arguments;
const nameOf = (node) => {
  const by = node.getAttribute("aria-labelledby");
  if (by) return document.getElementById(by)?.textContent;
  return node.getAttribute("aria-label") ?? node.labels?.[0]?.textContent ?? node.textContent;
};
const named = [...document.querySelectorAll("button, a, input, select, section, [role=log]")];
return named.find((node) => node.checkVisibility() && nameOf(node)?.trim() === name) ?? null;
"""


class WebDriverError(Exception):
    """A command failed; the text says why."""


class StaleElement(WebDriverError):
    """The page has replaced an element since it was found."""


class Driver:
    """A running chromedriver."""

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(
            [path, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout
        for line in self._process.stdout:
            if started := re.search(r"started successfully on port (\d+)", line):
                self._connection = http.client.HTTPConnection("127.0.0.1", int(started[1]), timeout=60)
                return
        raise WebDriverError("chromedriver ended before it listened")

    def command(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a command; return its value.

        Raises:
            WebDriverError: the browser could not carry it out.
        """
        self._connection.request(method, path, json.dumps(body or {}) if method == "POST" else None)
        value = json.loads(self._connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            kind = StaleElement if value["error"] == "stale element reference" else WebDriverError
            raise kind(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    def stop(self) -> None:
        """End chromedriver."""
        self._connection.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


class Window:
    """A browser of its own, with one or more tabs."""

    def __init__(self, driver: Driver, session: str) -> None:
        self._driver = driver
        self._session = f"/session/{session}"

    def command(self, method: str, path: str, **body: Any) -> Any:
        """Send a command for this browser; return its value."""
        return self._driver.command(method, self._session + path, body)

    def open(self, url: str) -> None:
        """Load a page."""
        self.command("POST", "/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript, the body of a function, in the page; return its result."""
        return self.command("POST", "/execute/sync", script=script, args=list(arguments))

    def find(self, name: str) -> Any:
        """Return the visible element with an accessible name, once it is there; the browser must agree on the name."""
        return self.wait(lambda: self._find_now(name), f"an element named {name!r}")

    def has(self, name: str) -> bool:
        """Return whether an element with this accessible name is visible now."""
        return self.run(FIND, name) is not None

    def press(self, name: str) -> None:
        """Click the element with an accessible name."""

        def click() -> bool:
            if element := self._find_now(name):
                self.command("POST", f"/element/{element[ELEMENT]}/click")
            return element is not None

        self.wait(click, f"an element named {name!r}")

    def _find_now(self, name: str) -> Any:
        element = self.run(FIND, name)
        if element and self.command("GET", f"/element/{element[ELEMENT]}/computedlabel") != name:
            return None  # the browser gives it another name than assistive technology needs, or it has just changed
        return element

    def type(self, name: str, text: str) -> None:
        """Replace the text of a field."""
        element = self.find(name)[ELEMENT]
        self.command("POST", f"/element/{element}/clear")
        self.command("POST", f"/element/{element}/value", text=text)

    def choose(self, name: str, option: str) -> None:
        """Choose an option of a list, by its text, once it is offered."""
        script = """
        const [list, text] = arguments;
        const option = [...list.options].find((option) => option.text === text);
        if (option) { list.value = option.value; list.dispatchEvent(new Event("change", { bubbles: true })); }
        return Boolean(option);
        """
        self.wait(lambda: self.run(script, self.find(name), option), f"the option {option!r} of {name!r}")

    def keys(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.command("POST", "/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def click_fast(self, name: str, times: int) -> None:
        """Click several times without a pause."""
        move = {"type": "pointerMove", "origin": self.find(name), "x": 0, "y": 0, "duration": 0}
        click = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "actions": [move, *(click * times)]}
        self.command("POST", "/actions", actions=[mouse])

    def text(self) -> str:
        """Return the text that the page shows."""
        return str(self.run("return document.body.innerText"))

    def wait_for_text(self, text: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until the page shows a text."""
        self.wait(lambda: text in self.text(), f"the text {text!r}", seconds)

    def wait_until_gone(self, text: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until the page does not show a text any more."""
        self.wait(lambda: text not in self.text(), f"no text {text!r}", seconds)

    def wait(self, condition: Any, what: str, seconds: float = WAIT_SECONDS) -> Any:
        """Wait until a condition gives a value that is true; return it."""
        end = time.monotonic() + seconds
        while True:
            with suppress(StaleElement):
                if value := condition():
                    return value
            if time.monotonic() > end:
                pytest.fail(f"not within {seconds} seconds: {what}; the page showed\n{self.text()}")
            time.sleep(POLL_SECONDS)

    def resize(self, width: int, height: int) -> None:
        """Give the page a size in pixels, also one that is smaller than a window may be."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)

    def prefer(self, scheme: str) -> None:
        """Ask for light or dark pages."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def devtools(self, method: str, **params: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.command("POST", "/goog/cdp/execute", cmd=method, params=params)

    def console(self) -> list[str]:
        """Return the messages that the console got since the last call."""
        return [entry["message"] for entry in self.command("POST", "/se/log", type="browser")]

    def new_tab(self) -> str:
        """Open a tab, go there and return its handle."""
        handle = str(self.command("POST", "/window/new", type="tab")["handle"])
        self.go_to_tab(handle)
        return handle

    def tab(self) -> str:
        """Return the handle of the present tab."""
        return str(self.command("GET", "/window"))

    def go_to_tab(self, handle: str) -> None:
        """Go to another tab."""
        self.command("POST", "/window", handle=handle)

    def close_tab(self) -> None:
        """Close the present tab; go_to_tab() must follow."""
        self.command("DELETE", "/window")


@contextmanager
def browsers(number: int) -> Iterator[list[Window]]:
    """Give browsers, each with an empty profile of its own; end them and chromedriver afterwards."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("the browser tests need the programs chromium and chromedriver")
    driver = Driver(chromedriver)
    windows: list[Window] = []
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profiles:
            try:
                for index in range(number):
                    windows.append(_open_browser(driver, chromium, Path(profiles) / str(index)))
                yield windows
            finally:
                for window in windows:
                    with suppress(WebDriverError):  # the browser has crashed
                        window.command("DELETE", "")
    finally:
        driver.stop()


def _open_browser(driver: Driver, chromium: str, profile: Path) -> Window:
    options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={profile}"], "prefs": NO_SPARE_CONNECTIONS}
    capabilities: dict[str, Any] = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    capabilities["acceptInsecureCerts"] = True  # certificates of the tests' own authority
    body = {"capabilities": {"alwaysMatch": capabilities}}
    return Window(driver, driver.command("POST", "/session", body)["sessionId"])
