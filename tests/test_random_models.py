"""Model checks: random steps in the real systems, compared with a model, a dict that holds what a protocol promises.

One client at a time acts and waits for its reply, so the model knows the one right answer. Where clients act together,
a test checks what must hold whoever comes first. A failure shows the last steps, and the command that repeats them; to
search for longer: pytest tests/test_random_models.py --model-seconds 300
"""

import random
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing

import pytest
from box_office import END, HOW_MANY, Cinema, OpenCinema, begin, choose
from conftest import Peer, Program, Start, at_once, in_thread, server_has_read, wait_until
from dorm import PASSWORDS, Dormitory, ask
from relay import Relay, relay_to

from cinema.seatmap import Seat

CLIENTS, MAX_USERS, MAX_ROOMS = 5, 4, 3
NAME, TEXT = re.compile("[A-Za-z0-9]{1,32}"), "zoë  🎭 "
NAMES = ["alice", "bob", "carol", "dave", "Alice", "x" * 32, "x" * 33, "no/name", "zoë"]
TELNET_NOP = b"\xff\xf1"


class Model:
    """Takes random steps; a subclass holds the model of one system, and its methods are the steps."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        options = request.config.option
        seed = random.randrange(1_000_000) if options.seed is None else options.seed
        self._seconds = options.model_seconds
        self._repeat = f"Repeat: pytest {request.node.nodeid} --seed {seed} --model-seconds {self._seconds}"
        self._notes: deque[str] = deque(maxlen=20)
        self._unfinished: dict[Peer, tuple[str, str]] = {}  # a line, and the rest of it that has not been sent
        self.random = random.Random(seed)
        self.pick = self.random.choice

    def take_steps(self, steps: dict[Callable[[], None], int]) -> None:
        """Take steps until the time is over, each as often as its weight says."""
        end = time.monotonic() + self._seconds
        try:
            while time.monotonic() < end:
                (step,) = self.random.choices(list(steps), list(steps.values()))
                self._notes.append(step.__name__)
                step()
        finally:
            print(self._repeat, "The last steps:", *self._notes, sep="\n")  # pytest shows this if the test fails

    def note(self, details: object) -> None:
        """Add details to the note about the present step."""
        self._notes[-1] += f" {details}"

    def send(self, peer: Peer, line: str) -> str | None:
        """Send a line, or what is left of the last one, in pieces; return it, or None if it is still incomplete."""
        line, text = self._unfinished.pop(peer, (line, f"{line}\n"))
        if self.random.random() < 0.2:
            cut = self.random.randrange(len(text))
            text, self._unfinished[peer] = text[:cut], (line, text[cut:])
        self.note(f"from port {peer.sock.getsockname()[1]}: {text!r}")
        data = text.replace("\n", self.pick(["\n", "\r\n"])).encode()
        for _ in range(self.pick([0, 0, 1, 2])):
            cut = self.random.randrange(len(data) + 1)
            peer.send_bytes(data[:cut] + self.pick([b"", TELNET_NOP]))
            server_has_read(peer)
            data = data[cut:]
        peer.send_bytes(data)
        return None if peer in self._unfinished else line


class ChatModel(Model):
    """The chat's users by name, in order of joining; the first one only listens."""

    def __init__(self, request: pytest.FixtureRequest, server: Program) -> None:
        super().__init__(request)
        self.server = server
        self.peers = [server.connect() for _ in range(CLIENTS)]
        self.users = {"listener": server.connect()}
        assert ask(self.users["listener"], "JOIN listener") == "JOIN listener accepted"

    def request(self) -> None:
        """A client sends a line."""
        peer, name = self.pick(self.peers), self.pick(NAMES)
        line = self.send(peer, self.pick([f"JOIN {name}", f"MESG {name} {TEXT}", f"BCST {TEXT}", "LIST", "X", "QUIT"]))
        if line:
            self.check(peer, line)

    def check(self, peer: Peer, line: str) -> None:
        """Fail unless a line has the right consequence."""
        me = next((name for name, user in self.users.items() if user is peer), "")
        match line.split(" ", 2):
            case ["QUIT"]:
                self.leave(peer, me)
            case ["JOIN", _] if me:
                peer.expect(f"Already registered as {me}")
            case ["JOIN", name] if not NAME.fullmatch(name):
                peer.expect("Invalid username: 1 to 32 letters and digits are expected")
            case ["JOIN", _] if len(self.users) == MAX_USERS:
                peer.expect("Too Many Users")
                self.leave(peer, me)
            case ["JOIN", name] if name in self.users:
                peer.expect(f"Username {name} is taken")
            case ["JOIN", name]:
                peer.expect(f"JOIN {name} accepted")
                self.users[name] = peer
            case _ if not me:
                peer.expect("Unregistered User. Use JOIN <username> to register.")
            case ["LIST"]:
                peer.expect(f"Registered users ({len(self.users)}):", *self.users)
            case ["MESG", name, text] if name in self.users:
                self.users[name].expect(f"FROM {me}: {text}")
            case ["MESG", name, _]:
                peer.expect(f"Unknown Recipient {name}")
            case ["BCST", *_]:
                for other in self.users.keys() - {me}:
                    self.users[other].expect(f"FROM {me} (all): {TEXT}")
            case _:
                peer.expect("Unknown Message. Use JOIN, LIST, MESG, BCST or QUIT.")

    def leave(self, peer: Peer, name: str) -> None:
        """Fail unless the server ends a connection; a new client takes its place."""
        peer.expect_end()
        self.users.pop(name, None)
        self.peers[self.peers.index(peer)] = self.server.connect()

    def replace_user(self) -> None:
        """Reset a user's connection; whoever asks for the name now gets it at once."""
        if len(self.users) > 1:
            name = self.pick(list(self.users)[1:])
            self.note(name)
            peer, successor = self.users.pop(name), self.server.connect()
            self.peers[self.peers.index(peer)] = successor
            peer.reset()
            successor.send(f"JOIN {name}")
            self.check(successor, f"JOIN {name}")


def test_chat_agrees_with_its_model(start: Start, request: pytest.FixtureRequest) -> None:
    model = ChatModel(request, start("chat_server.py", "0", "--max-users", str(MAX_USERS)))
    model.take_steps({model.request: 10, model.replace_user: 1})


class RoomModel(Model):
    """The port and the members of each chat room by its name, in order of creation; the first member only listens."""

    def __init__(self, request: pytest.FixtureRequest, server: Program) -> None:
        super().__init__(request)
        self.server = server
        self.lobby = [server.connect() for _ in range(CLIENTS)]
        self.rooms: dict[str, tuple[int, list[Peer]]] = {}

    def request(self) -> None:
        """A client of the lobby sends a request, in digits."""
        peer = self.pick(self.lobby)
        line = self.send(peer, self.pick("11234") + self.pick(NAMES))
        if line:
            self.check(peer, line[0], line[1:])

    def check(self, peer: Peer, action: str, name: str) -> None:
        """Fail unless a request has the right consequence."""
        port, members = self.rooms.get(name, (0, []))
        match action:
            case "3":
                peer.expect("0" + ",".join(self.rooms))
            case _ if not NAME.fullmatch(name):
                peer.expect("3Invalid name: a room's name is 1 to 32 letters, digits, - or _")
            case "1" if port:
                peer.expect(f"1Room {name} already exists")
            case "1" if len(self.rooms) == MAX_ROOMS:
                peer.expect(f"4Too many rooms: at most {MAX_ROOMS} are allowed")
            case "1":
                peer.expect("0")
                self.rooms[name] = int(ask(peer, f"2{name}").removeprefix("0").removesuffix(" 0")), members
                self.enter(name)
            case _ if not port:
                peer.expect(f"2Room {name} does not exist")
            case "2":
                peer.expect(f"0{port} {len(members)}")
            case "4":
                del self.rooms[name]
                for member in members:
                    member.expect(f"Warning: room {name} is deleted")
                    member.expect_end()
                peer.expect("0")

    def enter(self, name: str = "") -> None:
        """A new member enters a room; it counts at once, and receives what others say from now on."""
        if self.rooms:
            port, members = self.rooms[name or self.pick(list(self.rooms))]
            members.append(Peer(port))
            self.server.peers.append(members[-1])

    def speak(self) -> None:
        """A member sends a line, which all others receive, or leaves."""
        rooms = [members for _, members in self.rooms.values() if members[1:]]
        if rooms:
            members = self.pick(rooms)
            speaker = self.pick(members[1:])
            line = self.send(speaker, self.pick(["hi", TEXT, "LIST", "/leave"]))
            if line == "/leave":
                speaker.expect_end()
                members.remove(speaker)
            elif line:
                for member in set(members) - {speaker}:
                    member.expect(line)


def test_chat_rooms_agree_with_their_model(start: Start, request: pytest.FixtureRequest) -> None:
    model = RoomModel(request, start("chatroom_server.py", "0", "--max-rooms", str(MAX_ROOMS)))
    try:
        model.take_steps({model.request: 2, model.enter: 1, model.speak: 2})
    finally:
        for peer in model.lobby:
            peer.reset()  # at the end of its input, half a line would be a request that creates one more room
        model.server.connect().send(*(f"4{name}" for name in model.rooms))


class TicketModel(Model):
    """The seats that are taken; and for each customer, the number of tickets and the seats that are held."""

    def __init__(self, request: pytest.FixtureRequest, cinema: Cinema) -> None:
        super().__init__(request)
        self.cinema = cinema
        self.seats = [Seat(row, number) for row in (1, 2, 3) for number in (1, 2, 3, 4)]
        self.taken: set[Seat] = set()
        self.orders: dict[Peer, tuple[int, list[Seat]]] = {}

    def free(self) -> list[Seat]:
        """Return the seats that a customer can choose."""
        held = {seat for _, seats in self.orders.values() for seat in seats}
        return [seat for seat in self.seats if seat not in self.taken | held]

    def order(self) -> None:
        """A new customer orders tickets, and is shown the hall if as many seats are free."""
        peer, tickets, free = self.cinema.connect(), self.random.randint(1, 4), self.free()
        if tickets <= len(free):
            assert "".join(begin(peer, tickets)) == "".join("0" if seat in free else "1" for seat in self.seats)
            self.orders[peer] = tickets, []
        else:
            assert ask(peer, str(tickets)) == HOW_MANY
            peer.expect_match(f"Only {len(free)} seats? (is|are) free. {END}")
            peer.expect_end()

    def choose(self) -> None:
        """A customer chooses a seat; the last one of an order books it, unless an edit has taken one of them."""
        if not self.orders:
            return
        peer = self.pick(list(self.orders))
        tickets, mine = self.orders[peer]
        seat = self.pick([seat for seat in self.seats if seat not in mine])
        is_free = seat in self.free()
        self.note(f"{'free' if is_free else 'taken'} {seat} and {len(mine)} of {tickets}")
        choose(peer, *seat, ticket=len(mine) + 1)
        if is_free:
            mine.append(seat)
            peer.expect(f"Ticket {len(mine)} reserved")
            if len(mine) < tickets:
                peer.expect(f"Row for ticket {len(mine) + 1}?")
                return
        del self.orders[peer]
        lost = [each for each in mine if each in self.taken] if is_free else [seat]
        peer.expect(f"Seat {lost[0]} is taken. {END}" if lost else f"Booked: {', '.join(map(str, mine))}")
        peer.expect_end()
        self.taken.update([] if lost else mine)
        assert self.cinema.taken() == self.taken

    def leave(self) -> None:
        """A customer leaves, and the seats are free again."""
        if self.orders:
            peer, _ = self.orders.popitem()
            peer.end_input()
            peer.expect(f"No answer came. {END}")
            peer.expect_end()

    def edit(self) -> None:
        """The operator frees or takes two seats in the file."""
        self.taken.symmetric_difference_update(self.random.sample(self.seats, 2))
        signs = " ".join("1" if seat in self.taken else "0" for seat in self.seats)
        self.note(signs)
        self.cinema.file.write_text(f"{signs[:8]}\n{signs[8:16]}\n{signs[16:]}\n")


def test_cinema_agrees_with_its_model(cinema: OpenCinema, request: pytest.FixtureRequest) -> None:
    model = TicketModel(request, cinema(hall="0 0 0 0\n" * 3))
    model.take_steps({model.order: 6, model.choose: 20, model.leave: 2, model.edit: 6})


class DormitoryModel(Model):
    """The room and the member of each reservation, by its id, in order."""

    def __init__(self, request: pytest.FixtureRequest, dormitory: Dormitory, relay: Relay) -> None:
        super().__init__(request)
        self.dormitory = dormitory
        self.relay = relay
        self.rooms = {"S1": 9, "S12": 6, "S123": 0, "D1": 2, "U1": 3}
        self.reserved: dict[str, tuple[str, str]] = {}
        self.used_ids: set[str] = set()
        self.log_in()

    def request(self) -> None:
        """A client sends a request; datagrams may be lost, and a server may be killed before it answers."""
        peer, room = self.pick(list(self.users)), self.pick(list(self.rooms))
        changes = [f"RESERVE {room}", f"CANCEL {self.pick([*self.reserved, 'S99'])}"]
        (killed,) = self.random.choices(["", "S", "M"], [80, 2, 1])
        self.relay.lossy = self.random.random() < 0.2 and killed != "M"
        line = self.send(peer, self.pick([*changes * 3, f"AVAILABILITY {room}", "RESERVE S5", "LIST", "MINE"]))
        if killed:
            self.restart(killed)
        if line and killed != "M":
            self.check(self.users[peer], line, peer.read_line())

    def race(self) -> None:
        """Clients reserve the last rooms at the same time, and Server S may be killed meanwhile."""
        peers = [self.dormitory.log_in("bob") for _ in range(CLIENTS)]
        replies: list[str] = []
        clients = in_thread(at_once, CLIENTS, lambda index: replies.append(ask(peers[index], "RESERVE S12")))
        if self.random.random() < 0.3:
            self.restart("S")
        clients.join()
        unanswered = sum(reply.startswith("TRY_LATER") for reply in replies)
        for reply in sorted(replies, key=lambda reply: ("FULL" in reply, len(reply), reply)):  # later ids are larger
            self.check("bob", "RESERVE S12", reply, unanswered)
        for peer in peers:
            peer.close()

    def restart(self, letter: str) -> None:
        """Kill a server at any moment, and start it again."""
        self.note(f"kill {letter}")
        time.sleep(self.random.uniform(0, 0.003))
        if letter == "S":
            self.dormitory.back_ends["S"].kill()
            self.dormitory.start_back_end("S")
        else:
            self.dormitory.main.kill()
            self.dormitory.start_main()
            self.log_in()
            self.accept_either(unanswered=1)

    def log_in(self) -> None:
        """Connect all clients."""
        self.users = {self.dormitory.log_in(user): user for user in ("alice", "alice", "bob", "bob", "eve")}

    def accept_either(self, unanswered: int) -> None:
        """Take over what is on disk, since requests without an answer may have been carried out or not."""
        with closing(self.dormitory.log_in("eve")) as observer:  # the answer comes after those of earlier datagrams
            wait_until(lambda: "S=?" not in ask(observer, "LIST"), "the main server finds Server S")
        now = {number: (room, user) for letter in "SDU" for number, room, user in self.dormitory.rows(letter)}
        assert len(now.items() ^ self.reserved.items()) <= unanswered
        self.reserved = now
        self.used_ids |= now.keys()

    def check(self, user: str, line: str, reply: str, unanswered: int = 1) -> None:
        """Fail unless a reply is right."""
        self.note(reply)
        if reply.startswith("TRY_LATER") or "S=?" in reply:
            self.accept_either(unanswered)
        else:
            assert reply == self.answer(user, *line.partition(" ")[::2], reply)

    def answer(self, user: str, word: str, field: str, reply: str) -> str:
        """Carry out a request in the model; return the right reply, which may contain any new id."""
        room, owner = self.reserved.get(field, ("", ""))
        match word:
            case "LIST":
                return " ".join(["ROOMS", *(f"{code}={self.left(code)}" for code in self.rooms)])
            case "MINE":
                mine = [f"{number}={room}" for number, (room, owner) in self.reserved.items() if owner == user]
                return " ".join(["RESERVATIONS", *sorted(mine, key=lambda each: "SDU".index(each[0]))])
            case "CANCEL" if owner != user:
                return "UNKNOWN_RESERVATION"
            case "CANCEL":
                del self.reserved[field]
                return f"CANCELLED {room}"
            case "RESERVE" if user not in PASSWORDS:
                return "DENIED Guests cannot reserve"
            case "RESERVE" if self.left(field):
                number = reply.split()[1] if reply.startswith(f"RESERVED {field[0]}") else "id"
                assert number not in self.used_ids
                self.used_ids.add(number)
                self.reserved[number] = field, user
                return f"RESERVED {number} {self.left(field)}"
        if field not in self.rooms:
            return "UNKNOWN_ROOM"
        return f"AVAILABLE {self.left(field)}" if self.left(field) else "FULL"

    def left(self, code: str) -> int:
        """Return how many rooms of a code are left."""
        return self.rooms.get(code, 0) - [room for room, _ in self.reserved.values()].count(code)


def test_dormitory_agrees_with_its_model(dormitory: Dormitory, request: pytest.FixtureRequest) -> None:
    with relay_to(dormitory.port("S")) as relay:
        dormitory.ports["S"] = relay.port
        dormitory.start()
        model = DormitoryModel(request, dormitory, relay)
        model.take_steps({model.request: 40, model.race: 1})
        relay.lossy = False
