// The chat rooms: the lobby, which has a list of rooms, and the inside of one room.

import { Connection, fitsLine } from "./connection.js";
import { MessageLog } from "./messages.js";
import { byId, element, hideOutage, onSingleClick, onSubmit, say, showOutage, showView } from "./page.js";

const POLL_MILLISECONDS = 1000;
const [CREATE, LIST, DELETE] = ["\u0001", "\u0003", "\u0004"]; // JOIN (2) is sent by the front end
const SUCCESS = "\u0000";

let pollTimer = 0;
let isPolling = false;
let creating = null; // the name in a request to CREATE that has not been answered
let shownNames = null; // the last list of rooms, as it came
let room = null; // the room that the user is in: {name, connection, lastLine}
const log = new MessageLog(byId("messages"));

const lobby = new Connection(
  "/ws/chatrooms",
  { opened: poll, line: (text) => say(text.slice(1), true), closed },
  "lobby",
);

function closed(sentence, retry) {
  clearTimeout(pollTimer);
  isPolling = false;
  showOutage(sentence, retry(), () => lobby.open());
}

// The lobby

/** Ask for the rooms, now and then again after each pause, while the lobby is seen. */
async function poll() {
  clearTimeout(pollTimer);
  if (isPolling || document.hidden || room || !lobby.isOpen) return;
  isPolling = true;
  const reply = await lobby.ask(LIST, { isPoll: true });
  isPolling = false;
  if (reply === null) return;
  hideOutage();
  if (reply.startsWith(SUCCESS)) showRooms(reply.slice(1));
  else say(reply.slice(1), true);
  clearTimeout(pollTimer);
  pollTimer = setTimeout(poll, POLL_MILLISECONDS);
}

function showRooms(list) {
  if (list === shownNames) return;
  shownNames = list;
  const names = list ? list.split(",") : [];
  const known = new Map([...byId("rooms").children].map((item) => [item.dataset.name, item]));
  const items = names.map((name) => known.get(name) ?? createRoom(name));
  for (const item of known.values()) if (!items.includes(item)) item.remove();
  items.forEach((item, i) => {
    if (byId("rooms").children[i] !== item) byId("rooms").insertBefore(item, byId("rooms").children[i] ?? null);
  });
  byId("rooms-empty").hidden = names.length > 0;
  byId("rooms-summary").textContent = names.length ? `${names.length} open` : "";
}

function createRoom(name) {
  const joinButton = element("button", { type: "button", "aria-label": `Join ${name}` }, "Join");
  const deleteButton = element("button", { type: "button", "aria-label": `Delete ${name}` }, "Delete");
  deleteButton.className = "quiet";
  onSingleClick(joinButton, () => join(name));
  onSingleClick(deleteButton, () => request(DELETE, name, `Room ${name} is deleted.`));
  const title = element("bdi", { className: "code" }, name);
  const item = element("li", { className: "room chat-room" }, title, joinButton, deleteButton);
  item.dataset.name = name;
  return item;
}

/** Send a request to the lobby; say what came of it. Return whether it was carried out. */
async function request(action, name, done) {
  const reply = await lobby.ask(action + name);
  if (reply === null) {
    say("The lobby is not there: try again when it is.", true);
    return false;
  }
  const isDone = reply.startsWith(SUCCESS);
  say(isDone ? done : reply.slice(1), !isDone);
  poll();
  return isDone;
}

// Inside a room

function join(name) {
  if (room) return;
  const connection = new Connection(
    `/ws/chatrooms/${encodeURIComponent(name)}`,
    { opened: () => {}, line: receive, closed: (sentence) => leave(room?.lastLine || sentence, true) },
    name,
  );
  room = { name, connection, lastLine: "" };
  byId("title").textContent = `Room ${name}`;
  log.clear();
  say("");
  showView("inside");
  byId("message").focus();
  connection.open();
}

function receive(text) {
  room.lastLine = text === `Warning: room ${room.name} is deleted` ? text : "";
  log.add({ text });
}

function leave(sentence, isProblem) {
  const { name, connection } = room;
  connection.close();
  room = null;
  byId("title").textContent = "Chat rooms";
  showView("lobby");
  say(sentence, isProblem);
  const button = [...byId("rooms").children].find((item) => item.dataset.name === name)?.querySelector("button");
  (button && !isProblem ? button : byId("title")).focus();
  poll();
}

function sendMessage(text) {
  const name = byId("name").value.trim();
  const line = name ? `${name}: ${text}` : text;
  if (!fitsLine(line)) {
    say("The message is too long: a line has at most 4096 bytes.", true);
  } else if (room.connection.send(line)) {
    log.add({ sender: "You", text: line, isMine: true });
    byId("message").value = "";
    say("");
  } else {
    say("The room is not there yet: the message was not sent.", true);
  }
  byId("message").focus();
}

onSubmit(byId("create-form"), async () => {
  const name = byId("new-room").value.trim();
  if (name === creating) return; // the reply to the first click has not come
  creating = name;
  if (await request(CREATE, name, `Room ${name} is open.`)) byId("new-room").value = "";
  creating = null;
});
onSubmit(byId("send-form"), () => {
  if (byId("message").value.trim()) sendMessage(byId("message").value);
});
byId("leave").addEventListener("click", () => leave(`You have left room ${room.name}.`, false));
document.addEventListener("visibilitychange", poll);
lobby.open();
