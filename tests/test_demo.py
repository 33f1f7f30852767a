"""demo.py: the scenarios with the real programs, the table, --stay, signals, and output that cannot be written."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import ROOT, Peer, Start, free_port, run_program, skip_without_ipv6, wait_until
from pseudo_terminal import ROWS, OpenTerminal, Terminal
from readme import clone
from websocket_client import upgrade

from scenarios.harness import Harness
from scenarios.report import Report

DEMO_SECONDS = 60.0
COLUMNS = 80
TITLES = ["Chat", "Cinema tickets", "Chat rooms", "Dormitory", "Chat rooms over TLS"]
FIRST_ROW = re.compile(r"    (\S.*?) +(?=Expected)(Expected +)Happened *")


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """Provide a clone from which to run the demo; fail if one of its programs still runs afterwards."""
    tree = clone(tmp_path / "socket-systems")
    yield tree
    assert running(tree) == []


def running(tree: Path) -> list[str]:
    """Return the command lines of the running programs of a clone (Linux only)."""
    commands = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended
            commands.append(file.read_text().replace("\0", " "))
    return [command for command in commands if str(tree) in command]


def run_demo(tree: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end with extra environment variables; fail if it wrote to standard error."""
    done = run_program(str(tree / "demo.py"), *arguments, seconds=DEMO_SECONDS, env={**os.environ, **variables})
    assert done.stderr == ""
    return done


def table(text: str, width: int = COLUMNS) -> list[list[str]]:
    """Return the rows of the tables: a mark, the situation, what was expected, and what happened; check the width."""
    rows: list[list[str]] = []
    columns: list[slice] = []
    for line in text.splitlines():
        cells = [line[column].strip() for column in columns]
        if title := FIRST_ROW.fullmatch(line):
            expected, happened = title.start(2), title.end(2)
            columns = [slice(4), slice(4, expected), slice(expected, happened), slice(happened, None)]
        elif columns and line.startswith(("ok  ", "NO  ")):
            rows.append(cells)
        elif columns and line.startswith("    "):  # the row goes on
            rows[-1] = [f"{cell} {more}".strip() for cell, more in zip(rows[-1], cells, strict=True)]
        assert not columns or len(line) <= width
    return rows


def files(tree: Path) -> dict[Path, bytes]:
    """Return the contents of the files of a clone, except compiled modules."""
    return {path: path.read_bytes() for path in tree.rglob("*") if path.is_file() and path.suffix != ".pyc"}


BROKEN = {  # by name: a scenario, a script, a text in it and its replacement, and what the table then says has happened
    "other answer": ("chat", "chat_server.py", "Unknown Recipient", "Unheard of", "Unheard of dave"),
    "other refusal": ("cinema", "cinema/booking.py", "is taken", "is gone", "Seat 3-3 is gone. Order cancelled"),
    "no warning": ("rooms", "chatroom_server.py", "Warning: ", "", "room tea is deleted"),
    "other denial": ("dormitory", "client.py", "Denied: ", "No: ", "No: Guests cannot reserve."),
    "server that ends": ("chat", "chat_server.py", "import argparse", "exit('no more')", "no more, and then the end"),
    "server that is silent": ("chatrooms", "net/process.py", "Listening on", "Deaf on", ""),  # what did come varies
}
Plays = dict[str, Future[subprocess.CompletedProcess[str]]]


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plays]:
    """Run the demo as it is and with broken programs, two runs at a time; provide each result under its name."""
    directory = tmp_path_factory.mktemp("plays")

    def play(name: str) -> subprocess.CompletedProcess[str]:
        tree = clone(directory / name.replace(" ", "-"))
        scenarios = []
        if name in BROKEN:
            scenario, script, text, broken, _ = BROKEN[name]
            impatient = ("scenarios/harness.py", "WAIT_SECONDS = 8", "WAIT_SECONDS = 3")
            for file, old, new in (script, text, broken), impatient:
                before = (tree / file).read_text()
                assert old in before
                (tree / file).write_text(before.replace(old, new))
            scenarios = [scenario]
        contents = files(tree)
        done = run_demo(tree, *scenarios)
        assert running(tree) == []
        assert files(tree) == contents
        return done

    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(play, name) for name in ("all", *BROKEN)}


def test_run_without_arguments_plays_all_scenarios_and_leaves_no_process_or_file(plays: Plays) -> None:
    done = plays["all"].result()
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if line.startswith("[")] == [
        "[1/5] Chat ... next: Cinema tickets, Chat rooms, Dormitory, Chat rooms over TLS",
        "[2/5] Cinema tickets ... next: Chat rooms, Dormitory, Chat rooms over TLS",
        "[3/5] Chat rooms ... next: Dormitory, Chat rooms over TLS",
        "[4/5] Dormitory ... next: Chat rooms over TLS",
        "[5/5] Chat rooms over TLS ...",
    ]
    titles = [match[1] for match in map(FIRST_ROW.fullmatch, done.stdout.splitlines()) if match]
    assert titles == (TITLES if shutil.which("openssl") else TITLES[:-1])
    rows = table(done.stdout)
    assert {mark for mark, *_ in rows} == {"ok"}
    assert done.stdout.endswith(f"\n{len(rows)} of {len(rows)} expectations were met.\n")
    assert "\033" not in done.stdout
    texts = ElementTree.parse(ROOT / "docs" / "demo.svg").iterfind("{*}text")
    drawn = [re.split(r" {2,}", "".join(text.itertext()))[:2] for text in texts]
    drawn_rows = [row for row in drawn if row[0] in ("ok", "NO")]
    assert drawn_rows
    missing = [row for row in drawn_rows if row not in [row[:2] for row in rows]]
    assert missing == [], "the picture is out of date: run docs/draw_demo.py"


@pytest.mark.parametrize(("columns", "no_color"), [(60, ""), (150, "1")], ids=["60 columns", "150 columns, NO_COLOR"])
def test_on_a_terminal_the_table_fits_the_window_and_names_are_coloured_unless_no_color_is_set(
    tree: Path, open_terminal: OpenTerminal, columns: int, no_color: str
) -> None:
    window = (ROWS, columns)
    terminal = open_terminal(sys.executable, str(tree / "demo.py"), "chat", window=window, NO_COLOR=no_color)
    assert terminal.wait(DEMO_SECONDS) == 0
    name = "chat_server     |" if no_color else "\033[36mchat_server     |\033[0m"
    assert any(row.startswith(f"{name} Listening on ") for row in terminal.rows())
    assert ("\033" in terminal.output) != bool(no_color)
    outcomes = {situation: happened for _, situation, _, happened in table("\n".join(terminal.plain_rows()), columns)}
    assert outcomes["a request before JOIN"] == "Unregistered User. Use JOIN <username> to register."


def test_step_shows_the_next_line_at_each_enter(tree: Path, open_terminal: OpenTerminal) -> None:
    terminal = open_terminal("bash", "-c", f"read; exec {sys.executable} {tree / 'demo.py'} chat --step")
    terminal.type("\n\n")  # one starts the demo; the other is too early: it shows no line
    for row in ("chat_server     $ ", "chat_server     | Listening ", "alice           $ "):
        wait_until(lambda: terminal.plain_rows()[-1].startswith(row), row, got=terminal.plain_rows)  # noqa: B023
        assert "" not in terminal.plain_rows()[2:]
        terminal.type("\n")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait() == 130


def test_step_runs_on_if_the_input_has_ended_or_is_closed(tree: Path) -> None:
    command = f"{sys.executable} {tree / 'demo.py'} chat --step <&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=DEMO_SECONDS)
    assert {mark for mark, *_ in table(done.stdout)} == {"ok"}


@pytest.mark.parametrize("options", ["--stay --step", "--host 0.0.0.0", "chat --show-logs"])
def test_options_that_do_not_go_together_are_a_usage_error(options: str) -> None:
    done = run_program("demo.py", *options.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: demo.py")


def test_each_line_shown_begins_with_the_name_of_its_program(plays: Plays) -> None:
    lines = plays["other refusal"].result().stdout.splitlines()
    assert lines[0] == "[1/1] Cinema tickets ..."
    assert re.fullmatch(r"ticket_server   \$ python3 ticket_server.py 0 .*", lines[1])
    assert re.fullmatch(r"ticket_server   \| Listening on 127\.0\.0\.1:\d+", lines[2])
    typed = lines.index("alice           > Row for ticket 1? 2-4")
    assert "alice           | Booked: 2-4" in lines[typed:]


CAUSES = [  # patterns of lines, in the order in which the demo must show them
    ["chat_server .*: JOIN alice", "alice +. JOIN alice accepted"],
    ["chat_server .*: MESG dave.*refused.*", "alice +. Unknown Recipient dave"],
    ["ticket_server .*: booked 2-4", "ticket_server .*: disconnected", "alice +. Booked: 2-4"],
    ["ticket_server .*: cancelled: Only 0 .*", "ticket_server .*: disconnected", "dave +. Only 0 .*"],
    ["ticket_server .*: cancelled.*", ".* Seat 3-3 is taken\\. .*"],
    ["chatroom_server .*: CREATE tea", "alice +. Room tea is created\\."],
    ["alice +. Members before you: 0.*", "bob +. Members before you: 1.*", "alice +. hello from telnet"],
    ["chatroom_server .*: line to room tea.*", "bob +. hello from telnet"],
    ["chatroom_server .*: DELETE tea", "chatroom_server . Room tea: deleted", "dave +. Room tea is deleted\\."],
    ["chatroom_server .*: disconnected: TLS handshake failed: not TLS", "dave +. \\(disconnected\\)"],
    ["serverM .*: RESERVE S410 from alice", "serverM .*: result sent: (RESERVED|FULL).*", "alice +. Room S410 is .*"],
    ["serverS .* RESERVE S410 .*", "alice +. Room S410 is .*"],
    ["serverM .* RESERVE S233 from alice", "serverS +! kill -9", "serverS .*(sent|RESERVED) .*"],
    ["serverS +! kill -9", "serverS .* RESERVED .*", "serverM .* RESERVED .*", "alice +. Room S233 is yours.*"],
    ["chatroom_server .*TLS handshake failed.*", "carol +. Cannot trust .*"],
]


@pytest.mark.parametrize("causes", CAUSES, ids=lambda causes: causes[-1].strip(".* "))
def test_line_of_a_server_is_shown_before_the_reply_that_it_explains(plays: Plays, causes: list[str]) -> None:
    if "TLS" in causes[0] and not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    lines = iter(plays["all"].result().stdout.splitlines())
    for cause in causes:
        assert any(re.fullmatch(cause, line) for line in lines), cause


def test_no_status_line_comes_after_the_end_of_a_dialogue(plays: Plays) -> None:
    dialogues = plays["all"].result().stdout.split("\n\n")
    assert len(dialogues) > len(TITLES) - 1
    for dialogue in dialogues[:-1]:
        assert not re.match(r"\w*[Ss]erver", dialogue.splitlines()[-1]), dialogue.splitlines()[-1]


@pytest.mark.parametrize("is_met", [True, False])
def test_status_lines_that_the_scenario_has_not_read_are_shown_only_if_something_went_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_met: bool
) -> None:
    with Harness(Report(), tmp_path) as harness:
        server = harness.start_server("chat_server.py", "0")
        alice = harness.connect("alice", server.port)
        alice.send("JOIN alice")
        alice.expect("JOIN alice accepted")
        server.process.terminate()
        while not server.has_ended:
            harness.receive()
        harness.start_server("chat_server.py", "0")  # in its place
        harness.check("a situation", "yes", "yes" if is_met else "no")
    assert ("Client (" in capsys.readouterr().out) != is_met


def test_tls_scenario_without_openssl_is_not_played_and_says_why(tree: Path, tmp_path: Path) -> None:
    done = run_demo(tree, "tls", PATH=str(tmp_path))
    assert done.returncode == 0
    assert "Not played: openssl, which makes a certificate for this scenario, is not installed." in done.stdout


@pytest.mark.parametrize("name", BROKEN)
def test_broken_program_is_marked_no_in_the_table_and_ends_the_demo_with_status_1(plays: Plays, name: str) -> None:
    done = plays[name].result()
    assert done.returncode == 1
    rows = table(done.stdout)
    missed = [happened for mark, _, _, happened in rows if mark == "NO"]
    assert any(happened.startswith(BROKEN[name][-1]) for happened in missed)
    assert done.stdout.endswith(f"\n{len(rows) - len(missed)} of {len(rows)} expectations were met.\n")


@pytest.mark.parametrize(
    ("number", "scenario", "line"),
    [(signal.SIGINT, "dormitory", r"alice +> S410"), (signal.SIGTERM, "chat", r"bob +> .*")],
)
def test_signal_during_a_scenario_ends_all_programs_with_status_130(
    tree: Path, run: Start, number: int, scenario: str, line: str
) -> None:
    demo = run(str(tree / "demo.py"), scenario)
    demo.wait_for_line(line)
    assert len(running(tree)) > 1 or sys.platform != "linux"
    demo.process.send_signal(number)
    assert (demo.wait(), demo.errors) == (130, "")
    assert not any(row.startswith("ok ") for row in demo.lines)


def test_ctrl_c_at_a_line_that_the_scenario_has_not_read_ends_all_programs(tree: Path, run: Start) -> None:
    demo = run(str(tree / "demo.py"), "rooms", "--step")
    demo.wait_for_line(r"chatroom_server +\$ .*")
    shown: list[str] = []
    while not re.fullmatch(r"alice +\| Room tea is closed\.", demo.lines[-1]):
        shown[:] = demo.lines
        demo.type("")
        wait_until(lambda: demo.lines != shown, "the next line")
    assert demo.stop(signal.SIGINT) == 130


@pytest.mark.parametrize("output", ["| head -n 3", "> /dev/full"])
def test_demo_whose_output_cannot_be_written_ends_all_programs(tree: Path, output: str) -> None:
    if "full" in output and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    command = ["bash", "-o", "pipefail", "-c", f"{sys.executable} {tree / 'demo.py'} {output}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEMO_SECONDS)
    why = "The output cannot be written: No space left on device\n" if "full" in output else ""
    assert (done.returncode, done.stderr, running(tree)) == (130, why, [])


# For the first pattern that a pasted line contains: what to type into its terminal, and the row that must follow.
VISITS = [
    (r"/client\.py'? --host", [("alice", "as a guest): "), ("correct horse, battery", "Welcome, member alice.")]),
    (r"ticket_client\.py", [("0", "A number of 1 or more is expected.")]),
    (r"--name (\w+)", [(r"CREATE \1", r"Room \1 is created.")]),
    (r"tail .*_server\.log", []),
    (r"telnet", [("JOIN alice", "JOIN alice accepted|A number of 1 or more is expected.")]),
]
SHELLS = [shell for shell in ("bash", "zsh", "fish") if shutil.which(shell)]


@pytest.mark.parametrize(("scenario", "lines"), [("", 7), ("tls", 3)], ids=["all", "tls"])
def test_lines_that_stay_prints_work_when_pasted_and_ctrl_c_stops_the_servers(
    tmp_path: Path, run: Start, open_terminal: OpenTerminal, scenario: str, lines: int
) -> None:
    if scenario == "tls" and not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    tree = clone(tmp_path / "our systems")  # its name must be quoted
    before = files(tree)
    demo = run(str(tree / "demo.py"), *scenario.split(), "--stay")
    demo.wait_for_line(r"Ctrl-C here stops the servers\.", DEMO_SECONDS)
    assert not any("|" in line for line in demo.lines)  # what servers write is in their logs
    pasted = [line.strip() for line in demo.lines if line.startswith("    ") and "http:" not in line]
    assert len(pasted) == lines
    assert not any("#" in line for line in pasted)  # an interactive zsh knows no comments
    for number, line in enumerate(pasted):
        visit(open_terminal(SHELLS[number % len(SHELLS)], "-c", f"exec {line}"), line)  # fish would stay its parent
    if not scenario:
        expect_front_end(demo.wait_for_line(r"    (http://localhost:\d+/)")[1])
    assert (demo.stop(signal.SIGINT), demo.errors) == (0, "")
    assert files(tree) == before
    assert not any("server" in command or "front_end" in command for command in running(tree))


def visit(terminal: Terminal, line: str) -> None:
    """Use the client that a pasted line has started."""
    match, steps = next((match, steps) for pattern, steps in VISITS if (match := re.search(pattern, line)))
    for typed, rows in steps:
        terminal.type(f"{match.expand(typed)}\n")
        wait_for_row(terminal, *match.expand(rows).split("|"))
    if not steps:
        wait_until(lambda: any(": " in row for row in terminal.rows()), "a status line")


def test_all_servers_with_host_are_reached_by_this_machines_addresses(tree: Path, run: Start) -> None:
    demo = run(str(tree / "demo.py"), "--stay", "--host", "0.0.0.0")
    address = demo.wait_for_line("This machine's addresses: ([^ ,]+).*", DEMO_SECONDS)[1]
    url = demo.wait_for_line(r"    (http://.*:\d+/)")[1]
    assert url.startswith(f"http://{address}:")
    expect_front_end(url)
    assert any(re.fullmatch(rf"    telnet {address} \d+", line) for line in demo.lines)
    if sys.platform == "linux":  # elsewhere, the loopback network has one address
        front_end = int(url.rstrip("/").rpartition(":")[2])
        browser = Peer(front_end, source="127.0.0.2")
        browser.send_bytes(upgrade(front_end, "/ws/tickets"))
        log = Path(demo.wait_for_line(r"    tail -f (.*)/chat_server\.log")[1]) / "ticket_server.log"
        wait_until(lambda: "127.0.0.2" in log.read_text(), "a status line with the browser's address")
        browser.close()
    assert demo.stop(signal.SIGINT) == 0


def test_show_logs_shows_what_the_servers_write_at_once_in_any_encoding(tree: Path, run: Start) -> None:
    demo = run(str(tree / "demo.py"), "chat", "--stay", "--show-logs", prefix=("env", "PYTHONIOENCODING=latin-1"))
    alice = Peer(int(demo.wait_for_line(r"    telnet localhost (\d+)", DEMO_SECONDS)[1]))
    alice.send("JOIN andré")
    demo.wait_for_line(r"chat_server     \| Client \(\d+\): JOIN andr\?.*")
    alice.close()
    assert not any("tail" in line for line in demo.lines)
    assert demo.stop(signal.SIGINT) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has prlimit()")
def test_servers_that_stay_run_on_if_the_disk_is_too_full_for_their_logs(tree: Path, run: Start) -> None:
    demo = run(str(tree / "demo.py"), "chat", "--stay")
    alice = Peer(int(demo.wait_for_line(r"    telnet localhost (\d+)", DEMO_SECONDS)[1]))
    resource.prlimit(demo.pid, resource.RLIMIT_FSIZE, (0, 0))
    alice.send("JOIN alice")
    alice.expect("JOIN alice accepted")
    alice.close()
    assert (demo.stop(signal.SIGINT), demo.errors) == (0, "")


def test_stay_listens_on_an_ipv6_address(tree: Path, run: Start) -> None:
    skip_without_ipv6()
    demo = run(str(tree / "demo.py"), "--stay", "--host", "::1")
    expect_front_end(demo.wait_for_line(r"    (http://\[::1\]:\d+/)", DEMO_SECONDS)[1])
    assert demo.stop(signal.SIGINT) == 0


def test_servers_that_stay_have_their_usual_ports_unless_another_program_has_them(tree: Path, run: Start) -> None:
    usual, udp_port, other, tcp_port = ports = [str(free_port()) for _ in range(4)]
    file = tree / "scenarios" / "scenarios.py"
    for number, port in zip(("21000", "22000", "23000", "25000"), ports, strict=True):
        file.write_text(file.read_text().replace(number, port))
    host = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"  # the back ends always listen on 127.0.0.1
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        udp.bind(("127.0.0.1", int(udp_port)))
        tcp.bind((host, int(tcp_port)))
        demo = run(str(tree / "demo.py"), "dormitory", "--stay", "--host", host)
        logs = Path(demo.wait_for_line(r"    tail -f (.*)/serverS\.log", DEMO_SECONDS)[1])
    lines = [(logs / f"server{letter}.log").read_text().splitlines()[0] for letter in "SUDM"]
    assert lines[:2] == [f"Server S listening on 127.0.0.1:{usual}", f"Server U listening on 127.0.0.1:{other}"]
    assert udp_port not in lines[2] and tcp_port not in lines[3]


def wait_for_row(terminal: Terminal, *texts: str) -> None:
    """Wait until a row of a terminal ends with one of the texts."""
    wait_until(lambda: any(row.endswith(texts) for row in terminal.rows()), str(texts), got=terminal.rows)


def expect_front_end(url: str) -> None:
    """Fail unless the front end at a URL serves all four systems."""
    with urllib.request.urlopen(f"{url}systems.json", timeout=10) as answer:
        assert json.load(answer) == dict.fromkeys(("dormitory", "tickets", "chat", "chatrooms"), True)
