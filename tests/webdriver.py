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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from conftest import WAIT_SECONDS, wait_until

POLL_SECONDS = 0.02
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, fixed by the W3C
BROWSER = {
    "acceptInsecureCerts": True,  # certificates of the tests' own authority
    "goog:loggingPrefs": {"browser": "ALL"},
    "goog:chromeOptions": {
        "binary": shutil.which("chromium"),
        "args": ["--headless=new", "--no-sandbox", "--disable-component-update"],
        "prefs": {"net.network_prediction_options": 2},  # a server would wait 10 seconds for a request on a spare one
    },
}
TAB, ENTER, ESCAPE, SPACE = "\ue004", "\ue007", "\ue00c", " "
UP, RIGHT, DOWN = "\ue013", "\ue014", "\ue015"

# Finds the visible control, section or log that has an accessible name.
FIND = """
const [name] = arguments;
const nameOf = (node) => {
  const by = node.getAttribute("aria-labelledby");
  if (by) return document.getElementById(by)?.textContent;
  return node.getAttribute("aria-label") ?? node.labels?.[0]?.textContent ?? node.textContent;
};
const named = [...document.querySelectorAll("button, a, input, select, textarea, section, [role=log]")];
return named.find((node) => node.checkVisibility() && nameOf(node)?.trim() === name) ?? null;
"""


class WebDriverError(Exception):
    """A command failed; the text says why."""


class Window:
    """A browser with an empty profile of its own; its chromedriver listens on a port."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._path = "/session"
        self._path += "/" + self.command("POST", capabilities={"alwaysMatch": BROWSER})["sessionId"]

    def command(self, method: str, path: str = "", **body: Any) -> Any:
        """Send a command for this browser; return its value, or raise WebDriverError."""
        self._connection.request(method, self._path + path, json.dumps(body) if method == "POST" else None)
        value = json.loads(self._connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise WebDriverError(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    def close(self) -> None:
        """End the browser."""
        self.command("DELETE")
        self._connection.close()

    def open(self, url: str) -> None:
        """Load a page."""
        self.command("POST", "/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript, the body of a function, in the page; return its result."""
        return self.command("POST", "/execute/sync", script=script, args=arguments)

    def find(self, name: str) -> Any:
        """Return the visible element with an accessible name, once it is there."""
        return self.wait(lambda: self._find_now(name), f"an element named {name!r}")

    def press(self, name: str) -> None:
        """Click the element with an accessible name."""

        def is_clicked() -> bool:
            element = self._find_now(name)
            self.run("arguments[0].scrollIntoView({ block: 'nearest' })", element)  # the foot covers what is below it
            self.command("POST", f"/element/{element[ELEMENT]}/click")
            return True

        self.wait(is_clicked, f"an element named {name!r}")

    def _find_now(self, name: str) -> Any:
        element = self.run(FIND, name)
        if not element or self.command("GET", f"/element/{element[ELEMENT]}/computedlabel") != name:
            raise WebDriverError(f"the browser knows no element named {name!r}")
        return element

    def has(self, name: str) -> bool:
        """Return whether an element with this accessible name is visible now."""
        return self.run(FIND, name) is not None

    def press_and_confirm(self, name: str) -> None:
        """Click an element, and accept what the browser then asks."""
        self.press(name)
        self.command("POST", "/alert/accept")

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

    def click_fast(self, name: str, times: int, pause_milliseconds: int = 0) -> None:
        """Click several times at one place, with a short pause at most."""
        move = {"type": "pointerMove", "origin": self.find(name), "x": 0, "y": 0, "duration": 0}
        click = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        pause = {"type": "pause", "duration": pause_milliseconds}
        mouse = {"type": "pointer", "id": "mouse", "actions": [move, *([*click, pause] * times)]}
        self.command("POST", "/actions", actions=[mouse])

    def text(self) -> str:
        """Return the text that the page shows."""
        return str(self.run("return document.body.innerText"))

    def wait_for_text(self, text: str, times: int = 1) -> None:
        """Wait until the page shows a text, at least this many times."""
        self.wait(lambda: self.text().count(text) >= times, f"the text {text!r}")

    def wait_until_gone(self, text: str) -> None:
        """Wait until the page does not show a text any more."""
        self.wait(lambda: text not in self.text(), f"no text {text!r}")

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
        """Wait until a condition holds, and return its value; a command that fails meanwhile is repeated."""
        failure = ""

        def try_condition() -> Any:
            nonlocal failure
            try:
                return condition()
            except WebDriverError as error:  # the page has changed, for instance
                failure = f"{error}\n"

        return wait_until(try_condition, what, seconds, POLL_SECONDS, lambda: f"{failure}the page\n{self.text()}")

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page in pixels; it may be smaller than a window can be."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)

    def prefer(self, scheme: str = "light", **features: str) -> None:
        """Ask for light or dark pages, and for other media features, such as forced_colors="active"."""
        wishes = {"prefers_color_scheme": scheme, **features}
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in wishes.items()]
        self.devtools("Emulation.setEmulatedMedia", features=named)

    def devtools(self, method: str, **params: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.command("POST", "/goog/cdp/execute", cmd=method, params=params)

    def console(self) -> list[str]:
        """Return the messages that the console got since the last call."""
        return [entry["message"] for entry in self.command("POST", "/se/log", type="browser")]


@contextmanager
def browsers(number: int) -> Iterator[list[Window]]:
    """Provide browsers; end them and chromedriver afterwards."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("the browser tests need the programs chromium and chromedriver")
    command = ["chromedriver", "--port=0"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as driver,
        ExitStack() as end,
    ):
        end.callback(driver.terminate)
        assert driver.stdout
        (port,) = next(filter(None, (re.findall(r"successfully on port (\d+)", line) for line in driver.stdout)))
        windows = [Window(int(port)) for _ in range(number)]
        for window in windows:
            end.callback(window.close)
        yield windows
