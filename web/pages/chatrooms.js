// The chat rooms: the lobby, which lists the rooms, and the inside of one room.

import { Connection, REFUSED } from "./connection.js";
import { MessageLog, onMessage, UNCERTAIN } from "./messages.js";
import {
  askBeforeLeaving, byId, element, hideOutage, local, onSingleClick, onSubmit, pollWith, say, sayAt, setText, showItems,
  showOutage, showView,
} from "./page.js";

const [CREATE, JOIN, LIST, DELETE] = ["\u0001", "\u0002", "\u0003", "\u0004"];
const SUCCESS = "\u0000";
const COUNTED_ROOMS = 3; // whose members are counted at each poll
const SENDER = /^(\S{1,32}): (.+)$/su; // how the clients of the chat rooms write who speaks
const NO_ANSWER = "The lobby did not answer.";

let room = null; // the room that the user is in: {name, connection, lastLine}
let wanted = new URLSearchParams(location.search).get("room") ?? ""; // the room to join at first
let refusal = ""; // what the lobby answered to a poll, perhaps before it ends the connection
let nextCounted = 0; // the place in the list of the room whose members are counted next
const drafts = new Map(); // what was typed in a room and not sent, by room
const log = new MessageLog();

const handlers = { opened: enterWantedRoom, line: (text) => say(information(text), true), closed: lobbyClosed };
const lobby = new Connection("/ws/chatrooms", handlers, "lobby");

function lobbyClosed(sentence, detail) {
  if (room && !room.connection.isOpen) lobby.retry();
  else showOutage(refusal || sentence, lobby, detail);
  refusal = "";
}

/** Return a reply without its status byte; a server that is full does not send one. */
function information(reply) {
  return reply.replace(/^[\u0000-\u0004]/, "");
}

/** Send a request to the lobby; return whether it succeeded, and the information or why not. */
async function request(action, name = "", isPoll = false) {
  const reply = await lobby.ask(action + name, { isPoll });
  return { succeeds: reply?.startsWith(SUCCESS) ?? false, text: reply === null ? NO_ANSWER : information(reply) };
}

const poll = pollWith(() => (room ? countMembersHere() : listRooms()));

async function listRooms() {
  const { succeeds, text } = await request(LIST, "", true);
  refusal = succeeds || text === NO_ANSWER ? "" : text;
  if (!succeeds || room) return;
  hideOutage();
  const names = text ? text.split(",") : [];
  showItems(byId("rooms"), names, createRoom);
  byId("rooms-empty").hidden = names.length > 0;
  setText(byId("rooms-summary"), names.length ? `${names.length} open` : "");
  await countMembers(names);
}

async function enterWantedRoom() {
  const name = wanted.replace(/[\u0000-\u001f]/g, "");
  wanted = "";
  if (name) await join(name);
  poll();
}

function createRoom(name) {
  const joinButton = element("button", { type: "button", "aria-label": `Join ${name}` }, "Join");
  const deleteButton = element("button", { type: "button", class: "quiet", "aria-label": `Delete ${name}` }, "Delete");
  onSingleClick(joinButton, () => join(name));
  onSingleClick(deleteButton, () => deleteRoom(name));
  const title = element("bdi", { class: "code", translate: "no" }, name);
  return element("li", {}, title, element("span", { class: "summary" }), joinButton, deleteButton);
}

/** Count the members of some rooms, by asking for their ports; the next call counts others. */
async function countMembers(names) {
  const counted = names.slice(nextCounted, nextCounted + COUNTED_ROOMS);
  nextCounted = nextCounted + COUNTED_ROOMS < names.length ? nextCounted + COUNTED_ROOMS : 0;
  const replies = await Promise.all(counted.map((name) => request(JOIN, name, true)));
  replies.forEach(({ succeeds, text }, i) => {
    const item = [...byId("rooms").children].find(({ dataset }) => dataset.key === counted[i]);
    if (item && succeeds) setText(item.querySelector(".summary"), members(text));
  });
}

/** Return the members in the information of a reply to JOIN, "PORT MEMBERS", in words. */
function members(text) {
  const count = text.split(" ")[1];
  return { 0: "no members", 1: "1 member" }[count] ?? `${count} members`;
}

async function createAndJoin() {
  const field = byId("new-room");
  const name = field.value.trim();
  const { succeeds, text } = await request(CREATE, name);
  if (succeeds) {
    field.value = "";
    await join(name);
  } else {
    sayAt(field, text);
  }
}

async function deleteRoom(name) {
  if (!confirm(`Delete room ${name}? Its members are disconnected.`)) return;
  const { succeeds, text } = await request(DELETE, name);
  say(succeeds ? `Room ${name} is deleted.` : text, !succeeds);
  await poll();
}

/** Ask the lobby for a room's port, as every client does, and enter the room through the front end. */
async function join(name) {
  const { succeeds, text } = await request(JOIN, name);
  if (!succeeds && !room) say(text, true);
  if (!succeeds || room) return;
  const path = `/ws/chatrooms/${encodeURIComponent(name)}`;
  const connection = new Connection(path, { opened: openLobby, line: receive, closed }, name);
  room = { name, connection, lastLine: "" };
  byId("room-title").textContent = `Room ${name}`;
  byId("room-facts").textContent = "";
  byId("message").value = drafts.get(name) ?? "";
  history.replaceState(null, "", `?room=${name}`);
  log.clear();
  say("");
  showView("inside");
  byId("message").focus();
  connection.open();
}

function openLobby() {
  if (lobby.isOpen) poll();
  else lobby.open();
}

function receive(text) {
  room.lastLine = text === `Warning: room ${room.name} is deleted` ? text : "";
  const [, sender = "", words = text] = SENDER.exec(text) ?? [];
  log.add({ sender, text: words });
}

function closed(sentence, detail, code) {
  if (room.lastLine || code === REFUSED) {
    leave(room.lastLine || sentence, true);
  } else {
    if (byId("room-facts").textContent) log.remark(sentence);
    byId("room-facts").textContent = "";
    showOutage(sentence, room.connection, detail);
  }
}

/** Show the port and the number of members. Return whether the lobby knows the room, and the room is connected. */
async function countMembersHere() {
  const present = room;
  const { succeeds, text } = await request(JOIN, present.name, true);
  if (room !== present || !succeeds || !present.connection.isOpen) return false;
  hideOutage();
  setText(byId("room-facts"), `Port ${text.split(" ")[0]}, ${members(text)}`);
  return true;
}

/** Send a line. A room confirms nothing: the lobby's next answer shows that the server and the front end work. */
async function deliver(line) {
  room.connection.send(line);
  return (await countMembersHere()) ? "" : UNCERTAIN;
}

function leave(sentence, isProblem) {
  const { name, connection } = room;
  connection.close();
  drafts.set(name, byId("message").value);
  room = null;
  hideOutage();
  history.replaceState(null, "", location.pathname);
  showView("lobby");
  say(sentence, isProblem);
  const item = [...byId("rooms").children].find(({ dataset }) => dataset.key === name);
  (isProblem || !item ? byId("lobby-title") : item.querySelector("button")).focus();
  openLobby();
}

onSubmit(byId("create-form"), createAndJoin);
onMessage(log, {
  isConnected: () => room.connection.isOpen,
  compose: (text) => {
    const name = byId("name").value.trim();
    return { line: name ? `${name}: ${text}` : text, entry: { sender: name || "You", text } };
  },
  deliver,
});
byId("name").value = local.name ?? "";
byId("name").addEventListener("input", () => (local.name = byId("name").value.trim()));
byId("leave").addEventListener("click", () => leave(`You have left room ${room.name}.`, false));
askBeforeLeaving(() => room !== null);
lobby.open();
