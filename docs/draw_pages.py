#!/usr/bin/env python3
"""Draw docs/page-*.webp, the documents' pictures of the pages, from a real run: all servers and two browsers.

It needs chromium and chromedriver, and pytest for what it shares with the browser tests.
"""

import base64
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from box_office import open_on
from browsing import front_end
from conftest import looking_after
from dorm import PASSWORDS, caring_for
from webdriver import Window, browsers

DOCS = ROOT / "docs"
WIDTH, HEIGHT = 1100, 720
WITH_WIRE_WIDTH = 1200
QUALITY = 85  # of 100
HALL = "0 0 1 1 0 0 0 0 0 0 0 1\n" * 3 + "1 1 0 0 0 0 0 0 1 1 1 0\n" * 2


def draw(window: Window, name: str) -> None:
    """Write a picture of what a window shows."""
    window.run("document.getAnimations().forEach((animation) => animation.finish())")
    picture = window.devtools("Page.captureScreenshot", format="webp", quality=QUALITY)["data"]
    (DOCS / f"page-{name}.webp").write_bytes(base64.b64decode(picture))


def draw_start(address: str, alice: Window) -> None:
    """Draw the start page when every system has told a fact."""
    alice.open(address)
    alice.wait(lambda: alice.run("return document.querySelectorAll('.up').length") == 4, "four facts")
    draw(alice, "start")


def draw_dormitory(address: str, alice: Window) -> None:
    """Draw the rooms, two reservations and the wire."""
    alice.open(f"{address}dormitory.html")
    alice.type("User name", "alice")
    alice.type("Password", PASSWORDS["alice"])
    alice.press("Log in")
    for room, left in (("S233", 6), ("S444", 10)):
        alice.press(f"Reserve {room}, {left} left")
        alice.wait_for_text(f"Room {room} is yours")
    draw(alice, "dormitory")


def draw_cinema(address: str, alice: Window) -> None:
    """Draw a hall in which the server holds one of two seats, while the order is reviewed."""
    alice.open(f"{address}cinema.html")
    alice.press("Best seats")
    alice.press("Review")
    alice.find("Book 2 seats")
    draw(alice, "cinema")


def draw_chat(address: str, alice: Window, bob: Window) -> None:
    """Draw a talk of two browsers, with the wire."""
    for window, name in ((alice, "alice"), (bob, "bob")):
        window.open(f"{address}chat.html")
        window.type("User name", name)
        window.press("Join")
        window.find("Message")
    alice.press("Show the wire")
    say(bob, "Hello, everybody! Who is coming to the cinema tonight?")
    alice.wait_for_text("tonight?")
    say(alice, "I am. Row 3 is still free.")
    bob.choose("To", "alice")
    say(bob, "Then I'll sit beside you.")
    alice.wait_for_text("beside you.")
    alice.wait(lambda: "bob" in alice.run("return document.getElementById('people').innerText"), "bob is listed")
    draw(alice, "chat")
    alice.press("Hide the wire")


def draw_chat_rooms(address: str, alice: Window) -> None:
    """Draw the lobby with some rooms, with the wire."""
    alice.open(f"{address}chatrooms.html")
    alice.press("Show the wire")
    names = ("tea", "coffee", "networks-lecture-7")
    for name in names:
        alice.type("New room", name)
        alice.press("Create and join")
        alice.wait_for_text("1 member")
        alice.press("Leave room")
    alice.wait(lambda: alice.text().count("no members") == len(names), "the members of each room")
    draw(alice, "chatrooms")
    for name in names:  # a server that still has rooms is not at rest
        alice.press_and_confirm(f"Delete {name}")
        alice.wait_for_text(f"Room {name} is deleted.")


def say(window: Window, text: str) -> None:
    """Send a message to the chat."""
    window.type("Message", text)
    window.press("Send")


def main() -> None:
    """Start every server, the dormitory with the inventories of the project, and draw all pictures."""
    with tempfile.TemporaryDirectory() as folder, looking_after() as launch:
        directory = Path(folder)
        cinema = open_on(launch, directory / "seats.txt", hall=HALL).server
        chat, chat_rooms = launch("chat_server.py", "0"), launch("chatroom_server.py", "0")
        for server in (cinema, chat, chat_rooms):
            server.wait_for_start()
        with caring_for(launch, directory) as dormitory, browsers(2) as (alice, bob):
            for name in ("single.txt", "double.txt", "suite.txt"):
                dormitory.write(name, (ROOT / name).read_text())
            dormitory.start()
            ports = {"tickets": cinema.port, "chat": chat.port, "chatrooms": chat_rooms.port}
            address = front_end(launch, dormitory=dormitory.main.port, **ports)
            for window in (alice, bob):
                window.resize(WIDTH, HEIGHT)
                window.prefer("light")
            draw_start(address, alice)
            draw_dormitory(address, alice)
            draw_cinema(address, alice)
            alice.resize(WITH_WIRE_WIDTH, HEIGHT)
            draw_chat(address, alice, bob)
            alice.prefer("dark")
            draw_chat_rooms(address, alice)


if __name__ == "__main__":
    main()
