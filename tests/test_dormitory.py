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
from conftest import Peer, wait_until
from dorm import PASSWORDS, Dormitory, make_common_dormitory, make_dormitory  # noqa: F401

from dormitory.reservations import Refused, Reservations


def ask(peer: Peer, request: str) -> str:
    """Return the reply to a request."""
    peer.send(request)
    return peer.read_line()


def test_a_member_reserves_looks_and_cancels(dormitory: Dormitory) -> None:
    dormitory.start()
    alice = dormitory.log_in("alice")
    assert ask(alice, "AVAILABILITY S12") == "AVAILABLE 6"
    assert ask(alice, "RESERVE S12") == "RESERVED S1 5"
    assert ask(alice, "RESERVE U1") == "RESERVED U1 2"
    assert ask(alice, "AVAILABILITY S12") == "AVAILABLE 5"
    assert ask(alice, "MINE") == "RESERVATIONS S1=S12 U1=U1"
    assert ask(alice, "LIST") == "ROOMS S1=9 S12=5 S123=0 D1=2 U1=2"
    assert ask(alice, "CANCEL S1") == "CANCELLED S12"
    assert ask(alice, "CANCEL S1") == "UNKNOWN_RESERVATION"
    assert ask(alice, "AVAILABILITY S12") == "AVAILABLE 6"
    assert ask(alice, "MINE") == "RESERVATIONS U1=U1"
    assert ask(alice, "RESERVE S123") == "FULL"
    assert ask(alice, "AVAILABILITY S123") == "FULL"
    assert ask(alice, "RESERVE S12") == "RESERVED S2 5"  # an id is never given out again
    alice.send("QUIT", "LIST")
    alice.expect_end()


def test_status_lines_tell_the_story_of_a_reservation(dormitory: Dormitory) -> None:
    dormitory.start("D")
    ask(dormitory.log_in("alice"), "RESERVE D1")
    client = dormitory.main.wait_for_line(r"(Client \(\d+\)): LOGIN alice as member over TCP with port \d+")[1]
    client = client.replace("(", r"\(").replace(")", r"\)")
    for line in (
        rf"RESERVE D1 from alice over TCP with port {dormitory.main.port}",
        "request sent to Server D",
        r"response received from Server D over UDP with port \d+: RESERVED D1 1",
        "room status of D1 updated: 1",
        "result sent: RESERVED D1 1",
    ):
        dormitory.main.wait_for_line(f"{client}: {line}")
    for line in ("received RESERVE D1 alice", "has 1 of room D1 left", "sent RESERVED D1 1 to the main server"):
        dormitory.back_ends["D"].wait_for_line(f"Server D {line}")
    everything = "\n".join(dormitory.main.lines + dormitory.back_ends["D"].lines)
    assert PASSWORDS["alice"] not in everything


def test_nothing_is_done_before_login_and_guests_only_look(dormitory: Dormitory) -> None:
    dormitory.start()
    alice = dormitory.log_in("alice")
    ask(alice, "RESERVE S1")
    guest = dormitory.main.connect()
    for request in ("AVAILABILITY S1", "RESERVE S1", "CANCEL S1", "MINE", "LIST", "HELLO", ""):
        assert ask(guest, request) == "DENIED Log in first"
    assert ask(guest, "LOGIN alice") == "GUEST alice"  # a member's name without the password
    assert ask(guest, "AVAILABILITY S1") == "AVAILABLE 8"
    assert ask(guest, "RESERVE S1") == "DENIED Guests cannot reserve"
    assert ask(guest, "CANCEL S1") == "UNKNOWN_RESERVATION"
    assert ask(guest, "MINE") == "RESERVATIONS"
    assert ask(alice, "MINE") == "RESERVATIONS S1=S1"


def test_a_failed_login_gives_no_rights_and_takes_those_of_before(common_dormitory: Dormitory) -> None:
    peer = common_dormitory.log_in("alice")
    for login in ("LOGIN alice secret", "LOGIN nobody secret", "LOGIN bob secret "):
        assert ask(peer, login) == "REFUSED Wrong username or password"
        assert ask(peer, "MINE") == "DENIED Log in first"
    assert ask(peer, "LOGIN bob secret") == "MEMBER bob"
    assert ask(peer, "LOGIN bob x") == "REFUSED Wrong username or password"
    assert ask(peer, "LOGIN eve") == "GUEST eve"
    assert ask(peer, "LOGIN bob y") == "REFUSED Wrong username or password"
    peer.expect_end()  # it was the fifth


def test_one_member_cannot_cancel_anothers_reservation(dormitory: Dormitory) -> None:
    dormitory.start("S")
    alice, bob = dormitory.log_in("alice"), dormitory.log_in("bob")
    assert ask(alice, "RESERVE S1") == "RESERVED S1 8"
    for reservation in ("S1", "S2", "S01", "D1x", "1", "S99999999999999999999", "X1"):
        assert ask(bob, f"CANCEL {reservation}") == "UNKNOWN_RESERVATION"
    assert dormitory.rows("S") == [("S1", "S1", "alice")]


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


def test_the_beginning_of_a_code_is_no_code(tmp_path: Path) -> None:
    with closing(Reservations(tmp_path / "single.db", "S", {"S900": 1})) as reservations:
        assert reservations.left("S900") == 1
        with pytest.raises(Refused, match="UNKNOWN_ROOM"):
            reservations.left("S90")


def test_anything_else_is_invalid_and_says_what_was_expected(common_dormitory: Dormitory) -> None:
    guest = common_dormitory.log_in("eve")
    for request, expected in {
        "AVAILABILITY": "AVAILABILITY code",
        "RESERVE S1 S2": "RESERVE code",
        "CANCEL": "CANCEL id",
        "MINE all": "MINE",
        "LIST S": "LIST",
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
    guest.send("LIST", "AVAILABILITY U1")
    guest.end_input()
    assert guest.read_all() == "ROOMS S1=9 S12=6 S123=0 D1=2 U1=3\nAVAILABLE 3\n"
    common_dormitory.log_in("alice").send_bytes(b"RESERVE S")  # gone in the middle of a request
    common_dormitory.main.peers[-1].close()
    common_dormitory.log_in("alice").reset()
    assert ask(common_dormitory.log_in("bob"), "MINE") == "RESERVATIONS"


def test_long_lists_fit_a_line_and_mine_shows_the_latest_fifty(dormitory: Dormitory) -> None:
    for kind, letter in (("single", "S"), ("double", "D"), ("suite", "U")):
        rooms = [f"{letter}{number:011}" for number in range(70)]
        dormitory.write(f"{kind}.txt", "".join(f"{room}, 9999\n" for room in rooms))
    dormitory.start()
    alice = dormitory.log_in("alice")
    lines = [f"RESERVE {letter}{number:011}" for number in range(60) for letter in "SDU"]
    alice.send(*lines)
    for _ in lines:
        alice.expect_match(r"RESERVED [SDU]\d+ 9998")
    mine = ask(alice, "MINE").split()[1:]
    assert mine == [f"{letter}{n}={letter}{n - 1:011}" for letter in "SDU" for n in range(11, 61)]
    rooms = [f"{letter}{n:011}={9998 if n < 60 else 9999}" for letter in "SDU" for n in range(70)]
    assert ask(alice, "LIST").split()[1:] == rooms


def test_twelve_clients_after_two_rooms_two_get_one(dormitory: Dormitory) -> None:
    dormitory.start("D")
    clients = [dormitory.log_in("alice" if number % 2 else "bob") for number in range(12)]
    for client in clients:
        client.send("RESERVE D1")
    assert sorted(client.read_line() for client in clients) == [
        *["FULL"] * 10,
        "RESERVED D1 1",
        "RESERVED D2 0",
    ]
    assert len(dormitory.rows("D")) == 2


def test_a_reservation_outlives_a_restart_of_everything_in_any_order(dormitory: Dormitory) -> None:
    dormitory.start()
    assert ask(dormitory.log_in("alice"), "RESERVE S1") == "RESERVED S1 8"
    for program in (dormitory.main, *dormitory.back_ends.values()):
        program.kill()
    dormitory.start_back_ends("UDS")
    dormitory.back_ends["S"].wait_for_line("Server S waits for the main server at .*")
    dormitory.start_main()
    dormitory.wait_until_found("SDU", seconds=3.0)
    alice = dormitory.log_in("alice")
    assert ask(alice, "AVAILABILITY S1") == "AVAILABLE 8"
    assert ask(alice, "MINE") == "RESERVATIONS S1=S1"


def test_a_main_server_after_a_kill_finds_back_ends_within_three_seconds_and_closes_who_does_not_log_in(
    dormitory: Dormitory,
) -> None:
    dormitory.start("SD")
    dormitory.main.kill()
    dormitory.start_main("--login-seconds", "1")
    began = time.monotonic()
    eve = dormitory.log_in("eve")
    silent, refused = dormitory.main.connect(), dormitory.main.connect()
    assert ask(refused, "LOGIN alice wrong") == "REFUSED Wrong username or password"
    for peer in (silent, refused):
        assert peer.read_all().startswith("Timed out")
    dormitory.wait_until_found("SD", seconds=began + 3.0 - time.monotonic())
    assert ask(eve, "AVAILABILITY D1") == "AVAILABLE 2"


def test_neither_a_gone_back_end_nor_fifty_wrong_logins_at_once_delay_others(dormitory: Dormitory) -> None:
    dormitory.write("member.txt", (dormitory.directory / "member.txt").read_text() + f"carol, {DEAR_HASH}\n")
    dormitory.start("SD")
    alice, bob, lister = dormitory.log_in("alice"), dormitory.log_in("bob"), dormitory.log_in("eve")
    attackers = [dormitory.main.connect() for _ in range(50)]
    dormitory.back_ends["S"].kill()
    memory = [dormitory.main.resident_bytes()]
    delays: list[float] = []
    began = time.monotonic()
    alice.send("AVAILABILITY D1", *["RESERVE S1"] * 500, "RESERVE D1")
    lister.send("LIST")
    for attacker in attackers:
        attacker.send("LOGIN carol wrong")
    alice.expect("AVAILABLE 2")
    assert time.monotonic() - began < 1.0  # not held back until Server S is given up
    while time.monotonic() < began + 2.0:  # meanwhile
        asked = time.monotonic()
        assert ask(bob, "AVAILABILITY D1") == "AVAILABLE 2"
        delays.append(time.monotonic() - asked)
        memory.append(dormitory.main.resident_bytes())
    assert max(delays) < 1.0
    assert median(delays) < 0.1
    assert max(memory) - memory[0] < 30e6  # 16 MiB for the one that is being checked
    alice.expect(*["TRY_LATER Server S is not answering"] * 500)  # all that came together, after one wait
    assert 2.5 < time.monotonic() - began < 4.0
    alice.expect("RESERVED D1 1")
    lister.expect("TRY_LATER Server S is not answering")
    dormitory.start_back_end("S", port=0)  # it has moved
    assert ask(alice, "RESERVE S1") == "RESERVED S1 8"
    for attacker in attackers:
        attacker.expect("REFUSED Wrong username or password")


def test_a_file_that_another_program_has_locked_delays_a_reservation(dormitory: Dormitory) -> None:
    dormitory.start("S")
    alice = dormitory.log_in("alice")
    with closing(sqlite3.connect(dormitory.directory / "single.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        alice.send("RESERVE S1")
        dormitory.back_ends["S"].wait_for_line("Server S cannot use its file of reservations: database is locked")
        other.execute("ROLLBACK")
        alice.expect("RESERVED S1 8")
    assert len(dormitory.rows("S")) == 1


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_on_a_full_disk_nothing_is_confirmed(dormitory: Dormitory) -> None:
    dormitory.start("S")
    alice = dormitory.log_in("alice")
    pid = dormitory.back_ends["S"].pid
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    alice.send("RESERVE S1")
    dormitory.back_ends["S"].wait_for_line("Server S cannot use its file of reservations: .*")
    assert ask(dormitory.log_in("eve"), "AVAILABILITY S1") == "AVAILABLE 9"
    assert dormitory.rows("S") == []
    resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    alice.expect("RESERVED S1 8")
    assert len(dormitory.rows("S")) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="here nobody chooses a processor")
def test_servers_that_wait_for_each_other_are_on_different_processors(common_dormitory: Dormitory) -> None:
    ours = os.sched_getaffinity(0)
    servers = common_dormitory.main, common_dormitory.back_ends["S"]
    main, back_end = (os.sched_getaffinity(server.pid) for server in servers)
    assert len(main) == len(back_end) == 1
    assert len(main | back_end) == min(2, len(ours))
    assert main | back_end <= ours


# Of a password that nobody knows, at the cost that serverM.py --add-member takes.
DEAR_HASH = f"scrypt$16384$8$1${'5a' * 16}${'00' * 32}"


def test_a_wrong_name_takes_as_long_as_a_wrong_password(dormitory: Dormitory) -> None:
    dormitory.write("member.txt", f"carol, {DEAR_HASH}\n")
    dormitory.start_main()
    times: dict[str, list[float]] = {"carol": [], "nobody": []}
    for _ in range(2):
        peer = dormitory.main.connect()
        for user in ("carol", "nobody") * 2:
            began = time.monotonic()
            assert ask(peer, f"LOGIN {user} wrong") == "REFUSED Wrong username or password"
            times[user].append(time.monotonic() - began)
    assert min(times["nobody"]) > min(times["carol"]) / 2 > 0.005


@pytest.mark.skipif("not __import__('shutil').which('prlimit')", reason="needs prlimit")
def test_each_connection_has_the_descriptors_it_needs(dormitory: Dormitory) -> None:
    dormitory.start_main("--max-connections", "150", prefix=("prlimit", "--nofile=64:4096"))
    dormitory.start_back_end("S")
    dormitory.wait_until_found("S")
    for peer in [dormitory.main.connect() for _ in range(150)]:
        peer.send("LOGIN eve", "AVAILABILITY S1")
        peer.expect("GUEST eve", "AVAILABLE 9")
    dormitory.main.connect().expect("Too many connections")


def test_a_server_stops_at_once_also_while_a_client_waits_for_a_back_end(dormitory: Dormitory) -> None:
    dormitory.start("SD")
    dormitory.back_ends["S"].kill()
    alice = dormitory.log_in("alice")
    alice.send("AVAILABILITY S1")
    dormitory.main.wait_for_line(r"Client \(\d+\): request sent to Server S")
    assert dormitory.main.stop() == 0
    assert dormitory.back_ends["D"].stop(signal.SIGINT) == 0


def test_who_sends_much_and_reads_nothing_costs_little_memory(dormitory: Dormitory) -> None:
    dormitory.start_main()
    guest = dormitory.main.connect(receive_buffer=4096)
    guest.send("LOGIN eve")
    guest.expect("GUEST eve")
    before = dormitory.main.resident_bytes()
    guest.send_bytes(b"\n" * (1 << 18))  # each gets a reply of a hundred bytes
    wait_until(lambda: dormitory.main.count_lines("Client .* result sent: INVALID .*") > 5000, "replies")
    assert dormitory.main.resident_bytes() - before < 12e6
    guest.reset()


def test_a_room_that_was_taken_out_of_the_inventory_can_be_cancelled(dormitory: Dormitory) -> None:
    dormitory.start("D")
    alice = dormitory.log_in("alice")
    assert ask(alice, "RESERVE D1") == "RESERVED D1 1"
    dormitory.back_ends["D"].kill()
    dormitory.write("double.txt", "D2, 1\n")
    dormitory.start_back_end("D")
    assert ask(alice, "CANCEL D1") == "CANCELLED D1"
    assert dormitory.rows("D") == []
