"""The pages of the chat and of the chat rooms in a real browser, with real servers."""

import signal

from browsing import HIDE, ChatSite, expect_good_design, front_end, hurried
from conftest import Start
from webdriver import ENTER, TAB, UP, Window

INJECTED = "return (window.injected ?? 0) + document.querySelectorAll('main img, main script').length"
INJECTIONS = ["<script>window.injected = 1</script>", "<img src=x onerror='window.injected = 2'>", "&lt;b&gt;"]
LEFT_BELOW = """
const log = document.querySelector(".messages");
return log.scrollHeight - log.scrollTop - log.clientHeight;
"""


def create(site: ChatSite, *names: str) -> None:
    lobby = site.rooms.connect()
    for name in names:
        lobby.send(f"1{name}")
        lobby.expect("0")
    lobby.close()


def enter(window: Window, address: str, room: str) -> None:
    window.open(f"{address}chatrooms.html?room={room}")
    window.wait_for_text("member")


def join(window: Window, address: str, name: str) -> None:
    window.open(f"{address}chat.html")
    window.type("User name", name)
    window.press("Join")
    window.find("Message")


def send(window: Window, text: str) -> None:
    window.type("Message", text)
    window.press("Send")


def draft(window: Window) -> str:
    return str(window.run("return document.getElementById('message').value"))


def test_two_browsers_and_a_telnet_user_chat(site: ChatSite, alice: Window, bob: Window) -> None:
    join(alice, site.address, "alice")
    join(bob, site.address, "bob")
    carol = site.chat.connect()
    carol.send("JOIN carol")
    carol.expect("JOIN carol accepted")
    send(bob, "hello, see http://localhost/a?b=c.")
    carol.expect("FROM bob (all): hello, see http://localhost/a?b=c.")
    alice.wait_for_text("hello, see")
    assert alice.run("return document.querySelector('.words a').href") == "http://localhost/a?b=c"
    alice.press("bob")  # a name is a button
    send(alice, "only for you")
    bob.wait_for_text("to you alone")
    bob.wait_for_text("only for you")
    carol.send("MESG alice héllo  there")
    alice.wait_for_text("héllo  there")
    expect_good_design(alice)
    alice.keys(UP)
    assert draft(alice) == "only for you"
    alice.run("document.getElementById('message').value = 'first\\r\\nsecond\\r\\u0000third\\n'")
    alice.press("Send")
    for text in ("first", "second", "\N{REPLACEMENT CHARACTER}third"):
        bob.wait_for_text(text)
        alice.wait_for_text(text)
    assert alice.run("return dispatchEvent(new Event('beforeunload', { cancelable: true }))") is False
    bob.press("Leave")
    bob.wait_for_text("You have left the chat.")
    assert bob.run("return dispatchEvent(new Event('beforeunload', { cancelable: true }))") is True
    send(alice, "are you there?")
    alice.wait_for_text("Not sent: Unknown Recipient bob")
    assert draft(alice) == "are you there?"
    alice.choose("To", "bob (has left)")


def test_list_of_people_is_left_alone_and_a_user_called_everybody_is_one_of_them(site: ChatSite, alice: Window) -> None:
    everybody = site.chat.connect()
    everybody.send("JOIN everybody")
    with hurried(alice):
        join(alice, site.address, "alice")
    alice.choose("To", "everybody")
    alice.choose("To", "All users")
    alice.run("getSelection().selectAllChildren(document.getElementById('people'))")
    alice.run("document.getElementById('to').options[0].text = 'Alle'")  # as a browser's translation does
    lists = site.chat.count_lines(r"Client \(\d+\): LIST")
    alice.wait(lambda: site.chat.count_lines(r"Client \(\d+\): LIST") >= lists + 2, "two more polls")
    assert alice.run("return getSelection().toString()").split() == ["everybody", "alice", "you"]
    options = alice.run("return [...document.getElementById('to').options].map((option) => option.text)")
    assert options == ["Alle", "everybody"]


def test_taken_name_is_refused_until_its_page_is_closed(site: ChatSite, alice: Window, bob: Window) -> None:
    join(alice, site.address, "dave")
    bob.open(f"{site.address}chat.html")
    bob.type("User name", "dave")
    bob.press("Join")
    bob.wait_for_text("Username dave is taken")
    assert bob.run("return document.getElementById('user').matches('[aria-invalid]:has(+ #user-error)')")
    expect_good_design(bob)
    alice.open("about:blank")
    bob.press("Join")
    bob.find("Message")
    bob.press("Leave")
    bob.type("User name", "not a name")
    bob.press("Join")
    bob.wait_for_text("Invalid username")


def test_markup_in_names_and_messages_is_shown_as_text(site: ChatSite, alice: Window, bob: Window) -> None:
    join(alice, site.address, "alice")
    alice.press("Show the wire")
    join(bob, site.address, "bob")
    alice.choose("To", "bob")
    for text in INJECTIONS:
        send(bob, text)
        alice.wait_for_text(text, times=2)  # in the log and on the wire
        send(alice, text)
        bob.wait_for_text(text, times=2)  # from both
    assert alice.run(INJECTED) == bob.run(INJECTED) == 0
    room = "a-room-with-a-name-of-32-letters"
    create(site, room)
    bob.open(f"{site.address}chatrooms.html")
    bob.type("New room", INJECTIONS[0])
    bob.press("Create and join")
    bob.wait_for_text("Invalid name")
    enter(alice, site.address, room)
    enter(bob, site.address, room)
    bob.type("Your name", "<b>bob</b>")
    send(bob, INJECTIONS[1])
    alice.wait_for_text("<b>bob</b>")
    alice.wait_for_text(INJECTIONS[1])
    assert alice.run(INJECTED) == bob.run(INJECTED) == 0
    expect_good_design(alice)


def test_page_joins_a_killed_chat_again_unless_somebody_took_the_name(start: Start, alice: Window) -> None:
    chat = start("chat_server.py", "0")
    join(alice, front_end(start, chat=chat.port), "alice")
    chat.kill()
    for pause in (1, 2):
        alice.wait_for_text(f"Next try in {pause} s")
    alice.wait_for_text("The chat is not running.")
    send(alice, "does this arrive?")
    alice.wait_for_text("the message was not sent")
    chat = start("chat_server.py", str(chat.port))
    mallory = chat.connect()
    mallory.send("JOIN alice")
    alice.wait_for_text("Username alice is taken")
    alice.type("User name", "alice2")
    alice.press("Join")
    alice.wait_for_text("The chat is back. You are alice2.")
    assert draft(alice) == "does this arrive?"
    assert alice.run(LEFT_BELOW) < 1
    alice.press("Send")
    mallory.expect("JOIN alice accepted", "FROM alice2 (all): does this arrive?")


def test_chat_that_hangs_is_an_outage_and_what_was_written_is_uncertain(start: Start, alice: Window) -> None:
    chat = start("chat_server.py", "0")
    with hurried(alice):
        join(alice, front_end(start, chat=chat.port), "alice")
    chat.process.send_signal(signal.SIGSTOP)
    send(alice, "into the void")
    alice.wait_for_text("The chat did not answer within 5 seconds.")
    alice.wait_for_text("it is not certain whether this was sent")
    chat.process.send_signal(signal.SIGCONT)
    alice.wait_for_text("The chat is back. You are alice.")


def test_flood_is_drawn_in_few_steps_and_the_log_follows_its_end(site: ChatSite, alice: Window) -> None:
    join(alice, site.address, "alice")
    alice.press("Show the wire")
    alice.run(
        """
        window.layouts = 0;
        const { get } = Object.getOwnPropertyDescriptor(Element.prototype, "scrollHeight");
        const counted = function () { window.layouts += 1; return get.call(this); };
        Object.defineProperty(Element.prototype, "scrollHeight", { get: counted });
        """
    )
    carol = site.chat.connect()
    carol.send("JOIN carol", *(f"BCST message {number}" for number in range(2000)))
    lists = "return [...document.querySelectorAll('ol')].filter((list) => list.textContent.includes('message 1999'))"
    alice.wait(lambda: len(alice.run(lists)) == 2, "the last message, and its line on the wire")
    assert alice.run("return window.layouts") < 500
    assert alice.run("return document.querySelector('.messages .head').checkVisibility({ visibilityProperty: true })")
    alice.press("Hide the wire")
    alice.resize(1280, 400)
    alice.wait(lambda: alice.run(LEFT_BELOW) < 1, "the end of the log")
    alice.run("document.querySelector('.messages').scrollTop = 0")
    alice.run(HIDE)
    alice.wait(lambda: alice.run("return document.querySelector('.messages').scrollTop") == 0, "the log's beginning")
    carol.send("BCST one", "BCST two")
    alice.find("↓ 2 new")
    assert alice.run("return document.title").startswith("(2) Chat ")
    alice.press("↓ 2 new")
    alice.wait(lambda: alice.run(LEFT_BELOW) < 1 and not alice.has("↓ 2 new"), "the end of the log")


def test_room_is_created_joined_and_deleted(site: ChatSite, alice: Window, bob: Window) -> None:
    alice.open(f"{site.address}chatrooms.html")
    alice.type("New room", "tea")
    alice.press("Create and join")
    alice.wait_for_text("Room tea")
    bob.open(f"{site.address}chatrooms.html")
    bob.wait_for_text("1 member")
    bob.press("Join tea")
    alice.wait_for_text("2 members")
    bob.type("Your name", "bob")
    bob.keys(ENTER)
    send(bob, "good morning")
    alice.wait(lambda: alice.run("return document.querySelector('.sender')?.innerText") == "bob", "bob's message")
    assert alice.run("return document.querySelector('.words').innerText") == "good morning"
    expect_good_design(alice)
    bob.press("Leave room")
    bob.wait_for_text("You have left room tea.")
    bob.press_and_confirm("Delete tea")
    bob.wait_for_text("Room tea is deleted.")
    alice.wait_for_text("Warning: room tea is deleted")
    alice.find("New room")
    alice.wait(lambda: not alice.has("Join tea"), "the room is not listed any more")
    expect_good_design(alice)


def test_draft_belongs_to_its_room_and_the_name_to_the_browser(site: ChatSite, alice: Window) -> None:
    create(site, "tea", "coffee")
    enter(alice, site.address, "tea")
    alice.type("Your name", "alice")
    alice.type("Message", "for tea alone")
    alice.press("Leave room")
    alice.press("Join coffee")
    alice.wait_for_text("Room coffee")
    assert draft(alice) == ""
    alice.press("Leave room")
    alice.press("Join tea")
    alice.wait_for_text("Room tea")
    assert draft(alice) == "for tea alone"
    alice.command("POST", "/refresh")
    alice.wait_for_text("Room tea")
    assert alice.run("return document.getElementById('name').value") == "alice"


def test_deletion_moves_the_focus_and_a_deleted_room_cannot_be_joined(site: ChatSite, alice: Window) -> None:
    create(site, "tea", "soup")
    alice.open(f"{site.address}chatrooms.html")
    alice.find("Join tea")
    alice.run("document.querySelector('[aria-label=\"Join tea\"]').focus()")
    alice.keys(TAB, ENTER)
    alice.command("POST", "/alert/accept")
    alice.wait(lambda: not alice.has("Join tea"), "the room is not listed any more")
    assert alice.run("return document.activeElement.getAttribute('aria-label')") == "Join soup"
    alice.run(HIDE)
    lobby = site.rooms.connect()
    lobby.send("4soup")
    lobby.expect("0")
    alice.press("Join soup")
    alice.wait_for_text("Room soup does not exist")
    alice.find("New room")


def test_full_lobby_is_an_outage_whose_pauses_grow_until_a_place_is_free(start: Start, alice: Window) -> None:
    rooms = start("chatroom_server.py", "0", "--max-connections", "1")
    guest = rooms.connect()
    guest.send("3")
    guest.expect("0")
    alice.open(f"{front_end(start, chatrooms=rooms.port)}chatrooms.html")
    alice.wait_for_text("Too many connections")
    alice.wait_for_text("Next try in 2 s")
    alice.wait_for_text("Next try in 4 s")
    guest.close()
    alice.press("Try now")
    alice.wait_for_text("There are no rooms yet.")
    alice.wait_until_gone("Too many connections")


def test_room_survives_a_front_end_that_hangs_or_is_killed(site: ChatSite, alice: Window, start: Start) -> None:
    create(site, "tea")
    options = ("--chatrooms", f"127.0.0.1:{site.rooms.port}")
    gateway = start("front_end.py", "0", *options)
    alice.open(f"http://127.0.0.1:{gateway.port}/chatrooms.html?room=tea")
    alice.wait_for_text("1 member")
    alice.run("const later = setTimeout; window.setTimeout = (act, ms) => later(act, ms === 5000 ? 1000 : ms)")
    gateway.process.send_signal(signal.SIGSTOP)
    send(alice, "into the void")
    alice.wait_for_text("it is not certain whether this was sent")
    gateway.kill()
    alice.wait_for_text("The front end is not answering.")
    start("front_end.py", str(gateway.port), *options)
    alice.press("Try now")
    alice.wait_for_text("1 member")
    alice.wait_until_gone("tries again by itself")
    alice.open("about:blank")
    assert all("WebSocket connection" in message for message in alice.console())
