"""The cinema's page in a real browser, with a real server."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from box_office import Cinema, OpenCinema
from browsing import expect_good_design, front_end
from conftest import Start, looking_after
from webdriver import DOWN, ENTER, RIGHT, SPACE, TAB, UP, Window

NOTHING = "Order cancelled, nothing was booked."
HOLD_SECONDS = 2
RECORD_STATUS = """
    window.said = [];
    const status = document.getElementById("status");
    new MutationObserver(() => window.said.push(status.textContent)).observe(status, { childList: true });
    """


class CinemaSite(NamedTuple):
    """A cinema and the address of its page."""

    cinema: Cinema
    page: str

    def order(self, window: Window, tickets: int) -> None:
        """Open the page, say how many tickets are wanted and wait for the hall."""
        window.open(self.page)
        window.type("Number of tickets", str(tickets))
        window.press("Choose seats")
        window.wait_for_text("Screen")


@pytest.fixture(scope="module")
def page(common_cinema: Cinema) -> Iterator[str]:
    """Provide the address of the page of the common cinema."""
    with looking_after() as launch:
        yield f"{front_end(launch, tickets=common_cinema.server.port)}cinema.html"


@pytest.fixture
def site(cinema: OpenCinema, page: str) -> CinemaSite:
    """Provide the cinema with an empty hall."""
    return CinemaSite(cinema(), page)


def test_two_seats_are_booked_and_shown_as_a_ticket(site: CinemaSite, alice: Window) -> None:
    site.order(alice, 2)
    alice.press("Row 2, seat 3, free")
    alice.find("Row 2, seat 3, yours")
    assert re.search(r"9:5\d left|10:00 left", alice.text())
    expect_good_design(alice)
    alice.press("Row 2, seat 4, free")
    alice.wait_for_text("Booked: 2-3, 2-4")
    assert site.cinema.taken() == {(2, 3), (2, 4)}
    expect_good_design(alice)
    alice.press("Order more tickets")
    alice.press("Choose seats")
    alice.find("Row 2, seat 3, taken")


def test_last_seat_goes_to_one_of_two_browsers(site: CinemaSite, alice: Window, bob: Window) -> None:
    site.cinema.file.write_text("1 1 1 1 1\n" * 4 + "1 1 1 1 0\n")
    site.order(alice, 1)
    site.order(bob, 1)
    alice.press("Row 5, seat 5, free")
    alice.wait_for_text("Booked: 5-5")
    bob.press("Row 5, seat 5, free")
    bob.wait_for_text(f"Seat 5-5 is taken. {NOTHING}")
    expect_good_design(bob)
    bob.press("Start again")
    bob.wait_for_text(f"Only 0 seats are free. {NOTHING}")
    bob.find("Number of tickets")


def test_seat_lost_to_another_browser_offers_a_new_start(site: CinemaSite, alice: Window, bob: Window) -> None:
    site.order(alice, 2)
    site.order(bob, 2)
    alice.press("Row 1, seat 1, free")
    alice.find("Row 1, seat 1, yours")
    bob.press("Row 1, seat 2, free")
    bob.press("Row 1, seat 1, free")
    bob.wait_for_text(f"Seat 1-1 is taken. {NOTHING}")
    bob.find("Row 1, seat 1, taken")
    bob.find("Row 1, seat 2, free")
    bob.press("Start again")
    bob.find("Row 1, seat 1, taken")
    bob.press("Row 1, seat 2, free")
    bob.press("Row 1, seat 3, free")
    bob.wait_for_text("Booked: 1-2, 1-3")


def test_closing_the_page_and_giving_up_release_held_seats(site: CinemaSite, alice: Window, bob: Window) -> None:
    site.order(alice, 2)
    alice.press("Row 3, seat 3, free")
    alice.find("Row 3, seat 3, yours")
    alice.open("about:blank")
    site.order(bob, 2)
    bob.press("Row 3, seat 3, free")
    bob.find("Row 3, seat 3, yours")
    bob.press("Give up")
    bob.wait_for_text("You gave up the order. Nothing was booked.")
    site.order(alice, 1)
    alice.press("Row 3, seat 3, free")
    alice.wait_for_text("Booked: 3-3")


def test_arrow_keys_choose_seats(site: CinemaSite, alice: Window) -> None:
    alice.open(site.page)
    alice.run("document.getElementById('tickets').focus()")
    alice.keys(UP, ENTER)  # 3 tickets
    alice.wait_for_text("Choose 3 seats")
    alice.wait(lambda: alice.run("return document.activeElement.id") == "choice-title", "the focus on the title")
    alice.keys(TAB, TAB, DOWN, RIGHT, RIGHT, ENTER)  # past "Give up" to 1-1, then to 2-3
    alice.find("Row 2, seat 3, yours")
    alice.keys(RIGHT, SPACE)
    alice.find("Row 2, seat 4, yours")
    alice.keys("\ue010", UP, UP, ENTER)  # End, and twice up from row 2
    alice.wait_for_text("Booked: 2-3, 2-4, 1-5")


def test_clicks_on_a_held_seat_change_nothing(site: CinemaSite, alice: Window) -> None:
    site.order(alice, 2)
    alice.click_fast("Row 4, seat 4, free", 3)
    alice.find("Row 4, seat 4, yours")
    alice.press("Row 4, seat 5, free")
    alice.wait_for_text("Booked: 4-4, 4-5")


def test_seats_chosen_before_the_server_asks_are_sent_one_after_the_other(site: CinemaSite, alice: Window) -> None:
    site.order(alice, 3)
    clicks = "for (const seat of [...document.querySelectorAll('.seat')].slice(7, 10)) seat.click();"
    alice.run(clicks)
    alice.wait_for_text("Booked: 2-3, 2-4, 2-5")


def test_hall_of_20_by_30_can_be_used_on_a_phone(site: CinemaSite, alice: Window) -> None:
    site.cinema.file.write_text(("0 1 " * 15 + "\n") * 20)
    site.order(alice, 1)
    expect_good_design(alice)
    alice.resize(320, 640)
    alice.press("Row 20, seat 29, free")
    alice.wait_for_text("Booked: 20-29")


def test_remaining_time_is_shown_with_a_warning_before_its_end(
    alice: Window, launch: Start, fresh_cinema: OpenCinema
) -> None:
    the = fresh_cinema("--hold-seconds", str(HOLD_SECONDS))
    address = front_end(launch, tickets=the.server.port)
    alice.open(f"{address}cinema.html?hold-seconds={44 + HOLD_SECONDS}")
    alice.run(RECORD_STATUS)
    alice.press("Choose seats")
    alice.press("Row 1, seat 1, free")
    alice.wait_for_text(f"Time is up. {NOTHING}")
    said = alice.run("return window.said")
    assert any(text.endswith(" seconds left to choose your seats.") for text in said), said
    assert alice.has("Start again")
    assert the.taken() == set()
    alice.open("about:blank")
