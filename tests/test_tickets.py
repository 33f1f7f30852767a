"""ticket_server.py: the dialogue, the holds, and the file under edits, many customers, kills and a second server."""

import errno
import fcntl
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from box_office import END, HALL, HOW_MANY, SORRY, Cinema, OpenCinema, another_writer, begin, choose, hold, seats_in
from conftest import WAIT_SECONDS, Peer, Start, at_once, meanwhile, run_programs, wait_until

from cinema import booking
from cinema.booking import Order, Theatre
from cinema.seatmap import Seat, SeatFileError, SeatMap
from net.files import locked, read_file, replace_file
from net.log import LOG

KILLS = 8
ROWS = 1000  # of the hall for the kills, where each order is one row

LEAVE: dict[str, Callable[[Peer], None]] = {"close": Peer.close, "end of input": Peer.end_input, "reset": Peer.reset}

DIRECTORIES_CANNOT_BE_FLUSHED = """
import errno, os, stat
flush = os.fsync
def fsync(fd):
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    flush(fd)
os.fsync = fsync
"""

WRITES_ARE_SHOWN = """
from cinema import booking
from net.log import LOG
write = booking.replace_file
booking.replace_file = lambda *arguments, **options: LOG.write("write") or write(*arguments, **options)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Provide a hall of five rows of five free seats."""
    file = tmp_path / "seats.txt"
    file.write_text(HALL)
    return file


def test_order_is_a_dialogue_in_plain_text(cinema: OpenCinema) -> None:
    the = cinema(hall="0 0 0 0 0\n0 0 0 0 1\n" + "0 0 0 0 0\n" * 3)
    alice = the.connect()
    alice.expect("How many tickets do you want?")
    alice.send("2")
    alice.expect("Choose a row and a seat for each ticket: 0 is free, 1 is taken.")
    alice.expect(" Seat 1 2 3 4 5", "Row 1 0 0 0 0 0", "Row 2 0 0 0 0 1")
    alice.expect("Row 3 0 0 0 0 0", "Row 4 0 0 0 0 0", "Row 5 0 0 0 0 0")
    alice.expect("Row for ticket 1?")
    alice.send("2")
    alice.expect("Seat for ticket 1?")
    alice.send("3")
    alice.expect("Ticket 1 reserved", "Row for ticket 2?")
    alice.send("2")
    alice.expect("Seat for ticket 2?")
    alice.send("4")
    alice.expect("Ticket 2 reserved", "Booked: 2-3, 2-4")
    alice.expect_end()
    assert the.file.read_text() == "0 0 0 0 0\n0 0 1 1 1\n" + "0 0 0 0 0\n" * 3


def test_wide_and_long_hall_is_shown_in_columns(cinema: OpenCinema) -> None:
    the = cinema(hall="0 0 0 0 0 0 0 0 0 0 1\n" * 10)
    alice = the.connect()
    alice.send("1")
    shown = [alice.read_line() for _ in range(4)]
    assert shown[2:] == ["  Seat  1  2  3  4  5  6  7  8  9 10 11", "Row  1  0  0  0  0  0  0  0  0  0  0  1"]


def test_answers_byte_by_byte_with_telnet_in_between_book(cinema: OpenCinema) -> None:
    the = cinema()
    alice = the.connect()
    for byte in b"1\r\n\xff\xfb\x012\r\n3\r\n":
        alice.send_bytes(bytes([byte]))
    assert alice.read_all().endswith("Booked: 2-3\n")
    assert the.taken() == {(2, 3)}


@pytest.mark.parametrize(
    "answers",
    [" 1 \n\t2\n003\n", "no\n" * 4 + "1\n" + "no\n" * 4 + "2\n" + "no\n" * 4 + "3\n", "1\n2\n3"],
    ids=["spaces and leading zeros", "four wrong ones before each right one", "no last newline"],
)
def test_answers_in_one_write_are_all_handled(cinema: OpenCinema, answers: str) -> None:
    alice = cinema().connect()
    alice.send_bytes(answers.encode())
    alice.end_input()
    assert alice.read_all().endswith("Ticket 1 reserved\nBooked: 2-3\n")


def test_more_tickets_than_are_free_are_refused(cinema: OpenCinema) -> None:
    the = cinema()
    for hall, wanted, line in (
        (HALL, "26", "Only 25 seats are free."),
        (HALL, "9" * 4000, "Only 25 seats are free."),
        ("1 1 0\n", "2", "Only 1 seat is free."),
    ):
        the.file.write_text(hall)
        alice = the.connect()
        alice.send(wanted)
        alice.expect(HOW_MANY, f"{line} {END}")
        alice.expect_end()
        assert the.file.read_text() == hall


def test_all_seats_can_be_bought_at_once_and_then_none(cinema: OpenCinema) -> None:
    the = cinema()
    everything = [(row, number) for row in range(1, 6) for number in range(1, 6)]
    assert seats_in(the.buy(*everything)) == everything
    assert the.buy((2, 2)) == f"Only 0 seats are free. {END}"
    assert the.file.read_text() == "1 1 1 1 1\n" * 5


NOT_NUMBERS = ["", "abc", "-1", "+3", "0", "0000", "2.0", "1 2", "2-3", "٣", "²", "1\0", "0x1", "1_0", "\xa0"]
NOT_IN_THE_HALL = ["99", "9" * 4000, "1" + "0" * 4095]


def test_answer_that_is_not_a_number_in_the_hall_is_asked_for_again(cinema: OpenCinema) -> None:
    answers = NOT_NUMBERS + NOT_IN_THE_HALL
    the = cinema(hall="0 0 0 0 0\n" * len(answers))
    for row, answer in enumerate(answers, 1):
        alice = the.connect()
        if answer in NOT_NUMBERS:
            alice.send(answer)
            alice.expect(HOW_MANY, "A number of 1 or more is expected.")
        begin(alice, 1)
        alice.send(answer, str(row), answer, "3")
        alice.expect(f"A number from 1 to {len(answers)} is expected.", "Row for ticket 1?")
        alice.expect("Seat for ticket 1?", "A number from 1 to 5 is expected.", "Seat for ticket 1?")
        alice.expect("Ticket 1 reserved", f"Booked: {row}-3")


def test_fifth_wrong_answer_in_a_row_ends_the_order(cinema: OpenCinema) -> None:
    alice = cinema().connect()
    for _ in range(5):
        alice.expect(HOW_MANY)
        alice.send("many")
        alice.expect("A number of 1 or more is expected.")
    alice.expect(f"5 wrong answers in a row. {END}")
    alice.expect_end()


def test_own_seat_is_refused_and_the_fifth_time_ends_the_order(cinema: OpenCinema) -> None:
    the = cinema()
    alice = the.order(2)
    hold(alice, 2, 3)
    for _ in range(4):
        choose(alice, 2, 3, ticket=2)
        alice.expect("Seat 2-3 is yours already. Another one is expected.", "Row for ticket 2?")
    choose(alice, 2, 3, ticket=2)
    alice.expect("Seat 2-3 is yours already. Another one is expected.", f"5 wrong answers in a row. {END}")
    alice.expect_end()
    assert the.file.read_text() == HALL


def test_status_lines_show_each_step_of_an_order(cinema: OpenCinema) -> None:
    the = cinema(hall="0 0 0 0 0 0 0 0\n" * 9)  # no other test names these seats
    the.buy((9, 7))
    the.buy((9, 8), (9, 7))
    line = the.server.wait_for_line
    fd = line(r"Client \((\d+)\): booked 9-7")[1]
    line(rf"Client \({fd}\): tickets asked for: 1, seats free: 72")
    line(rf"Client \({fd}\): ticket 1: row 9, seat 7")
    line(rf"Client \({fd}\): ticket 1 reserved: 9-7")
    line(r"Client \(\d+\): tickets asked for: 2, seats free: 71")
    line(r"Client \(\d+\): ticket 2: row 9, seat 7")
    line(r"Client \(\d+\): cancelled: Seat 9-7 is taken")


def test_held_seat_is_refused_to_others_which_ends_their_orders_and_releases_their_holds(cinema: OpenCinema) -> None:
    the = cinema()
    alice, bob = the.order(2), the.order(2)
    hold(alice, 2, 3)
    hold(bob, 1, 1)
    assert the.matrix() == ["10000", "00100", "00000", "00000", "00000"]
    assert the.buy(*[(1, 1)] * 24) == f"Only 23 seats are free. {END}"
    choose(bob, 2, 3, ticket=2)
    bob.expect(f"Seat 2-3 is taken. {END}")
    bob.expect_end()
    assert the.matrix() == ["00000", "00100", "00000", "00000", "00000"]
    choose(alice, 2, 4, ticket=2)
    alice.expect("Ticket 2 reserved", "Booked: 2-3, 2-4")


def test_slow_disk_delays_no_customer_that_does_not_read_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theatre, orders = Theatre(file), [Order() for _ in range(2)]
    theatre.hold(orders[0], Seat(1, 1))
    reading, released = threading.Event(), threading.Event()

    def read_slowly(path: Path) -> bytes:
        reading.set()
        assert released.wait(WAIT_SECONDS)
        return read_file(path)

    monkeypatch.setattr(booking, "read_file", read_slowly)
    with meanwhile(lambda: theatre.hold(orders[1], Seat(1, 2))):
        assert reading.wait(WAIT_SECONDS)
        theatre.release(orders[0])
        released.set()


def test_sale_while_another_customer_reads_the_file_is_not_taken_for_an_edit(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theatre, alice, bob = Theatre(file), Order(), Order()
    theatre.hold(alice, Seat(1, 1))
    logged: list[str] = []

    def read_and_sell(path: Path) -> bytes:
        monkeypatch.undo()
        monkeypatch.setattr(LOG, "write", logged.append)
        text = read_file(path)
        theatre.book(alice)
        return text

    monkeypatch.setattr(booking, "read_file", read_and_sell)
    theatre.hold(bob, Seat(1, 2))
    assert not theatre.seat_map().is_free(Seat(1, 1))
    assert logged == []


def test_network_holds_no_more_seats_than_the_limit_and_others_are_not_affected(fresh_cinema: OpenCinema) -> None:
    the = fresh_cinema("--max-held-per-address", "2", "--proxy-from", "127.0.0.1")

    def choose_first(row: int, address: str) -> Peer:
        peer = the.connect()
        peer.send(f"PROXY TCP6 {address} ::1 50000 5050", "2", str(row), "1")
        the.server.wait_for_line(rf"Client \(\d+\): (ticket 1 reserved:|cancelled: Seat) {row}-1.*")
        return peer

    alice, bob = choose_first(1, "2001:db8:1:2::1"), choose_first(2, "2001:db8:1:2:ffff::2")
    carol = choose_first(3, "2001:db8:1:3::1")
    assert choose_first(1, "2001:db8:1:2::3").read_all().endswith(f"Seat 1-1 is taken. {END}\n")
    bob.send("2", "2")
    assert bob.read_all().endswith(f"The limit of seats held for one address at a time (2) is reached. {END}\n")
    for peer, row in (carol, 3), (alice, 1):  # bob holds nothing any more
        peer.send(str(row), "2")
        assert peer.read_all().endswith(f"Booked: {row}-1, {row}-2\n")
    choose_first(4, "2001:db8:1:2::1").close()  # alice has booked, so her seats no longer count


@pytest.mark.parametrize("option", ["--max-tickets", "--max-held-per-address"])
def test_more_tickets_than_a_limit_allows_are_asked_for_again(fresh_cinema: OpenCinema, option: str) -> None:
    the = fresh_cinema(option, "2")
    alice = the.connect()
    alice.send("3")
    alice.expect(HOW_MANY, "A number from 1 to 2 is expected.")
    begin(alice, 2)
    alice.send("1", "1", "1", "2")
    assert alice.read_all().endswith("Booked: 1-1, 1-2\n")


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
def test_customer_that_leaves_at_any_question_books_and_holds_nothing(
    cinema: OpenCinema, leave: Callable[[Peer], None]
) -> None:
    the = cinema(hall="0 0 0\n")
    answers = ["2", "1", "1", "1"]
    for question in range(len(answers) + 1):
        alice = the.connect()
        alice.send(*answers[:question])
        asked = 0
        while asked <= question:
            asked += alice.read_line().endswith("?")
        leave(alice)
        the.wait_for_matrix("000")
    assert the.file.read_text() == "0 0 0\n"


def test_order_ends_hold_seconds_after_its_beginning_whatever_the_customer_does(fresh_cinema: OpenCinema) -> None:
    the = fresh_cinema("--hold-seconds", "2", "--login-seconds", "1")
    alice, bob, carol = the.order(2), the.order(2), the.connect()
    for peer, number in (alice, 3), (bob, 5):
        hold(peer, 2, number)
    bob.send_bytes(b"2")  # half an answer
    carol.expect(HOW_MANY, "No complete request within 1 seconds")  # an order begins with the number of tickets
    dave = the.order(1)
    alice.send("well")  # a wrong answer
    alice.expect("A number from 1 to 5 is expected.", "Row for ticket 2?")
    for peer in (alice, bob):
        peer.expect("Time is up. Order cancelled, nothing was booked.")
        peer.expect_end()
    dave.expect_nothing(0.01)  # this order began a second later
    the.server.wait_for_line(r"Client \(\d+\): disconnected: Time is up\. Order cancelled, nothing was booked\.")
    dave.send("2", "3")
    dave.expect("Seat for ticket 1?", "Ticket 1 reserved", "Booked: 2-3")


def test_server_that_stops_cancels_open_orders(fresh_cinema: OpenCinema) -> None:
    the = fresh_cinema()
    alice = the.order(2)
    hold(alice, 2, 3)
    assert the.server.stop() == 0
    alice.expect(f"The server is stopping. {END}")
    assert the.file.read_text() == HALL


def test_server_stops_while_an_order_waits_for_the_file_lock(fresh_cinema: OpenCinema) -> None:
    the = fresh_cinema()
    with another_writer(the.file):
        the.connect().send("1", "2", "3")
        the.server.wait_for_line(".*: ticket 1 reserved: 2-3")
        assert the.server.stop() == 0
    assert the.file.read_text() == HALL


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("0 " * 24 + "0\n", "0 " * 7 + "1 " + "0 " * 16 + "0\n"),
        (HALL, "0 0 0 0 0\n0 0 1 0 0\n" + "0 0 0 0 0\n" * 3),
        ("0 0 0\n0 0 0", "0 0 0\n0 0 1"),
        ("\n0\t0  0\r\n\r\n 0 0 0 \r\n\n", "\n0\t0  0\r\n\r\n 0 0 1 \r\n\n"),
        ("\ufeff0 0 0\n0 0 0\n", "\ufeff0 0 0\n0 0 1\n"),
        ("0 0 0\n" * 300, "0 0 0\n0 0 1\n" + "0 0 0\n" * 298),
    ],
    ids=["one line", "five lines", "no newline at the end", "odd white space", "byte order mark", "300 rows"],
)
def test_file_keeps_its_layout(cinema: OpenCinema, before: str, after: str) -> None:
    the = cinema(hall=before)
    assert the.buy((2, 3)) == "Booked: 2-3"
    assert the.file.read_bytes() == after.encode()


def test_25_numbers_on_one_line_are_five_rows_and_24_are_one_row(cinema: OpenCinema) -> None:
    the = cinema(hall="0 " * 24 + "1\n")
    assert the.matrix() == ["00000"] * 4 + ["00001"]
    the.file.write_text("0 " * 23 + "1\n")
    assert the.matrix() == ["0" * 23 + "1"]
    the.file.write_text("0\n" * 25)
    assert the.matrix() == ["0"] * 25


@pytest.mark.parametrize(
    ("hall", "held", "edited", "wanted"),
    [("0 0 0\n", (1, 1), "1 0 1\n", (1, 3)), (HALL, (5, 5), "0 0\n", (4, 4))],
    ids=["taken", "the hall shrinks"],
)
def test_seat_that_an_edit_takes_before_or_after_it_is_held_cancels_the_order(
    cinema: OpenCinema, hall: str, held: tuple[int, int], edited: str, wanted: tuple[int, int]
) -> None:
    the = cinema(hall)
    alice, bob = the.order(2), the.order(1)
    hold(alice, *held)
    the.file.write_text(edited)
    choose(bob, *wanted)
    bob.expect(f"Seat {Seat(*wanted)} is taken. {END}")
    choose(alice, 1, 2, ticket=2)
    alice.expect("Ticket 2 reserved", f"Seat {Seat(*held)} is taken. {END}")
    assert the.file.read_text() == edited


def test_edit_while_an_order_is_flushed_to_disk_is_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theatre, order = Theatre(file), Order()
    theatre.hold(order, Seat(1, 1))
    edits = [HALL.replace("0\n", "1\n")]

    def edit(_: int) -> None:
        if edits:
            file.write_text(edits.pop())

    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    monkeypatch.setattr(os, "fsync", edit)
    theatre.book(order)
    assert file.read_text() == HALL.replace("0\n", "1\n").replace("0", "1", 1)


WRONG_HALLS = {
    b"": "line 1: no seats; zeros and ones separated by spaces are expected",
    b" \n\n": "line 1: no seats; zeros and ones separated by spaces are expected",
    b"0 0\n0 0 0\n": "line 2: seats in the row: 3; expected, as in the first row: 2",
    b"0 0\n\n0\n": "line 3: seats in the row: 1; expected, as in the first row: 2",
    b"0 0\n0 2\n": "line 2: '2' is not a seat; 0 or 1 is expected",
    b"0 0\n0 00\n": "line 2: '00' is not a seat; 0 or 1 is expected",
    b"\xff\x1b[31m\n": r"line 1: '\ufffd\x1b[31m' is not a seat; 0 or 1 is expected",
    b"x" * 100000: "line 1: 'xxxxxxxxxxxxxxxxxxxx' is not a seat; 0 or 1 is expected",
}


def test_malformed_file_is_named_with_its_line() -> None:
    for text, fault in WRONG_HALLS.items():
        with pytest.raises(SeatFileError) as error:
            SeatMap(text, Path("hall.txt"))
        assert str(error.value) == f"hall.txt, {fault}"


def test_server_with_a_malformed_or_missing_file_ends_with_one_line_and_status_1(tmp_path: Path) -> None:
    malformed, missing = tmp_path / "seats.txt", tmp_path / "none.txt"
    malformed.write_text("0 0\n0 2\n")
    runs = run_programs(*(("ticket_server.py", "0", "--seats-file", str(file)) for file in (malformed, missing)))
    assert [(run.returncode, run.stdout, run.stderr) for run in runs] == [
        (1, "", f"{malformed}, line 2: '2' is not a seat; 0 or 1 is expected\n"),
        (1, "", f"{missing}: No such file or directory\n"),
    ]


def test_default_hall_is_next_to_the_program_in_any_working_directory(start: Start, tmp_path: Path) -> None:
    alice = start("ticket_server.py", "0", cwd=tmp_path).connect()
    alice.expect(HOW_MANY)
    alice.close()


def test_file_that_becomes_malformed_is_not_sold_from_until_it_is_mended(cinema: OpenCinema) -> None:
    the = cinema()
    alice, bob = the.order(1), the.connect()
    bob.expect(HOW_MANY)
    the.file.write_text("0 0\n0 x\n")
    the.connect().expect(SORRY)
    the.server.wait_for_line(rf"Client \(\d+\): cancelled: {the.file}, line 2: 'x' is not a seat; 0 or 1 is expected")
    choose(alice, 1, 1)
    alice.expect(SORRY)
    bob.send("1")
    bob.expect(SORRY)
    assert the.file.read_text() == "0 0\n0 x\n"
    the.file.unlink()
    assert the.buy((1, 1)) == SORRY
    assert not the.file.exists()
    the.file.write_text("0 0\n")
    assert the.buy((1, 1)) == "Booked: 1-1"


def test_file_that_becomes_malformed_while_an_order_waits_is_not_written(cinema: OpenCinema) -> None:
    the = cinema(hall="0 0 0\n")
    alice = the.connect()
    with another_writer(the.file):
        alice.send("1", "1", "2")
        the.wait_for_matrix("010")
        the.file.write_text("wrong\n")
    assert alice.read_all().endswith(f"{SORRY}\n")
    assert the.file.read_text() == "wrong\n"


def test_nothing_is_sold_when_the_second_file_cannot_be_made(fresh_cinema: OpenCinema) -> None:
    the = fresh_cinema()
    alice = the.order(1)
    obstacle = the.file.with_name("seats.txt.new")
    obstacle.mkdir()  # root may write in any directory, but no program may open one for writing
    choose(alice, 2, 3)
    alice.expect("Ticket 1 reserved", SORRY)
    the.server.wait_for_line(rf"Client \(\d+\): cancelled: {obstacle}: Is a directory")
    wait_until(lambda: the.connect().read_line() == SORRY, "a refusal before the first question", poll_seconds=0.1)
    assert the.file.read_text() == HALL
    obstacle.rmdir()
    assert the.buy((2, 3)) == "Booked: 2-3"


@pytest.mark.skipif(not shutil.which("prlimit"), reason="prlimit is not installed")
def test_nothing_is_sold_when_the_disk_is_full(fresh_cinema: OpenCinema) -> None:
    the = fresh_cinema(prefix=("prlimit", "--fsize=20"))
    assert the.buy((2, 3)) == SORRY
    the.server.wait_for_line(f"No seat can be sold now: {the.file}.new: File too large")
    the.server.wait_for_line(rf"Client \(\d+\): cancelled: {the.file}\.new: File too large")
    assert the.file.read_text() == HALL


def test_symbolic_link_stays_a_link_and_its_target_gets_the_order(start: Start, tmp_path: Path) -> None:
    file, link = tmp_path / "hall" / "real.txt", tmp_path / "seats.txt"
    file.parent.mkdir()
    file.write_text(HALL)
    link.symlink_to("hall/real.txt")
    the = Cinema(start("ticket_server.py", "0", "--seats-file", str(link)), file)
    assert the.buy((2, 3)) == "Booked: 2-3"
    assert link.is_symlink()
    assert the.taken() == {(2, 3)}


def test_booked_is_said_after_the_file_has_the_order(cinema: OpenCinema) -> None:
    the = cinema()
    alice = the.order(1)
    with another_writer(the.file):
        choose(alice, 2, 3)
        alice.expect("Ticket 1 reserved")
        alice.expect_nothing()
        assert the.file.read_text() == HALL
        assert the.matrix()[1] == "00100"
    alice.expect("Booked: 2-3")
    assert the.taken() == {(2, 3)}


@pytest.mark.parametrize("full_fsync", ["missing", "works", "fails"])
def test_file_is_flushed_before_the_rename_and_its_directory_afterwards(
    file: Path, monkeypatch: pytest.MonkeyPatch, full_fsync: str
) -> None:
    steps = []

    def full(fd: int, command: int) -> None:
        assert command == 51
        if full_fsync == "fails":  # as on a file system that does not offer it
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        steps.append(f"full flush {os.fstat(fd).st_ino}")

    if full_fsync != "missing":  # as on macOS
        monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
        monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", lambda fd: steps.append(f"flush {os.fstat(fd).st_ino}"))
    rename = Path.replace

    def replace(source: Path, target: Path) -> Path:
        steps.append(f"rename {source.stat().st_ino}: {source.read_text()}")
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    with locked(file):
        assert replace_file(file, b"0 1\n", old=HALL.encode())
    new, directory = file.stat().st_ino, file.parent.stat().st_ino
    flush = "full flush" if full_fsync == "works" else "flush"
    assert steps == [f"{flush} {new}", f"rename {new}: 0 1\n", f"{flush} {directory}"]


def order_seats(the: Cinema, count: int) -> list[Peer]:
    """Order each of the first seats of row 1 from a fresh server, over a connection of its own; wait for all holds."""
    peers = [the.connect() for _ in range(count)]
    for number, peer in enumerate(peers, 1):
        peer.send("1", "1", str(number))
    for number in range(1, count + 1):
        the.server.wait_for_line(f".* reserved: 1-{number}")
    return peers


def test_orders_that_wait_together_are_written_at_once_except_one_that_has_lost_its_seat(
    fresh_cinema: OpenCinema,
) -> None:
    the = fresh_cinema(change=WRITES_ARE_SHOWN)
    with another_writer(the.file):
        peers = order_seats(the, 5)
        the.file.write_text("0 1 0 0 0\n")
    answers = [peer.read_all().splitlines()[-1] for peer in peers]
    assert answers == ["Booked: 1-1", f"Seat 1-2 is taken. {END}", "Booked: 1-3", "Booked: 1-4", "Booked: 1-5"]
    assert the.file.read_text() == "1 1 1 1 1\n"
    the.server.wait_for_line("write")
    assert the.server.count_lines("write") in (1, 2)  # 2: one order came later


@pytest.mark.parametrize("error", [SeatFileError, RuntimeError])
def test_no_order_is_booked_when_the_write_for_all_fails(
    file: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    theatre = Theatre(file)
    reasons: list[str] = []

    def fail(*_: object, **__: object) -> bool:
        raise error("the disk has failed")

    def buy(number: int) -> None:
        order = Order()
        theatre.hold(order, Seat(number % 5 + 1, number // 5 + 1))
        with pytest.raises((SeatFileError, RuntimeError)) as failure:
            theatre.book(order)
        reasons.append(str(failure.value))

    monkeypatch.setattr(booking, "replace_file", fail)
    with meanwhile(lambda: at_once(8, buy)), another_writer(file):
        wait_until(lambda: theatre.seat_map().free == 17, "all seats are held")
    assert len(reasons) == 8
    assert set(reasons) <= {"the disk has failed", "the order was not written"}
    assert reasons.count("the disk has failed") == 8 or error is RuntimeError
    assert file.read_text() == HALL


# Many customers, kills, and a second server


@pytest.mark.parametrize("servers", [1, 2])
def test_hundred_customers_of_one_server_or_two_buy_no_seat_twice(
    cinema: OpenCinema, start: Start, servers: int
) -> None:
    the = cinema(hall="0 0 0 0 0 0 0 0 0 0\n" * 8)
    cinemas = [the]
    if servers == 2:
        cinemas.append(Cinema(start("ticket_server.py", "0", "--seats-file", str(the.file)), the.file))
    sold: list[tuple[int, int]] = []

    def buy(number: int) -> None:
        dice = random.Random(number // 2)  # two customers at a time want the same seats
        for _ in range(3):
            seats = {(dice.randint(1, 8), dice.randint(1, 10)) for _ in range(dice.randint(1, 3))}
            line = cinemas[number % servers].buy(*seats)
            assert line.endswith(END) or sorted(seats_in(line)) == sorted(seats)
            sold.extend(seats_in(line))

    at_once(100, buy)
    assert max(Counter(sold).values()) == 1
    assert set(sold) == the.taken()
    assert the.matrix() == ["".join("01"[(row, seat) in sold] for seat in range(1, 11)) for row in range(1, 9)]


def test_kills_under_load_lose_no_booking_and_split_no_order(run: Start, tmp_path: Path) -> None:
    file = tmp_path / "seats.txt"
    file.write_text("0 0 0 0\n" * ROWS)  # an order is a row of four
    rows = iter(range(1, ROWS + 1))
    booked: list[tuple[int, int]] = []
    dice = random.Random(9)

    def buy_until_the_kill(the: Cinema, _: int) -> None:
        with suppress(OSError):  # the server was killed
            for row in rows:
                booked.extend(seats_in(the.buy(*((row, number) for number in range(1, 5)))))

    def kill_under_load(the: Cinema) -> None:
        enough = len(booked) + dice.randrange(100)
        with meanwhile(lambda: at_once(4, partial(buy_until_the_kill, the))):
            wait_until(lambda: len(booked) > enough, "orders are booked")
            the.server.kill()

    for _ in range(KILLS):
        the = Cinema(run("ticket_server.py", "0", "--seats-file", str(file)), file)
        for row, number in booked[-1:]:  # before the last kill
            assert the.buy((row, number)) == f"Seat {row}-{number} is taken. {END}"
        kill_under_load(the)
        assert the.server.errors == ""
        taken = the.taken()
        assert set(booked) <= taken
        assert set(Counter(row for row, _ in taken).values()) <= {4}
    assert len(file.read_text()) == ROWS * 8


@pytest.mark.parametrize("what", ["file", "directory"])
def test_read_only_file_or_directory_is_not_sold_from(cinema: OpenCinema, what: str) -> None:
    the = cinema()
    path = the.file if what == "file" else the.file.parent
    alice = the.order(1)
    mode = path.stat().st_mode
    path.chmod(mode & ~0o222)
    try:
        bob = the.connect()
        bob.expect(SORRY)
        bob.expect_end()
        choose(alice, 2, 3)
        alice.expect("Ticket 1 reserved", SORRY)
        refusal = rf"Client \(\d+\): cancelled: {path}: read-only; write permission is expected"
        the.server.wait_for_line(refusal)
        wait_until(lambda: the.server.count_lines(refusal) == 2, "one line for each customer")
        assert the.file.read_text() == HALL
    finally:
        path.chmod(mode)
    assert the.buy((2, 3)) == "Booked: 2-3"


def test_server_starts_on_a_read_only_file_and_says_why_it_sells_nothing(start: Start, file: Path) -> None:
    file.chmod(0o444)
    the = Cinema(start("ticket_server.py", "0", "--seats-file", str(file)), file)
    the.server.wait_for_line(f"No seat can be sold now: {file}: read-only; write permission is expected")
    assert the.buy((2, 3)) == SORRY


def test_server_says_at_the_start_that_it_writes_a_mounted_file_in_place(fresh_cinema: OpenCinema) -> None:
    pretend = "import cinema.booking; cinema.booking.is_mount_point = lambda file: True"
    the = fresh_cinema(change=pretend)
    the.server.wait_for_line(f"{the.file} is a mount point: orders are written in place, and a crash may split one")
    assert the.server.lines[0].startswith("Listening on ")


def test_sold_seat_that_a_stale_copy_makes_free_is_reported_once(fresh_cinema: OpenCinema) -> None:
    the = fresh_cinema()
    freed = "{}: seat {}, which was sold here, has been made free by an edit"
    assert the.buy((3, 3)) == "Booked: 3-3"
    the.file.write_text(HALL)  # right after the only sale
    assert the.matrix() == ["00000"] * 5
    the.server.wait_for_line(freed.format(the.file, "3-3"))
    assert the.buy((2, 3), (4, 5)) == "Booked: 2-3, 4-5"
    assert the.buy((1, 1)) == "Booked: 1-1"
    the.file.write_text(HALL.replace("0", "1", 1))  # 1-1 is taken there too
    assert the.matrix() == ["10000"] + ["00000"] * 4
    for seat in ("2-3", "4-5"):
        the.server.wait_for_line(freed.format(the.file, seat))
    assert the.buy((2, 3)) == "Booked: 2-3"
    assert the.buy((5, 1)) == "Booked: 5-1"
    the.file.write_text(the.file.read_text().replace("0", "1", 1))  # 4-5 is still free
    assert the.buy((5, 2)) == "Booked: 5-2"
    the.server.wait_for_line(".*: booked 5-2")
    assert the.server.count_lines(freed.format(the.file, ".*")) == 3


def test_file_that_another_server_is_writing_is_sold_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with another_writer(file):
        Theatre(file).check()
    monkeypatch.setattr("net.files._remove_unlocked", Path.touch)  # the other server creates the lock right after it
    Theatre(file).check()


def test_directory_fsync_failure_is_reported_as_uncertain(fresh_cinema: OpenCinema) -> None:
    the = fresh_cinema(hall="0 0 0 0\n", change=DIRECTORIES_CANNOT_BE_FLUSHED)
    with another_writer(the.file):
        peers = order_seats(the, 4)
        the.file.write_text("0 0 0 1\n")
    answers = [peer.read_all().splitlines()[-1] for peer in peers]
    assert answers == ["Sorry, it is not certain whether the order is booked."] * 3 + [f"Seat 1-4 is taken. {END}"]
    the.server.wait_for_line(rf"Client \(\d+\): perhaps booked: {the.file.parent}: Input/output error")
    assert the.file.read_text() == "1 1 1 1\n"
