"""The dormitory's page in a real browser, with the real servers."""

import time
from collections.abc import Iterator

import pytest
from browsing import expect_good_design, front_end
from conftest import looking_after, wait_until
from dorm import PASSWORDS, Dormitory, caring_for
from webdriver import ENTER, SPACE, TAB, Window

LIVE_SECONDS = 1.5
LAST_STOP = 40  # more stops of the Tab key than any page has before the one that a test looks for


class DormitorySite:
    """The dormitory and the address of its page."""

    def __init__(self, dormitory: Dormitory, address: str) -> None:
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
    """Return what the page says of a room: how many are left."""
    parts = "[...room.querySelectorAll('.code, .left')].map((part) => part.textContent)"
    rooms = window.run(f"return [...document.querySelectorAll('.room')].map((room) => {parts})")
    return str(dict(rooms).get(code))


def test_last_room_goes_to_one_of_two_browsers(site: DormitorySite, alice: Window, bob: Window) -> None:
    site.log_in(alice, "alice")
    site.log_in(bob, "bob")
    alice.press("Reserve S1")
    bob.press("Reserve S1")
    alice.wait_for_text("Room S1 is yours")
    bob.wait_for_text("Room S1 is full")
    assert len(site.reservations_of("S1")) == 1
    assert room(bob, "S1") == "Full"


def test_reservation_is_seen_at_once_here_and_soon_in_another_browser(
    site: DormitorySite, alice: Window, bob: Window
) -> None:
    site.log_in(alice, "alice")
    site.look_around(bob)
    alice.press("Reserve S2")
    began = time.monotonic()
    alice.wait(lambda: room(alice, "S2") == "8 left", "8 left", 0.5)
    bob.wait(lambda: room(bob, "S2") == "8 left", "8 left", began + LIVE_SECONDS - time.monotonic())
    (number,) = site.reservations_of("S2")
    alice.press(f"Cancel {number}")
    alice.wait_for_text(f"Reservation {number} is cancelled")
    alice.wait(lambda: room(alice, "S2") == "9 left", "9 left", 0.5)
    assert site.reservations_of("S2") == []


def test_triple_click_makes_one_reservation(site: DormitorySite, alice: Window) -> None:
    site.log_in(alice, "alice")
    alice.click_fast("Reserve S3", 3)
    alice.wait_for_text("Room S3 is yours")
    alice.press("Reserve D2")  # replies come in order: those to all clicks have come before this one's
    alice.wait_for_text("Room D2 is yours")
    assert len(site.reservations_of("S3")) == 1


def test_fast_clicks_by_a_script_make_one_reservation(site: DormitorySite, alice: Window) -> None:
    site.log_in(alice, "alice")
    clicks = "const [button] = arguments; for (let i = 0; i < 3; i += 1) button.click();"
    alice.run(clicks, alice.find("Reserve D1"))
    alice.wait_for_text("Room D1 is yours")
    alice.run(clicks, alice.find("Reserve D1"))
    alice.press("Reserve S4")
    alice.wait_for_text("Room S4 is yours")
    assert len(site.reservations_of("D1")) == 1


def test_wrong_password_is_reported_and_hidden_on_the_wire(site: DormitorySite, alice: Window) -> None:
    alice.open(site.page)
    alice.press("Show the wire")
    alice.type("User name", "alice")
    for attempt in range(1, 6):
        alice.type("Password", f"hunter{attempt}")
        alice.press("Log in")
        alice.wait_for_text("Wrong user name or password." if attempt < 5 else "Too many wrong logins.")
        alice.press("Clear")
        assert "REFUSED" not in alice.text()
    assert "hunter" not in alice.text()
    alice.type("Password", PASSWORDS["alice"])  # the server closed the connection; the page connects again
    alice.press("Log in")
    alice.wait_for_text("Logged in as alice")
    assert "LOGIN alice ••••••••" in alice.text()
    assert PASSWORDS["alice"] not in alice.text()
    expect_good_design(alice)


def test_guest_sees_rooms_without_reserve_buttons(site: DormitorySite, alice: Window) -> None:
    site.look_around(alice)
    assert not alice.has("Reserve S2")
    assert not alice.has("My reservations")
    alice.press("Only rooms with places left")
    assert "S6" not in alice.text()
    alice.press("Only rooms with places left")
    assert room(alice, "S6") == "Full"
    expect_good_design(alice)
    alice.press("Log in as a member")
    alice.find("Password")


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
    alice.find("Reserve S5")
    tab_to("Reserve S5")
    alice.keys(ENTER)
    alice.wait_for_text("Room S5 is yours")
    (number,) = site.reservations_of("S5")
    tab_to(f"Cancel {number}")
    alice.keys(SPACE)
    alice.wait_for_text(f"Reservation {number} is cancelled")


def test_killed_back_end_is_named_until_it_is_back_while_the_others_work(site: DormitorySite, alice: Window) -> None:
    site.log_in(alice, "alice")
    site.dormitory.back_ends["S"].kill()
    try:
        alice.wait_for_text("Server S is not answering. This was the count at ")
        expect_good_design(alice)
        alice.press("Reserve D2")
        alice.wait_for_text("Room D2 is yours")
    finally:
        site.dormitory.start_back_end("S")
    alice.wait_until_gone("Server S is not answering")
    alice.press("Reserve S4")
    alice.wait_for_text("Room S4 is yours")


def test_killed_main_server_is_reported_until_the_page_has_logged_in_again(site: DormitorySite, alice: Window) -> None:
    site.log_in(alice, "alice")
    site.dormitory.main.kill()
    try:
        alice.wait_for_text("This page tries again by itself.")
        alice.wait_for_text("Next try in 2 s")
        expect_good_design(alice)
    finally:
        site.dormitory.start_main()
    alice.wait_until_gone("This page tries again by itself.")
    alice.wait_for_text("The dormitory is back.")
    alice.wait_until_gone("is not answering")
    assert alice.has("Reserve S4")


def test_eight_tabs_are_all_live(site: DormitorySite, alice: Window, bob: Window) -> None:
    site.log_in(bob, "bob")
    for _ in range(7):
        alice.command("POST", "/window/new", type="tab")
    for _ in alice.each_tab():
        site.look_around(alice)
    bob.press("Reserve U1")
    bob.wait_for_text("Room U1 is yours")
    for _ in alice.each_tab():
        alice.wait(lambda: room(alice, "U1") == "2 left", "2 left", LIVE_SECONDS)
    first = alice.command("GET", "/window")
    for tab in alice.each_tab():
        if tab != first:
            alice.command("DELETE", "/window")
    wait_until(lambda: site.dormitory.main.threads_and_sockets()[0] < 12, "the closed tabs' connections end")
