"""The dormitory's client: driven by a script, and by a person at a terminal."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, run_program
from dorm import PASSWORDS, Dormitory, make_dormitory  # noqa: F401
from pseudo_terminal import Terminal

PROMPT = "Room code (or list, mine, cancel ID, help, quit): "


def play(dormitory: Dormitory, *answers: str, options: tuple[str, ...] = ()) -> tuple[int, list[str], str]:
    """Run the client with answers as lines; return its exit status, what it said, and what went wrong."""
    result = run_program(
        "client.py", "--port", str(dormitory.main.port), *options, input="".join(f"{line}\n" for line in answers)
    )
    return result.returncode, result.stdout.splitlines(), result.stderr


def test_a_script_drives_it_line_by_line(dormitory: Dormitory) -> None:
    dormitory.start()
    status, said, errors = play(
        dormitory,
        *("alice", PASSWORDS["alice"]),
        *("S12", "Availability", "S12", "maybe", "Reservation", "S123", "r", "X1", "a"),
        *("mine", "list", "cancel S1", "cancel S1", "cancel", "mine", "help", "", "quit", "S1", "r"),
    )
    assert said == [
        "Welcome, member alice.",
        "Room S12 is available: 6 left.",
        "Please answer availability or reservation.",
        "Room S12 is yours: reservation S1. 5 left.",
        "Room S123 is not available: none left.",
        "There is no room X1.",
        "Your reservations:",
        "  S1          S12",
        "Rooms, and how many are left:",
        *(f"  {code:<12}{left}" for code, left in {"S1": 9, "S12": 5, "S123": 0, "D1": 2, "U1": 3}.items()),
        "Cancelled: room S12 is no longer yours.",
        "You have no such reservation.",
        "Not understood: Expected CANCEL id.",
        "Your reservations: none.",
        "S233           a room's code: asks whether you want its availability or a reservation",
        "list           all rooms, and how many of each are left",
        "mine           your reservations",
        "cancel S17     cancel one of them",
        "help           this text",
        "quit           leave",
    ]
    assert (status, errors) == (0, "")
    assert dormitory.rows("S") == []


def test_enter_alone_is_a_guest_and_the_end_of_input_is_a_good_end(dormitory: Dormitory) -> None:
    dormitory.start_main()
    assert play(dormitory, "eve", "", "S1", "r") == (
        0,
        ["Welcome, guest eve.", "Denied: Guests cannot reserve."],
        "",
    )


def test_after_a_wrong_login_it_asks_again(dormitory: Dormitory, tmp_path: Path) -> None:
    dormitory.start_main()
    wrong = "Wrong user name or password."
    assert play(dormitory, "alice", "wrong", "alice", PASSWORDS["alice"]) == (0, [wrong, "Welcome, member alice."], "")
    assert play(dormitory, "two words", "alice", "wrong") == (1, ["A user name is one word.", wrong], f"{wrong}\n")
    assert play(dormitory, *["alice", "wrong"] * 6) == (1, [wrong] * 5, "The main server closed the connection.\n")
    file = tmp_path / "password"
    file.write_text(f"{PASSWORDS['alice']}\n")
    options = ("--user", "alice", "--password-file", str(file))
    assert play(dormitory, "quit", options=options) == (0, ["Welcome, member alice."], "")
    file.write_text("wrong\n")
    assert play(dormitory, "quit", options=options) == (1, [], f"{wrong}\n")
    file.unlink()
    assert play(dormitory, "quit", options=options) == (1, [], f"{file}: No such file or directory\n")


def test_a_server_that_is_not_there_or_is_lost_is_one_line(dormitory: Dormitory) -> None:
    dormitory.start_main("--login-seconds", "1")
    port = dormitory.main.port
    terminal = Terminal("client.py", "--port", str(port))
    try:
        terminal.expect_typing("User name: ")
        dormitory.main.connect().expect_match("Timed out: .*")  # who came later; so the terminal's time is over too
        terminal.type("alice\n")
        terminal.expect("User name: alice")
        terminal.expect_typing("Password (Enter alone: as a guest): ")
        terminal.type("x\n")
        assert terminal.wait() == 1
        assert "The main server closed the connection: Timed out: nothing useful came in time" in terminal.rows()
    finally:
        terminal.close()
    dormitory.main.kill()
    result = run_program("client.py", "--port", str(port))
    assert (result.returncode, result.stderr) == (1, f"Cannot connect to 127.0.0.1:{port}: Connection refused\n")


def test_a_password_file_must_hold_a_password_and_what_the_server_says_is_told(
    dormitory: Dormitory, tmp_path: Path
) -> None:
    dormitory.start("")
    (tmp_path / "password").write_text("\n")
    status, _, errors = play(dormitory, options=("--user", "alice", "--password-file", str(tmp_path / "password")))
    assert (status, errors) == (1, f"{tmp_path / 'password'}:1: expected a password\n")
    (tmp_path / "password").write_text("secret\n")
    status, _, errors = play(dormitory, options=("--user", "x" * 40, "--password-file", str(tmp_path / "password")))
    assert (status, errors[:14]) == (1, "Not understood")


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_closed_input_or_output_is_no_traceback(dormitory: Dormitory, closed: str) -> None:
    dormitory.start("")
    command = f'"{sys.executable}" "{ROOT}/client.py" --port {dormitory.main.port} {closed}'
    done = subprocess.run(["bash", "-c", command], input="eve\n", capture_output=True, text=True, timeout=10)
    assert done.stderr == ""


@pytest.fixture
def terminal(dormitory: Dormitory) -> Iterator[Terminal]:
    """Give a person's terminal with the client, beside a main server and Server S."""
    dormitory.start("S")
    terminal = Terminal("client.py", "--port", str(dormitory.main.port))
    try:
        yield terminal
    finally:
        terminal.close()


def test_a_person_is_asked_and_no_password_is_shown(dormitory: Dormitory, terminal: Terminal) -> None:
    terminal.expect_typing("User name: ")
    terminal.type("alice\n")
    terminal.expect("User name: alice")
    terminal.expect_typing("Password (Enter alone: as a guest): ")
    terminal.type("wrong\n")
    terminal.expect("Password (Enter alone: as a guest): ", "Wrong user name or password.")
    terminal.expect_typing("User name: ")
    terminal.type("alice\n")
    terminal.expect("User name: alice")
    terminal.expect_typing("Password (Enter alone: as a guest): ")
    terminal.type(f"{PASSWORDS['alice']}\n")
    terminal.expect("Password (Enter alone: as a guest): ", "Welcome, member alice.", "")
    terminal.expect_typing(PROMPT)
    terminal.type("S1\n")
    terminal.expect(f"{PROMPT}S1")
    terminal.expect_typing("Availability or reservation? ")
    terminal.type("reservation\n")
    terminal.expect("Availability or reservation? reservation", "Room S1 is yours: reservation S1. 8 left.", "")
    terminal.expect_typing(PROMPT)
    terminal.type("\x1b[A\x1b[A2\x7f\n")  # the arrow up, twice: S1 again; and the last key mended
    terminal.expect_match(PROMPT)
    terminal.expect_typing("Availability or reservation? ")
    terminal.type("a\n")
    terminal.expect("Availability or reservation? a", "Room S1 is available: 8 left.", "")
    terminal.expect_typing(PROMPT)
    terminal.type("\x04")
    assert terminal.wait() == 0
    assert PASSWORDS["alice"] not in "\n".join(terminal.rows())


def test_ctrl_c_leaves_quietly(dormitory: Dormitory, terminal: Terminal) -> None:
    terminal.expect_typing("User name: ")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait() == 130
    assert "Traceback" not in "\n".join(terminal.rows())
