"""What the browser tests share: a front end for some systems, two browsers, and rules for every page."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import Start
from webdriver import Window, browsers

# Returns what is wrong with the present page: targets under 44 pixels (36 in a wide window, 24 in a grid), controls
# without a name, text whose contrast is under 4.5 (WCAG 2.2, 1.4.3), and a page that is wider than its window.
FAULTS = """
const faults = [];
const least = innerWidth < 1024 ? 43.9 : 35.9;
const shown = (node) => node.checkVisibility({ visibilityProperty: true }) && node.getClientRects().length > 0;
const tell = (node) => `${node.tagName} ${node.id || node.className} "${node.textContent.trim().slice(0, 30)}"`;

for (const node of document.querySelectorAll("button, a:not(.words a), input, select, textarea")) {
  if (!shown(node)) continue;
  const target = node.type === "checkbox" ? node.closest("label") : node;
  const { width, height } = target.getBoundingClientRect();
  const enough = node.closest("[role=grid]") ? 24 : least;
  if (width < enough || height < enough) faults.push(`${tell(node)}: target of ${width} by ${height} pixels`);
  const isNamed = node.textContent.trim() || node.getAttribute("aria-label") || node.labels?.length;
  if (!isNamed) faults.push(`${tell(node)}: no name`);
}

const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = (colour) => {
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = numbers(colour).map((part) => linear(part / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if ((numbers(colour)[3] ?? 1) > 0.99) return colour;
  }
  return "rgb(255, 255, 255)";
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const node = texts.currentNode.parentElement;
  if (!texts.currentNode.textContent.trim() || !shown(node) || node.closest("script, noscript, option")) continue;
  const [one, other] = [getComputedStyle(node).color, background(node)].map(luminance);
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (contrast < 4.5) faults.push(`${tell(node)}: contrast ${contrast.toFixed(2)}`);
}

const { scrollWidth } = document.documentElement;
if (scrollWidth > innerWidth) faults.push(`the page is ${scrollWidth} pixels wide in a window of ${innerWidth}`);
return faults;
"""

# Lets time limits of 5 seconds, of the present page, pass after one.
SHORT_TIME_LIMITS = """
const { setTimeout } = window;
window.setTimeout = (action, limit, ...rest) => setTimeout(action, limit === 5000 ? 1000 : limit, ...rest);
"""


def expect_good_design(window: Window) -> None:
    """Fail if the present page breaks a rule of FAULTS on a phone or a screen, light or dark."""
    for width, height in ((320, 640), (1280, 800)):
        window.resize(width, height)
        for scheme in ("light", "dark"):
            window.prefer(scheme)
            faults = window.run("document.getAnimations().forEach((a) => a.finish());" + FAULTS)
            assert not faults, f"{width} pixels, {scheme}: " + "; ".join(faults[:5])


@contextmanager
def hurried(window: Window, times: float = 10) -> Iterator[None]:
    """Let the timers of pages that are opened in a block run this many times as fast."""
    source = f"""
    const {{ setTimeout: timeout, setInterval: interval }} = window;
    window.setTimeout = (action, milliseconds = 0) => timeout(action, milliseconds / {times});
    window.setInterval = (action, milliseconds) => interval(action, milliseconds / {times});
    """
    script = window.devtools("Page.addScriptToEvaluateOnNewDocument", source=source)
    try:
        yield
    finally:
        window.devtools("Page.removeScriptToEvaluateOnNewDocument", **script)


def front_end(launch: Start, *options: str, **systems: int) -> str:
    """Start a front end for systems, given by their ports; return the address of its start page."""
    places = [option for name, port in systems.items() for option in (f"--{name}", f"127.0.0.1:{port}")]
    server = launch("front_end.py", "0", *places, *options)
    server.wait_for_start()
    return f"http{'s' if '--tls-key' in options else ''}://127.0.0.1:{server.port}/"


@pytest.fixture(scope="session")
def two_browsers() -> Iterator[list[Window]]:
    """Provide two browsers for all browser tests."""
    with browsers(2) as windows:
        yield windows


@pytest.fixture
def windows(two_browsers: list[Window]) -> Iterator[list[Window]]:
    """Provide two browsers of the usual size; fail if a console has a message afterwards."""
    for window in two_browsers:
        window.resize(1280, 800)
        window.prefer("light")
    yield two_browsers
    for window in two_browsers:
        window.run("try { sessionStorage.clear(); } catch { /* about:blank has none */ }")
        window.open("about:blank")
        assert window.console() == []


@pytest.fixture
def alice(windows: list[Window]) -> Window:
    """Provide the first browser."""
    return windows[0]


@pytest.fixture
def bob(windows: list[Window]) -> Window:
    """Provide the second browser."""
    return windows[1]
