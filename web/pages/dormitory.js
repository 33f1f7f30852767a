// The dormitory: log in, watch the rooms, reserve and cancel.

import { Connection, fitsLine } from "./connection.js";
import {
  byId, element, hideOutage, local, onSingleClick, onSubmit, pollWith, say, sayAt, sentenceOf, setText, showItems,
  showOutage, showView,
} from "./page.js";

const GUEST_NAME = "guest";
const DEMO_PASSWORDS = { alice: "correct horse, battery", bob: "tr0ub4dor" }; // as README.md tells everybody
const DOTS = "••••••••";
const LOGIN_SECONDS = 10; // the check of a password may have to wait for others
const KINDS = { S: "Single rooms", D: "Double rooms", U: "Suites" };
const POLLS_BETWEEN_RESERVATIONS = 10; // they are asked for at least so often, and whenever a count has changed

let login = null; // {user, password}: who is, or wants to be, logged in; kept to log in again after an outage
let isMember = false;
let lastList = "";
let polls = 0;
let reservations = new Map(); // room codes by reservation id
const kinds = Object.keys(KINDS).map(createKind);

const connection = new Connection("/ws/dormitory", {
  opened: sendLogin,
  line: (text) => say(readable(text), true), // why the server is about to close the connection
  closed,
});

function startLogin(user, password) {
  if (/\s/.test(user) || !fitsLine(`LOGIN ${user} ${password}`)) {
    sayAt(byId("user"), "A user name is one word.");
    return;
  }
  if (login && connection.isOpen) return; // the reply to the first click has not arrived
  login = { user, password };
  say("");
  if (connection.isOpen) sendLogin();
  else connection.open();
}

async function sendLogin() {
  if (!login) return;
  const { user, password } = login;
  const secret = password && ` ${password}`;
  const shown = `LOGIN ${user}${secret && ` ${DOTS}`}`;
  const reply = await connection.ask(`LOGIN ${user}${secret}`, { shown, seconds: LOGIN_SECONDS });
  const word = reply?.split(" ")[0];
  if (word === "TRY_LATER") showOutage(readable(reply), connection);
  else if (word === "MEMBER" || word === "GUEST") enter(word === "MEMBER");
  else if (reply !== null) refuseLogin(reply);
}

function enter(asMember) {
  const isFirst = byId("inside").hidden;
  isMember = asMember;
  hideOutage();
  byId("inside").classList.toggle("guest", !isMember);
  const guest = "You are looking around as a guest; only members can reserve.";
  byId("who").textContent = isMember ? `Logged in as ${login.user}` : guest;
  byId("log-out").textContent = isMember ? "Log out" : "Log in as a member";
  byId("password").value = "";
  showView("inside");
  say(isFirst ? `Welcome, ${login.user}.` : "The dormitory is back.");
  if (isFirst) byId("title").focus();
  lastList = "";
  poll();
}

function refuseLogin(reply) {
  const { user, password } = login;
  leave();
  if (password === DEMO_PASSWORDS[user]) local["no-demo-members"] = "true";
  showDemoMembers();
  sayAt(byId("password"), reply.startsWith("REFUSED") ? "Wrong user name or password." : readable(reply));
  byId("password").select();
}

function logOut() {
  connection.send("QUIT");
  connection.close();
  leave();
  say("");
  byId("user").focus();
}

function leave() {
  login = null;
  hideOutage();
  for (const kind of kinds) setCounts(kind, []);
  showReservations(new Map());
  showView("login");
}

function closed(sentence, detail) {
  if (!login) return;
  showOutage(sentence, connection, detail);
  for (const kind of kinds) kind.silent = "The dormitory";
  kinds.forEach(draw);
}

function showDemoMembers() {
  byId("demo").hidden = Boolean(local["no-demo-members"]);
}

const poll = pollWith(async () => {
  if (byId("inside").hidden) return;
  const reply = await connection.ask("LIST", { isPoll: true });
  if (!reply?.startsWith("ROOMS")) return;
  showList(reply);
  polls += 1;
  const isDue = reply !== lastList || polls % POLLS_BETWEEN_RESERVATIONS === 0;
  lastList = reply;
  if (isMember && isDue) await askForReservations();
});

/** Show a reply to LIST; in "ROOMS S233=6 D=?", Server D does not answer. */
function showList(reply) {
  const counts = reply.split(" ").slice(1).map((field) => field.split("="));
  for (const kind of kinds) {
    kind.silent = counts.some(([name]) => name === kind.letter) ? `Server ${kind.letter}` : "";
    if (!kind.silent) setCounts(kind, counts.filter(([code]) => code.startsWith(kind.letter)));
    draw(kind);
  }
}

function createKind(letter) {
  const id = `kind-${letter}`;
  const summary = element("p", { class: "summary" });
  const notice = element("p", { class: "notice", role: "status" });
  const list = element("ul", { class: "rooms" });
  const head = element("header", { class: "section-head" }, element("h2", { id }, KINDS[letter]), summary);
  const section = element("section", { class: "kind", "aria-labelledby": id }, head, notice, list);
  byId("kinds").append(section);
  // silent says who does not answer, or is "". The largest count that a room has had is a full bar.
  return { letter, section, summary, notice, list, rooms: new Map(), silent: "", answeredAt: null, largest: 1 };
}

function setCounts(kind, counts) {
  const before = kind.rooms;
  kind.rooms = new Map(counts.map(([code]) => [code, before.get(code) ?? createRoom(code, kind)]));
  for (const [code, left] of counts) kind.rooms.get(code).left = Number(left);
  kind.answeredAt = new Date();
  if ([...before.keys()].join() !== [...kind.rooms.keys()].join()) arrange(kind);
}

function createRoom(code, kind) {
  const fill = element("span");
  const count = element("span", { class: "left" });
  const button = element("button", { type: "button" }, "Reserve");
  const bar = element("span", { class: "bar" }, fill);
  const item = element("li", { class: "room" }, element("span", { class: "code" }, code), bar, count, button);
  const room = { code, kind, item, button, count, fill, left: 0 };
  onSingleClick(button, () => reserve(room));
  return room;
}

/** Put the rooms in the chosen order. They keep it while their counts change, so that none moves under a pointer. */
function arrange(kind) {
  const all = [...kind.rooms.values()];
  if (byId("sort").value) all.sort((one, other) => other.left - one.left);
  showItems(kind.list, all.map(({ code }) => code), (code) => kind.rooms.get(code).item);
}

function draw(kind) {
  const all = [...kind.rooms.values()];
  const open = all.filter(({ left }) => left > 0);
  const places = open.reduce((sum, { left }) => sum + left, 0);
  kind.largest = Math.max(kind.largest, ...open.map(({ left }) => left));
  all.forEach(drawRoom);
  const some = places ? `${places} left in ${open.length} of ${all.length} rooms` : "No places left";
  setText(kind.summary, all.length ? some : "No rooms");
  const time = kind.answeredAt ? ` This was the count at ${kind.answeredAt.toTimeString().slice(0, 8)}.` : "";
  setText(kind.notice, kind.silent && `${kind.silent} is not answering.${time}`);
  kind.section.classList.toggle("silent", Boolean(kind.silent));
}

function drawRoom(room) {
  const { code, kind, left, item, button, count, fill } = room;
  const state = left ? `${left} left` : "Full";
  setText(count, state);
  fill.style.width = `${(100 * left) / kind.largest}%`;
  item.classList.toggle("full", !left);
  button.setAttribute("aria-label", `Reserve ${code}, ${state.toLowerCase()}`);
  button.setAttribute("aria-disabled", String(!isReservable(room)));
  const isFound = code.toLowerCase().includes(byId("search").value.trim().toLowerCase());
  const isWanted = isFound && (left > 0 || !byId("only-free").checked);
  item.hidden = !isWanted && !item.contains(document.activeElement);
}

function isReservable({ left, kind }) {
  return left > 0 && !kind.silent;
}

async function reserve(room) {
  const { code } = room;
  if (!isReservable(room)) {
    say(room.left ? `Room ${code} cannot be reserved now.` : `Room ${code} is full.`, true);
    return;
  }
  const reply = await connection.ask(`RESERVE ${code}`);
  const [word, id, left] = (reply ?? "").split(" ");
  if (word === "RESERVED") {
    setLeft(room, Number(left));
    showReservations(new Map(reservations).set(id, code));
    say(`Room ${code} is yours: reservation ${id}. ${left} left.`);
  } else if (word === "FULL") {
    setLeft(room, 0);
    say(`Room ${code} is full: somebody else was faster.`, true);
  } else {
    sayUncertain(reply, `room ${code} was reserved`);
  }
}

async function cancel(id) {
  const reply = await connection.ask(`CANCEL ${id}`);
  const [word, code] = (reply ?? "").split(" ");
  if (word !== "CANCELLED" && word !== "UNKNOWN_RESERVATION") {
    sayUncertain(reply, `reservation ${id} was cancelled`);
    return;
  }
  const kept = new Map(reservations);
  kept.delete(id);
  showReservations(kept);
  byId("mine-title").focus();
  if (word === "CANCELLED") {
    const room = kinds.find(({ rooms }) => rooms.has(code))?.rooms.get(code);
    if (room) setLeft(room, room.left + 1);
    say(`Reservation ${id} is cancelled: room ${code} has one more place.`);
  } else {
    say(`There was no reservation ${id} any more.`, true);
  }
}

/** Show a count that this page has changed; the next poll shows what the server says. */
function setLeft(room, left) {
  room.left = left;
  draw(room.kind);
}

function sayUncertain(reply, change) {
  if (reply !== null && !reply.startsWith("TRY_LATER")) {
    say(readable(reply), true);
    return;
  }
  const reason = reply === null ? "The connection ended before the answer arrived." : readable(reply);
  say(`${reason} As soon as the server answers, "My reservations" shows whether ${change}.`, true);
  lastList = ""; // the next poll asks for the reservations too
}

async function askForReservations() {
  const reply = await connection.ask("MINE", { isPoll: true });
  if (!reply?.startsWith("RESERVATIONS")) return;
  const fields = reply.split(" ").slice(1).map((field) => field.split("="));
  const silent = fields.filter(([, code]) => code === "?").map(([letter]) => letter);
  const kept = [...reservations].filter(([id]) => silent.includes(id[0]));
  showReservations(new Map([...fields.filter(([, code]) => code !== "?"), ...kept]));
  const sentences = silent.map((letter) => `Server ${letter} is not answering. `);
  setText(byId("mine-notice"), silent.length ? `${sentences.join("")}Some reservations may be missing here.` : "");
}

function showReservations(shown) {
  reservations = shown;
  setText(byId("mine-count"), String(reservations.size));
  byId("mine-empty").hidden = reservations.size > 0;
  showItems(byId("mine-list"), [...reservations.keys()], createReservation);
}

function createReservation(id) {
  const code = reservations.get(id);
  const button = element("button", { type: "button", class: "quiet", "aria-label": `Cancel ${id}, room ${code}` }, "Cancel");
  onSingleClick(button, () => cancel(id));
  const room = element("span", { class: "code" }, code);
  return element("li", {}, element("span", {}, room, element("span", { class: "muted" }, id)), button);
}

/** Turn a reply into a sentence: drop its first word, which is in capitals. */
function readable(reply) {
  return sentenceOf(reply.replace(/^[A-Z_]+ /, ""));
}

onSubmit(byId("login-form"), () => {
  const user = byId("user").value.trim();
  const password = byId("password").value;
  if (!user) sayAt(byId("user"), "Enter your user name, or look around as a guest.");
  else if (!password) sayAt(byId("password"), "Enter your password, or look around as a guest.");
  else startLogin(user, password);
});
byId("guest").addEventListener("click", () => startLogin(byId("user").value.trim() || GUEST_NAME, ""));
for (const button of document.querySelectorAll("#demo button")) {
  button.addEventListener("click", () => startLogin(button.dataset.user, DEMO_PASSWORDS[button.dataset.user]));
}
byId("log-out").addEventListener("click", logOut);
byId("sort").addEventListener("change", () => kinds.forEach(arrange));
for (const id of ["search", "only-free"]) byId(id).addEventListener("input", () => kinds.forEach(draw));
showDemoMembers();
