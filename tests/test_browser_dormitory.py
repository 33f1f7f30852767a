"""The dormitory's page in a real browser, with the real servers."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest
from browsing import HIDE, SHOW, expect_good_design, front_end, has_border, hurried
from conftest import Start, in_thread, looking_after
from dorm import PASSWORDS, ask, caring_for
from webdriver import ENTER, SPACE, TAB, Window

LIVE_SECONDS = 1.5
LAST_STOP = 40  # more stops of the Tab key than any page has before the one that a test looks for


class DormitorySite:
    """The dormitory and the address of its page."""

    def __init__(self, dormitory: Any, address: str) -> None:
        self.dormitory = dormitory
        self.page = f"{address}dormitory.html"

    def log_in(self, window: Window, user: str) -> None:
        """Open the page and log in as a member."""
        window.open(self.page)
        window.type("User name", user)
        window.type("Password", PASSWORDS[user])
        window.press("Log in")
        window.find("Single rooms")
        window.wait_for_text("left in")

    def look_around(self, window: Window) -> None:
        """Open the page as a guest."""
        window.open(self.page)
        window.press("Look around as a guest")
        window.wait_for_text("left in")

    def reserve(self, window: Window, code: str) -> None:
        """Press the button of a room, whose name says how many are left."""
        window.press(f"Reserve {code}, {room(window, code).lower()}")

    def reservations_of(self, room: str) -> list[str]:
        """Return the ids of a room's reservations that are on disk."""
        return [number for number, code, _ in self.dormitory.rows(room[0]) if code == room]


@pytest.fixture(scope="module", name="site")
def site_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DormitorySite]:
    """Provide a dormitory for all tests of this module; each uses rooms of its own."""
    with looking_after() as launch, caring_for(launch, tmp_path_factory.mktemp("dormitory")) as dormitory:
        dormitory.write("single.txt", "S1, 1\nS2, 9\nS3, 9\nS4, 9\nS5, 9\nS6, 0\n")
        dormitory.write("double.txt", "D1, 9\nD2, 9\n")
        dormitory.start()
        yield DormitorySite(dormitory, front_end(launch, dormitory=dormitory.main.port))


def room(window: Window, code: str) -> str:
    parts = "[...room.querySelectorAll('.code, .left')].map((part) => part.textContent)"
    rooms = window.run(f"return [...document.querySelectorAll('.room')].map((room) => {parts})")
    return str(dict(rooms).get(code))


@contextmanager
def fake_dormitory(*replies: str) -> Iterator[int]:
    """Run a main server that answers each login with the next reply, and ends connections while any are left."""
    logins = list(replies)

    class Talk(StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                if line.startswith(b"LOGIN"):
                    self.wfile.write(f"{logins.pop(0)}\n".encode())
                elif line.startswith(b"LIST"):
                    self.wfile.write(b"ROOMS S1=2\n")
                elif logins:
                    return

    with ThreadingTCPServer(("127.0.0.1", 0), Talk) as server:
        server.daemon_threads = True
        thread = in_thread(server.serve_forever, 0.01)
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_last_room_goes_to_one_of_two_browsers(site: DormitorySite, alice: Window, bob: Window) -> None:
    site.log_in(alice, "alice")
    site.log_in(bob, "bob")
    site.reserve(alice, "S1")
    site.reserve(bob, "S1")
    alice.wait_for_text("Room S1 is yours")
    bob.wait_for_text("Room S1 is full")
    assert len(site.reservations_of("S1")) == 1
    assert room(bob, "S1") == "Full"


def test_reservation_is_seen_at_once_and_soon_elsewhere(site: DormitorySite, alice: Window, bob: Window) -> None:
    site.log_in(alice, "alice")
    site.look_around(bob)
    site.reserve(alice, "S2")
    began = time.monotonic()
    alice.wait(lambda: room(alice, "S2") == "8 left", "8 left", 0.5)
    bob.wait(lambda: room(bob, "S2") == "8 left", "8 left", began + LIVE_SECONDS - time.monotonic())
    (number,) = site.reservations_of("S2")
    alice.press(f"Cancel {number}, room S2")
    alice.wait_for_text(f"Reservation {number} is cancelled")
    alice.wait(lambda: room(alice, "S2") == "9 left", "9 left", 0.5)
    assert site.reservations_of("S2") == []


def test_fast_clicks_make_one_reservation(site: DormitorySite, alice: Window) -> None:
    site.log_in(alice, "alice")
    alice.click_fast("Reserve S3, 9 left", 3)
    alice.wait_for_text("Room S3 is yours")
    clicks = "const [button] = arguments; for (let i = 0; i < 3; i += 1) button.click();"
    alice.run(clicks, alice.find("Reserve D1, 9 left"))
    alice.wait_for_text("Room D1 is yours")
    alice.run(clicks, alice.find("Reserve D1, 8 left"))
    site.reserve(alice, "S4")  # replies come in order: those to all clicks have come before this one's
    alice.wait_for_text("Room S4 is yours")
    assert [len(site.reservations_of(code)) for code in ("S3", "D1")] == [1, 1]


def test_wrong_password_is_reported_and_hidden_on_the_wire(site: DormitorySite, alice: Window) -> None:
    alice.open(site.page)
    alice.press("Show the wire")
    alice.type("User name", "alice")
    for attempt in range(1, 6):
        alice.type("Password", f"hunter{attempt}")
        alice.press("Log in")
        alice.wait_for_text("Wrong user name or password." if attempt < 5 else "Too many wrong logins.")
        assert alice.run("return document.getElementById('password').ariaInvalid") == "true"
        alice.press("Clear")
        assert "REFUSED" not in alice.text()
    assert "hunter" not in alice.text()
    alice.type("Password", PASSWORDS["alice"])  # the server closed the connection; the page connects again
    alice.press("Log in")
    alice.wait_for_text("Logged in as alice")
    alice.wait_for_text("LOGIN alice ••••••••")
    assert PASSWORDS["alice"] not in alice.text()
    expect_good_design(alice)


def test_guest_sees_rooms_without_reserve_buttons(site: DormitorySite, alice: Window) -> None:
    site.look_around(alice)
    assert "Reserve" not in alice.text()
    assert not alice.has("My reservations")
    alice.press("Only rooms with places left")
    assert "S6" not in alice.text()
    alice.press("Only rooms with places left")
    assert room(alice, "S6") == "Full"
    expect_good_design(alice)
    alice.prefer(forced_colors="active")
    assert has_border(alice, ".bar span")
    alice.press("Only rooms with places left")
    alice.press("Log in as a member")
    alice.find("Password")
    alice.open("about:blank")
    alice.command("POST", "/back")
    alice.press("Look around as a guest")
    alice.wait_for_text("left in")
    is_filtered = alice.run("return document.getElementById('only-free').checked")
    alice.wait(lambda: is_filtered == ("S6" not in alice.text()), "a list that agrees with the box")


def test_keyboard_alone_reserves_and_cancels(site: DormitorySite, alice: Window) -> None:
    def tab_to(name: str) -> None:
        for _ in range(LAST_STOP):
            alice.keys(TAB)
            focus = alice.run(
                """
                const node = document.activeElement;
                return [node.getAttribute("aria-label") ?? node.labels?.[0]?.textContent ?? node.textContent,
                        getComputedStyle(node).outlineStyle, parseFloat(getComputedStyle(node).outlineWidth)];
                """
            )
            assert focus[1] == "solid"
            assert focus[2] >= 2, f"the focus on {focus[0]!r} is not visible"
            if focus[0] == name:
                return
        pytest.fail(f"the Tab key does not lead to {name!r}")

    alice.open(site.page)
    tab_to("User name")
    alice.keys(*"alice", TAB, *PASSWORDS["alice"], ENTER)
    alice.wait_for_text("Logged in as alice")
    alice.find("Reserve S5, 9 left")
    tab_to("Reserve S5, 9 left")
    alice.keys(ENTER)
    alice.wait_for_text("Room S5 is yours")
    (number,) = site.reservations_of("S5")
    tab_to(f"Cancel {number}, room S5")
    alice.keys(SPACE)
    alice.wait_for_text(f"Reservation {number} is cancelled")


def test_killed_back_end_is_named_until_it_is_back_while_the_others_work(site: DormitorySite, alice: Window) -> None:
    site.log_in(alice, "alice")
    site.dormitory.back_ends["S"].kill()
    try:
        alice.wait_for_text("Server S is not answering. This was the count at ")
        expect_good_design(alice)
        site.reserve(alice, "D2")
        alice.wait_for_text("Room D2 is yours")
    finally:
        site.dormitory.start_back_end("S")
    alice.wait_until_gone("Server S is not answering")
    site.reserve(alice, "S4")
    alice.wait_for_text("Room S4 is yours")


def test_main_server_that_hangs_or_is_killed_is_reported_until_it_is_back(site: DormitorySite, alice: Window) -> None:
    with hurried(alice):
        site.log_in(alice, "alice")
        site.dormitory.main.process.send_signal(signal.SIGSTOP)
        alice.wait_for_text("The dormitory did not answer within 5 seconds. This page tries again by itself.")
        site.dormitory.main.process.send_signal(signal.SIGCONT)
        alice.wait_for_text("The dormitory is back.")
        site.dormitory.main.kill()
        try:
            alice.wait_for_text("The dormitory is not running. This page tries again by itself.")
            alice.wait_for_text("Next try in ")
            expect_good_design(alice)
        finally:
            site.dormitory.start_main()
        alice.wait_until_gone("This page tries again by itself.")
        alice.wait_until_gone("is not answering")
        alice.find(f"Reserve S4, {room(alice, 'S4')}")


def test_login_that_must_be_tried_later_is_tried_again(alice: Window, start: Start) -> None:
    busy = "TRY_LATER Too many people are logging in"
    with fake_dormitory(busy, "MEMBER alice", busy, "MEMBER alice") as port, hurried(alice):
        site = DormitorySite(None, front_end(start, dormitory=port))
        site.log_in(alice, "alice")
        alice.wait_for_text("The dormitory is back.")
        alice.open("about:blank")


def test_change_by_somebody_else_between_two_polls_is_shown(site: DormitorySite, alice: Window) -> None:
    bob = site.dormitory.log_in("bob")
    number = ask(bob, "RESERVE D2").split()[1]
    site.log_in(alice, "alice")
    alice.run(HIDE)
    before = room(alice, "D2")
    site.reserve(alice, "D2")
    alice.wait_for_text("Room D2 is yours")
    assert ask(bob, f"CANCEL {number}") == "CANCELLED D2"
    alice.run(SHOW)
    alice.wait(lambda: room(alice, "D2") == before, before)


def test_slow_reservation_looks_busy_but_not_full(site: DormitorySite, alice: Window) -> None:
    site.log_in(alice, "alice")
    button = alice.find(f"Reserve S4, {room(alice, 'S4')}")
    site.dormitory.main.process.send_signal(signal.SIGSTOP)
    site.reserve(alice, "S4")
    alice.wait(lambda: alice.run("return arguments[0].ariaBusy", button) == "true", "a busy button")
    assert alice.run("return arguments[0].ariaDisabled", button) == "false"
    site.dormitory.main.process.send_signal(signal.SIGCONT)
    alice.wait_for_text("Room S4 is yours")


def test_rooms_can_be_searched_and_sorted(site: DormitorySite, alice: Window) -> None:
    def listed() -> list[str]:
        rooms = "[...document.querySelectorAll('.room')].filter((room) => room.checkVisibility())"
        codes: list[str] = alice.run(f"return {rooms}.map((room) => room.firstChild.textContent)")
        return codes

    site.look_around(alice)
    tops = alice.run("return [...document.querySelectorAll('.room')].map((room) => room.offsetTop)")
    assert tops[0] == tops[1]  # a wide window has columns
    alice.type("Search rooms", "d")
    assert listed() == ["D1", "D2"]
    alice.type("Search rooms", "s")
    alice.choose("Order of the rooms", "Most places first")
    assert listed()[-1] == "S6"
    assert sorted(listed()) == ["S1", "S2", "S3", "S4", "S5", "S6"] != listed()


def test_demo_members_are_offered_until_one_is_refused(site: DormitorySite, alice: Window) -> None:
    alice.open(site.page)
    alice.press("Log in as alice")
    alice.wait_for_text("Logged in as alice")
    assert alice.run("return document.activeElement.textContent") == "Dormitory"
    alice.press("Log out")
    alice.press("Log in as bob")  # who has another password here
    alice.wait_for_text("Wrong user name or password.")
    assert not alice.has("Log in as alice")
    alice.open(site.page)
    alice.find("Log in")
    assert not alice.has("Log in as alice")
