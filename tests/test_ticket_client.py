"""ticket_client.py: with a script, with a person at a terminal, and when the server goes away."""

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from box_office import (
    END,
    HALL,
    HOW_MANY,
    HOW_TO,
    Cinema,
    OpenCinema,
    another_writer,
    cinema_fixture,  # noqa: F401 (the fixture called cinema, and so on)
    common_cinema_fixture,  # noqa: F401
    fresh_cinema_fixture,  # noqa: F401
)
from conftest import ROOT, WAIT_SECONDS, Program, run_program, run_programs, wait_until

GREEN, RED, BOLD_CYAN, NORMAL = "\033[32m", "\033[31m", "\033[1;36m", "\033[0m"

Output = subprocess.CompletedProcess[str]


def client(the: Cinema, *arguments: str, input: str = "") -> Output:
    """Run a client to its end."""
    return run_program("ticket_client.py", "127.0.0.1", str(the.server.port), *arguments, input=input)


class Terminal:
    """A client at a terminal, and what is to be seen there."""

    def __init__(self, port: int, *arguments: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup and & have it ignored
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(ROOT / "ticket_client.py"), "127.0.0.1", str(port), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**variables, "TERM": "xterm", **environment},
            start_new_session=True,
        )
        signal.signal(signal.SIGINT, interrupt)
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def expect(self, text: str) -> None:
        """Wait until a text is seen after what was expected before; forget all until its end."""
        end = time.monotonic() + WAIT_SECONDS
        while text not in self.seen:
            readable, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            if not readable or not self._read():
                pytest.fail(f"{text!r} was not seen, but {self.seen!r}")
        self.seen = self.seen.partition(text)[2]

    def end(self) -> int:
        """Wait for the end of the client; return its exit status."""
        while self._read():
            pass
        return self.process.wait(WAIT_SECONDS)

    def close(self) -> None:
        """Take the terminal away."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # Linux says so when the other side is closed
            return False
        self.seen += data.decode().replace("\r\n", "\n")
        return bool(data)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Give a function that starts a client at a terminal."""
    terminals: list[Terminal] = []

    def open_terminal(the: Cinema, *arguments: str, **environment: str) -> Terminal:
        terminals.append(Terminal(the.server.port, *arguments, **environment))
        return terminals[-1]

    yield open_terminal
    for each in terminals:
        each.close()


# A script


def test_seats_on_the_command_line_are_booked_without_asking(cinema: OpenCinema) -> None:
    the = cinema()
    run = client(the, "--seats", "2-3,2-4")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[:2] == [f"{HOW_MANY} 2", HOW_TO]
    assert run.stdout.splitlines()[8:16] == [
        "(0 free, 1 taken, * yours)",
        "Row for ticket 1? 2",
        "Seat for ticket 1? 3",
        "Ticket 1 reserved",
        "Row for ticket 2? 2",
        "Seat for ticket 2? 4",
        "Ticket 2 reserved",
        "Booked: 2-3, 2-4",
    ]
    assert run.stdout.splitlines()[16:19] == [" Seat 1 2 3 4 5", "Row 1 0 0 0 0 0", "Row 2 0 0 * * 0"]
    assert "\033" not in run.stdout
    assert the.taken() == {(2, 3), (2, 4)}


def test_a_seat_that_the_hall_shows_as_taken_is_refused(cinema: OpenCinema) -> None:
    the = cinema(hall="0 0 1\n")
    run = client(the, "--seats", "1-1,1-3")
    assert (run.returncode, run.stderr) == (1, "")
    assert "Row 1 0 0 1\n" in run.stdout
    assert run.stdout.endswith(f"Seat 1-3 is taken. {END}\n")
    assert the.file.read_text() == "0 0 1\n"


def test_a_seat_outside_the_hall_ends_the_order(cinema: OpenCinema) -> None:
    the = cinema(hall="0 0 1\n")
    for seats in ("1-1,1-4", "1-1,2-1", "0-1", "1-99999999999999999999999"):
        run = client(the, "--seats", seats)
        assert (run.returncode, run.stderr) == (1, "")
        assert re.search(r"A number from 1 to \d is expected.\n", run.stdout)
        assert run.stdout.endswith(f"No answer came. {END}\n")
        assert the.file.read_text() == "0 0 1\n"


def test_more_seats_than_are_free_are_refused(cinema: OpenCinema) -> None:
    run = client(cinema(hall="0 1 1\n"), "--seats", "1-1,1-2")
    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout.endswith(f"Only 1 seat is free. {END}\n")


def test_wrong_seats_are_a_usage_error() -> None:
    wrong = ["", "2", "2-", "2-3,", "a-b", "2-3-4", "-2-3", "2-3,02-03", "٢-٣"]
    for run in run_programs(*(("ticket_client.py", "127.0.0.1", "1", "--seats", seats) for seats in wrong)):
        assert run.returncode == 2
        assert run.stderr.startswith("usage: ticket_client.py")


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    run = run_program("ticket_client.py", "127.0.0.1", str(port))
    assert (run.returncode, run.stderr) == (3, f"Cannot connect to 127.0.0.1:{port}: Connection refused\n")
    run = run_program("ticket_client.py", "x" * 64, "1")
    assert run.returncode == 3
    assert run.stderr.startswith("Cannot connect to xxx")


def test_a_server_killed_before_it_says_booked_is_a_lost_connection(fresh_cinema: OpenCinema) -> None:
    the = fresh_cinema()
    with another_writer(the.file):
        command = Program("ticket_client.py", "127.0.0.1", str(the.server.port), "--seats", "2-3")
        the.server.wait_for_line(".*: ticket 1 reserved: 2-3")
        the.server.kill()
        assert command.wait() == 3
    assert command.errors.startswith("The connection was lost: ")
    assert command.errors.count("\n") == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 3),
        (b"How many", 3),
        (b"How many tickets do you want?\n", 3),
        (b"Ticket 1 reserved\n", 3),
        (b"Ticket 1 reserved\nBooked: 1-", 3),
        (b"Too many connections\n", 1),
        (b"\x1b[2J\xff\n", 1),
        (b"Booked: 1-1\n", 0),
    ],
)
def test_the_exit_status_tells_how_it_ended(sent: bytes, status: int) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        run = run_program("ticket_client.py", "127.0.0.1", str(listener.getsockname()[1]), "--seats", "1-1")
        server.join(WAIT_SECONDS)
    assert run.returncode == status
    assert bool(run.stderr) == (status == 3)
    assert "\033" not in run.stdout


# A person


def test_answers_come_from_the_input_and_a_row_and_a_seat_may_come_together(cinema: OpenCinema) -> None:
    the = cinema()
    run = client(the, input="3\n2-3\n2 4\n5\n1\n")
    assert (run.returncode, run.stderr) == (0, "")
    assert "Booked: 2-3, 2-4, 5-1\n" in run.stdout
    assert the.taken() == {(2, 3), (2, 4), (5, 1)}


def test_a_wrong_row_forgets_the_seat_that_came_with_it(cinema: OpenCinema) -> None:
    the = cinema()
    run = client(the, input="1\n9-3\n2\n4\n")
    assert "Booked: 2-4\n" in run.stdout


def test_the_end_of_the_input_leaves(cinema: OpenCinema) -> None:
    the = cinema()
    run = client(the, input="2\n2-3\n")
    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout.endswith(f"No answer came. {END}\n")
    assert the.file.read_text() == HALL


def test_a_terminal_shows_the_hall_in_colour(cinema: OpenCinema, terminal: Callable[..., Terminal]) -> None:
    alice = terminal(cinema(hall="0 0 1\n"))
    free, taken, yours = f"{GREEN}0{NORMAL}", f"{RED}1{NORMAL}", f"{BOLD_CYAN}*{NORMAL}"
    alice.expect(f"{HOW_MANY} ")
    alice.type("2\n")
    alice.expect(f" Seat 1 2 3\nRow 1 {free} {free} {taken}\n({free} free, {taken} taken, {yours} yours)\n")
    alice.expect("Row for ticket 1? ")
    alice.type("1\n")
    alice.expect("Seat for ticket 1? ")
    alice.type(" 002\n")
    alice.expect(f"Ticket 1 reserved\n Seat 1 2 3\nRow 1 {free} {yours} {taken}\n")
    alice.expect("Row for ticket 2? ")
    alice.type("1-1\n")
    alice.expect(f"Booked: 1-2, 1-1\n Seat 1 2 3\nRow 1 {yours} {yours} {taken}\n")
    assert alice.end() == 0


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_color_is_respected(cinema: OpenCinema, terminal: Callable[..., Terminal], variable: dict[str, str]) -> None:
    alice = terminal(cinema(hall="0 0 1\n"), "--seats", "1-2", **variable)
    alice.expect("Row 1 0 0 1\n")
    alice.expect("Row 1 0 * 1\n")
    assert alice.end() == 0


def test_an_empty_no_color_counts_as_none(cinema: OpenCinema, terminal: Callable[..., Terminal]) -> None:
    alice = terminal(cinema(hall="0 0 1\n"), "--seats", "1-2", NO_COLOR="")
    alice.expect(GREEN)
    assert alice.end() == 0


@pytest.mark.parametrize("answers", [[], ["2\n"], ["2\n", "1\n"], ["2\n", "1-1\n"]], ids=str)
def test_ctrl_c_and_ctrl_d_leave_cleanly(
    fresh_cinema: OpenCinema, terminal: Callable[..., Terminal], answers: list[str]
) -> None:
    the = fresh_cinema(hall="0 0 0\n")
    alice, bob = terminal(the), terminal(the)
    for each in (alice, bob):
        each.expect("? ")
        for answer in answers:
            each.type(answer.replace("1-1", "1-1" if each is alice else "1-2"))
            each.expect("? ")
            if "-" in answer:
                each.expect("? ")
    alice.type("\x04")
    assert alice.end() == 1
    assert alice.seen.strip() == f"No answer came. {END}"
    bob.process.send_signal(signal.SIGINT)
    assert bob.end() == 1
    assert bob.seen.strip() == ""
    the.wait_for_cancelled(2)
    assert the.matrix() == ["000"]


def test_the_end_of_the_patience_is_told_while_a_person_thinks(
    fresh_cinema: OpenCinema, terminal: Callable[..., Terminal]
) -> None:
    alice = terminal(fresh_cinema("--hold-seconds", "1"))
    alice.expect(HOW_MANY)
    alice.type("1\n")
    alice.expect("Row for ticket 1? ")
    alice.expect("Timed out: nothing useful came in time\n")
    assert alice.end() == 1


def test_who_reads_only_the_first_line_sees_no_traceback(cinema: OpenCinema) -> None:
    the = cinema()
    command = [sys.executable, str(ROOT / "ticket_client.py"), "127.0.0.1", str(the.server.port), "--seats", "2-3"]
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    run = subprocess.run(command, stdout=reader.stdin, stderr=subprocess.PIPE, timeout=WAIT_SECONDS)
    assert reader.stdin
    reader.stdin.close()
    assert (run.returncode, run.stderr) == (1, b"")


def test_standard_streams_may_be_closed(cinema: OpenCinema) -> None:
    the = cinema()
    for redirection, status in ((">&-", 0), ("<&- --seats 2-4", 0), ("<&-", 1)):
        seats = "--seats 2-3" if redirection == ">&-" else ""
        script = f"{sys.executable} {ROOT}/ticket_client.py 127.0.0.1 {the.server.port} {seats} {redirection}"
        run = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=WAIT_SECONDS)
        assert (run.returncode, run.stderr) == (status, "")
    assert the.taken() == {(2, 3), (2, 4)}


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_ctrl_c_while_it_connects_leaves_cleanly() -> None:
    def has_socket(pid: int) -> bool:
        with suppress(FileNotFoundError):  # a file was closed just now
            return any(str(fd.readlink()).startswith("socket:") for fd in Path(f"/proc/{pid}/fd").iterdir())
        return False

    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())  # now the queue is full: who else connects waits
        alice = Terminal(listener.getsockname()[1])
        try:
            wait_until(lambda: has_socket(alice.process.pid), "a client that connects")
            alice.process.send_signal(signal.SIGINT)
            assert alice.end() == 1
        finally:
            alice.close()
    assert "KeyboardInterrupt" not in alice.seen  # -W error has create_connection() complain of a socket left open


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_told(cinema: OpenCinema) -> None:
    the = cinema()
    command = [sys.executable, str(ROOT / "ticket_client.py"), "127.0.0.1", str(the.server.port), "--seats", "2-3"]
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=WAIT_SECONDS)
    assert (run.returncode, run.stderr) == (4, "The output cannot be written: No space left on device\n")
