"""What all pages have in common, in a real browser: the start page, the wire, the frame and the front end's guards."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browsing import expect_good_design, front_end
from certificates import Certificates
from conftest import Program, Start, looking_after, wait_until
from webdriver import Window

PAGES = ["", "dormitory.html", "cinema.html", "chat.html", "chatrooms.html"]
MAX_PAGE_BYTES = 100 << 10


class PagesSite:
    """The systems and the address of the start page."""

    def __init__(self, address: str, chat: Program) -> None:
        self.address = address
        self.chat = chat


@pytest.fixture(scope="module", name="site")
def site_fixture() -> Iterator[PagesSite]:
    """Provide a front end that was given all systems but the dormitory; the cinema's server has been killed."""
    with looking_after() as launch:
        chat, rooms, gone = (launch(f"{name}_server.py", "0") for name in ("chat", "chatroom", "chat"))
        for server in (chat, rooms, gone):
            server.wait_for_start()
        gone_port = gone.port
        gone.kill()
        yield PagesSite(front_end(launch, chat=chat.port, chatrooms=rooms.port, tickets=gone_port), chat)


def test_start_page_has_a_card_for_each_system_and_says_whether_it_answers(site: PagesSite, alice: Window) -> None:
    alice.open(site.address)
    cards = "return [...document.querySelectorAll('.card')].filter((c) => c.checkVisibility()).map((c) => c.innerText)"
    states = "return [...document.querySelectorAll('.up, .down')].length"
    alice.wait(lambda: alice.run(states) == 3, "every system has answered or not")
    cinema, chat, rooms = alice.run(cards)
    assert cinema.startswith("Cinema\n")
    assert "Does not answer" in cinema
    assert chat.startswith("Chat\n")
    assert chat.endswith("Answers")
    assert rooms.startswith("Chat rooms\n")
    assert rooms.endswith("Answers")
    assert not alice.has("Dormitory")
    expect_good_design(alice)


def test_start_page_connects_again_quietly_when_a_server_ends_an_idle_connection(alice: Window, launch: Start) -> None:
    chat = launch("chat_server.py", "0", "--login-seconds", "1")
    chat.wait_for_start()
    alice.open(front_end(launch, chat=chat.port))
    alice.wait_for_text("Answers")
    alice.run(
        """
        window.states = [];
        const state = document.querySelector('.card[data-system="chat"] .state');
        new MutationObserver(() => window.states.push(state.textContent)).observe(state, { childList: true });
        """
    )
    wait_until(lambda: chat.count_lines(r"Client \(\d+\): LIST.*") >= 3, "two more connections")
    assert set(alice.run("return window.states")) == {"Answers"}
    chat.kill()
    alice.wait_for_text("Does not answer.")
    alice.open("about:blank")


@pytest.mark.parametrize("page", PAGES)
def test_page_is_well_designed_small_and_loads_nothing_from_elsewhere(
    site: PagesSite, alice: Window, page: str
) -> None:
    alice.open(site.address + page)
    alice.find("Show the wire")
    expect_good_design(alice)
    alice.press("Show the wire")
    expect_good_design(alice)
    sizes = alice.run(
        """
        const loaded = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
        return Object.fromEntries(loaded.map((entry) => [entry.name, entry.decodedBodySize]));
        """
    )
    assert all(name.startswith(site.address) for name in sizes)
    assert 10_000 < sum(sizes.values()) < MAX_PAGE_BYTES


def test_page_reports_an_absent_system_and_when_it_tries_again(site: PagesSite, alice: Window) -> None:
    alice.open(f"{site.address}cinema.html")
    alice.press("Choose seats")
    alice.wait_for_text("The cinema is not running. This page tries again by itself.")
    for pause in (1, 2):
        alice.wait_for_text(f"Next try in {pause} s")
    expect_good_design(alice)


def test_wire_shows_bytes_and_repeated_polls_and_can_be_cleared_and_copied(site: PagesSite, alice: Window) -> None:
    alice.open(f"{site.address}chatrooms.html")
    for name in ("clipboard-read", "clipboard-write"):
        alice.command("POST", "/permissions", descriptor={"name": name}, state="granted")
    assert not alice.has("Clear")
    alice.press("Show the wire")
    alice.wait_for_text("opened /ws/chatrooms")
    assert "<3>" not in alice.text()
    alice.press("Polls")
    alice.wait_for_text("<3>", times=2)
    alice.press("Polls")
    alice.wait_until_gone("<3>\n", 0.5)
    alice.type("New room", "wired")
    alice.press("Create")
    alice.wait_for_text("<1>wired")
    alice.wait_for_text("<0>wired")
    alice.press("Copy")
    alice.wait_for_text("Copied.")
    copied = alice.run("return navigator.clipboard.readText()")
    assert "→ lobby: <1>wired\n" in copied
    assert "← lobby: <0>\n" in copied
    alice.press("Delete wired")
    alice.wait_for_text("<4>wired")
    alice.press("Hide the wire")
    assert alice.has("Show the wire")


def test_pages_work_over_tls(site: PagesSite, alice: Window, launch: Start, certificates: Certificates) -> None:
    address = front_end(launch, *certificates.good.options, chat=site.chat.port)
    alice.open(f"{address}chat.html")
    alice.type("User name", "alice")
    alice.press("Join")
    alice.wait_for_text("You are alice.")
    alice.press("Leave")
    alice.open("about:blank")


def test_reduced_motion_stops_animations(site: PagesSite, alice: Window) -> None:
    alice.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    alice.open(f"{site.address}chatrooms.html")
    assert alice.run("return getComputedStyle(document.getElementById('show-wire')).transitionDuration") in ("0s", "")
    alice.prefer("light")
    assert alice.run("return getComputedStyle(document.getElementById('show-wire')).transitionDuration") == "0.15s"


def test_page_of_another_origin_cannot_open_the_socket(site: PagesSite, alice: Window, tmp_path: Path) -> None:
    (tmp_path / "evil.html").write_text("<!doctype html><link rel=icon href=data:,><title>evil</title>")
    script = """
        const [address, done] = arguments;
        const socket = new WebSocket(address);
        socket.addEventListener("open", () => done("open"));
        socket.addEventListener("close", (event) => done(event.code));
        """
    socket = site.address.replace("http:", "ws:") + "ws/chat"
    with static_server(tmp_path) as address:
        alice.open(f"{address}evil.html")
        before = site.chat.count_lines(".*accepted.*")
        assert alice.command("POST", "/execute/async", script=script, args=[socket]) == 1006
        assert site.chat.count_lines(".*accepted.*") == before
    alice.open(f"{site.address}chat.html")
    assert alice.command("POST", "/execute/async", script=script, args=[socket]) == "open"
    (message,) = alice.console()
    assert "403" in message


@contextmanager
def static_server(directory: Path) -> Iterator[str]:
    """Serve a directory from another origin; give its address."""
    handler = partial(QuietHandler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serve files without a log."""

    def log_message(self, format: str, *_: object) -> None:
        """Write no log."""
