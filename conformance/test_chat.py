"""The checks of the rules: JOIN, LIST, MESG, BCST and QUIT, over telnet, for ten users."""

import random
import re
import time
from collections.abc import Callable

from .chat import MAX_USERS, Chat, contains, unique_text
from .dialogue import ChatClient, quoted
from .rules import BASIC, BEYOND, ROBUST, fail, needs, rule

MOMENT_SECONDS = 0.3  # in which a reply would come that must not come, or that nobody demands
HALF_LINE_SECONDS = 0.15
STUCK_SECONDS = 10.0  # how long a client that does not read may delay others, once
FLOOD_BYTES = 2 << 20  # more than the kernel and most servers keep for a client that does not read
FLOOD_SECONDS = 15.0
FREEZE_SECONDS = 1.0
NAME_RACES, PLACE_RACES = 10, 4
LONG_CHARACTERS, SHORT_CHARACTERS = 900, 180

# Basic: what the original assignment asks for


@rule("JOIN-ACCEPTED", BASIC, "JOIN alice is answered with the name and 'accepted'")
def test_join_accepted(chat: Chat) -> None:
    alice = chat.connect("alice")
    alice.say(f"JOIN {alice.name}")
    chat.expect_reply(alice, rf"\b{alice.name}\b[\s\S]{{0,40}}?accepted", f"JOIN {alice.name} accepted")


@rule("LIST-NAMES", BASIC, "LIST shows the names of all users, and of nobody else")
def test_list_names(chat: Chat) -> None:
    alice = chat.join("alice")
    chat.expect_list(alice, [alice])
    bob, stranger = chat.join("bob"), chat.connect("stranger")
    chat.expect_list(bob, [alice, bob], absent=stranger.name)


@rule("JOIN-AGAIN", BASIC, "a second JOIN changes nothing: the user keeps its name")
@needs("LIST-NAMES")
def test_join_again(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    for name in (alice.name, chat.name("other")):
        alice.say(f"JOIN {name}")
        if chat.exact:
            alice.expect_line(f"Already registered as {alice.name}")
    chat.expect_list(bob, [alice, bob], absent=chat.name("other"))


@rule("MESG-DELIVERED", BASIC, "MESG bob text reaches bob")
def test_mesg_delivered(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    text = f"Hello there, {unique_text()}!"
    alice.say(f"MESG {bob.name} {text}")
    chat.expect_message(bob, alice, text)
    chat.expect_delivery(bob, alice)


@rule("MESG-SENDER", BASIC, "a message shows the name of its sender")
@needs("MESG-DELIVERED")
def test_mesg_sender(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    expect_signed(alice, f"MESG {bob.name}", bob)


@rule("MESG-PRIVATE", BASIC, "MESG reaches nobody else")
@needs("MESG-DELIVERED")
def test_mesg_private(chat: Chat) -> None:
    alice, bob, carol = chat.join_all("alice", "bob", "carol")
    secret = unique_text()
    alice.say(f"MESG {bob.name} {secret}")
    chat.expect_message(bob, alice, secret)
    chat.expect_no_message(carol, secret, speaker=alice)


@rule("MESG-UNKNOWN", BASIC, "MESG to a name that nobody has is answered with 'Unknown Recipient'")
def test_mesg_unknown(chat: Chat) -> None:
    alice = chat.join("alice")
    expect_unknown_recipient(chat, alice, chat.name("nobody"))


def expect_unknown_recipient(chat: Chat, sender: ChatClient, name: str) -> None:
    chat.expect_answer(sender, f"MESG {name} hi", "unknown recipient", f"Unknown Recipient {name}")


@rule("BCST-DELIVERED", BASIC, "BCST text reaches all other users")
def test_bcst_delivered(chat: Chat) -> None:
    alice, bob, carol = chat.join_all("alice", "bob", "carol")
    expect_broadcast(chat, alice, bob, carol)
    expect_broadcast(chat, carol, alice, bob)


def expect_broadcast(chat: Chat, sender: ChatClient, *recipients: ChatClient) -> None:
    text = f"Who else is on? {unique_text()}"
    sender.say(f"BCST {text}")
    for recipient in recipients:
        chat.expect_message(recipient, sender, text, to_all=True)


@rule("BCST-SENDER", BASIC, "a message to all shows the name of its sender")
@needs("BCST-DELIVERED")
def test_bcst_sender(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    expect_signed(alice, "BCST", bob)


def expect_signed(sender: ChatClient, request: str, recipient: ChatClient) -> None:
    text = unique_text()
    sender.say(f"{request} {text}")
    recipient.expect(rf"\b{sender.name}\b[^\n]*?{text}", f"'{sender.name}' and '{text}' on one line")


@rule("BCST-NOT-ECHOED", BASIC, "BCST does not reach its sender")
@needs("MESG-DELIVERED", "BCST-DELIVERED")
def test_bcst_not_echoed(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    text = unique_text()
    alice.say(f"BCST {text}")
    chat.expect_message(bob, alice, text, to_all=True)
    chat.expect_no_message(alice, text, speaker=bob)


@rule("QUIT-CLOSES", BASIC, "QUIT closes the connection of a user")
def test_quit_closes(chat: Chat) -> None:
    alice = chat.join("alice")
    alice.say("QUIT")
    alice.expect_end()


@rule("QUIT-UNREGISTERED", BASIC, "QUIT closes the connection of a client that has not joined")
def test_quit_unregistered(chat: Chat) -> None:
    stranger = chat.connect("stranger")
    stranger.say("QUIT")
    stranger.expect_end()


@rule("QUIT-NAME-FREE", BASIC, "after QUIT, LIST does not show the name, and another client may take it")
@needs("LIST-NAMES")
def test_quit_name_free(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    alice.say("QUIT")
    alice.wait_for_end(FREEZE_SECONDS)
    chat.expect_list(bob, [bob], absent=alice.name)
    heir = chat.expect_join("heir", name=alice.name)
    chat.expect_list(bob, [bob, heir])


@rule("UNREG-LIST", BASIC, "LIST before JOIN is answered with 'Unregistered User'")
def test_unreg_list(chat: Chat) -> None:
    alice, stranger = chat.join("alice"), chat.connect("stranger")
    stranger.say("LIST")
    chat.expect_unregistered(stranger)
    if alice.name in stranger.read_rest():
        fail("LIST before JOIN should not show the users")


@rule("UNREG-MESG", BASIC, "MESG before JOIN is answered with 'Unregistered User', and reaches nobody")
def test_unreg_mesg(chat: Chat) -> None:
    bob, stranger = chat.join("bob"), chat.connect("stranger")
    expect_refused_message(chat, stranger, f"MESG {bob.name}", bob)


@rule("UNREG-BCST", BASIC, "BCST before JOIN is answered with 'Unregistered User', and reaches nobody")
def test_unreg_bcst(chat: Chat) -> None:
    bob, stranger = chat.join("bob"), chat.connect("stranger")
    expect_refused_message(chat, stranger, "BCST", bob)


def expect_refused_message(chat: Chat, stranger: ChatClient, request: str, bob: ChatClient) -> None:
    text = unique_text()
    stranger.say(f"{request} {text}")
    chat.expect_unregistered(stranger)
    if text in bob.read_rest():
        fail(f"bob should not receive '{text}' from a client that has not joined")


@rule("UNREG-OTHER", BASIC, "any other request before JOIN is answered with 'Unregistered User'")
def test_unreg_other(chat: Chat) -> None:
    stranger = chat.connect("stranger")
    for line in ("HELO", "WHO"):
        stranger.say(line)
        chat.expect_unregistered(stranger)
    chat.expect_acceptance(stranger)


@rule("UNREG-DEAF", BASIC, "a client that has not joined receives no BCST")
@needs("BCST-DELIVERED")
def test_unreg_deaf(chat: Chat) -> None:
    stranger = chat.connect("stranger")
    alice, bob = chat.join_all("alice", "bob")
    text = unique_text()
    alice.say(f"BCST {text}")
    chat.expect_message(bob, alice, text, to_all=True)
    if text in stranger.read_rest():
        fail(f"a client that has not joined should not receive '{text}'")


@rule("UNKNOWN-REQUEST", BASIC, "an unknown request of a user is answered with 'Unknown Message'")
@needs("LIST-NAMES")
def test_unknown_request(chat: Chat) -> None:
    alice = chat.join("alice")
    for line in ("HELO", "where is everybody?"):
        chat.expect_unknown(alice, line)
    chat.expect_list(alice, [alice])


@rule("COMMAND-CASE", BASIC, "commands in lower case are unknown requests")
@needs("UNKNOWN-REQUEST", "LIST-NAMES")
def test_command_case(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    for line in ("list", f"mesg {bob.name} hi", "bcst hi", "quit"):
        chat.expect_unknown(alice, line)
    stranger = chat.connect("stranger")
    stranger.say(f"join {stranger.name}")
    stranger.read_rest(MOMENT_SECONDS)
    chat.expect_list(bob, [alice, bob], absent=stranger.name)


@rule("FULL-REFUSED", BASIC, "the eleventh JOIN is answered with 'Too Many Users' and the end")
def test_full_refused(chat: Chat) -> None:
    for number in range(MAX_USERS):
        chat.expect_join(f"user{number}")
    late = chat.connect("late")
    late.say(f"JOIN {late.name}")
    text = late.expect_end()
    if text != "Too Many Users\n" if chat.exact else not re.search("(?i)too many users", text):
        fail(f"late should receive 'Too Many Users', but received {quoted(text)} ({late.ended})")


@rule("FULL-PLACE-FREE", BASIC, "when one of ten users leaves, another client may join")
@needs("MESG-DELIVERED")
def test_full_place_free(chat: Chat) -> None:
    users = [chat.expect_join(f"user{number}") for number in range(MAX_USERS)]
    users[3].say("QUIT")
    users[3].wait_for_end(FREEZE_SECONDS)
    chat.expect_delivery(chat.expect_join("late"), users[7])


@rule("FULL-CONNECTED", BASIC, "clients that have not joined take no place")
@needs("MESG-DELIVERED")
def test_full_connected(chat: Chat) -> None:
    for number in range(MAX_USERS + 2):
        chat.connect(f"idle{number}")
    chat.expect_service()


# Robust: TCP, and many clients at once


@rule("NAME-TAKEN", ROBUST, "a name that a user has is refused to another client")
@needs("MESG-DELIVERED", "LIST-NAMES")
def test_name_taken(chat: Chat) -> None:
    alice, bob = chat.join("alice"), chat.connect("bob")
    bob.say(f"JOIN {alice.name}")
    if chat.exact:
        bob.expect_line(f"Username {alice.name} is taken")
    elif re.search("(?i)accepted", text := bob.read_rest(MOMENT_SECONDS)):
        fail(f"bob should not get the name of alice, but received {quoted(text)}")
    if bob.ended:
        bob = chat.connect("bob")
    chat.expect_acceptance(bob)
    chat.expect_list(bob, [alice, bob])
    chat.expect_delivery(bob, alice)


@rule("NAME-WHOLE", ROBUST, "a name is compared as a whole: a part of it is another name")
@needs("MESG-PRIVATE", "MESG-UNKNOWN")
def test_name_whole(chat: Chat) -> None:
    speaker, anna = chat.join_all("speaker", "anna")
    for name in (anna.name[:-1], anna.name + "x", anna.name[1:], anna.name[:2]):
        expect_unknown_recipient(chat, speaker, name)
    short = chat.join("short", name=anna.name[:-1])
    expect_only(chat, speaker, short, anna)


@rule("NAME-CASE", ROBUST, "Alice and alice are two users")
@needs("MESG-PRIVATE")
def test_name_case(chat: Chat) -> None:
    speaker, lower = chat.join_all("speaker", "alice")
    upper = chat.join("upper", name=chat.name("Alice"))
    expect_only(chat, speaker, upper, lower)


def expect_only(chat: Chat, speaker: ChatClient, recipient: ChatClient, other: ChatClient) -> None:
    text = unique_text()
    speaker.say(f"MESG {recipient.name} {text}")
    chat.expect_message(recipient, speaker, text)
    chat.expect_no_message(other, text, speaker)


@rule("COMMAND-WHOLE", ROBUST, "a request that only begins like a command is unknown")
@needs("UNKNOWN-REQUEST", "LIST-NAMES")
def test_command_whole(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    for line in ("LISTEN", "QUITE", "BCSTX hi", f"MESGX {bob.name} hi"):
        chat.expect_unknown(alice, line)
    chat.expect_list(bob, [alice, bob])


@rule("INCOMPLETE", ROBUST, "commands without their arguments harm nobody")
@needs("MESG-DELIVERED")
def test_incomplete(chat: Chat) -> None:
    bob, joining = chat.join("bob"), chat.connect("joining")
    joining.say("JOIN")
    joining.read_rest(MOMENT_SECONDS)
    for number, line in enumerate(("BCST", "MESG", f"MESG {bob.name}")):
        user = chat.join(f"user{number}")
        user.say(line)
        user.read_rest(MOMENT_SECONDS)  # the server may answer, or close the connection
    chat.expect_delivery(chat.expect_join("alice"), bob)


@rule("LINE-LF", ROBUST, "lines may end with LF alone, as those of nc do")
@needs("MESG-DELIVERED")
def test_line_lf(chat: Chat) -> None:
    alice, bob = chat.join("alice", line_end=b"\n"), chat.join("bob", line_end=b"\n")
    chat.expect_delivery(alice, bob)
    chat.expect_delivery(bob, alice)


@rule("LINE-HALF", ROBUST, "a line that arrives in two packets is one line")
@needs("MESG-DELIVERED")
def test_line_half(chat: Chat) -> None:
    alice, bob, text = chat.connect("alice"), chat.join("bob"), unique_text()
    for line in (f"JO|IN {alice.name}\r\n", f"MESG {bob.name} {text[:3]}|{text[3:]}\r\n"):
        for half in line.encode().split(b"|"):
            alice.send(half)
            time.sleep(HALF_LINE_SECONDS)
    chat.expect_message(bob, alice, text)


@rule("LINE-TWO", ROBUST, "two lines that arrive in one packet are two lines")
@needs("MESG-SENDER")
def test_line_two(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    one, two = unique_text(), unique_text()
    alice.send(f"MESG {bob.name} {one}\r\nMESG {bob.name} {two}\r\n".encode())
    text = bob.read_until(f"{two}[^\n]*\n")
    if len(re.findall(rf"\b{alice.name}\b", text)) != 2 or "MESG" in text:
        fail(f"bob should receive two messages, but received {quoted(text)}")


@rule("LINE-MANY", ROBUST, "500 lines in a few packets all arrive, in order")
@needs("LINE-TWO", "BCST-DELIVERED")
def test_line_many(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    mark, count = unique_text(), 500
    requests = [f"MESG {bob.name}" if number % 3 else "BCST" for number in range(count)]
    alice.send("".join(f"{request} {mark} {number}\r\n" for number, request in enumerate(requests)).encode())
    text = bob.read_until(rf"{mark} {count - 1}\b", 5.0)
    numbers = [int(number) for number in re.findall(rf"{mark} (\d+)", text)]
    if numbers != list(range(count)):
        fail(f"bob should receive {count} messages in order, but received {len(numbers)}: {str(numbers)[:100]}")


@rule("LINE-LONG", ROBUST, "a text of 1000 characters arrives whole")
@needs("MESG-DELIVERED")
def test_line_long(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    text = unique_text() + "x" * 980 + unique_text()
    alice.say(f"MESG {bob.name} {text}")
    chat.expect_message(bob, alice, text)


@rule("LINE-ENDLESS", ROBUST, "100,000 bytes without a newline, or random bytes, harm nobody else")
@needs("MESG-DELIVERED")
def test_line_endless(chat: Chat) -> None:
    for number, data in enumerate(
        (b"BCST " + b"x" * 100_000, b"JOIN " + b"a" * 5000 + b"\r\n", random.Random(7).randbytes(3000) + b"\r\n")
    ):
        villain = chat.connect(f"villain{number}")
        villain.send(data)
        villain.read_rest(MOMENT_SECONDS)
    chat.expect_service()


@rule("HALF-LINE-SILENT", ROBUST, "a client that sends half a line and falls silent delays nobody")
@needs("MESG-DELIVERED")
def test_half_line_silent(chat: Chat) -> None:
    chat.connect("silent").send(b"JOIN sil")
    time.sleep(HALF_LINE_SECONDS)
    chat.expect_service()


@rule("DROP-CLOSE", ROBUST, "the name of a user whose connection closes without QUIT is free")
@needs("BCST-DELIVERED", "LIST-NAMES")
def test_drop_close(chat: Chat) -> None:
    expect_name_free(chat, ChatClient.close)


@rule("DROP-RESET", ROBUST, "the name of a user whose connection is reset is free")
@needs("BCST-DELIVERED", "LIST-NAMES")
def test_drop_reset(chat: Chat) -> None:
    expect_name_free(chat, ChatClient.reset)


def expect_name_free(chat: Chat, drop: Callable[[ChatClient], None]) -> None:
    alice, bob, carol = chat.join_all("alice", "bob", "carol")
    drop(alice)
    for _ in range(3):  # the first message to a closed connection meets no error, the second may kill the server
        expect_broadcast(chat, bob, carol)
        time.sleep(0.05)
    chat.expect_list(bob, [bob, carol], absent=alice.name)
    chat.expect_join("heir", name=alice.name)


@rule("STUCK-READER", ROBUST, "a user that stops reading delays nobody who does not write to it")
@needs("MESG-DELIVERED", "BCST-DELIVERED")
def test_stuck_reader(chat: Chat) -> None:
    flood_sleeper(chat)
    chat.expect_service()


@rule("STUCK-SENDER", BEYOND, "a user that stops reading delays those who write to it once, for 10 seconds")
@needs("STUCK-READER")
def test_stuck_sender(chat: Chat) -> None:
    length = flood_sleeper(chat)
    alice, bob = chat.join_all("alice", "bob")
    end = time.monotonic() + STUCK_SECONDS + chat.limits.answer_seconds
    for _ in range(20):  # more than the kernel still takes for the user that does not read
        text = unique_text()
        alice.send(f"BCST {'z' * length}{text}\r\n".encode())
        bob.expect(text, f"'{text}' from alice", end - time.monotonic())


def flood_sleeper(chat: Chat) -> int:
    """Send messages to all until a user that does not read stops them, or enough are sent; return their length."""
    chat.join("sleeper", reads=False)
    flooder, reader = chat.join_all("flooder", "reader")
    sent, length, end = 0, LONG_CHARACTERS, time.monotonic() + FLOOD_SECONDS
    while sent < FLOOD_BYTES and time.monotonic() < end:
        mark = unique_text()
        flooder.send(f"BCST {'x' * length}{mark}\r\n".encode())
        flooder.discard()  # it may receive its own messages
        if mark in reader.read_until(mark, FREEZE_SECONDS):
            sent += length
        elif sent or length == SHORT_CHARACTERS:
            break
        else:
            length = SHORT_CHARACTERS  # the server does not relay long lines
    return length


@rule("RACE-PLACES", ROBUST, "of 20 clients that join at the same moment, exactly ten are accepted")
@needs("LIST-NAMES", "QUIT-CLOSES", "FULL-REFUSED", "FULL-PLACE-FREE", "FULL-CONNECTED")
def test_race_places(chat: Chat) -> None:
    for attempt in range(PLACE_RACES):
        clients = [chat.connect(f"racer{attempt}{number:02}") for number in range(2 * MAX_USERS)]
        join_at_once(clients)
        end = time.monotonic() + FREEZE_SECONDS
        replies = [client.read_until("(?i)accepted|too many", end - time.monotonic()) for client in clients]
        users = [client for client, reply in zip(clients, replies, strict=True) if not is_refusal(client, reply)]
        if not users:
            fail("all of 20 clients were refused")
        text = chat.list_text(users[0], [])
        count = sum(contains(text, client.name) for client in clients)
        if count != MAX_USERS:
            fail(f"LIST should show {MAX_USERS} of 20 clients, but shows {count}")
        for client in clients:
            client.say("QUIT")
            client.wait_for_end(FREEZE_SECONDS)
            client.close()


def is_refusal(client: ChatClient, reply: str) -> bool:
    return bool(client.ended) or "too many" in reply.lower()


@rule("RACE-NAME", ROBUST, "of 8 clients that ask for one name at the same moment, exactly one gets it")
@needs("MESG-UNKNOWN", "UNREG-MESG", "NAME-TAKEN")
def test_race_name(chat: Chat) -> None:
    for attempt in range(NAME_RACES):
        clients = [chat.connect(f"racer{number}", name=chat.name(f"same{attempt}")) for number in range(8)]
        join_at_once(clients)
        users = [client for client in clients if is_registered(client, chat.name("nobody"))]
        if len(users) != 1:
            fail(f"one of 8 clients should get the name, but {len(users)} did")
        for client in clients:
            client.say("QUIT")
            client.close()


def join_at_once(clients: list[ChatClient]) -> None:
    for client in clients:
        client.send(f"JOIN {client.name}\r\n".encode())


def is_registered(client: ChatClient, nobody: str) -> bool:
    client.say(f"MESG {nobody} hi")
    return "unknown recipient" in client.read_until("(?i)unknown recipient|unregistered user").lower()


@rule("CONCURRENT", ROBUST, "when ten users send to all at the same time, each message arrives whole")
@needs("BCST-DELIVERED")
def test_concurrent(chat: Chat) -> None:
    users = chat.join_all(*(f"user{number}" for number in range(MAX_USERS)))
    for _ in range(10):
        texts = {user: unique_text() + "y" * 40 + unique_text() for user in users}
        for user, text in texts.items():
            user.send(f"BCST {text}\r\n".encode())
        for user in users:
            missing = {text for sender, text in texts.items() if sender is not user}
            while missing and (line := user.read_until("\n")):
                missing = {text for text in missing if text not in line}
            if missing:
                fail(f"{user.who} should receive a message of each other user whole, but lacks {len(missing)}")


# Beyond: what this project's protocol adds


@rule("MESG-SELF", BEYOND, "a message to oneself is delivered")
@needs("MESG-DELIVERED")
def test_mesg_self(chat: Chat) -> None:
    alice = chat.join("alice")
    chat.expect_delivery(alice, alice)


@rule("TEXT-AS-TYPED", BEYOND, "blanks, tabs and UTF-8 in a text arrive as typed")
@needs("MESG-DELIVERED", "BCST-DELIVERED")
def test_text_as_typed(chat: Chat) -> None:
    alice, bob = chat.join_all("alice", "bob")
    for text in ("two   blanks  ", "\ttab", "Zoë, 東京 🚀", "JOIN bob", "100 %s %d %n", "'quoted\\n"):
        alice.say(f"MESG {bob.name} {text}")
        chat.expect_message(bob, alice, text)
        alice.say(f"BCST {text}")
        chat.expect_message(bob, alice, text, to_all=True)


@rule("EMPTY-LINE", BEYOND, "an empty line is ignored")
@needs("UNKNOWN-REQUEST")
def test_empty_line(chat: Chat) -> None:
    alice = chat.join("alice")
    alice.read_rest()
    alice.say("")
    if text := alice.read_rest(MOMENT_SECONDS).strip():
        fail(f"an empty line should not be answered, but was answered with '{text}'")
    if alice.ended:
        fail(f"an empty line should be ignored, but the connection has ended ({alice.ended})")


@rule("BLANKS", BEYOND, "blanks around a command and a name do not matter")
@needs("MESG-DELIVERED", "QUIT-CLOSES")
def test_blanks(chat: Chat) -> None:
    alice, bob, text = chat.connect("alice"), chat.join("bob"), unique_text()
    alice.say(f"  JOIN   {alice.name}  ")
    alice.read_rest(MOMENT_SECONDS)
    alice.say(f" MESG   {bob.name} {text}")
    chat.expect_message(bob, alice, text)
    alice.say("QUIT ")
    alice.expect_end()


@rule("LIST-ORDER", BEYOND, "LIST shows the names in order of joining, each on a line")
@needs("LIST-NAMES", "QUIT-NAME-FREE")
def test_list_order(chat: Chat) -> None:
    zoe, _, amy = chat.join_all("zoe", "mia", "amy")
    zoe.say("QUIT")
    zoe.wait_for_end(FREEZE_SECONDS)
    chat.join("zoe")
    names = [chat.name(who) for who in ("mia", "amy", "zoe")]
    lines = chat.list_text(amy, names).splitlines()
    shown = [[name for name in names if contains(line, name)] for line in lines]
    if [found for found in shown if found] != [[name] for name in names]:
        fail(f"LIST should show mia, amy and zoe, in this order, each on a line, but shows {lines}")


@rule("NAME-RULE", BEYOND, "a name is 1 to 32 letters and digits; any other is refused")
@needs("LIST-NAMES", "UNREG-OTHER")
def test_name_rule(chat: Chat) -> None:
    users = [chat.join("alice")]
    for name in ("", "al-ice", "al ice", "zoë", "a" * 33):
        client = chat.connect(f"user{len(users)}")
        client.say(f"JOIN {name}")
        if chat.exact:
            client.expect_line("Invalid username: 1 to 32 letters and digits are expected")
        else:
            client.read_rest(MOMENT_SECONDS)
        if not client.ended:  # a client that is registered could not join
            chat.expect_acceptance(client)
            users.append(client)
            chat.expect_list(users[0], users)
    users.append(chat.expect_join("long", name=chat.name("a" * 29)))
    chat.expect_list(users[0], users)


@rule("QUIT-REST", BEYOND, "requests after QUIT in the same packet are not carried out")
@needs("MESG-DELIVERED", "QUIT-CLOSES")
def test_quit_rest(chat: Chat) -> None:
    alice, bob, carol = chat.join_all("alice", "bob", "carol")
    text = unique_text()
    alice.send(f"QUIT\r\nBCST {text}\r\n".encode())
    alice.expect_end()
    chat.expect_no_message(bob, text, speaker=carol)


@rule("END-OF-INPUT", BEYOND, "requests before the end of input are answered, even one without a newline")
@needs("MESG-UNKNOWN", "LINE-TWO")
def test_end_of_input(chat: Chat) -> None:
    alice, count = chat.connect("alice"), 100
    requests = [f"MESG {chat.name('nobody')} hi"] * count
    alice.send("\r\n".join([f"JOIN {alice.name}", *requests]).encode())
    alice.end_input()
    replies = len(re.findall("(?i)unknown recipient", alice.expect_end()))
    if replies != count:
        fail(f"alice should receive {count} replies before the end, but received {replies}")


@rule("CONTROL", BEYOND, "control characters and telnet commands reach no other user")
@needs("BCST-DELIVERED")
def test_control(chat: Chat) -> None:
    alice, bob, text = chat.join("alice"), chat.join("bob"), unique_text()
    alice.send(b"BCST \x1b[2J\x07" + text.encode() + b"\xff\xfb\x01\r\n")
    bob.expect(rf"{text}[^\n]*\n", f"'{text}'")
    if any(byte in bob.received for byte in b"\x1b\x07\xff"):
        fail(f"bob should receive '{text}' without control characters, but received {bytes(bob.received)!r}")
