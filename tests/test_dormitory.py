"""The dormitory's requests and replies, and what is left when servers are killed."""

import os
import resource
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import pytest
from conftest import Peer
from dorm import PASSWORDS, Dormitory, ask


def test_quit_ends_the_connection(common_dormitory: Dormitory) -> None:
    alice = common_dormitory.log_in("alice")
    alice.send("QUIT", "LIST")
    alice.expect_end()


def test_status_lines_show_each_step_of_a_reservation_and_of_its_cancellation(dormitory: Dormitory) -> None:
    dormitory.start("D")
    alice = dormitory.log_in("alice")
    for request in ("RESERVE D1", "CANCEL D1", "RESERVE D9"):
        ask(alice, request)
    dormitory.main.wait_for_line(r"Client \(\d+\): result sent: UNKNOWN_ROOM")
    lines = dormitory.main.lines
    assert lines[0] == f"Listening on 127.0.0.1:{dormitory.main.port}"
    assert "Server D has sent its room status: D1=2" in lines
    story = [line.partition("): ")[2] for line in lines if line.startswith("Client (")]
    assert story[2:] == [
        "authentication request received: alice as a member",
        "result sent: MEMBER alice",
        "request received: RESERVE D1 from alice",
        "request sent to Server D over UDP",
        "response received from Server D over UDP: RESERVED D1 1",
        "room status of D1 updated: 1",
        "result sent: RESERVED D1 1",
        "request received: CANCEL D1 from alice",
        "request sent to Server D over UDP",
        "response received from Server D over UDP: CANCELLED D1 2",
        "room status of D1 updated: 2",
        "result sent: CANCELLED D1",
        "request received: RESERVE D9 from alice",
        "request sent to Server D over UDP",
        "response received from Server D over UDP: UNKNOWN_ROOM",
        "result sent: UNKNOWN_ROOM",
    ]
    for line in ("received RESERVE D1 alice", "has 1 of room D1 left", "sent RESERVED D1 1 to the main server"):
        dormitory.back_ends["D"].wait_for_line(f"Server D {line}")
    assert PASSWORDS["alice"] not in "\n".join(lines + dormitory.back_ends["D"].lines)


def reserve(peer: Peer, room: str) -> str:
    word, reservation, _ = ask(peer, f"RESERVE {room}").split()
    assert word == "RESERVED"
    return reservation


def test_before_login_every_request_is_denied_and_a_guest_cannot_reserve(common_dormitory: Dormitory) -> None:
    alice = common_dormitory.log_in("alice")
    reservation = reserve(alice, "S1")
    guest = common_dormitory.main.connect()
    for request in ("AVAILABILITY S1", "RESERVE S1", "CANCEL S1", "MINE", "LIST", "HELLO", ""):
        assert ask(guest, request) == "DENIED Log in first"
    assert ask(guest, "LOGIN Zoe\u0308") == "GUEST Zo\u00eb"
    assert ask(guest, "LOGIN alice") == "GUEST alice"  # a member's name without the password
    assert ask(guest, "AVAILABILITY S1") == "AVAILABLE 8"
    assert ask(guest, "RESERVE S1") == "DENIED Guests cannot reserve"
    assert ask(guest, f"CANCEL {reservation}") == "UNKNOWN_RESERVATION"
    assert ask(guest, "MINE") == "RESERVATIONS"
    assert ask(alice, "MINE") == f"RESERVATIONS {reservation}=S1"
    assert ask(alice, f"CANCEL {reservation}") == "CANCELLED S1"


def test_a_failed_login_ends_the_earlier_login_and_the_fifth_one_the_connection(common_dormitory: Dormitory) -> None:
    peer = common_dormitory.log_in("alice")
    for login in ("LOGIN alice secret", "LOGIN nobody secret", "LOGIN bob secret "):
        assert ask(peer, login) == "REFUSED Wrong username or password"
        assert ask(peer, "MINE") == "DENIED Log in first"
    assert ask(peer, "LOGIN bob secret") == "MEMBER bob"
    assert ask(peer, "LOGIN bob x") == "REFUSED Wrong username or password"
    assert ask(peer, "LOGIN eve") == "GUEST eve"
    peer.send("LOGIN bob y", "LIST")
    peer.expect("REFUSED Wrong username or password", "Too many wrong logins")
    peer.expect_end()


def test_one_member_cannot_cancel_the_reservation_of_another(common_dormitory: Dormitory) -> None:
    alice, bob = common_dormitory.log_in("alice"), common_dormitory.log_in("bob")
    reservation = reserve(alice, "S1")
    for wrong in (reservation, "S999", "S01", "D1x", "1", "S99999999999999999999", "X1"):
        assert ask(bob, f"CANCEL {wrong}") == "UNKNOWN_RESERVATION"
    assert common_dormitory.rows("S") == [(reservation, "S1", "alice")]
    assert ask(alice, f"CANCEL {reservation}") == "CANCELLED S1"


def test_codes_match_exactly_and_no_back_end_is_asked_for_other_letters(common_dormitory: Dormitory) -> None:
    alice = common_dormitory.log_in("alice")
    for code in ("S", "S2", "S1234", "s1", "S12345678901234", "X1", "12", "Ś1", "S1\u00a0x", "*"):
        assert ask(alice, f"AVAILABILITY {code}") in ("UNKNOWN_ROOM", "INVALID Expected AVAILABILITY code"), code
        assert ask(alice, f"RESERVE {code}") in ("UNKNOWN_ROOM", "INVALID Expected RESERVE code"), code
    assert ask(alice, "AVAILABILITY S1") == "AVAILABLE 9"
    assert ask(alice, "AVAILABILITY S12") == "AVAILABLE 6"
    assert ask(alice, "AVAILABILITY S123") == "FULL"
    back_end = common_dormitory.back_ends["S"]
    back_end.wait_for_line("Server S received AVAILABILITY S123")
    assert back_end.count_lines(r"Server S received .* (X1|12|s1|\*)( .*)?") == 0


def test_a_malformed_or_unknown_request_is_answered_with_what_was_expected(common_dormitory: Dormitory) -> None:
    guest = common_dormitory.log_in("eve")
    for request, expected in {
        "AVAILABILITY": "AVAILABILITY code",
        "RESERVE S1 S2": "RESERVE code",
        "CANCEL": "CANCEL id",
        "MINE all": "MINE",
        "LIST X": r"LIST \[S\|D\|U\]",
        "LIST S D": r"LIST \[S\|D\|U\]",
        "LOGIN": r"LOGIN user \[password\]",
        f"LOGIN {'x' * 33}": r"LOGIN user \[password\]",
        "list": r"one of LOGIN user \[password\], AVAILABILITY code, .*, QUIT",
        "": "one of .*",
    }.items():
        guest.send(request)
        guest.expect_match(f"INVALID Expected {expected}")
    guest.send_bytes(b"x" * 5000 + b"\n")
    assert guest.read_all().startswith("Line too long")


def test_requests_byte_by_byte_and_many_at_once_are_answered_in_order(common_dormitory: Dormitory) -> None:
    guest = common_dormitory.main.connect()
    for byte in b"LOGIN eve\r\nAVAILABILITY S1\r\n":
        guest.send_bytes(bytes([byte]))
    guest.expect("GUEST eve", "AVAILABLE 9")
    codes = ["S1", "D1", "X", "U1", "S12"] * 60
    guest.send(*(f"AVAILABILITY {code}" for code in codes))
    answers = {"S1": "AVAILABLE 9", "D1": "AVAILABLE 2", "X": "UNKNOWN_ROOM", "U1": "AVAILABLE 3", "S12": "AVAILABLE 6"}
    guest.expect(*(answers[code] for code in codes))
    ended = common_dormitory.main.connect()
    ended.send_bytes(f"LOGIN alice {PASSWORDS['alice']}\nLIST\nAVAILABILITY U1".encode())
    ended.end_input()
    assert ended.read_all() == "MEMBER alice\nROOMS S1=9 S12=6 S123=0 D1=2 U1=3\nAVAILABLE 3\n"
    common_dormitory.log_in("alice").send_bytes(b"RESERVE S")  # gone in the middle of a request
    common_dormitory.main.peers[-1].close()
    common_dormitory.log_in("alice").reset()
    assert ask(common_dormitory.log_in("bob"), "MINE") == "RESERVATIONS"


def test_ten_thousand_codes_and_two_hundred_reservations_of_one_member_are_all_listed(dormitory: Dormitory) -> None:
    codes = [f"S{number:011}" for number in range(10_000)]
    dormitory.write("single.txt", "".join(f"{code}, 9999\n" for code in codes))
    dormitory.start("SD")
    alice = dormitory.log_in("alice")
    alice.send(*(f"RESERVE {code}" for code in codes[:200]), "RESERVE D1")
    for number in range(1, 201):
        alice.expect(f"RESERVED S{number} 9998")
    alice.expect("RESERVED D1 1")
    mine = [f"S{number}={code}" for number, code in enumerate(codes[:200], 1)]
    assert ask(alice, "MINE").split() == ["RESERVATIONS", *mine, "D1=D1", "U=?"]
    left = [f"{code}={9998 if number < 200 else 9999}" for number, code in enumerate(codes)]
    assert ask(alice, "LIST S").split() == ["ROOMS", *left]
    assert all(len(line) < 1000 for line in dormitory.main.lines)


def test_back_ends_that_start_before_and_after_the_main_server_are_found(dormitory: Dormitory) -> None:
    dormitory.start_back_end("U")
    dormitory.start_main()
    dormitory.start_back_ends("DS")
    dormitory.wait_until_found("SDU", seconds=2.0)
    assert ask(dormitory.log_in("alice"), "LIST") == "ROOMS S1=9 S12=6 S123=0 D1=2 U1=3"


def test_a_back_end_that_is_down_is_reported_once_answered_for_at_once_and_found_again(dormitory: Dormitory) -> None:
    dormitory.start()
    down = "TRY_LATER Server S is not answering"
    alice, bob = dormitory.log_in("alice"), dormitory.log_in("bob")
    assert ask(alice, "RESERVE D1") == "RESERVED D1 1"
    dormitory.back_ends["S"].kill()
    began = time.monotonic()
    alice.send("AVAILABILITY D1", *["RESERVE S1"] * 500, "RESERVE D1")
    alice.expect("AVAILABLE 1")  # a reply that is ready is not held back
    assert time.monotonic() - began < 1.0
    delays = []
    while time.monotonic() < began + 1.0:
        asked = time.monotonic()
        assert ask(bob, "AVAILABILITY D1") == "AVAILABLE 1"
        delays.append(time.monotonic() - asked)
    assert median(delays) < 0.1
    alice.expect(*[down] * 500, "RESERVED D2 0")  # all 500 requests share one wait
    assert 2.5 < time.monotonic() - began < 4.0
    asked = time.monotonic()
    assert ask(bob, "AVAILABILITY S1") == down
    assert ask(bob, "LIST") == "ROOMS S=? D1=0 U1=3"
    assert ask(bob, "LIST S") == "ROOMS S=?"
    assert ask(alice, "MINE") == "RESERVATIONS S=? D1=D1 D2=D1"
    assert ask(alice, "CANCEL S1") == down
    assert time.monotonic() - asked < 0.3
    dormitory.start_back_end("S")
    dormitory.wait_until_found("S", times=2, seconds=2.0)
    assert dormitory.main.count_lines(r"Server S at 127\.0\.0\.1:\d+ is not answering") == 1
    assert ask(alice, "RESERVE S1") == "RESERVED S1 8"


def test_when_all_back_ends_fall_silent_list_waits_for_one_and_briefly_for_the_others(dormitory: Dormitory) -> None:
    dormitory.start()
    guest = dormitory.log_in("eve")
    for back_end in dormitory.back_ends.values():
        back_end.kill()
    began = time.monotonic()
    assert ask(guest, "LIST") == "ROOMS S=? D=? U=?"
    assert time.monotonic() - began < 7.0  # three full waits would take nine seconds


def test_a_back_end_to_which_no_route_leads_counts_as_one_that_does_not_answer(dormitory: Dormitory) -> None:
    dormitory.start_back_end("D")
    nowhere = "255.255.255.255:21000"  # the system lets no socket connect to this address
    dormitory.start_main("--server-s", nowhere)
    dormitory.wait_until_found("D")
    dormitory.main.wait_for_line(f"Server S at {nowhere} is not answering")
    alice = dormitory.log_in("alice")
    assert ask(alice, "RESERVE S1") == "TRY_LATER Server S is not answering"
    assert ask(alice, "LIST") == "ROOMS S=? D1=2 U=?"


def test_a_client_is_told_which_limit_on_login_or_idle_time_ends_its_connection(dormitory: Dormitory) -> None:
    dormitory.start_main("--login-seconds", "1", "--idle-seconds", "1")
    silent, chatty, idle, busy = (dormitory.main.connect() for _ in range(4))
    assert ask(idle, "LOGIN eve") == ask(busy, "LOGIN eve") == "GUEST eve"
    chatty.send("LOGIN alice wrong")
    chatty.expect("REFUSED Wrong username or password")
    refusals = ["DENIED Log in first"]
    while refusals[-1] == "DENIED Log in first":  # no request but LOGIN extends the limit
        refusals.append(ask(chatty, "LIST"))
        assert ask(busy, "MINE") == "RESERVATIONS"  # each request restarts the idle time
        time.sleep(0.1)
        assert len(refusals) < 15
    assert refusals[-1] == "No LOGIN within 1 seconds"
    assert silent.read_all() == "No LOGIN within 1 seconds\n"
    assert idle.read_all() == "Idle for 1 seconds\n"
    dormitory.main.wait_for_line(r"Client \(\d+\): disconnected: Idle for 1 seconds")
    assert ask(busy, "MINE") == "RESERVATIONS"


def test_a_database_that_another_program_has_locked_delays_a_reservation(common_dormitory: Dormitory) -> None:
    alice = common_dormitory.log_in("alice")
    with closing(sqlite3.connect(common_dormitory.database("S"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        alice.send("RESERVE S1")
        common_dormitory.back_ends["S"].wait_for_line("Server S cannot answer: .*database is locked")
        other.execute("ROLLBACK")
        reservation = alice.expect_match(r"RESERVED (S\d+) 8")[1]
    assert len(common_dormitory.rows("S")) == 1
    assert ask(alice, f"CANCEL {reservation}") == "CANCELLED S1"


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_on_a_full_disk_nothing_is_confirmed(common_dormitory: Dormitory) -> None:
    alice = common_dormitory.log_in("alice")
    back_end = common_dormitory.back_ends["U"]
    unlimited = resource.prlimit(back_end.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    alice.send("RESERVE U1")
    back_end.wait_for_line("Server U cannot answer: .*")
    assert ask(common_dormitory.log_in("eve"), "AVAILABILITY U1") == "AVAILABLE 3"
    assert common_dormitory.rows("U") == []
    resource.prlimit(back_end.pid, resource.RLIMIT_FSIZE, unlimited)
    reservation = alice.expect_match(r"RESERVED (U\d+) 2")[1]
    assert len(common_dormitory.rows("U")) == 1
    assert ask(alice, f"CANCEL {reservation}") == "CANCELLED U1"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not pin processes to processors")
def test_servers_that_wait_for_each_other_are_on_different_processors(common_dormitory: Dormitory) -> None:
    ours = os.sched_getaffinity(0)
    servers = common_dormitory.main, common_dormitory.back_ends["S"]
    main, back_end = (os.sched_getaffinity(server.pid) for server in servers)
    assert len(main) == len(back_end) == 1
    assert len(main | back_end) == min(2, len(ours))
    assert main | back_end <= ours


@pytest.mark.skipif("not __import__('shutil').which('prlimit')", reason="needs prlimit")
def test_each_connection_has_the_descriptors_it_needs(dormitory: Dormitory) -> None:
    arguments = ("--max-connections", "150", "--max-per-address", "150")
    dormitory.start_back_ends("SDU")
    dormitory.start_main(*arguments, prefix=("prlimit", "--nofile=64:"))
    for peer in [dormitory.main.connect() for _ in range(150)]:
        peer.send("LOGIN eve", "LIST")
        peer.expect("GUEST eve", "ROOMS S1=9 S12=6 S123=0 D1=2 U1=3")
    dormitory.main.connect().expect("Too many connections")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_a_main_server_out_of_descriptors_does_not_blame_the_back_end(dormitory: Dormitory) -> None:
    dormitory.start()
    guest = dormitory.log_in("eve")
    assert ask(guest, "AVAILABILITY S1") == "AVAILABLE 9"
    pid = dormitory.main.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for request in ("AVAILABILITY D1", "LIST"):
        assert ask(guest, request) == "TRY_LATER Too many people are connected"
    dormitory.main.wait_for_line(r"Client \(\d+\): no request sent: Too many open files")
    assert ask(guest, "LIST S") == "ROOMS S1=9 S12=6 S123=0"
    dormitory.back_ends["S"].kill()
    assert ask(guest, "AVAILABILITY S1") == "TRY_LATER Server S is not answering"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    assert ask(guest, "LIST") == "ROOMS S=? D1=2 U1=3"
    assert dormitory.main.count_lines("Server [DU] at .* is not answering") == 0


def test_a_server_stops_at_once_even_while_a_client_waits_for_a_back_end(dormitory: Dormitory) -> None:
    dormitory.start("SD")
    dormitory.back_ends["S"].kill()
    alice = dormitory.log_in("alice")
    alice.send("AVAILABILITY S1")
    dormitory.main.wait_for_line(r"Client \(\d+\): request sent to Server S over UDP")
    assert dormitory.main.stop() == 0
    assert dormitory.back_ends["D"].stop(signal.SIGINT) == 0


@pytest.mark.skipif(not Path("/proc/net/udp").exists(), reason="needs Linux")
def test_the_main_server_receives_over_udp_only_where_its_back_ends_are(common_dormitory: Dormitory) -> None:
    common_dormitory.main.expect_rest()
    assert ask(common_dormitory.log_in("alice"), "AVAILABILITY S1") == "AVAILABLE 9"
    links = [str(entry.readlink()) for entry in Path(f"/proc/{common_dormitory.main.pid}/fd").iterdir()]
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:")}
    sockets = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    ends = [(fields[1][:8], fields[2]) for fields in sockets if fields[9] in inodes]
    assert ("0100007F", f"0100007F:{common_dormitory.port('S'):04X}") in ends
    assert {local for local, _ in ends} == {"0100007F"}
