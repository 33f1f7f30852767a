"""The dormitory's client: with answers from a script, and at a terminal."""

import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import RESET, Start, changed_program, fake_server, python, run_program, run_shell, wait_until
from dorm import PASSWORDS, Dormitory
from pseudo_terminal import OpenTerminal, Terminal

USER_NAME = "User name: "
PASSWORD = "Password (Enter alone: as a guest): "
KIND = "Availability or reservation? "
ANSWER_ONE = "Please answer availability or reservation, or press Enter for another room."
TYPE_CODE = "Please type a room's code, such as S233, or help."
PROMPT = "Room code (or list, mine, cancel ID, help, quit): "


def play(dormitory: Dormitory, *answers: str, options: tuple[str, ...] = ()) -> tuple[int, list[str], str]:
    """Run the client with these answers; return its exit status, its output as lines, and its standard error."""
    typed = "".join(f"{line}\n" for line in answers)
    result = run_program("client.py", "--port", str(dormitory.main.port), *options, input=typed)
    return result.returncode, result.stdout.splitlines(), result.stderr


@contextmanager
def main_server(*replies: str, resets: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Run a server that answers each line with the next reply, and then closes; yield its port, and the lines."""
    lines: list[str] = []

    def talk(connection: socket.socket) -> None:
        with connection.makefile("rw", encoding="utf-8", newline="\n") as file:
            for reply in replies:
                lines.append(file.readline().rstrip("\n"))
                file.write(reply)
                file.flush()
        if resets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    with fake_server(talk) as port:
        yield port, lines


def password_file(directory: Path, password: str) -> tuple[str, ...]:
    (directory / "password").write_text(f"{password}\n")
    return "--user", "alice", "--password-file", str(directory / "password")


def test_answers_from_a_script_are_carried_out_and_explained_line_by_line(dormitory: Dormitory) -> None:
    dormitory.start()
    status, said, errors = play(
        dormitory,
        *("alice", PASSWORDS["alice"]),
        *("S12", "Availability", "S12", "maybe", "Reservation", "S123", "r", "S9", "a"),
        *("mine", "list", "cancel S1", "cancel S1", "cancel", "mine", "", "quit", "S1", "r"),
    )
    assert said == [
        "Welcome, member alice.",
        "Room S12 is available: 6 left.",
        ANSWER_ONE,
        "Room S12 is yours: reservation S1. 5 left.",
        "Room S123 is not available: none left.",
        "There is no room S9.",
        "Your reservations:",
        "  S1          S12",
        "Rooms, and how many are left:",
        *(f"  {code:<12}{left}" for code, left in {"S1": 9, "S12": 5, "S123": 0, "D1": 2, "U1": 3}.items()),
        "Cancelled: room S12 is no longer yours.",
        "You have no such reservation.",
        "Not understood: Expected CANCEL id.",
        "Your reservations: none.",
    ]
    assert (status, errors) == (1, "")
    assert dormitory.rows("S") == []


def test_a_code_and_an_action_on_one_line_and_in_any_case_are_carried_out(dormitory: Dormitory) -> None:
    dormitory.write("single.txt", "S1, 9\nSab, 6\nSCD, 4\n")
    dormitory.start("S")
    status, said, errors = play(
        dormitory,
        *("alice", PASSWORDS["alice"]),
        *("s1", "A", "sab a", "scd AVAIL", "S1 r", "reserve s1", "Reservation S1", "availability S1"),
        *("MINE", "Cancel s2", "LIST S", "list s", "s9 a"),
        *("S1 S2", "S1 a r", "reserve", "hello world", "list x", "QUIT"),
    )
    rooms = ["Rooms, and how many are left:", "  S1          7", "  Sab         6", "  SCD         4"]
    assert said == [
        "Welcome, member alice.",
        "Room S1 is available: 9 left.",
        "Room Sab is available: 6 left.",
        "Room SCD is available: 4 left.",
        "Room S1 is yours: reservation S1. 8 left.",
        "Room S1 is yours: reservation S2. 7 left.",
        "Room S1 is yours: reservation S3. 6 left.",
        "Room S1 is available: 6 left.",
        *("Your reservations:", *(f"  S{number}          S1" for number in (1, 2, 3))),
        *("Server D does not answer.", "Server U does not answer."),
        "Cancelled: room S1 is no longer yours.",
        *rooms,
        *rooms,
        "There is no room s9.",
        *[TYPE_CODE] * 4,
        "Not understood: Expected LIST [S|D|U].",
    ]
    assert (status, errors) == (1, "")


def test_a_typing_error_is_answered_before_the_second_question_which_is_no_trap(common_dormitory: Dormitory) -> None:
    mistyped = ("lisst", "S233?", "ls", "S1 avail now", "?", "status", "users")
    typed = (*mistyped, "S12", "list U", "S12", "D1", "a", "S12", "mine", "S12", "", "S12", "r", "bye")
    status, said, errors = play(common_dormitory, "eve", "", *typed, "S1 a")
    assert (status, errors) == (1, "")
    rooms = ["Rooms, and how many are left:", "  U1          3", "Room D1 is available: 2 left."]
    denied = "Denied: Guests cannot reserve."
    assert said == ["Welcome, guest eve.", *[TYPE_CODE] * 7, *rooms, "Your reservations: none.", denied]


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        *(("S1 a", 0), ("S123 a", 0), ("mine", 0)),
        *(("S123 r", 1), ("S9 a", 1), ("cancel S9", 1), ("cancel", 1), ("hello", 1)),
    ],
)
def test_the_exit_status_says_whether_a_request_of_a_script_was_refused(
    common_dormitory: Dormitory, tmp_path: Path, request_line: str, status: int
) -> None:
    options = password_file(tmp_path, PASSWORDS["alice"])
    assert play(common_dormitory, request_line, options=options)[0] == status


BAD_NAMES = {
    "smith,john": "A user name contains no comma.",
    "x" * 33: "A user name has at most 32 characters.",
    "two words": "A user name is one word.",
}
BAD_PASSWORDS = {"x" * 5000: "A password has at most 1000 bytes.", "\udcff": "A password in UTF-8 is expected."}


def test_an_impossible_name_or_password_is_refused_with_the_rule(common_dormitory: Dormitory, tmp_path: Path) -> None:
    typed = "\n".join([*BAD_NAMES, "alice", *BAD_PASSWORDS, "", ""])
    (tmp_path / "typed").write_bytes(typed.encode(errors="surrogateescape"))
    shown = run_shell(f"{command(common_dormitory)} <{tmp_path / 'typed'}").stdout.splitlines()
    assert shown == [*BAD_NAMES.values(), *BAD_PASSWORDS.values(), "Welcome, guest alice."]
    for name, rule in BAD_NAMES.items():
        done = run_program("client.py", "--user", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.endswith(f"{name!r} is not valid. {rule}\n")
    file = tmp_path / "password"
    for password, rule in BAD_PASSWORDS.items():
        file.write_bytes(f"{password}\n".encode(errors="surrogateescape"))
        assert play(common_dormitory, options=("--password-file", str(file))) == (1, [], f"{file}:1: {rule}\n")


def test_a_byte_order_mark_in_the_password_file_and_before_the_answers_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("\ufeffsecret\n", encoding="utf-8")
    given = ("--user", "eve", "--password-file", str(tmp_path / "password"))
    for options, typed in ((given, ""), ((), "eve\nsecret\n")):
        with main_server("MEMBER eve\n", "ROOMS\n") as (port, lines):
            run_program("client.py", "--port", str(port), *options, input=f"\ufeff{typed}list\nquit\n")
        assert lines == ["LOGIN eve secret", "LIST"]


def test_quit_and_help_are_understood_at_every_question(common_dormitory: Dormitory) -> None:
    before_question = ("alice", PASSWORDS["alice"], "S1")
    welcome = "Welcome, member alice."
    for count, said in enumerate(([], [], [welcome], [welcome])):
        assert play(common_dormitory, *before_question[:count], "quit", "more") == (0, said, "")
    helped = ("Help", "alice", "help", PASSWORDS["alice"], "HELP", "S1", "help", "quit")
    status, said, errors = play(common_dormitory, *helped)
    assert (status, errors) == (0, "")
    assert [line.split()[0] for line in said].count("Log") == 2
    assert [line.split()[0] for line in said].count("cancel") == 2
    assert said.index(welcome) > 3


def test_a_silent_back_end_is_reported_with_advice_that_fits_the_request(dormitory: Dormitory) -> None:
    dormitory.start("D")
    answers = ("S1 a", "S1 r", "cancel S1", "list", "list S", "list D", "mine", "D1 r", "mine")
    silent = "Server S does not answer."
    later = "Server S is not answering. Try later"
    assert play(dormitory, "alice", PASSWORDS["alice"], *answers)[1] == [
        "Welcome, member alice.",
        f"{later}.",
        f"{later}, but first type mine to see whether the room was reserved.",
        f"{later}, but first type mine to see whether the reservation was cancelled.",
        *("Rooms, and how many are left:", "  D1          2", silent, "Server U does not answer."),
        silent,
        *("Rooms, and how many are left:", "  D1          2"),
        *(silent, "Server U does not answer."),
        "Room D1 is yours: reservation D1. 1 left.",
        *("Your reservations:", "  D1          D1", silent, "Server U does not answer."),
    ]


def test_after_a_wrong_login_the_client_asks_again_until_the_fifth(common_dormitory: Dormitory, tmp_path: Path) -> None:
    wrong, welcome = "Wrong user name or password.", "Welcome, member alice."
    assert play(common_dormitory, "alice", "wrong", "alice", PASSWORDS["alice"]) == (1, [wrong, welcome], "")
    status, said, errors = play(common_dormitory, *["alice", "wrong"] * 5, "alice", PASSWORDS["alice"])
    assert (status, said) == (1, [wrong] * 5)
    assert errors == "The server closed the connection: Too many wrong logins\n"
    options = password_file(tmp_path, PASSWORDS["alice"])
    assert play(common_dormitory, "quit", options=options) == (0, [welcome], "")
    options = password_file(tmp_path, "wrong")
    assert play(common_dormitory, "quit", options=options) == (1, [], f"{wrong}\n")
    file = tmp_path / "password"
    file.unlink()
    assert play(common_dormitory, "quit", options=options) == (1, [], f"{file}: No such file or directory\n")


def test_a_login_that_is_answered_try_later_is_repeated_twice(tmp_path: Path) -> None:
    client = changed_program(tmp_path, "client.py", "program.RETRY_SECONDS = 0.25")

    def log_in(replies: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        with main_server(*replies) as (port, lines):
            result = run_program(client, "--port", str(port), input="alice\nsecret\n")
        assert lines == ["LOGIN alice secret"] * len(replies)
        return result

    busy = "TRY_LATER Too many people are logging in\n"
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        accepted, refused = pool.map(log_in, [(busy, busy, "MEMBER alice\n"), (busy, busy, busy)])
    assert time.monotonic() - began > 0.49
    told = ["Too many people are logging in. Trying again in 0.25 seconds."] * 2
    assert (accepted.returncode, accepted.stdout.splitlines()) == (0, [*told, "Welcome, member alice."])
    assert (refused.returncode, refused.stdout.splitlines()) == (1, told)
    assert refused.stderr == "Too many people are logging in. Try later.\n"


def test_verbose_reports_each_step_on_stderr_without_the_password(common_dormitory: Dormitory, tmp_path: Path) -> None:
    options = (*password_file(tmp_path, PASSWORDS["alice"]), "--verbose")
    status, said, errors = play(common_dormitory, "S12 a", options=options)
    assert (status, said) == (0, ["Welcome, member alice.", "Room S12 is available: 6 left."])
    port = errors.partition("TCP port is ")[2].partition("\n")[0]
    common_dormitory.main.wait_for_line(rf"Client \(\d+\): accepted from 127\.0\.0\.1:{port}")
    assert errors.splitlines() == [
        f"The client is up and running; its TCP port is {port}",
        r"-> LOGIN alice ........\n",
        r"<- MEMBER alice\n",
        r"-> AVAILABILITY S12\n",
        r"<- AVAILABLE 6\n",
    ]


def test_the_sentence_of_a_server_before_it_closes_is_shown(dormitory: Dormitory, open_terminal: OpenTerminal) -> None:
    dormitory.start_main("--login-seconds", "1", "--idle-seconds", "1")
    silent, idle = (open_terminal("client.py", "--port", str(dormitory.main.port)) for _ in range(2))
    for terminal in (silent, idle):
        answer(terminal, USER_NAME, "eve")
        terminal.expect_typing(PASSWORD)
    idle.type("\n")
    idle.expect(PASSWORD, "Welcome, guest eve.")
    for terminal, sentence in ((silent, "No LOGIN within 1 seconds"), (idle, "Idle for 1 seconds")):  # at once
        terminal.expect_text(f"The server closed the connection: {sentence}\n")
        assert terminal.wait() == 1


def test_the_last_sentence_before_a_reset_is_shown(run: Start) -> None:
    with main_server("GUEST eve\nIdle for 900 seconds\n", resets=True) as (port, _):
        client = run("client.py", "--port", str(port))
        client.type("eve", "")
    assert client.wait() == 1
    assert client.errors == "The server closed the connection: Idle for 900 seconds\n"


def test_a_reply_of_half_a_megabyte_is_shown_as_a_whole() -> None:
    rooms = [f"S{number}=1" for number in range(50_000)]
    with main_server("GUEST eve\n", f"ROOMS {' '.join(rooms)}\n") as (port, _):
        result = run_program("client.py", "--port", str(port), input="eve\n\nlist\nquit\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 2 + len(rooms)


def command(dormitory: Dormitory) -> str:
    return shlex.join(python("client.py", "--port", str(dormitory.main.port)))


def answer(terminal: Terminal, question: str, text: str) -> None:
    """Wait for a question and answer it; a password is not shown."""
    terminal.expect_typing(question)
    terminal.type(f"{text}\n")
    terminal.expect(question + ("" if question == PASSWORD else text))


@pytest.fixture
def terminal(common_dormitory: Dormitory, open_terminal: OpenTerminal) -> Terminal:
    return open_terminal("client.py", "--port", str(common_dormitory.main.port))


def test_a_terminal_shows_the_questions_and_no_password(terminal: Terminal) -> None:
    answer(terminal, USER_NAME, "alice")
    answer(terminal, PASSWORD, "wrong")
    terminal.expect("Wrong user name or password.")
    answer(terminal, USER_NAME, "alice")
    answer(terminal, PASSWORD, PASSWORDS["alice"])
    terminal.expect("Welcome, member alice.", "")
    answer(terminal, PROMPT, "S1")
    answer(terminal, KIND, "reservation")
    reservation = terminal.expect_match("Room S1 is yours: reservation S").split()[-3].rstrip(".")
    terminal.expect("")
    terminal.expect_typing(PROMPT)
    terminal.type("\x1b[A2\x7f\n")  # the arrow up: S1 again; then a typing error, corrected
    terminal.expect_match(PROMPT)
    answer(terminal, KIND, "a")
    terminal.expect("Room S1 is available: 8 left.", "")
    answer(terminal, PROMPT, f"cancel {reservation}")
    terminal.expect("Cancelled: room S1 is no longer yours.", "")
    terminal.expect_typing(PROMPT)
    terminal.type("\x04")
    assert terminal.wait() == 0
    assert PASSWORDS["alice"] not in terminal.output


def expect_no_echo(terminal: Terminal) -> None:
    wait_until(lambda: not terminal.shows_keys(), "no echo")


def test_a_password_never_shows_after_ctrl_z_and_fg_and_ctrl_backslash_restores_the_echo(
    common_dormitory: Dormitory, open_terminal: OpenTerminal
) -> None:
    shell = open_terminal("sh", "-i", controls=True, PS1="$ ")
    shell.expect_text("$ ")
    shell.type(f"{command(common_dormitory)}\n")
    shell.expect_text(USER_NAME)
    shell.type("alice\n")
    for key in ("\x1a", "\x1c"):  # Ctrl-Z, Ctrl-\
        shell.expect_text(PASSWORD)
        expect_no_echo(shell)
        shell.type("hunter2", key)
        shell.expect_text("$ ")
        shell.type("stty -a | tr ' ;' '\\n\\n' | grep '^-*echo$'\n")
        shell.expect_text("\necho\n")
        if key == "\x1a":
            shell.expect_text("$ ")
            shell.type("fg\n")
    assert "hunter2" not in shell.output


def test_a_dumb_terminal_and_a_pipe_hide_the_password(common_dormitory: Dormitory, open_terminal: OpenTerminal) -> None:
    dumb = open_terminal("client.py", "--port", str(common_dormitory.main.port), TERM="dumb")
    piped = open_terminal("bash", "-c", f"{command(common_dormitory)} | cat")
    for terminal in (dumb, piped):
        terminal.expect_text(USER_NAME)
        terminal.type("alice\n")
        terminal.expect_text(PASSWORD)
        expect_no_echo(terminal)
        terminal.type("correct horse, batterx\x7fy\n")
        terminal.expect_text("\nWelcome, member alice.\n")
        assert terminal.shows_keys()
        terminal.type("bye\n")
        assert terminal.wait() == 0
        assert "horse" not in terminal.output
