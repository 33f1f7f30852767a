"""demo.py plays all systems, checks what they do, and leaves nothing behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
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
COLUMNS = 80
TITLES = ["Chat", "Cinema tickets", "Chat rooms", "Dormitory", "Chat rooms over TLS"]
FIRST_ROW = re.compile(r"    (\S.*?) {2,}Expected +Happened")


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


def run_demo(tree: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end, with environment variables; fail if it wrote to standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(tree / "demo.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        env={**os.environ, **variables},
    )
    assert done.stderr == ""
    return done


def table(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """Return the rows of the table: a mark, the situation, what was expected, and what happened.

    Below a row whose mark is NO, the last two are there in full.
    """
    text = re.sub(r"\n {4}(?=(expected|happened): )", "  ", done.stdout)
    text = re.sub(r"\n {4}(?!\S.*  Expected)", " ", text)
    rows = [re.split(r" {2,}", line) for line in text.splitlines() if re.match(r"(ok|NO)  ", line)]
    return [row if row[0] == "ok" else [*row[:2], *(cell.partition(": ")[2] for cell in row[-2:])] for row in rows]


def files(tree: Path) -> dict[Path, bytes]:
    """Return what a clone holds, except compiled modules."""
    return {path: path.read_bytes() for path in tree.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def replace_in(file: Path, text: str, by: str) -> None:
    """Replace a text that must be there."""
    before = file.read_text()
    assert text in before
    file.write_text(before.replace(text, by))


# A scenario, what is changed in a script, and the row that the table has then; or None, for a server that says nothing.
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
        "client.py",
        "Denied: ",
        "No: ",
        ["a guest reserves", "Denied: Guests cannot reserve.", "No: Guests cannot reserve."],
    ),
    "server that ends": (
        "chat",
        "chat_server.py",
        "\nimport argparse\n",
        "\nraise SystemExit('no more')\n",
        ["the scenario goes on", "chat_server shows: istening on 127.0.0.1:", "no more, and then the end"],
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
    """Run the demo as it is and broken, two runs at a time; give the result of each run, by name."""
    directory = tmp_path_factory.mktemp("plays")

    def play(name: str) -> subprocess.CompletedProcess[str]:
        tree = clone(directory / name.replace(" ", "-"))
        scenarios = [] if name == "all" else [name]
        if name in BROKEN:
            scenario, script, text, broken, _ = BROKEN[name]
            replace_in(tree / script, text, broken)
            replace_in(tree / "scenarios/harness.py", "WAIT_SECONDS = 8.0", "WAIT_SECONDS = 1.0")
            scenarios = [scenario]
        before = files(tree)
        done = run_demo(tree, *scenarios)
        assert running(tree) == []
        assert files(tree) == before
        return done

    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(play, name) for name in ("all", "tickets", *BROKEN)}


def test_all_scenarios_are_played_with_the_real_programs_and_leave_nothing_behind(plays: Plays) -> None:
    done = plays["all"].result()
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if line.startswith("[")] == [
        "[1/5] Chat ... next: Cinema tickets, Chat rooms, Dormitory, Chat rooms over TLS",
        "[2/5] Cinema tickets ... next: Chat rooms, Dormitory, Chat rooms over TLS",
        "[3/5] Chat rooms ... next: Dormitory, Chat rooms over TLS",
        "[4/5] Dormitory ... next: Chat rooms over TLS",
        "[5/5] Chat rooms over TLS ...",
    ]
    rows = table(done)
    assert {mark for mark, *_ in rows} == {"ok"}
    assert done.stdout.endswith(f"\n{len(rows)} of {len(rows)} expectations were met.\n")
    assert "\033" not in done.stdout
    missing = [row for row in drawn_rows() if row[:2] not in [row[:2] for row in rows]]
    assert missing == [], "run docs/draw_demo.py to draw the picture again"


def drawn_rows() -> list[list[str]]:
    """Return the rows of the table in the picture of the demo."""
    texts = ElementTree.parse(ROOT / "docs" / "demo.svg").iterfind("{*}text")
    rows = [re.split(r" {2,}", "".join(text.itertext())) for text in texts]
    assert any(row[0] == "ok" for row in rows)
    return [row for row in rows if row[0] in ("ok", "NO")]


def test_the_table_fits_80_columns(plays: Plays) -> None:
    lines = plays["all"].result().stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if FIRST_ROW.fullmatch(line))
    assert max(map(len, lines[first:])) <= COLUMNS
    titles = [match[1] for match in map(FIRST_ROW.fullmatch, lines) if match]
    assert titles == (TITLES if shutil.which("openssl") else TITLES[:-1])
    broken = plays["other refusal"].result().stdout.splitlines()
    first = next(number for number, line in enumerate(broken) if FIRST_ROW.fullmatch(line))
    assert max(map(len, broken[first:])) <= COLUMNS


def test_the_table_is_as_wide_as_the_terminal(tree: Path) -> None:
    terminal = Terminal(sys.executable, str(tree / "demo.py"), "chat", columns=150, env={**os.environ, "TERM": "xterm"})
    try:
        assert terminal.process.wait(DEMO_SECONDS) == 0
        wait_until(lambda: any(row.endswith("expectations were met.\033[0m") for row in terminal.rows()), "the end")
        plain = [re.sub("\033\\[[0-9]*m", "", row) for row in terminal.rows()]
        cells = next(re.split(r" {2,}", row) for row in plain if row.startswith("ok  a request before JOIN"))
        assert cells[-1] == "Unregistered User. Use JOIN <username> to register."
    finally:
        terminal.close()


def test_the_demo_shows_what_is_typed_and_who_writes_what(plays: Plays) -> None:
    lines = plays["tickets"].result().stdout.splitlines()
    assert lines[0] == "[1/1] Cinema tickets ..."
    assert re.fullmatch(r"ticket_server   \$ python3 ticket_server.py 0 .*", lines[1])
    assert re.fullmatch(r"ticket_server   \| Listening on 127\.0\.0\.1:\d+", lines[2])
    typed = lines.index("alice           > Row for ticket 1? 2-4")
    assert "alice           | Booked: 2-4" in lines[typed:]


CAUSES = [  # in the order in which the demo must show them
    ["chat_server     .*: JOIN alice", "alice           . JOIN alice accepted"],
    ["chat_server     .*: MESG dave .*refused.*", "alice           . Unknown Recipient dave"],
    ["ticket_server   .*: booked 2-4", "alice           . Booked: 2-4"],
    ["ticket_server   .*: cancelled.*", ".* Seat 3-3 is taken\\. .*"],
    ["chatroom_server .*: CREATE tea", "alice           . Room tea is created\\."],
    ["chatroom_server .*: line to room tea.*", "bob             . hello from telnet"],
    ["chatroom_server .*: DELETE tea", "dave            . Room tea is deleted\\."],
    [
        "serverM         .*: RESERVE S410 from alice",
        "serverM         .*: result sent: (RESERVED|FULL).*",
        "alice           . Room S410 is .*",
    ],
    [
        "serverS         .*: RESERVE S410 .*|serverS .* RESERVE S410 .*",
        "alice           . Room S410 is .*",
    ],
    [
        "serverM         .* RESERVE S233 from alice",
        "serverS         ! kill -9",
        "serverS         .*(sent|RESERVED) .*",
        "serverM         .*: result sent: RESERVED.*",
        "alice           . Room S233 is yours.*",
    ],
    ["chatroom_server .*TLS handshake failed.*", "carol           . Cannot trust .*"],
]


@pytest.mark.parametrize("causes", CAUSES, ids=lambda causes: causes[-1].strip(".* "))
def test_a_cause_is_shown_before_its_effect(plays: Plays, causes: list[str]) -> None:
    if "TLS" in causes[0] and not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    lines = iter(plays["all"].result().stdout.splitlines())
    for cause in causes:
        assert any(re.fullmatch(cause, line) for line in lines), cause


def test_the_tls_scenario_is_left_out_where_there_is_no_openssl(tree: Path, tmp_path: Path) -> None:
    done = run_demo(tree, "tls", PATH=str(tmp_path))
    assert done.returncode == 0
    assert "Not played: openssl, which makes a certificate for this scenario, is not installed." in done.stdout


@pytest.mark.parametrize("name", BROKEN)
def test_what_was_expected_and_did_not_happen_is_in_the_table(plays: Plays, name: str) -> None:
    done = plays[name].result()
    assert done.returncode == 1
    row = BROKEN[name][-1]
    missed = [cells for mark, *cells in table(done) if mark == "NO"]
    if row:
        assert row in missed
    else:
        assert len(missed) == 1
    assert not done.stdout.endswith(f"\n{len(table(done))} of {len(table(done))} expectations were met.\n")


def test_a_signal_in_the_middle_of_a_scenario_ends_all_programs(tmp_path: Path) -> None:
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


def test_the_demo_ends_when_nobody_reads_its_output(tree: Path) -> None:
    command = f"{sys.executable} {tree / 'demo.py'} | head -n 3"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=DEMO_SECONDS)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3
    wait_until(lambda: not running(tree), "the end of all programs")


def test_output_that_cannot_be_written_ends_the_demo_with_a_sentence(tree: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, str(tree / "demo.py"), "chat"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 130
    assert done.stderr == b"Cannot write: No space left on device\n"


# For each scenario: what is typed into the terminals, and what must be shown there then.
VISITS = {
    "dormitory": [
        ("alice", "Password (Enter alone: as a guest): "),
        ("correct horse, battery", "Welcome, member alice."),
    ],
    "chat": [("JOIN zoe{number}", "JOIN zoe{number} accepted")],
    "cinema": [("0", "A number of 1 or more is expected.")],
    "chatrooms": [("CREATE tea{number}", "Room tea{number} is created.")],
    "tls": [("CREATE tea{number}", "Room tea{number} is created.")],
}


def test_the_lines_that_stay_prints_work_when_pasted_and_ctrl_c_stops_the_servers(tmp_path: Path) -> None:
    def visit(scenario: str) -> None:
        if scenario == "tls" and not shutil.which("openssl"):
            return
        tree = clone(tmp_path / scenario)
        before = files(tree)
        demo = Program(str(tree / "demo.py"), scenario, "--stay")
        terminals = []
        try:
            demo.wait_for_line(r"Ctrl-C here stops the servers\.")
            lines = [line for line in demo.lines if line.startswith("    ")]
            for number, line in enumerate(lines, 1):
                terminals.append(Terminal("bash", "-c", line, start_new_session=True))
                for typed, seen in VISITS[scenario]:
                    terminals[-1].type(typed.format(number=number) + "\n")
                    wait_for_row(terminals[-1], seen.format(number=number))
            assert len(lines) > 1
            assert scenario != "chat" or all("# then type: JOIN" in line for line in lines)
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


def test_stay_without_a_name_starts_all_systems_and_the_front_end(tree: Path) -> None:
    demo = Program(str(tree / "demo.py"), "--stay")
    try:
        demo.wait_for_line(r"Ctrl-C here stops the servers\.", DEMO_SECONDS)
        shown = "\n".join(line for line in demo.lines if line.startswith("    "))
        for script in ("telnet localhost", "ticket_client.py", "chatroom_client.py", " client.py"):
            assert script.strip() in shown
        if (tree / "front_end.py").exists():
            url = re.search(r"http://127\.0\.0\.1:\d+/", shown)
            assert url
            with urllib.request.urlopen(f"{url[0]}systems.json", timeout=10) as answer:
                assert json.load(answer) == dict.fromkeys(("dormitory", "tickets", "chat", "chatrooms"), True)
        assert demo.stop(signal.SIGINT) == 0
        assert demo.errors == ""
    finally:
        demo.stop()


@pytest.mark.parametrize("variable", [{}, {"NO_COLOR": "1"}])
def test_names_have_colours_on_a_terminal_unless_no_color_is_set(tree: Path, variable: dict[str, str]) -> None:
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
