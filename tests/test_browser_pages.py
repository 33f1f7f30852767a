"""What all pages have in common, in a real browser: the start page, the wire, the frame and the front end's guards."""

import re
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from box_office import OpenCinema
from browsing import ChatSite, expect_good_design, front_end, has_border, hurried
from certificates import Certificates
from conftest import Start, in_thread, wait_until
from dorm import Dormitory
from webdriver import ESCAPE, Window

PAGES = ["", "dormitory.html", "cinema.html", "chat.html", "chatrooms.html"]
MAX_PAGE_BYTES = 60 << 10


def test_start_page_shows_a_fact_of_each_system_or_why_there_is_none(site: ChatSite, alice: Window) -> None:
    alice.open(site.address)
    alice.wait(lambda: alice.run("return document.querySelectorAll('.up, .down').length") == 3, "three facts")
    cards = "return [...document.querySelectorAll('.card')].filter((c) => c.checkVisibility()).map((c) => c.innerText)"
    cinema, chat, rooms = (card.split("\n") for card in alice.run(cards))
    assert (cinema[0], cinema[-2]) == ("Cinema", "The cinema is not running.")
    assert cinema[-1].startswith("Cannot connect to 127.0.0.1:")  # in small print
    assert (chat[0], chat[-1]) == ("Chat", "Running")
    assert (rooms[0], rooms[-1]) == ("Chat rooms", "No rooms yet")
    assert not alice.has("Dormitory")
    expect_good_design(alice)


def test_start_page_counts_seats_and_places_and_says_that_a_system_is_full_or_hangs(
    start: Start, cinema: OpenCinema, dormitory: Dormitory, alice: Window
) -> None:
    dormitory.start()
    chat, rooms = start("chat_server.py", "0", "--max-connections", "1"), start("chatroom_server.py", "0")
    guest = chat.connect()
    guest.send("JOIN guest")
    guest.expect("JOIN guest accepted")
    others = {"tickets": cinema(hall="0 1\n0 0\n").server.port, "dormitory": dormitory.main.port}
    with hurried(alice):
        alice.open(front_end(start, chat=chat.port, chatrooms=rooms.port, **others))
    for text in ("3 seats left", "places left in", "Too many connections", "No rooms yet"):
        alice.wait_for_text(text)
    rooms.process.send_signal(signal.SIGSTOP)
    alice.wait_for_text("The chat room server did not answer within 5 seconds.")
    rooms.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("page", PAGES)
def test_page_is_well_designed_and_small_and_loads_nothing_else(site: ChatSite, alice: Window, page: str) -> None:
    alice.open(site.address + page)
    alice.find("Show the wire")
    expect_good_design(alice)
    alice.press("Show the wire")
    expect_good_design(alice)
    sizes = alice.run(
        """
        const loaded = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
        return Object.fromEntries(loaded.map((entry) => [entry.name, entry.decodedBodySize]));
        """
    )
    assert all(name.startswith(site.address) for name in sizes)
    assert 10_000 < sum(sizes.values()) < MAX_PAGE_BYTES


def test_wire_can_be_filtered_paused_copied_and_saved(site: ChatSite, alice: Window, tmp_path: Path) -> None:
    alice.open(f"{site.address}chatrooms.html")
    for name in ("clipboard-read", "clipboard-write"):
        alice.command("POST", "/permissions", descriptor={"name": name}, state="granted")
    alice.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    alice.press("Show the wire")
    alice.wait_for_text("opened /ws/chatrooms")
    assert "→ lobby" not in copied(alice)
    alice.press("Polls")
    alice.wait(lambda: copied(alice).count("→ lobby: <3>\n") >= 2, "two polls")
    alice.press("Polls")
    alice.press("Clear")
    alice.wait_until_gone("opened")
    alice.type("New room", "wired")
    alice.press("Create and join")
    alice.wait_for_text("opened /ws/chatrooms/wired")
    rows = "return [...document.querySelectorAll('.wire li')].filter((row) => row.checkVisibility())"
    assert max(alice.run(f"{rows}.map((row) => row.offsetHeight)")) < 25
    dialogue = re.sub(r"(?m)^\S+ ", "", copied(alice)).splitlines()
    assert dialogue[:3] == ["→ lobby: <1>wired", "← lobby: <0>", "→ lobby: <2>wired"]
    assert re.fullmatch(r"← lobby: <0>\d+ 0", dialogue[3])
    alice.type("Filter the wire", "<1>")
    assert len(alice.run(rows)) == 1
    alice.press("Save")
    file = tmp_path / "wire.txt"
    wait_until(lambda: file.exists() and file.read_text().endswith("→ lobby: <1>wired\n"), "the saved line")
    alice.type("Filter the wire", "")
    alice.press("Pause")
    alice.press("Leave room")
    alice.press_and_confirm("Delete wired")
    alice.wait_for_text("Room wired is deleted.")
    assert "closed by this page" not in alice.text()
    alice.press("Go on")
    alice.wait_for_text("closed by this page")
    alice.wait_for_text("<4>wired")


def copied(window: Window) -> str:
    window.press("Copy")
    window.wait_for_text("Copied.")
    return str(window.run("return navigator.clipboard.readText()"))


def test_wire_stays_open_and_selected_from_page_to_page_until_escape(site: ChatSite, alice: Window) -> None:
    alice.open(f"{site.address}chatrooms.html")
    alice.press("Show the wire")
    alice.press("Chat rooms")
    alice.wait_for_text("opened /ws/chatrooms")
    alice.press("Polls")
    alice.wait_for_text("<3>")
    alice.run("getSelection().selectAllChildren(document.querySelector('.wire li'))")
    alice.wait_for_text("<3>", times=2)
    assert "opened /ws/chatrooms" in alice.run("return getSelection().toString()")
    alice.keys(ESCAPE)
    alice.find("Show the wire")
    alice.wait_until_gone("<3>")


def test_pages_work_over_tls(site: ChatSite, start: Start, certificates: Certificates, alice: Window) -> None:
    address = front_end(start, *certificates.good.options, chat=site.chat.port)
    alice.open(f"{address}chat.html")
    alice.type("User name", "alice")
    alice.press("Join")
    alice.wait_for_text("You are alice.")
    alice.press("Leave")


def test_reduced_motion_stops_animation_and_forced_colours_hide_nothing(site: ChatSite, alice: Window) -> None:
    alice.open(f"{site.address}chat.html")
    duration = "return getComputedStyle(document.getElementById('show-wire')).transitionDuration"
    assert alice.run(duration) == "0.15s"
    alice.prefer(prefers_reduced_motion="reduce", forced_colors="active")
    assert alice.run(duration) in ("0s", "")
    _, cinema, chat, rooms = (has_border(alice, f"nav li:nth-child({number}) a") for number in range(1, 5))
    assert (cinema, chat, rooms) == (False, True, False)
    alice.open(f"{site.address}cinema.html")
    alice.wait_for_text("The cinema is not running.")
    assert has_border(alice, ".outage")
    alice.open(f"{site.address}chatrooms.html?room=none")
    alice.wait_for_text("Room none does not exist")
    assert has_border(alice, ".status")


def test_page_polls_less_often_while_its_user_does_nothing(site: ChatSite, alice: Window) -> None:
    alice.open(f"{site.address}chat.html")
    polls = alice.run(
        """
        let tick, polls = 0;
        const pass = async (minutes) => {
          polls = 0;
          for (let i = 0; i < 20 * minutes; i += 1) await tick();
          return polls;
        };
        window.setInterval = (action) => { tick = action; };
        return import("/page.js").then(async ({ pollWith }) => {
          pollWith(() => { polls += 1; }, 3);
          const counts = [await pass(1), await pass(1)];
          dispatchEvent(new Event("pointermove"));
          return [...counts, await pass(1)];
        });
        """
    )
    assert polls == [20, 4, 20]


def test_success_goes_after_a_while_and_covers_nothing(site: ChatSite, alice: Window) -> None:
    with hurried(alice):
        alice.open(f"{site.address}chat.html")
    assert alice.run("return document.getElementById('status').checkVisibility()")  # an empty live region
    alice.type("User name", "alice")
    alice.press("Join")
    alice.wait_for_text("You are alice.")
    parts = "[document.getElementById('status'), document.getElementById('message')]"
    status, field = alice.run(f"return {parts}.map((node) => node.getBoundingClientRect().toJSON())")
    assert status["top"] >= field["bottom"]
    alice.wait_until_gone("You are alice.")


def test_page_of_another_origin_cannot_open_the_socket(site: ChatSite, alice: Window) -> None:
    script = """
        const [address, done] = arguments;
        const socket = new WebSocket(address);
        socket.addEventListener("open", () => done("open"));
        socket.addEventListener("close", (event) => done(event.code));
        """
    socket = site.address.replace("http:", "ws:") + "ws/chat"
    before = site.chat.count_lines(".*accepted.*")
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as elsewhere:  # its only page reports an error
        thread = in_thread(elsewhere.serve_forever, 0.01)
        alice.open(f"http://127.0.0.1:{elsewhere.server_port}/")
        assert alice.command("POST", "/execute/async", script=script, args=[socket]) == 1006
        elsewhere.shutdown()
        thread.join()
    assert site.chat.count_lines(".*accepted.*") == before
    alice.open(f"{site.address}chat.html")
    assert alice.command("POST", "/execute/async", script=script, args=[socket]) == "open"
    assert "403" in "".join(alice.console())
