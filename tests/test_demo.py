"""demo.py: plays all four systems, checks what they do, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import ROOT, Program, wait_until
from pseudo_terminal import Terminal
from readme import clone

DEMO_SECONDS = 60.0
TITLES = {"chat": "Chat", "cinema": "Cinema tickets", "rooms": "Chat rooms", "dormitory": "Dormitory"}


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """Give a clone to run the demo from; fail if a program of it runs afterwards."""
    tree = clone(tmp_path / "socket-systems")
    yield tree
    assert running(tree) == []


def running(tree: Path) -> list[str]:
    """Return the command lines of programs of a clone (Linux only)."""
    commands = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            commands.append(file.read_text().replace("\0", " "))
    return [command for command in commands if str(tree) in command]


def run_demo(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end; fail if it wrote to standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(tree / "demo.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
    )
    assert done.stderr == ""
    return done


def table(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """Return the rows of the table: a mark, the story, the situation, what was expected, and what happened."""
    return [re.split(r" {2,}", line) for line in done.stdout.splitlines() if re.match(r"(ok|NO)  ", line)]


def files(tree: Path) -> dict[Path, bytes]:
    """Return what a clone holds, but for compiled modules."""
    return {path: path.read_bytes() for path in tree.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def replace_in(file: Path, text: str, by: str) -> None:
    """Replace a text that must be there."""
    before = file.read_text()
    assert text in before
    file.write_text(before.replace(text, by))


# A story, what is changed in a script, and a row that is in the table then; or none, for a server that says nothing.
BROKEN: dict[str, tuple[str, str, str, str, list[str] | None]] = {
    "other answer": (
        "chat",
        "chat_server.py",
        "Unknown Recipient",
        "Unheard of",
        ["a message to nobody", "Unknown Recipient dave", "Unheard of dave"],
    ),
    "other refusal": (
        "cinema",
        "cinema/booking.py",
        "is taken",
        "is gone",
        [
            "the last seat, the other",
            "Seat 3-3 is taken.",
            "Seat 3-3 is gone. Order cancelled, nothing was booked.",
        ],
    ),
    "no warning": (
        "rooms",
        "chatroom_server.py",
        "Warning: ",
        "",
        ["room deleted, at bob", "Warning: room tea is deleted", "room tea is deleted"],
    ),
    "other denial": (
        "dormitory",
        "dormitory/session.py",
        "Guests cannot",
        "Guests may not",
        ["a guest reserves", "Denied: Guests cannot reserve.", "Denied: Guests may not reserve."],
    ),
    "server that ends": (
        "chat",
        "chat_server.py",
        "from net import process as program\n",
        "from net import process as program\n\nraise SystemExit('no more')\n",
        ["the story goes on", "chat_server sees: Listening on 127.0.0.1:", "no more, and then the end"],
    ),
    "server that is silent": (
        "rooms",
        "chatroom_server.py",
        "Listening on",
        "Deaf on",
        None,
    ),
}
Plays = dict[str, Future[subprocess.CompletedProcess[str]]]


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plays]:
    """Have the demo played, as it is and broken, two plays at a time; give what comes of each, by name."""
    directory = tmp_path_factory.mktemp("plays")

    def play(name: str) -> subprocess.CompletedProcess[str]:
        tree = clone(directory / name.replace(" ", "-"))
        stories = [] if name == "all" else [name]
        if name in BROKEN:
            story, script, text, broken, _ = BROKEN[name]
            replace_in(tree / script, text, broken)
            replace_in(tree / "scenarios/harness.py", "WAIT_SECONDS = 8.0", "WAIT_SECONDS = 1.0")
            stories = [story]
        before = files(tree)
        done = run_demo(tree, *stories)
        assert running(tree) == []
        assert files(tree) == before
        return done

    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(play, name) for name in ("all", "chat", *BROKEN)}


def test_all_four_stories_are_played_with_the_real_programs_and_nothing_is_left(plays: Plays) -> None:
    done = plays["all"].result()
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if line.startswith("[")] == [
        "[1/4] Chat ... next: Cinema tickets, Chat rooms, Dormitory",
        "[2/4] Cinema tickets ... next: Chat rooms, Dormitory",
        "[3/4] Chat rooms ... next: Dormitory",
        "[4/4] Dormitory ...",
    ]
    rows = table(done)
    assert {story for _, story, *_ in rows} == set(TITLES.values())
    assert {mark for mark, *_ in rows} == {"ok"}
    assert done.stdout.endswith(f"\n{len(rows)} of {len(rows)} expectations were met.\n")
    assert "\033" not in done.stdout
    assert [row for row in drawn_rows() if row not in rows] == [], "docs/draw_demo.py draws the picture anew"


def drawn_rows() -> list[list[str]]:
    """Return the rows of the table in the picture of the demo."""
    texts = ElementTree.parse(ROOT / "docs" / "demo.svg").iterfind("{*}text")
    rows = [re.split(r" {2,}", "".join(text.itertext())) for text in texts]
    assert any(row[0] == "ok" for row in rows)
    return [row for row in rows if row[0] in ("ok", "NO")]


def test_the_screen_shows_who_says_what_and_what_is_typed(plays: Plays) -> None:
    lines = plays["chat"].result().stdout.splitlines()
    assert lines[0] == "[1/1] Chat ..."
    assert re.fullmatch(r"chat_server     \$ python3 chat_server.py 0 .*", lines[1])
    assert re.fullmatch(r"chat_server     \| Listening on 127\.0\.0\.1:\d+", lines[2])
    typed = lines.index("alice           > MESG dave are you there?")
    assert "alice           | Unknown Recipient dave" in lines[typed:]


@pytest.mark.parametrize("name", BROKEN)
def test_what_was_expected_and_did_not_happen_is_in_the_table(plays: Plays, name: str) -> None:
    done = plays[name].result()
    assert done.returncode == 1
    row = BROKEN[name][-1]
    missed = [cells for mark, _, *cells in table(done) if mark == "NO"]
    if row:
        assert row in missed
    else:
        assert len(missed) == 1
    assert not done.stdout.endswith(f"\n{len(table(done))} of {len(table(done))} expectations were met.\n")


def test_a_signal_in_the_middle_of_a_story_ends_all(tmp_path: Path) -> None:
    def interrupt(number: int) -> None:
        tree = clone(tmp_path / str(number))
        demo = Program(str(tree / "demo.py"), "dormitory")
        try:
            demo.wait_for_line(r"alice +> S410")
            assert len(running(tree)) > 5
            demo.process.send_signal(number)
            assert demo.wait() == 130
            assert demo.errors == ""
            assert not re.search("^ok ", "\n".join(demo.lines), re.MULTILINE)
        finally:
            demo.kill()
        assert running(tree) == []

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(interrupt, [signal.SIGINT, signal.SIGTERM]))


def test_it_ends_when_nobody_reads_its_output(tree: Path) -> None:
    command = f"{sys.executable} {tree / 'demo.py'} | head -n 3"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=DEMO_SECONDS)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3
    wait_until(lambda: not running(tree), "the end of all programs")


# For each system: what is typed into the terminals, and what must be seen there then.
VISITS = {
    "dormitory": [
        ("alice", "Password (Enter alone: as a guest): "),
        ("correct horse, battery", "Welcome, member alice."),
    ],
    "chat": [("JOIN zoe{number}", "JOIN zoe{number} accepted")],
    "cinema": [("0", "A number of 1 or more is expected.")],
    "rooms": [("CREATE tea{number}", "Room tea{number} is created.")],
}


def test_the_lines_that_stay_prints_work_when_pasted_and_ctrl_c_stops_the_servers(tmp_path: Path) -> None:
    def visit(story: str) -> None:
        tree = clone(tmp_path / story)
        before = files(tree)
        demo = Program(str(tree / "demo.py"), story, "--stay")
        terminals = []
        try:
            demo.wait_for_line(r"Ctrl-C here stops the servers\.")
            lines = [line for line in demo.lines if line.startswith("    ")]
            for number, line in enumerate(lines, 1):
                terminals.append(Terminal("bash", "-c", line, start_new_session=True))
                for typed, seen in VISITS[story]:
                    terminals[-1].type(typed.format(number=number) + "\n")
                    wait_for_row(terminals[-1], seen.format(number=number))
            assert len(lines) > 1
            assert demo.stop(signal.SIGINT) == 0
            assert demo.errors == ""
        finally:
            for terminal in terminals:
                terminal.close()
            demo.stop()
        assert running(tree) == []
        assert files(tree) == before

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(visit, VISITS))


def wait_for_row(terminal: Terminal, text: str) -> None:
    """Wait until a row of a terminal ends with a text."""
    wait_until(lambda: any(row.endswith(text) for row in terminal.rows()), f"{text!r} in {terminal.rows()}")


def test_stay_needs_to_know_which_servers(tree: Path) -> None:
    done = subprocess.run([sys.executable, str(tree / "demo.py"), "--stay"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "one of chat, cinema, rooms, dormitory is expected" in done.stderr


@pytest.mark.parametrize("variable", [{}, {"NO_COLOR": "1"}])
def test_names_have_colours_on_a_terminal_unless_somebody_wants_none(tree: Path, variable: dict[str, str]) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm", **variable}
    terminal = Terminal(sys.executable, str(tree / "demo.py"), "chat", "--stay", env=environment)
    try:
        wait_until(lambda: any("Ctrl-C here" in row for row in terminal.rows()), "the lines to paste")
        row = next(row for row in terminal.rows() if "Listening on" in row)
        assert row.startswith("chat_server     | " if variable else "\033[36mchat_server     |\033[0m ")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 0
    finally:
        terminal.close()
