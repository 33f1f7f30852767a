"""ticket_client.py: in a script, in a terminal, over TLS, and when the server ends the connection."""

import argparse
import re
import signal
import socket
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from box_office import END, HOW_MANY, HOW_TO, Cinema, OpenCinema, another_writer
from certificates import Certificates
from conftest import Start, fake_server, run_program, wait_until
from pseudo_terminal import Terminal

from cinema.picture import SeatPicture
from cinema.seatmap import SeatMap
from ticket_client import described, seat_list

GREEN, RED, BOLD_CYAN, NORMAL = "\033[32m", "\033[31m", "\033[1;36m", "\033[0m"

OpenClient = Callable[..., Terminal]


def client(the: Cinema, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
    """Run a client to its end, with a pipe as its input."""
    return run_program("ticket_client.py", "127.0.0.1", str(the.server.port), *arguments, input=input)


@pytest.fixture
def terminal(open_terminal: OpenClient) -> OpenClient:
    """Provide a function that starts a client in a terminal that does not know its size, unless `window` tells it."""

    def open_client(the: Cinema, *arguments: str, window: tuple[int, int] = (0, 0), **environment: str) -> Terminal:
        where = ("127.0.0.1", str(the.server.port))
        return open_terminal("ticket_client.py", *where, *arguments, window=window, **environment)

    return open_client


def test_seats_on_the_command_line_are_booked_without_asking(cinema: OpenCinema) -> None:
    the = cinema()
    run = client(the, "--seats", "2-3,2-4")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[:2] == [f"{HOW_MANY} 2", HOW_TO]
    assert run.stdout.splitlines()[8:16] == [
        "(0 free, 1 taken, * yours)",
        *("Row for ticket 1? 2", "Seat for ticket 1? 3", "Ticket 1 reserved"),
        *("Row for ticket 2? 2", "Seat for ticket 2? 4", "Ticket 2 reserved"),
        "Booked: 2-3, 2-4",
    ]
    assert run.stdout.splitlines()[16:19] == [" Seat 1 2 3 4 5", "Row 1 0 0 0 0 0", "Row 2 0 0 * * 0"]
    assert "\033" not in run.stdout
    assert the.taken() == {(2, 3), (2, 4)}


@pytest.mark.parametrize(
    ("hall", "seats", "why"),
    [
        ("0 0 1\n", "1-1,1-3", "Seat 1-3 is taken"),
        ("0 1 1\n", "1-1,1-2", "Only 1 seat is free"),
        *(("0 0 1\n", seats, "No answer came") for seats in ("1-1,1-4", "0-1", "1-99999999999999999999999")),
    ],
)
def test_seats_that_cannot_be_had_end_the_order(cinema: OpenCinema, hall: str, seats: str, why: str) -> None:
    the = cinema(hall=hall)
    run = client(the, "--seats", seats)
    assert (run.returncode, run.stderr) == (1, "")
    assert bool(re.search(r"A number from 1 to \d is expected.\n", run.stdout)) == (why == "No answer came")
    assert run.stdout.endswith(f"{why}. {END}\n")
    assert the.file.read_text() == hall


@pytest.mark.parametrize("text", ["", "2", "2-", "2-3,", "a-b", "2-3-4", "-2-3", "2-3,02-03", "٢-٣,2-3", "2\u20133"])
def test_wrong_seat_is_named_in_the_usage_error(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not a seat: a row|occurs twice"):
        seat_list(text)


def test_order_whose_server_is_killed_or_that_ctrl_c_ends_may_be_booked(fresh_cinema: OpenCinema, run: Start) -> None:
    the = fresh_cinema()
    order = ("ticket_client.py", "127.0.0.1", str(the.server.port), "--seats")
    with another_writer(the.file):
        client = run(*order, "2-3")
        client.wait_for_line("Ticket 1 reserved")
        client.process.send_signal(signal.SIGINT)
        assert client.wait() == 4
    assert client.errors == "The order may be booked: the server has not answered yet.\n"
    the.server.wait_for_line(".*: booked 2-3")
    with another_writer(the.file):
        client = run(*order, "2-4")
        the.server.wait_for_line(".*: ticket 1 reserved: 2-4")
        the.server.kill()
        assert client.wait() == 3
    assert client.errors == "The server closed the connection.\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        *((start, 3) for start in (b"", b"How many tickets do you want?\n", b"Ticket 1 reserved\n")),
        (b"Ticket 1 reserved\nBooked: 1-", 3),
        (b"Choose a row and a seat for each ticket: 0 is free, 1 is taken.\n", 3),
        (b" Seat 1 2\nRow 1 0 0\nRow 2", 3),
        (b"A number from 1 to 5 is expected.\n", 3),
        (b"\x1b[2J\xffToo many connections\n", 1),
        (b"Booked: 1-1\n", 0),
        (b"Sorry, it is not certain whether the order is booked.\n", 4),
    ],
)
def test_exit_status_tells_how_the_dialogue_ended(sent: bytes, status: int) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass

    with fake_server(talk) as port:
        run = run_program("ticket_client.py", "127.0.0.1", str(port), "--seats", "1-1")
    assert run.returncode == status
    assert bool(run.stderr) == (status == 3)
    assert "\033" not in run.stdout


@pytest.mark.parametrize(
    ("typed", "status", "shown"),
    [
        ("2\n1-1\n1 2\n", 0, "Booked: 1-1, 1-2\n"),
        ("1\n1-3\nyes\n", 1, f"Seat 1-3 is taken. {END}\n"),
        ("2\n1-1\n", 1, f"No answer came. {END}\n"),  # the end of the input
        ("1\n\x1b\n1-1\n", 0, "Row for ticket 1? \N{REPLACEMENT CHARACTER}\nA number from 1 to 1 is expected.\n"),
        ("1\n9-3\n1\n2\n", 0, "Booked: 1-2\n"),  # the seat that was typed with a wrong row is forgotten
        ("\ufeff1\r\n1-2\r\n", 0, "Booked: 1-2\n"),  # a byte order mark
    ],
)
def test_answers_from_a_pipe(cinema: OpenCinema, typed: str, status: int, shown: str) -> None:
    run = client(cinema(hall="0 0 1\n"), input=typed)
    assert (run.returncode, run.stderr) == (status, "")
    assert shown in run.stdout


def test_terminal_shows_the_hall_in_colour(cinema: OpenCinema, terminal: OpenClient) -> None:
    alice = terminal(cinema(hall="0 0 1\n"))
    free, taken, yours = f"{GREEN}0{NORMAL}", f"{RED}1{NORMAL}", f"{BOLD_CYAN}*{NORMAL}"
    alice.expect_text(f"{HOW_MANY} ")
    alice.type("2\n")
    alice.expect_text(f" Seat 1 2 3\nRow 1 {free} {free} {taken}\n({free} free, {taken} taken, {yours} yours)\n")
    alice.expect_text("Row for ticket 1? ")
    alice.type("1\n")
    alice.expect_text("Seat for ticket 1? ")
    alice.type(" 002\n")
    alice.expect_text(f"Ticket 1 reserved\n Seat 1 2 3\nRow 1 {free} {yours} {taken}\n")
    alice.expect_text("Row for ticket 2? ")
    alice.type("1-1\n")
    alice.expect_text(f"Booked: 1-2, 1-1\n Seat 1 2 3\nRow 1 {yours} {yours} {taken}\n")
    assert alice.wait() == 0


@pytest.mark.parametrize(
    ("answers", "question"), [("", HOW_MANY), ("2\n1\n", "Seat for ticket 1?"), ("2\n1-1\n", "Row for ticket 2?")]
)
def test_ctrl_c_and_d_cancel_the_order(cinema: OpenCinema, terminal: OpenClient, answers: str, question: str) -> None:
    the = cinema(hall="0 0 0\n")
    alice, bob = terminal(the), terminal(the)
    alice.type(answers)
    bob.type(answers.replace("1-1", "1-2"))
    for each in (alice, bob):
        each.expect_text(f"{question} ")
    alice.type("\x04")
    assert alice.wait() == 1
    assert alice.plain_rows()[-2:] == [f"No answer came. {END}", ""]
    bob.process.send_signal(signal.SIGINT)
    assert bob.wait() == 1
    assert bob.plain_rows()[-2:] == [f"{question} ", ""]
    the.wait_for_matrix("000")


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"NO_COLOR": ""}], ids=str)
def test_no_color_and_term_dumb_stop_colour(cinema: OpenCinema, terminal: OpenClient, variable: dict[str, str]) -> None:
    alice = terminal(cinema(hall="0 0 1\n"), "--seats", "1-2", **variable)
    alice.expect_text("Booked: 1-2\n")
    assert alice.wait() == 0
    assert (GREEN in alice.output) == ("" in variable.values())


UP, DOWN, RIGHT, LEFT = "\033[A", "\033[B", "\033OC", "\033OD"  # terminals send both kinds
WINDOW = (24, 80)
SIGNS = "(0 free, 1 taken, * yours)"
HINT = "Arrow keys and Enter, or type it: 2-3"


def order(alice: Terminal, tickets: int) -> None:
    """Answer how many tickets are wanted."""
    alice.expect_text(f"{HOW_MANY} ")
    alice.type(f"{tickets}\n")


@pytest.mark.parametrize("window", [WINDOW, (9, 38)], ids=str)
def test_arrow_keys_work_where_the_hall_fits(cinema: OpenCinema, terminal: OpenClient, window: tuple[int, int]) -> None:
    the = cinema()
    alice = terminal(the, window=window)
    order(alice, 2)
    rows = [f"Row {number} 0 0 0 0 0" for number in range(1, 6)]
    middle = [*rows[:2], "Row 3 0 0 [0] 0 0", *rows[3:]]
    alice.expect_last_rows(" Seat 1 2 3 4 5", *middle, SIGNS, HINT, "Row for ticket 1? 3-3")
    alice.type(UP, RIGHT, RIGHT, RIGHT)
    alice.expect_last_rows(rows[0], "Row 2 0 0 0 0 [0]", *rows[2:], SIGNS, HINT, "Row for ticket 1? 2-5")
    alice.type(LEFT, DOWN, UP, "\n")
    alice.expect_last_rows("Row 2 0 0 [0] * 0", *rows[2:], SIGNS, HINT, "Row for ticket 2? 2-3")
    alice.type(RIGHT, RIGHT, "\r")
    assert alice.wait() == 0
    assert alice.plain_rows()[-9:-6] == ["Booked: 2-4, 2-5", " Seat 1 2 3 4 5", rows[0]]
    assert "Row for ticket 2? 2-5" in alice.plain_rows()
    assert not any("[" in row for row in alice.plain_rows())
    assert the.taken() == {(2, 4), (2, 5)}
    assert alice.shows_keys()


def test_seat_may_be_typed_and_corrected_in_the_picture(cinema: OpenCinema, terminal: OpenClient) -> None:
    the = cinema()
    alice = terminal(the, window=WINDOW)
    order(alice, 3)
    alice.expect_text("Row for ticket 1? ")
    alice.type("9-9", "\x15", "2-34", "\x7f")
    alice.expect_last_rows(HINT, "Row for ticket 1? 2-3")
    alice.type("\n2\n")
    alice.expect_text("Seat for ticket 2? ")
    alice.type("4\n9-1\n")
    alice.expect_text("A number from 1 to 5 is expected.\n")
    alice.expect_text("Row for ticket 3? ")
    alice.type("1-1", UP)  # an arrow key discards what was typed
    alice.expect_last_rows(HINT, "Row for ticket 3? 1-5")
    alice.type("5-5\n")
    assert alice.wait() == 0
    assert the.taken() == {(2, 3), (2, 4), (5, 5)}


def test_no_color_leaves_arrow_keys_edges_and_the_time_limit(fresh_cinema: OpenCinema, terminal: OpenClient) -> None:
    alice = terminal(fresh_cinema("--hold-seconds", "1", hall="0 0\n0 0\n"), window=WINDOW, NO_COLOR="1")
    order(alice, 1)
    alice.type(UP * 3, LEFT * 3)
    alice.expect_last_rows("Row 1 [0] 0", "Row 2 0 0", SIGNS, HINT, "Row for ticket 1? 1-1")
    alice.type(DOWN * 3, RIGHT * 3)
    alice.expect_last_rows("Row 1 0 0", "Row 2 0 [0]", SIGNS, HINT, "Row for ticket 1? 2-2")
    assert set(re.findall(r"\x1b\[[\d;]*m", alice.output)) == {"\033[7m", NORMAL}
    alice.expect_text(f"\nTime is up. {END}\n")
    assert alice.wait() == 1
    assert alice.shows_keys()


def test_enter_on_a_taken_or_own_seat_says_so_and_keeps_the_order(cinema: OpenCinema, terminal: OpenClient) -> None:
    the = cinema(hall="0 0 1\n")
    alice = terminal(the, window=WINDOW)
    order(alice, 2)
    alice.type(RIGHT, RIGHT, "\n")
    alice.expect_last_rows("Row 1 0 0 [1]", SIGNS, "Seat 1-3 is taken", "Row for ticket 1? 1-3")
    alice.type(LEFT, "\n")
    alice.expect_last_rows("Row 1 [0] * 1", SIGNS, HINT, "Row for ticket 2? 1-1")
    alice.type(RIGHT, "\n")
    alice.expect_last_rows("Row 1 0 [*] 1", SIGNS, "Seat 1-2 is yours already", "Row for ticket 2? 1-2")
    alice.type(LEFT, "\n")
    assert alice.wait() == 0
    assert the.taken() == {(1, 1), (1, 2), (1, 3)}


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM], ids=["Ctrl-D", "Ctrl-C", "SIGTERM"])
def test_leaving_cancels_and_restores_a_terminal(cinema: OpenCinema, terminal: OpenClient, number: int | None) -> None:
    the = cinema()
    alice = terminal(the, window=WINDOW)
    order(alice, 2)
    alice.type("2-3\n")
    alice.expect_last_rows(HINT, "Row for ticket 2? 2-2")
    assert not alice.shows_keys()
    if number:
        alice.process.send_signal(number)
    else:
        alice.type("\x04")
    assert alice.wait() == 1
    assert alice.shows_keys()
    assert alice.plain_rows()[-2:] == ["Row for ticket 2? " if number else f"No answer came. {END}", ""]
    the.wait_for_matrix(*["00000"] * 5)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"window": (8, 80)}, "Arrow keys need 9 rows and 16 columns."),
        ({"window": WINDOW, "TERM": "dumb"}, "The arrow keys need a terminal with escape sequences. Type a row, or a "),
    ],
    ids=str,
)
def test_in_a_small_window_or_a_dumb_terminal_one_line_says_why_a_seat_must_be_typed(
    cinema: OpenCinema, terminal: OpenClient, how: dict[str, Any], why: str
) -> None:
    alice = terminal(cinema(), **how)
    order(alice, 1)
    alice.expect_text(why)
    alice.type("2-3\n")
    assert alice.wait() == 0
    assert HINT not in alice.output
    assert any("Row 2 0 0 0" in row for row in alice.plain_rows())


@pytest.mark.parametrize(
    ("typed", "booked"),
    [
        ("\uff12\uff0d\uff14", (2, 4)),  # wide
        ("٢-٣", (2, 3)),
        ("日本", None),
        ("2\u20133", None),  # an en dash
        (" ", None),
        ("\x1b[[A\x1bx\x1b]11;rgb:0000/0000/0000\x1b\\", (3, 3)),  # keys that type nothing
    ],
)
def test_only_digits_of_any_script_are_typed_seats_and_anything_else_is_refused_visibly(
    cinema: OpenCinema, terminal: OpenClient, typed: str, booked: tuple[int, int] | None
) -> None:
    the = cinema()
    alice = terminal(the, window=WINDOW)
    order(alice, 1)
    alice.expect_text("Row for ticket 1? 3-3")
    alice.type(typed, "\n")
    if booked is None:
        alice.expect_last_rows("A seat is expected, such as 2-3", f"Row for ticket 1? {typed}")
        alice.type("\n", "\x15", "5-5", "\n")
    assert alice.wait() == 0
    assert the.taken() == {booked or (5, 5)}


def test_hall_survives_narrowing_the_window(cinema: OpenCinema, terminal: OpenClient) -> None:
    alice = terminal(cinema(hall="0 0 1 0 0 0 0 0 0 0\n"), window=(24, 80))
    order(alice, 1)
    hall = [" Seat  1  2  3  4  5  6  7  8  9 10", "Row 1  0  0  1  0  [0]  0  0  0  0  0"]
    why = "Arrow keys need 5 rows and 36 columns."

    def resize(columns: int) -> None:
        drawn = len(alice.output)
        alice.resize(24, columns)
        wait_until(lambda: len(alice.output) > drawn, "the client draws again")

    for columns in (60, 45, 38, 30, 20, 39, 80):
        resize(columns)
        fits = columns > 35
        rows = [HOW_TO, *([*hall, SIGNS, HINT] if fits else textwrap.wrap(why, columns))]
        alice.expect_last_rows(*rows, f"Row for ticket 1? {'1-5' if fits else ''}")
        if not fits:
            for typed, answer in (("\n1", "1"), ("\x7f", "")):  # what the user cannot see is not chosen
                alice.type(typed)
                alice.expect_last_rows(*rows, f"Row for ticket 1? {answer}")
    alice.type("\n")
    assert alice.wait() == 0


def test_picture_comes_back_after_ctrl_z_and_fg(cinema: OpenCinema, terminal: OpenClient) -> None:
    alice = terminal(cinema(hall="0 0 1\n"), window=WINDOW)
    order(alice, 1)
    alice.expect_last_rows(HINT, "Row for ticket 1? 1-2")
    alice.expect_text("Row for ticket 1? 1-2")
    alice.process.send_signal(signal.SIGSTOP)
    alice.show_keys()  # as a shell does
    alice.process.send_signal(signal.SIGCONT)
    alice.expect_text("Row for ticket 1? 1-2")
    alice.type(LEFT)
    alice.expect_last_rows(HINT, " Seat 1 2 3", "Row 1 [0] 0 1", SIGNS, HINT, "Row for ticket 1? 1-1")
    assert not alice.shows_keys()
    alice.type("\n")
    assert alice.wait() == 0


@pytest.mark.parametrize("window", [WINDOW, (0, 0)], ids=["arrow keys", "typing"])
def test_lost_seat_is_shown_in_a_fresh_picture_and_the_order_may_start_again(
    cinema: OpenCinema, terminal: OpenClient, window: tuple[int, int]
) -> None:
    the = cinema(hall="0 0 0 0\n")
    alice = terminal(the, window=window)
    order(alice, 2)
    alice.expect_text("Row for ticket 1? ")
    alice.type("1-1\n")
    alice.expect_text("Row for ticket 2? ")
    assert the.buy((1, 3)) == "Booked: 1-3"
    alice.type("1-3\n")
    lost = "(0 free, 1 taken, * yours, ! just lost)"
    alice.expect_text(f"Seat 1-3 is taken. {END}\n{HOW_MANY} 2\n")
    alice.expect_last_rows(HOW_TO, " Seat 1 2 3 4", "Row 1 0 0 ! 0", lost, "Start again? (yes or no) ")
    alice.type("Yes\n")
    alice.expect_text("Row for ticket 1? ")
    alice.type("1-4\n")
    alice.expect_text("Row for ticket 2? ")
    alice.type("1-2\n")
    assert alice.wait() == 0
    assert "Booked: 1-4, 1-2" in alice.plain_rows()


def test_lost_order_that_is_not_repeated_ends_with_status_1(cinema: OpenCinema, terminal: OpenClient) -> None:
    the = cinema(hall="0 0 0 0\n")
    for answer in ("\n", "\x04"):
        alice = terminal(the)
        order(alice, 1)
        alice.expect_text("Row for ticket 1? ")
        the.file.write_text("0 1 0 0\n")
        alice.type("1-2\n")
        alice.expect_text("Start again? (yes or no) ")
        alice.type(answer)
        assert alice.wait() == 1
        assert alice.rest().endswith(f"No answer came. {END}\n")
        the.file.write_text("0 0 0 0\n")


SPLIT = "No 4 adjacent seats are free. The nearest groups:"


@pytest.mark.parametrize(
    ("hall", "tickets", "line"),
    [
        ("0 0 0 0 0\n" * 5, 1, "The best seat: 3-3"),
        ("0 0 0 0 0\n" * 5, 3, "The best 3 adjacent seats: 3-2, 3-3, 3-4"),
        ("0 0 0 0 0\n0 0 0 0 0\n1 0 1 0 0\n", 2, "The best 2 adjacent seats: 2-2, 2-3"),
        ("0 0 0 0\n0 1 0 1\n1 0 0 1\n", 3, "The best 3 adjacent seats: 1-1, 1-2, 1-3"),
        ("0 0 1 0 0\n1 1 1 1 1\n1 1 1 0 1\n0 0 1 1 1\n", 4, f"{SPLIT} 1-1, 1-2 and 1-4, 1-5"),
        ("0 0 1 0 1 0 1 1 1 1 1\n", 4, f"{SPLIT} 1-1, 1-2 and 1-4 and 1-6"),
        ("0 1 0 0\n1 1 1 1\n0 1 1 1\n", 4, f"{SPLIT} 1-3, 1-4 and 1-1 and 3-1"),
    ],
)
def test_best_seats_are_adjacent_near_the_middle_or_in_the_nearest_groups(hall: str, tickets: int, line: str) -> None:
    picture = SeatPicture(in_colour=False)
    for row in str(SeatMap(hall.encode(), Path("seats.txt"))).split("\n"):
        assert picture.add_line(row)
    assert described(picture.best(tickets), tickets) == line


def test_best_books_at_once_the_seats_that_it_names_in_a_large_hall(cinema: OpenCinema) -> None:
    run = client(cinema(hall="0 1 0 0 1 0 0 0 1 0\n" * 200), "--best", "30")
    assert (run.returncode, run.stderr) == (0, "")
    found = re.search(r"\nNo 30 adjacent seats are free. The nearest groups: (100-6, 100-7, 100-8 .*)\n", run.stdout)
    assert found
    assert f"\nBooked: {found[1].replace(' and ', ', ')}\n" in run.stdout


def test_client_books_over_tls(fresh_cinema: OpenCinema, terminal: OpenClient, certificates: Certificates) -> None:
    the = fresh_cinema(*certificates.good.options, hall="0 0 0 0\n" * 100)
    options = ("--tls", "--tls-ca", str(certificates.authority))
    run = client(the, *options, input="2\n1-2\n")
    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout.endswith(f"No answer came. {END}\n")
    alice = terminal(the, *options, window=(120, 80))
    order(alice, 1)
    alice.expect_last_rows(HINT, "Row for ticket 1? 50-2")
    alice.type(DOWN, "\n")
    assert alice.wait() == 0
    assert the.taken() == {(51, 2)}
