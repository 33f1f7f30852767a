"""What the browser tests share: a front end for some systems, two browsers, and rules for every page."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from conftest import Program, Start, free_port, looking_after
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

# Hides the present page, which then does not poll; shows it again, and it polls at once.
HIDE = "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
SHOW = "delete document.hidden; document.dispatchEvent(new Event('visibilitychange'));"


def expect_good_design(window: Window) -> None:
    """Fail if the present page breaks a rule of FAULTS on a phone or a screen, light or dark."""
    for width, height in ((320, 640), (1280, 800)):
        window.resize(width, height)
        for scheme in ("light", "dark"):
            window.prefer(scheme)
            faults = window.run("document.getAnimations().forEach((a) => a.finish());" + FAULTS)
            assert not faults, f"{width} pixels, {scheme}: " + "; ".join(faults[:5])


def has_border(window: Window, selector: str) -> bool:
    """Return whether an element's lower border can be seen; where colours are forced, its background cannot."""
    script = """
    const [style, page] = [document.querySelector(arguments[0]), document.body].map((node) => getComputedStyle(node));
    return parseFloat(style.borderBottomWidth) > 0 && style.borderBottomColor !== page.backgroundColor;
    """
    return bool(window.run(script, selector))


@contextmanager
def hurried(window: Window) -> Iterator[None]:
    """Let the timers of pages that are opened in a block run ten times as fast."""
    source = """
    const { setTimeout: timeout, setInterval: interval } = window;
    window.setTimeout = (action, milliseconds = 0) => timeout(action, milliseconds / 10);
    window.setInterval = (action, milliseconds) => interval(action, milliseconds / 10);
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


class ChatSite(NamedTuple):
    """The chat, the chat rooms, and a front end for both and for a cinema that is not running."""

    address: str  # of the start page
    chat: Program
    rooms: Program


@pytest.fixture(scope="module")
def common_chat_site() -> Iterator[ChatSite]:
    """Provide the servers for all tests of a module."""
    with looking_after() as launch:
        chat, rooms = launch("chat_server.py", "0"), launch("chatroom_server.py", "0")
        for server in (chat, rooms):
            server.wait_for_start()
        yield ChatSite(front_end(launch, chat=chat.port, chatrooms=rooms.port, tickets=free_port()), chat, rooms)


@pytest.fixture
def site(common_chat_site: ChatSite) -> Iterator[ChatSite]:
    """Provide the servers; afterwards delete all rooms, and fail if the servers do not come to rest."""
    yield common_chat_site
    lobby = common_chat_site.rooms.connect()
    lobby.send("3")
    for name in filter(None, lobby.read_line()[1:].split(",")):
        lobby.send(f"4{name}")
        lobby.expect("0")
    for server in (common_chat_site.chat, common_chat_site.rooms):
        server.expect_rest()


@pytest.fixture(scope="session")
def two_browsers() -> Iterator[list[Window]]:
    """Provide two browsers for all browser tests."""
    with browsers(2) as windows:
        yield windows


def browser(number: int, name: str) -> Any:
    """Return a fixture that provides a browser of the usual size; the test fails if its console has a message then."""

    @pytest.fixture(name=name)
    def provide(two_browsers: list[Window]) -> Iterator[Window]:
        window = two_browsers[number]
        window.resize(1280, 800)
        window.prefer("light")
        yield window
        window.run("try { sessionStorage.clear(); } catch { /* about:blank has none */ }")
        window.open("about:blank")
        assert window.console() == []

    return provide


alice = browser(0, "alice")
bob = browser(1, "bob")
