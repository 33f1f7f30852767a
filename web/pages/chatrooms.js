// The chat rooms: the lobby, which lists the rooms, and the inside of one room.

import { Connection } from "./connection.js";
import { MessageLog, onMessage } from "./messages.js";
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

const [CREATE, LIST, DELETE] = ["\u0001", "\u0003", "\u0004"]; // JOIN (2) is sent by the front end
const SUCCESS = "\u0000";

let creating = null; // the name in a request to CREATE that has not been answered
let room = null; // the room that the user is in: {name, connection, lastLine}
const log = new MessageLog(byId("messages"));

const lobby = new Connection(
  "/ws/chatrooms",
  {
    opened: () => poll(),
    line: (text) => say(text.slice(1), true),
    closed: (sentence) => showOutage(sentence, lobby),
  },
  "lobby",
);

// The lobby

const poll = pollWith(async () => {
  if (room) return; // the list is not visible
  const reply = await lobby.ask(LIST, { isPoll: true });
  if (reply === null) return;
  hideOutage();
  if (reply.startsWith(SUCCESS)) showRooms(reply.slice(1));
  else say(reply.slice(1), true);
});

function showRooms(list) {
  const names = list ? list.split(",") : [];
  showItems(byId("rooms"), names, createRoom);
  byId("rooms-empty").hidden = names.length > 0;
  byId("rooms-summary").textContent = names.length ? `${names.length} open` : "";
}

function createRoom(name) {
  const joinButton = element("button", { type: "button", "aria-label": `Join ${name}` }, "Join");
  const deleteButton = element("button", { type: "button", class: "quiet", "aria-label": `Delete ${name}` }, "Delete");
  onSingleClick(joinButton, () => join(name));
  onSingleClick(deleteButton, () => request(DELETE, name, `Room ${name} is deleted.`));
  const title = element("bdi", { class: "code" }, name);
  return element("li", { class: "room chat-room" }, title, joinButton, deleteButton);
}

/** Send a request to the lobby and show its result. Return whether it succeeded. */
async function request(action, name, success) {
  const reply = await lobby.ask(action + name);
  if (reply === null) {
    say("The lobby is not answering: try again later.", true);
    return false;
  }
  const hasSucceeded = reply.startsWith(SUCCESS);
  say(hasSucceeded ? success : reply.slice(1), !hasSucceeded);
  poll();
  return hasSucceeded;
}

// Inside a room

function join(name) {
  if (room) return;
  const connection = new Connection(
    `/ws/chatrooms/${encodeURIComponent(name)}`,
    { line: receive, closed: (sentence) => leave(room?.lastLine || sentence, true) },
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
  const button = [...byId("rooms").children].find((item) => item.dataset.key === name)?.querySelector("button");
  (button && !isProblem ? button : byId("title")).focus();
  poll();
}

onSubmit(byId("create-form"), async () => {
  const name = byId("new-room").value.trim();
  if (name === creating) return; // the reply to the first click has not arrived
  creating = name;
  if (await request(CREATE, name, `Room ${name} is open.`)) byId("new-room").value = "";
  creating = null;
});
onMessage(log, (text) => {
  const name = byId("name").value.trim();
  const line = name ? `${name}: ${text}` : text;
  return { connection: room.connection, line, entry: { sender: "You", text: line } };
});
byId("leave").addEventListener("click", () => leave(`You have left room ${room.name}.`, false));
lobby.open();
