"""The checks in conformance/: each is seen to fail for its own fault, and whatever a server does, a run reports it."""

import asyncio
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
from checking import Checks
from conftest import ROOT, in_thread, run_command, wait_until
from other_chat import OtherChat

from conformance import test_chat
from conformance.rules import RULES
from conformance.target import Target

THREADS = 40
# The faults show sooner than those of real servers may: the servers here keep nothing for a client that does not read,
# and lose every race.
EASIER = {"FLOOD_BYTES": 128 << 10, "STUCK_SECONDS": 1.0, "NAME_RACES": 2, "PLACE_RACES": 2}
OTHER_CHAT = shlex.join([sys.executable, str(ROOT / "tests/other_chat.py"), "{port}"])
# A server that accepts clients, and then does what a line of Python says.
BAD_SERVER = """
import os, signal, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
clients = []
while True:
    clients.append(listener.accept()[0])
    {}
"""


class OtherTarget(Target):
    """The other chat server, in this process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, broken_rule: str) -> None:
        self._loop = loop
        self._chat = OtherChat(broken_rule)
        super().__init__("127.0.0.1", asyncio.run_coroutine_threadsafe(self._chat.listen(0), loop).result())

    def stop(self) -> None:
        """Close it and its connections."""
        self._loop.call_soon_threadsafe(self._chat.close)


@pytest.fixture(scope="module", autouse=True)
def checks() -> Iterator[dict[str, Checks]]:
    """Check a server that keeps all rules, and for each rule one that breaks it, while other tests run."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        end = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), end))
        await end.wait()

    thread = in_thread(asyncio.run, serve())
    loop, end = started.result()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(THREADS) as pool:
        for name, value in EASIER.items():
            patch.setattr(test_chat, name, value)
        yield {rule_id: Checks(pool, partial(OtherTarget, loop, rule_id)) for rule_id in ("", *RULES)}
        pool.shutdown(cancel_futures=True)
    loop.call_soon_threadsafe(end.set)
    thread.join()


def run_conformance(*arguments: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run checks to their end, in another directory if conformance/ is there."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "conformance", *arguments]
    return run_command(command, seconds=60, cwd=directory)


def test_a_report_shows_rules_points_and_the_dialogue_and_needs_no_other_file(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conformance", tmp_path / "conformance")
    result = run_conformance(
        *("--server", f"{OTHER_CHAT} MESG-SENDER", "-k", "mesg_delivered or mesg_sender or line_two"),
        *("--points", "basic=60,robust=30", "--junitxml", "grade.xml"),
        directory=tmp_path,
    )
    assert result.returncode == 1
    for text in (
        "basic: 1 of 23 rules hold, 2.6 of 60 points (21 were not run)\n"
        "  MESG-SENDER        a message shows the name of its sender\n"
        "                     bob should receive 'alice",
        "robust: 0 of 18 rules hold, 0.0 of 30 points (17 were not run)\n"
        "  LINE-TWO           two lines that arrive in one packet are two lines\n"
        "                     not checked: MESG-SENDER should hold first\n",
        "sum: 2.6 of 90 points\n",
        "bob        < somebody whispers: text",
    ):
        assert text in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    cases = list(ElementTree.parse(tmp_path / "grade.xml").iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None]
    assert [[element.get("value") for element in case.iter("property")] for case in failed] == [
        ["MESG-SENDER", "basic"],
        ["LINE-TWO", "robust"],
    ]


@pytest.mark.parametrize(
    ("server", "limit", "complaint"),
    [
        ("./no-such-server {port}", "", "the server cannot be started: [Errno 2] No such file or directory"),
        (f"{sys.executable} -c 'raise SystemExit(3)' {{port}}", "", "refused; the server ended with exit status 3"),
        ("sleep 60 {port}", "--ready-seconds=0.5", "the server accepts no connection from alice: Connection refused"),
        ("time.sleep(60)", "--answer-seconds=0.5", "alice should receive a line with"),
        ("os.kill(0, signal.SIGSTOP)", "--answer-seconds=0.5", "alice should receive a line with"),
        ("os.abort()", "", "; the server was killed by SIGABRT"),
        ("while True: clients[-1].send(b'ha' * 1000)", "", "the server sends text to alice without end: 'haha"),
        ("while True: print('busy')", "--answer-seconds=0.5", "alice should receive a line with"),
        (
            "clients[-1].send(bytes([27, 93]) + b'!'); sys.exit(0)",
            "",
            "received '\N{REPLACEMENT CHARACTER}]!', and then",
        ),
    ],
)
def test_a_server_that_dies_hangs_or_sends_rubbish_fails_its_checks(server: str, limit: str, complaint: str) -> None:
    if "{port}" not in server:
        server = shlex.join([sys.executable, "-c", BAD_SERVER.format(server), "{port}"])
    result = run_conformance("--server", server, "-k", "join_accepted or quit_unregistered", *filter(None, [limit]))
    assert result.returncode == 1
    assert "2 failed" in result.stdout or "2 errors" in result.stdout
    assert "JOIN-ACCEPTED      JOIN alice is answered with the name and 'accepted'\n" in result.stdout
    assert complaint in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_is_left_when_pytest_is_interrupted_or_killed(tmp_path: Path, number: int) -> None:
    script = tmp_path / "server.sh"
    # All those numbers are only written once pytest, which then also watches the server, reads them.
    script.write_text("trap '' INT HUP TERM; seq 20000; sleep 61 & echo $! >child; mv child left; wait")
    command = [sys.executable, "-m", "pytest", "conformance", "--fresh-directory", "--server", f"sh {script} {{port}}"]
    with subprocess.Popen([*command, f"--basetemp={tmp_path}/run"], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: list(tmp_path.glob("run/*/left")), "a server in a directory of its own")
        process.send_signal(number)
    child = int(next(tmp_path.glob("run/*/left")).read_text())
    wait_until(lambda: not is_running(child), "the end of the server and its child")


def is_running(pid: int) -> bool:
    """Return whether a process runs, and is not merely waiting to be collected."""
    return run_command(["ps", "-o", "stat=", "-p", str(pid)]).stdout.strip()[:1] not in ("", "Z")


def test_a_running_server_is_checked_and_left_running(checks: dict[str, Checks]) -> None:
    target = checks[""].start()
    for _ in range(2):
        result = run_conformance("--address", f"127.0.0.1:{target.port}", "--level", "basic", "-k", "quit or full")
        assert "basic: 6 of 23 rules hold (17 were not run)\n" in result.stdout
    target.stop()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--server ./chat", "--server './chat': {port} is expected where the server's port is to stand"),
        ("--server {port} --address h:1", "--server and --address exclude each other"),
        ("--address localhost", "--address 'localhost': HOST:PORT is expected"),
        ("--points basic", "--points 'basic': LEVEL=N,... is expected, and 'basic' is not of that form"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments: str, complaint: str) -> None:
    result = run_conformance(*arguments.split())
    assert (result.returncode, result.stderr) == (4, f"ERROR: {complaint}\n\n")


@pytest.mark.parametrize("rule_id", ["", *RULES])
def test_exactly_the_rule_that_a_server_breaks_does_not_hold(checks: dict[str, Checks], rule_id: str) -> None:
    broken = checks[rule_id].broken_rules()
    assert list(broken) == ([rule_id] if rule_id else []), broken
