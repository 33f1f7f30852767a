// The dormitory: log in, watch the rooms, reserve and cancel.

import { Connection, fitsLine } from "./connection.js";
import {
  byId,
  element,
  hideOutage,
  onSingleClick,
  onSubmit,
  pollWith,
  say,
  showItems,
  showOutage,
  showView,
} from "./page.js";
import {
  clearRooms,
  isReservable,
  markAllSilent,
  noteCounts,
  placesLeft,
  setBusy,
  setPlacesLeft,
  showRooms,
} from "./rooms.js";

const GUEST_NAME = "guest";
const DOTS = "••••••••";

let login = null; // {user, password}: who is, or wants to be, logged in; kept to log in again after an outage
let isMember = false;
let lastList = "";
let reservations = new Map(); // room codes by reservation id

const connection = new Connection("/ws/dormitory", {
  opened: sendLogin,
  line: (text) => say(readable(text), true), // why the server is about to close the connection
  closed,
});

// Logging in and out

function startLogin(user, password) {
  if (login && connection.isOpen) return; // the reply to the first click has not arrived
  if (/\s/.test(user) || !fitsLine(`LOGIN ${user} ${password}`)) {
    say("A user name is one word.", true);
    byId("user").focus();
    return;
  }
  login = { user, password };
  say("");
  if (connection.isOpen) sendLogin();
  else connection.open();
}

async function sendLogin() {
  if (!login) return;
  const { user, password } = login;
  const secret = password && ` ${password}`;
  const reply = await connection.ask(`LOGIN ${user}${secret}`, { shown: `LOGIN ${user}${secret && ` ${DOTS}`}` });
  if (reply === null) return;
  hideOutage();
  if (reply.startsWith("MEMBER ") || reply.startsWith("GUEST ")) enter(reply.startsWith("MEMBER "));
  else refuseLogin(reply);
}

function enter(asMember) {
  const isFirst = byId("inside").hidden;
  isMember = asMember;
  byId("inside").classList.toggle("guest", !isMember);
  const guestText = "You are looking around as a guest; only members can reserve.";
  byId("who").textContent = isMember ? `Logged in as ${login.user}` : guestText;
  byId("log-out").textContent = isMember ? "Log out" : "Log in as a member";
  byId("password").value = "";
  showView("inside");
  if (isFirst) {
    byId("main").focus();
    say(isMember ? `Welcome, ${login.user}.` : "Welcome.");
  } else {
    say("The dormitory is back.");
  }
  lastList = "";
  poll();
}

function refuseLogin(reply) {
  login = null;
  leave();
  say(reply.startsWith("REFUSED") ? "Wrong user name or password." : readable(reply), true);
  byId("password").focus();
  byId("password").select();
}

function logOut() {
  connection.send("QUIT");
  connection.close();
  login = null;
  leave();
  hideOutage();
  say("");
  byId("user").focus();
}

function leave() {
  clearRooms();
  showReservations(new Map());
  showView("login");
}

function closed(sentence) {
  if (login) {
    say("");
    showOutage(sentence, connection);
    markAllSilent();
  }
}

const poll = pollWith(async () => {
  if (byId("inside").hidden) return;
  const reply = await connection.ask("LIST", { isPoll: true });
  if (!reply?.startsWith("ROOMS")) return;
  noteCounts(reply);
  if (reply !== lastList) {
    lastList = reply;
    showRooms(reply, reserve);
    if (isMember) await askForReservations();
  }
});

// Reserving and cancelling

async function reserve(code) {
  if (!isReservable(code)) {
    say(placesLeft(code) === 0 ? `Room ${code} is full.` : `Room ${code} cannot be reserved now.`, true);
    return;
  }
  setBusy(code, true);
  const reply = await connection.ask(`RESERVE ${code}`);
  setBusy(code, false);
  const [word, id, left] = (reply ?? "").split(" ");
  if (word === "RESERVED") {
    setPlacesLeft(code, Number(left));
    showReservations(new Map(reservations).set(id, code));
    say(`Room ${code} is yours: reservation ${id}. ${left} left.`);
  } else if (word === "FULL") {
    setPlacesLeft(code, 0);
    say(`Room ${code} is full: somebody else was faster.`, true);
  } else {
    sayUncertain(reply, `room ${code} was reserved`);
  }
}

async function cancel(id) {
  const reply = await connection.ask(`CANCEL ${id}`);
  const [word, code] = (reply ?? "").split(" ");
  if (word === "CANCELLED" || word === "UNKNOWN_RESERVATION") {
    const left = new Map(reservations);
    left.delete(id);
    showReservations(left);
    byId("mine").focus();
    if (word === "CANCELLED") {
      setPlacesLeft(code, placesLeft(code) + 1);
      say(`Reservation ${id} is cancelled: room ${code} has one more place.`);
    } else {
      say(`There was no reservation ${id} any more.`, true);
    }
  } else {
    sayUncertain(reply, `reservation ${id} was cancelled`);
  }
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
  const reply = await connection.ask("MINE");
  if (!reply?.startsWith("RESERVATIONS")) return;
  const fields = reply.split(" ").slice(1).map((field) => field.split("="));
  const silent = fields.filter(([, code]) => code === "?").map(([letter]) => letter);
  const kept = [...reservations].filter(([id]) => silent.includes(id[0]));
  showReservations(new Map([...fields.filter(([, code]) => code !== "?"), ...kept]));
  const sentences = silent.map((letter) => `Server ${letter} is not answering. `);
  byId("mine-notice").textContent = silent.length ? `${sentences.join("")}Some reservations may be missing here.` : "";
}

function showReservations(shown) {
  reservations = shown;
  byId("mine-count").textContent = String(reservations.size);
  byId("mine-empty").hidden = reservations.size > 0;
  showItems(byId("mine-list"), [...reservations.keys()], createReservation);
}

function createReservation(id) {
  const button = element("button", { type: "button", class: "quiet", "aria-label": `Cancel ${id}` }, "Cancel");
  onSingleClick(button, () => cancel(id));
  const room = element("span", { class: "code" }, reservations.get(id));
  return element("li", {}, element("span", {}, room, element("span", { class: "muted" }, id)), button);
}

/** Turn a reply into a sentence: drop its first word, which is in capitals. */
function readable(reply) {
  const sentence = reply.replace(/^[A-Z_]+ /, "");
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}

onSubmit(byId("login-form"), () => {
  const user = byId("user").value.trim();
  const password = byId("password").value;
  if (user && password) {
    startLogin(user, password);
  } else {
    say(`Enter your ${user ? "password" : "user name"}, or look around as a guest.`, true);
    byId(user ? "password" : "user").focus();
  }
});
byId("guest").addEventListener("click", () => startLogin(byId("user").value.trim() || GUEST_NAME, ""));
byId("log-out").addEventListener("click", logOut);
byId("only-free").addEventListener("change", (event) => {
  byId("kinds").classList.toggle("only-free", event.target.checked);
});
document.addEventListener("visibilitychange", poll);
