"""The cinema's page in a real browser, with a real server."""

import random
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from box_office import Cinema, OpenCinema, another_writer, hold
from browsing import HIDE, SHOW, expect_good_design, front_end, hurried
from conftest import Start, looking_after, wait_until
from webdriver import DOWN, ENTER, RIGHT, SPACE, TAB, UP, Window

from cinema.picture import SeatPicture

HOME, END, PAGE_UP, PAGE_DOWN, CONTROL = "\ue011", "\ue010", "\ue00e", "\ue00f", "\ue009"
NOTHING = "Order cancelled, nothing was booked."
WIDE_HALL = ("0 1 " * 15 + "\n") * 20
# Whether the browser would ask before it leaves the page.
ASKS = "return !dispatchEvent(new Event('beforeunload', { cancelable: true }))"


class CinemaSite(NamedTuple):
    """A cinema and the address of its page."""

    cinema: Cinema
    page: str

    def open(self, window: Window) -> None:
        """Open the page and wait for the hall."""
        window.open(self.page)
        window.wait_for_text(" are free")

    def choose(self, window: Window, *seats: tuple[int, int]) -> None:
        """Open the page and choose seats."""
        self.open(window)
        for row, number in seats:
            window.press(f"Row {row}, seat {number}, free")

    def review(self, window: Window, *seats: tuple[int, int]) -> None:
        """Open the page, choose seats and let the server hold them, all but the last."""
        self.choose(window, *seats)
        window.press("Review")
        window.find(f"Book {len(seats)} seat{'s' if len(seats) > 1 else ''}")


@pytest.fixture(scope="module")
def page(common_cinema: Cinema) -> Iterator[str]:
    """Provide the address of the page of the common cinema."""
    with looking_after() as launch:
        yield f"{front_end(launch, tickets=common_cinema.server.port)}cinema.html"


@pytest.fixture
def site(cinema: OpenCinema, page: str) -> CinemaSite:
    return CinemaSite(cinema(), page)


def focused(window: Window) -> Any:
    return window.run("const at = document.activeElement; return at.id || at.getAttribute('aria-label')")


def test_order_is_reviewed_and_booked_and_a_reload_keeps_its_receipt(site: CinemaSite, alice: Window) -> None:
    site.choose(alice, (2, 3), (2, 4), (2, 5), (4, 1))
    alice.wait_for_text("Row 2, seats 3–5; Row 4, seat 1")
    alice.press("Row 2, seat 5, yours")  # given back
    alice.wait_for_text("Row 2, seats 3–4; Row 4, seat 1")
    expect_good_design(alice)
    assert site.cinema.taken() == set()
    assert not alice.run(ASKS)
    alice.press("Review")
    alice.wait_for_text("Nothing is booked yet. The seats are held for you, except the last one.")
    assert alice.run(ASKS)
    assert focused(alice) == "bar-title"
    assert site.cinema.matrix() == ["00000", "00110", "00000", "00000", "00000"]
    expect_good_design(alice)
    alice.press("Row 2, seat 3, yours")  # changes nothing now
    alice.find("Row 2, seat 3, yours")
    alice.press("Book 3 seats")
    alice.wait_for_text("Booked: 2-3, 2-4, 4-1")
    assert site.cinema.taken() == {(2, 3), (2, 4), (4, 1)}
    assert not alice.run(ASKS)
    alice.command("POST", "/refresh")
    alice.wait_for_text("Row 2, seats 3–4\nRow 4, seat 1")
    expect_good_design(alice)
    alice.devtools("Emulation.setEmulatedMedia", media="print")
    assert alice.text().startswith("Cinema\n")
    assert not alice.has("Print")
    alice.devtools("Emulation.setEmulatedMedia", media="")
    alice.press("Order more tickets")
    alice.find("Row 2, seat 3, taken")
    alice.wait_for_text("22 of 25 seats are free")


def test_lost_seat_is_marked_and_the_others_stay_chosen(site: CinemaSite, alice: Window, bob: Window) -> None:
    site.choose(bob, (1, 2), (1, 1), (1, 3))
    bob.run(HIDE)
    site.review(alice, (1, 1), (1, 3))
    bob.press("Review")
    bob.wait_for_text(f"Seat 1-1 is taken. {NOTHING}")
    bob.find("Row 1, seat 1, lost")
    assert focused(bob) == "bar-title"
    bob.wait_for_text("Row 1, seats 2–3")
    bob.press("Review")  # the last seat is not held for either
    bob.find("Book 2 seats")
    alice.press("Book 2 seats")
    alice.wait_for_text("Booked: 1-1, 1-3")
    bob.press("Book 2 seats")
    bob.wait_for_text(f"Seat 1-3 is taken. {NOTHING}")
    bob.find("Row 1, seat 3, lost")
    expect_good_design(bob)


def test_hall_stays_current_and_seats_that_others_take_meanwhile_are_marked(site: CinemaSite, alice: Window) -> None:
    with hurried(alice):
        site.choose(alice, (1, 1), (1, 2))
        customer = site.cinema.order(2)
        hold(customer, 1, 1)
        alice.find("Row 1, seat 1, lost")
        alice.wait_for_text("Row 1, seat 1: somebody else was faster.")
        customer.close()
        alice.find("Row 1, seat 1, free")
        alice.press("Review")
        alice.find("Book 1 seat")
        assert site.cinema.buy((1, 2)) == "Booked: 1-2"  # this seat is not held
        alice.find("Row 1, seat 2, lost")
        alice.wait_for_text("No seats chosen")
        site.cinema.file.write_text("0 0\n0 0\n")
        alice.wait_for_text("4 of 4 seats are free")
        site.cinema.file.write_text("1 1\n1 1\n")
        alice.wait_for_text("Sold out")


def test_closing_the_page_giving_up_and_changing_seats_release_held_seats(site: CinemaSite, alice: Window) -> None:
    free = ["00000"] * 5
    site.review(alice, (3, 3), (3, 4))
    assert site.cinema.matrix() != free
    alice.open("about:blank")
    site.cinema.wait_for_matrix(*free)
    site.review(alice, (3, 3), (3, 4))
    alice.press("Give up")
    alice.wait_for_text("You gave up the order. Nothing was booked.")
    alice.wait_for_text("No seats chosen")
    site.cinema.wait_for_matrix(*free)
    site.review(alice, (3, 3), (3, 4))
    alice.press("Change seats")
    site.cinema.wait_for_matrix(*free)
    alice.press("Row 3, seat 3, yours")
    alice.wait_for_text("Row 3, seat 4")
    alice.press("Review")
    alice.press("Book 1 seat")
    alice.wait_for_text("Booked: 3-4")


def test_hall_read_before_an_order_ended_is_not_shown(site: CinemaSite, alice: Window) -> None:
    site.review(alice, (3, 3), (3, 4))
    alice.run(
        """
        const listen = WebSocket.prototype.addEventListener;
        WebSocket.prototype.addEventListener = function (type, handle) {
          const isLast = (event) => type === "message" && event.data.startsWith("Row for ");
          listen.call(this, type, (event) => isLast(event) ? (window.readHall = () => handle(event)) : handle(event));
        };
        """
        + SHOW
    )
    alice.wait(lambda: alice.run("return Boolean(window.readHall)"), "a hall in which the held seat is taken")
    alice.press("Change seats")
    alice.run("window.readHall()")
    alice.find("Row 3, seat 3, yours")
    alice.wait_for_text("Row 3, seats 3–4")


def test_arrow_home_end_and_page_keys_move_in_the_grid(site: CinemaSite, alice: Window) -> None:
    site.cinema.file.write_text("0 0 0 0 0\n" * 12)
    site.open(alice)
    alice.run("document.getElementById('best').focus()")
    moves = {
        TAB: "1, seat 1",
        DOWN: "2, seat 1",
        RIGHT: "2, seat 2",
        END: "2, seat 5",
        PAGE_DOWN: "7, seat 5",
        HOME: "7, seat 1",
        UP: "6, seat 1",
        PAGE_UP: "1, seat 1",
    }
    for key, seat in moves.items():
        alice.keys(key)
        assert focused(alice) == f"Row {seat}, free"
    alice.keys(RIGHT, ENTER, RIGHT, SPACE)
    alice.wait_for_text("Row 1, seats 2–3")
    alice.wait_for_text("Row 1, seat 3, yours")  # the bar names the seat with the focus
    roles = "return [...document.querySelectorAll('[role=grid] > [role=row] > *')].slice(0, 3).map((node) => node.role)"
    assert alice.run(roles) == ["rowheader", "gridcell", "gridcell"]


def test_double_click_on_review_does_not_book(site: CinemaSite, alice: Window) -> None:
    site.choose(alice, (4, 4))
    alice.click_fast("Review", 2, pause_milliseconds=200)
    alice.find("Book 1 seat")
    assert site.cinema.taken() == set()


def test_best_seats_are_those_of_the_terminal_client(site: CinemaSite, alice: Window) -> None:
    site.open(alice)
    generator = random.Random(23)
    halls, expected = [], []
    for _ in range(200):
        rows, columns, taken = generator.randint(1, 8), generator.randint(1, 12), generator.random()
        hall = [[str(int(generator.random() < taken)) for _ in range(columns)] for _ in range(rows)]
        count = generator.randint(1, 6)
        picture = SeatPicture(in_colour=False)
        for number, signs in enumerate(hall, 1):
            picture.add_line(f"Row {number} {' '.join(signs)}")
        halls.append([hall, count])
        expected.append([list(seat) for group in picture.best(count) for seat in group])
    best = """
        const [halls] = arguments;
        const placesOf = (seats) => seats.map(({ row, number }) => [row, number]);
        return import("/seats.js").then((seats) => halls.map((hall) => placesOf(seats.bestSeats(...hall))));
        """
    assert alice.run(best, halls) == expected


def test_best_seats_are_chosen_and_too_few_are_said_at_the_field(site: CinemaSite, alice: Window) -> None:
    site.cinema.file.write_text("0 1 0 0 1\n" * 2)
    site.open(alice)
    alice.press("Best seats")
    alice.wait_for_text("Row 1, seats 3–4")
    alice.type("Tickets", "3")
    alice.press("Best seats")
    alice.wait_for_text("No 3 adjacent seats are free; the nearest are: Row 1, seats 3–4; Row 2, seat 3.")
    alice.type("Tickets", "7")
    alice.press("Best seats")
    alice.wait_for_text("Only 6 seats are free.")
    assert alice.run("return document.getElementById('tickets').getAttribute('aria-invalid')") == "true"


def test_hall_of_20_by_30_fits_a_screen_and_pans_inside_its_frame_on_a_phone(site: CinemaSite, alice: Window) -> None:
    site.cinema.file.write_text(WIDE_HALL)
    site.open(alice)
    expect_good_design(alice)
    frame = "const frame = document.querySelector('.hall-frame'); "
    for width in (1280, 1920):
        alice.resize(width, 800)
        assert alice.run(f"{frame}return frame.scrollWidth === frame.clientWidth")
    tops = "return new Set([...document.querySelector('.row').children].slice(1, -1).map((s) => s.offsetTop)).size"
    assert alice.run(tops) == 1
    alice.resize(320, 640)
    assert alice.run(f"{frame}return frame.scrollWidth > frame.clientWidth")
    left = "return document.querySelector('.row-label').getBoundingClientRect().left"
    before = alice.run(left)
    assert alice.run(f"{frame}frame.scrollLeft = 300; {left}") == before
    alice.press("Row 20, seat 29, free")
    alice.find("Row 20, seat 29, yours")


def test_page_learns_the_time_limit_and_warns(start: Start, fresh_cinema: OpenCinema, alice: Window) -> None:
    the = fresh_cinema("--hold-seconds", "1")
    site = CinemaSite(the, f"{front_end(start, tickets=the.server.port)}cinema.html")
    alice.open(site.page)
    alice.run("localStorage.clear()")
    site.review(alice, (1, 1), (1, 2))
    alice.wait_for_text("of usually 10:00")
    alice.wait_for_text(f"Time is up. {NOTHING}")
    alice.press("Review")
    alice.wait_for_text("An order may usually take 0:01: book your seats now.")
    alice.wait_for_text(f"Time is up. {NOTHING}")
    alice.find("Row 1, seat 1, yours")
    assert the.taken() == set()


def test_outage_ends_with_a_current_hall(start: Start, fresh_cinema: OpenCinema, alice: Window) -> None:
    the = fresh_cinema()
    site = CinemaSite(the, f"{front_end(start, tickets=the.server.port)}cinema.html")
    with hurried(alice):
        site.review(alice, (1, 1), (1, 2))
        the.server.kill()
        alice.wait_for_text("Nothing was booked.")
        alice.wait_for_text("The cinema is not running. This page tries again by itself.")
        expect_good_design(alice)
        alice.press("Give up")
        alice.wait_for_text("The cinema is not running. This page tries again by itself.")
        the.file.write_text("1 0 0\n")
        again = start("ticket_server.py", str(the.server.port), "--seats-file", str(the.file))
        alice.wait_until_gone("The cinema is not running.")
        alice.wait_for_text("2 of 3 seats are free")
        the.file.chmod(0o444)
        alice.wait_for_text("Sorry, no seat can be sold now. This page tries again by itself.")
        the.file.chmod(0o644)
        alice.wait_until_gone("Sorry")
        again.process.send_signal(signal.SIGSTOP)
        alice.wait_for_text("The cinema did not answer within 5 seconds. This page tries again by itself.")
        again.process.send_signal(signal.SIGCONT)
        alice.wait_until_gone("The cinema did not answer")


def test_order_without_an_answer_is_uncertain_until_the_hall_shows_its_seats(site: CinemaSite, alice: Window) -> None:
    with hurried(alice):
        site.review(alice, (1, 1), (1, 2))
    alice.run(HIDE)
    with another_writer(site.cinema.file):
        alice.press("Book 2 seats")
        alice.wait_for_text("It is not certain whether the order is booked.")
    alice.run(SHOW)
    alice.wait_for_text("The order is probably booked: all its seats are taken now.")
    alice.find("Row 1, seat 1, taken")
    wait_until(lambda: site.cinema.taken() == {(1, 1), (1, 2)}, "the order is booked")
