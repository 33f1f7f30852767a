"""The pages of the chat and of the chat rooms in a real browser, with real servers."""

from collections.abc import Iterator

import pytest
from browsing import expect_good_design, front_end
from conftest import Program, Start, looking_after
from webdriver import Window

INJECTIONS = ["<script>window.injected = 1</script>", "<img src=x onerror='window.injected = 2'>", "&lt;b&gt;"]


class ChatSite:
    """The servers and the address of their pages."""

    def __init__(self, address: str, chat: Program, rooms: Program) -> None:
        self.address = address
        self.chat = chat
        self.rooms = rooms

    def enter(self, window: Window, room: str) -> None:
        """Join a chat room from the lobby."""
        window.open(f"{self.address}chatrooms.html")
        window.press(f"Join {room}")
        window.wait_for_text(f"Room {room}")


@pytest.fixture(scope="module", name="site")
def site_fixture() -> Iterator[ChatSite]:
    """Provide both servers for all tests of this module."""
    with looking_after() as launch:
        servers = launch("chat_server.py", "0"), launch("chatroom_server.py", "0")
        for server in servers:
            server.wait_for_start()
        yield ChatSite(front_end(launch, chat=servers[0].port, chatrooms=servers[1].port), *servers)


def join(window: Window, address: str, name: str) -> None:
    """Join the chat through a front end."""
    window.open(f"{address}chat.html")
    window.type("User name", name)
    window.press("Join")
    window.find("Message")


def send(window: Window, text: str) -> None:
    """Send a message."""
    window.type("Message", text)
    window.press("Send")


def expect_no_injection(window: Window) -> None:
    """Fail if a text that another user wrote became part of the page."""
    assert window.run("return window.injected ?? null") is None
    assert window.run("return document.querySelectorAll('main img, main script').length") == 0


def test_two_browsers_and_a_telnet_user_chat(site: ChatSite, alice: Window, bob: Window) -> None:
    join(alice, site.address, "alice")
    join(bob, site.address, "bob")
    carol = site.chat.connect()
    carol.send("JOIN carol")
    carol.expect("JOIN carol accepted")
    send(bob, "hello, everybody")
    alice.wait_for_text("hello, everybody")
    carol.expect("FROM bob (all): hello, everybody")
    alice.choose("To", "bob")
    send(alice, "only for you")
    bob.wait_for_text("to you alone")
    bob.wait_for_text("only for you")
    carol.send("MESG alice héllo  there")
    alice.wait_for_text("héllo  there")
    alice.wait(lambda: "carol" in alice.run("return document.getElementById('people').innerText"), "carol is listed")
    expect_good_design(alice)
    bob.press("Leave")
    bob.wait_for_text("You have left the chat.")
    alice.wait_for_text("bob (has left)")
    send(alice, "are you there?")
    alice.wait_for_text("Unknown Recipient bob")
    carol.send("MESG alice bye")
    alice.wait_for_text("bye")


def test_taken_name_is_refused_until_its_page_is_closed(site: ChatSite, alice: Window, bob: Window) -> None:
    join(alice, site.address, "dave")
    bob.open(f"{site.address}chat.html")
    bob.type("User name", "dave")
    bob.press("Join")
    bob.wait_for_text("Username dave is taken")
    expect_good_design(bob)
    alice.open("about:blank")
    bob.press("Join")
    bob.find("Message")
    bob.press("Leave")
    bob.type("User name", "not a name")
    bob.press("Join")
    bob.wait_for_text("Invalid username")


def test_markup_in_messages_is_shown_as_text(site: ChatSite, alice: Window, bob: Window) -> None:
    join(alice, site.address, "alice")
    alice.press("Show the wire")
    join(bob, site.address, "bob")
    alice.choose("To", "bob")
    for text in INJECTIONS:
        send(bob, text)
        alice.wait_for_text(text, times=2)  # in the log and on the wire
        send(alice, text)
        bob.wait_for_text(text, times=2)  # from both
    expect_no_injection(alice)
    expect_no_injection(bob)


def test_page_joins_a_killed_chat_again_after_its_restart(alice: Window, launch: Start) -> None:
    chat = launch("chat_server.py", "0")
    join(alice, front_end(launch, chat=chat.port), "alice")
    chat.kill()
    for pause in (1, 2, 4):
        alice.wait_for_text(f"Next try in {pause} s")
    send(alice, "does this arrive?")
    alice.wait_for_text("the message was not sent")
    launch("chat_server.py", str(chat.port)).wait_for_start()
    alice.press("Try now")
    alice.wait_for_text("The chat is back. You are alice.")
    alice.open("about:blank")


def test_deleted_room_shows_its_warning_and_returns_to_the_lobby(site: ChatSite, alice: Window, bob: Window) -> None:
    alice.open(f"{site.address}chatrooms.html")
    alice.type("New room", "tea")
    alice.press("Create")
    alice.wait_for_text("Room tea is open.")
    site.enter(alice, "tea")
    site.enter(bob, "tea")
    send(bob, "good morning")
    alice.wait_for_text("good morning")
    expect_good_design(alice)
    bob.press("Leave room")
    bob.wait_for_text("You have left room tea.")
    bob.press("Delete tea")
    bob.wait_for_text("Room tea is deleted.")
    alice.wait_for_text("Warning: room tea is deleted")
    alice.find("New room")
    alice.wait(lambda: not alice.has("Join tea"), "the room is not listed any more")
    expect_good_design(alice)


def test_room_names_and_messages_are_shown_as_text(site: ChatSite, alice: Window, bob: Window) -> None:
    bob.open(f"{site.address}chatrooms.html")
    for text in INJECTIONS:
        bob.type("New room", text)
        bob.press("Create")
        bob.wait_for_text("Invalid name")
    bob.type("New room", "a-room-with-a-name-of-32-letters")
    bob.press("Create")
    site.enter(alice, "a-room-with-a-name-of-32-letters")
    bob.type("Your name in rooms (optional)", "<b>bob</b>")
    bob.press("Join a-room-with-a-name-of-32-letters")
    bob.wait_for_text("Room a-room-with-a-name-of-32-letters")
    for text in INJECTIONS:
        send(bob, text)
        alice.wait_for_text(f"<b>bob</b>: {text}")
    expect_no_injection(alice)
    expect_no_injection(bob)
    bob.press("Leave room")
    bob.press("Delete a-room-with-a-name-of-32-letters")
    bob.wait_for_text("is deleted.")


def test_room_of_another_client_appears_and_joining_a_deleted_one_shows_why_not(site: ChatSite, alice: Window) -> None:
    alice.open(f"{site.address}chatrooms.html")
    alice.wait_for_text("There are no rooms yet.")
    lobby = site.rooms.connect()
    lobby.send("1soup")
    lobby.expect("0")
    alice.find("Join soup")
    alice.run("Object.defineProperty(document, 'hidden', { value: true })")  # the page does not poll any more
    lobby.send("4soup")
    lobby.expect("0")
    alice.press("Join soup")
    alice.wait_for_text("Room soup does not exist")
    alice.find("New room")
