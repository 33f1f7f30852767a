"""What every program and every TCP server guarantees: starting, admission, surviving failures, stopping."""

import argparse
import ast
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from conftest import (
    ROOT,
    WAIT_SECONDS,
    Peer,
    Program,
    Start,
    changed_program,
    few_threads,
    free_port,
    run_command,
    run_program,
    run_programs,
    run_shell,
    server_end,
    skip_without_ipv6,
    wait_until,
)

from net.conversation import Conversation
from net.listener import Listener
from net.options import add_server_options
from net.places import Places
from net.server import Server

CLIENT = r"Client \(\d+\): "
PROGRAMS = sorted(path.name for path in ROOT.glob("*.py") if "\nif __name__ ==" in path.read_text())
OLD_PYTHONS = [
    python
    for version in ("3.6", "3.7", "3.8", "3.9")
    for python in [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), shutil.which(f"python{version}")]
    if python and subprocess.run([python, "--version"], capture_output=True).returncode == 0
]

servers = pytest.mark.parametrize("program", ["chat_server.py", "chatroom_server.py"])
ANSWERED = {"chat_server.py": ("JOIN a", "JOIN a accepted"), "chatroom_server.py": ("3", "0")}
WRONG_ARGUMENTS = {
    "chat_server.py": ["", "65536", "0 1", "0 --max-connections 0", "0 --login-seconds x"],
    "chatroom_server.py": ["0 --max-rooms 0"],
    "ticket_server.py": ["0 --hold-seconds 0", "0 --max-held-per-address x"],
    "serverM.py": ["--server-s 21000", "extra"],
    "serverD.py": ["--port x", "--csv", "--report --cancel D1"],
    "front_end.py": ["--chat localhost"],
    "demo.py": ["nonsense"],
    "client.py": ["--port x"],
    "chatroom_client.py": ["localhost", "localhost 1 --name " + "x" * 200],
    "ticket_client.py": ["localhost 1 --seats 2-", "localhost 1 --best 2 --seats 1-1"],
}


def expect_served(peer: Peer, program: str) -> None:
    """Fail unless a request is answered."""
    request, reply = ANSWERED[program]
    peer.send(request)
    peer.expect(reply)


def test_no_program_uses_syntax_that_an_old_python_cannot_parse() -> None:
    for program in PROGRAMS:
        ast.parse((ROOT / program).read_text(), program, feature_version=(3, 6))


@pytest.mark.skipif(not OLD_PYTHONS, reason="no Python from 3.6 to 3.9 is installed")
def test_on_an_old_python_a_program_ends_with_one_line_that_says_which_python_it_needs() -> None:
    runs = [(OLD_PYTHONS[-1], program) for program in PROGRAMS] + [(python, PROGRAMS[0]) for python in OLD_PYTHONS]
    for python, program in runs:
        done = run_command([str(python), str(ROOT / program), "--help"])
        assert (done.returncode, done.stdout) == (1, ""), program
        assert re.fullmatch(r"Python 3\.10 or later is needed, but this is Python 3\.\d+\.\d+\n", done.stderr), program


def test_help_ends_with_one_line_that_starts_the_program_in_any_directory(tmp_path: Path) -> None:
    helps = run_programs(*((program, "--help") for program in PROGRAMS), cwd=tmp_path)
    for program, done in zip(PROGRAMS, helps, strict=True):
        assert (done.returncode, done.stderr) == (0, ""), program
        assert done.stdout.splitlines()[-1].startswith(f"Example: python3 {program}"), program
        assert os.access(ROOT / program, os.X_OK), program


def test_a_program_can_be_imported_without_a_standard_output() -> None:
    statement = "; ".join(f"import {program.removesuffix('.py')}" for program in PROGRAMS)
    done = run_shell(f'cd "{ROOT}" && exec "{sys.executable}" -W error -c "{statement}" >&-')
    assert (done.returncode, done.stderr) == (0, "")


@servers
def test_the_first_line_names_the_host_and_the_port(start: Start, program: str) -> None:
    server = start(program, "0", "--host", "127.0.0.1")
    assert re.fullmatch(r"Listening on 127\.0\.0\.1:\d+", server.lines[0])
    expect_served(server.connect(), program)


def test_an_ipv6_address_stands_in_brackets(start: Start) -> None:
    skip_without_ipv6()
    server = start("chat_server.py", "0", "--host", "::1")
    assert re.fullmatch(r"Listening on \[::1\]:\d+", server.lines[0])
    socket.create_connection(("::1", server.port)).close()
    server.wait_for_line(CLIENT + r"accepted from \[::1\]:\d+")


def test_wrong_arguments_are_answered_with_the_usage() -> None:
    lines = [f"{program} {arguments}" for program, wrong in WRONG_ARGUMENTS.items() for arguments in wrong]
    for line, done in zip(lines, run_programs(*(tuple(line.split()) for line in lines)), strict=True):
        assert (done.returncode, done.stdout) == (2, ""), line
        assert done.stderr.startswith(f"usage: {line.split()[0]} "), line


@servers
def test_help_names_the_defaults_of_the_limits(program: str) -> None:
    text = " ".join(run_program(program, "--help").stdout.split())
    for option, default in (
        ("--max-connections", "2000"),
        ("--max-per-address", "half of --max-connections"),
        ("--login-seconds", "600"),
    ):
        assert re.search(rf"{option} N [^()]*\(default: {default}\)", text), option


def test_a_taken_port_is_reported_in_one_line_with_the_port() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        programs = ("chat_server.py", "chatroom_server.py", "ticket_server.py")
        for done in run_programs(*((program, str(port)) for program in programs)):
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == f"Cannot listen on 0.0.0.0:{port}: Address already in use\n"


def test_an_unknown_host_is_reported_in_one_line_with_the_host() -> None:
    for host in ("no.such.host.invalid", "a..b"):
        done = run_program("chat_server.py", "0", "--host", host)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(rf"Cannot listen on {re.escape(host)}:0: .+\n", done.stderr)


@servers
def test_more_connections_than_allowed_are_refused_with_a_sentence(start: Start, program: str) -> None:
    server = start(program, "0", "--max-connections", "2", "--max-per-address", "2")
    first, second, third = (server.connect() for _ in range(3))
    third.expect("Too many connections")
    third.expect_end()
    server.wait_for_line(CLIENT + "refused: Too many connections")
    second.end_input()
    second.expect_end()
    server.wait_for_line(CLIENT + "disconnected")
    expect_served(first, program)
    fourth = server.connect()
    fourth.send("3")
    assert fourth.read_line() != "Too many connections"


@pytest.mark.parametrize("options", [("--max-per-address", "2"), ()])
def test_one_address_cannot_take_all_places(start: Start, options: tuple[str, ...]) -> None:
    server = start("chat_server.py", "0", "--max-connections", "4", *options)  # half of them is the default
    greedy = [server.connect(source="127.0.0.2") for _ in range(2)]
    refused = server.connect(source="127.0.0.2")
    refused.expect("Too many connections from your address")
    refused.expect_end()
    expect_served(server.connect(), "chat_server.py")
    greedy[0].end_input()
    greedy[0].expect_end()
    server.wait_for_line(CLIENT + "disconnected")

    def is_admitted() -> bool:
        peer = server.connect(source="127.0.0.2")
        peer.send("LIST")
        return peer.read_line().startswith("Unregistered")

    wait_until(is_admitted, "a place is free again")


def test_a_server_that_is_started_with_256_descriptors_raises_that_limit_for_1200_clients(start: Start) -> None:
    options = ("--max-connections", "1200", "--max-per-address", "1200")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1400:
        pytest.skip(f"only {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1300), hard))
    server = start("chat_server.py", "0", *options, prefix=("prlimit", "--nofile=256:"))
    crowd = [server.connect() for _ in range(1200)]
    expect_served(crowd[-1], "chat_server.py")
    one_more = server.connect()
    one_more.expect("Too many connections")
    one_more.expect_end()


def test_three_hundred_clients_need_less_than_a_gigabyte_of_address_space(start: Start) -> None:
    limits = ("prlimit", "--as=1000000000", f"--stack={8 << 20}", "env", "MALLOC_ARENA_MAX=1")
    server = start("chat_server.py", "0", "--max-per-address", "300", prefix=limits)
    for peer in [server.connect() for _ in range(300)]:
        peer.send("LIST")
        peer.expect_match("Unregistered.*")


@pytest.mark.skipif(not shutil.which("prlimit"), reason="prlimit is not installed")
def test_a_server_without_free_descriptors_reports_it_once_and_serves_its_clients(start: Start) -> None:
    server = start("chat_server.py", "0")
    alice = server.connect()
    expect_served(alice, "chat_server.py")
    run_command(["prlimit", "--pid", str(server.pid), "--nofile=64"])
    crowd = [server.connect() for _ in range(80)]
    server.wait_for_line("Cannot accept for now: Too many open files")
    used = cpu_seconds(server)
    time.sleep(0.5)  # long enough to try several times
    assert cpu_seconds(server) - used < 0.1
    assert server.count_lines("Cannot accept for now.*") == 1
    alice.send("LIST")
    alice.expect("Registered users (1):", "a")
    for peer in crowd[:40]:
        peer.close()
    crowd[-1].send("JOIN last")
    crowd[-1].expect("JOIN last accepted")


def cpu_seconds(program: Program) -> float:
    fields = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_server_without_free_threads_refuses_new_clients_and_serves_the_others(start: Start, tmp_path: Path) -> None:
    options = ("--max-connections", "3", "--max-per-address", "3")
    server = start(changed_program(tmp_path, "chat_server.py", few_threads(5)), "0", *options)
    alice, bob = server.connect(), server.connect()
    expect_served(alice, "chat_server.py")
    for _ in range(5):  # a refused client does not keep its place
        third = server.connect()
        third.expect("Too many threads")
        third.expect_end()
    bob.send("QUIT")
    bob.expect_end()
    server.wait_for_line(CLIENT + "disconnected")
    carol = server.connect()
    carol.send("JOIN carol")
    carol.expect("JOIN carol accepted")


def test_a_bug_ends_only_the_connection_in_which_it_happens(run: Start, tmp_path: Path) -> None:
    server = run(changed_program(tmp_path, "chat_server.py", "program.ChatSession._list = lambda *_: 1 / 0"), "0")
    alice, bob = server.connect(), server.connect()
    alice.send("JOIN alice", "LIST")
    alice.expect("JOIN alice accepted")
    alice.expect_end()
    server.wait_for_line(CLIENT + "disconnected: a bug in its handler")
    bob.send("JOIN alice", "MESG nobody hi")
    bob.expect("JOIN alice accepted", "Unknown Recipient nobody")
    assert server.stop() == 0
    assert server.errors.count("Traceback") == 1
    assert "ZeroDivisionError" in server.errors


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="only Linux shows the state of the peer's socket")
@servers
def test_a_silent_client_is_probed_after_a_minute(start: Start, program: str) -> None:
    peer = start(program, "0").connect()
    expect_served(peer, program)
    wait_until(lambda: server_end(peer).has_keep_alive, "a keep-alive timer", got=lambda: server_end(peer))
    assert server_end(peer).timer_seconds <= 60


def test_an_accepted_socket_buffers_little_has_no_delay_and_notices_within_two_minutes_that_a_host_is_gone() -> None:
    reader, writer = socket.socketpair()
    listener = Listener("127.0.0.1", 0, reader.fileno())
    with reader, writer, socket.create_connection(("127.0.0.1", listener.port)):
        listener.wait()
        [(sock, _)] = listener.accept()
        listener.close()
    with sock:
        idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0))  # macOS has the latter
        options = (idle, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        first, again, count = (sock.getsockopt(socket.IPPROTO_TCP, option) for option in options)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert first + again * count <= 120
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) in (48 << 10, 96 << 10)  # Linux doubles it


@servers
def test_clients_that_reset_at_once_do_not_harm_other_clients(start: Start, program: str) -> None:
    server = start(program, "0")
    for _ in range(200):
        server.connect().reset()
    expect_served(server.connect(), program)


@servers
def test_a_server_without_a_standard_output_serves(run: Start, program: str) -> None:
    port = free_port()
    server = run(program, str(port), "--host", "127.0.0.1", prefix=("sh", "-c", 'exec "$@" >&-', "sh"))

    def serves() -> bool:
        with suppress(ConnectionRefusedError), closing(Peer(port)) as peer:
            expect_served(peer, program)
            return True
        return False

    wait_until(serves, "the server listens")
    assert server.stop() == 0
    assert server.errors == ""


def test_a_server_whose_status_lines_are_not_read_serves_its_clients_and_reports_how_many_were_lost() -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "chat_server.py"), "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout
    try:
        alice = Peer(int(process.stdout.readline().rpartition(b":")[2]))
        expect_served(alice, "chat_server.py")
        for _ in range(5):
            alice.send(*["BCST x"] * 5_000, *["MESG a " + "x" * 100] * 5_000)
            for _ in range(5_000):
                alice.expect("FROM a: " + "x" * 100)
        log = b""
        while not re.search(rb"\n[0-9]+ status lines were lost: they could not be written\n", log):
            log += os.read(process.stdout.fileno(), 1 << 16)
        alice.send("LIST")
        while not log.endswith(b": LIST\n"):
            log += os.read(process.stdout.fileno(), 1 << 16)
        lost = sum(map(int, re.findall(rb"([0-9]+) status lines were lost", log)))
        assert lost
        assert log.count(b"MESG a") + log.count(b"BCST") + lost == 50_000
        alice.close()
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@servers
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_closes_every_connection_and_frees_the_port(start: Start, program: str, number: int) -> None:
    server = start(program, "0")
    idle, half = server.connect(), server.connect()
    half.send_bytes(b"JOIN ha")
    expect_served(server.connect(), program)
    assert server.stop(number) == 0
    idle.expect_end()
    half.expect_end()
    assert server.errors == ""
    expect_served(start(program, str(server.port)).connect(), program)


def test_sighup_does_not_stop_a_server_that_nohup_started(start: Start) -> None:
    server = start("chat_server.py", "0", prefix=("nohup",), stdin=subprocess.DEVNULL)
    server.process.send_signal(signal.SIGHUP)
    peer = server.connect()
    for _ in range(20):
        peer.send("LIST")
        peer.expect_match("Unregistered.*")
    assert server.process.poll() is None
    assert server.stop() == 0


def test_a_client_not_yet_accepted_when_a_server_stops_gets_its_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    def listen_to(client: Conversation) -> None:
        assert list(client.lines()) == []

    parser = argparse.ArgumentParser()
    add_server_options(parser, "127.0.0.1")
    server = Server(parser.parse_args([]), 0, listen_to, Places(1, 1), None)  # its accepting thread is not started
    stop, stops, lock = server._stopping.set, [], server._accept_lock
    monkeypatch.setattr(server._stopping, "set", lambda: stops.append(lock._is_owned()) or stop())  # type: ignore
    peer = Peer(server.port)
    server.begin_stop(b"Goodbye\n")
    assert (stops, peer.read_all()) == ([True], "Goodbye\n")  # no other thread may accept a client meanwhile
    server.finish_stop(WAIT_SECONDS)


@servers
def test_the_last_status_lines_are_written_before_a_server_ends(start: Start, program: str) -> None:
    server = start(program, "0")
    for _ in range(10):
        server.connect()
    wait_until(lambda: server.count_lines(CLIENT + "handler started") == 10, "all are served")
    assert server.stop() == 0
    assert server.count_lines(CLIENT + "disconnected") == 10
