// The chat: join under a name, see who is there, talk to all users or to one.

import { Connection } from "./connection.js";
import { createNameButton, MessageLog, onMessage, UNCERTAIN } from "./messages.js";
import {
  askBeforeLeaving, byId, element, hideOutage, onSubmit, pollWith, say, sayAt, showItems, showOutage, showView,
  whilePending,
} from "./page.js";

const MESSAGE = /^FROM ([A-Za-z0-9]+)( \(all\))?: (.*)$/su;
const LIST_HEAD = /^Registered users \((\d+)\):$/;
const LISTED_NAME = /^[A-Za-z0-9]+$/;
const ALL_USERS = "all users"; // the key of the recipient that is no name
const NAME_REFUSED = /^(?:Username|Invalid username)/;

let name = ""; // under which the user is, or wants to be, registered
let isRegistered = false; // whether the server has accepted it
let hasTalked = false; // whether the log belongs to a talk that goes on
let refusal = ""; // what the server said before it ended the connection
let unconfirmed = []; // messages that the server may still refuse, oldest first: {refusal}
const log = new MessageLog(writeTo);

const connection = new Connection("/ws/chat", {
  opened: () => whilePending(byId("join-button"), join()),
  isReply: (text) => !isRegistered || LIST_HEAD.test(text) || LISTED_NAME.test(text),
  line: handleLine,
  closed,
});

async function join() {
  const reply = await connection.ask(`JOIN ${name}`);
  if (reply === null) return;
  if (reply === `JOIN ${name} accepted`) enter();
  else if (hasTalked && !NAME_REFUSED.test(reply)) refusal = reply; // the server ends the connection
  else askForName(reply);
}

function enter() {
  hideOutage();
  isRegistered = true;
  refusal = "";
  say(hasTalked ? `The chat is back. You are ${name}.` : `You are ${name}.`);
  if (!hasTalked) log.clear();
  hasTalked = true;
  showView("talk");
  byId("message").focus();
  poll();
}

function askForName(reason) {
  hideOutage();
  connection.close();
  showView("join");
  byId("user").value = name;
  name = "";
  sayAt(byId("user"), reason);
}

function closed(sentence, detail) {
  if (isRegistered) log.remark(sentence);
  isRegistered = false;
  say("");
  showOutage(refusal || sentence, connection, detail);
  refusal = "";
}

function leave() {
  connection.send("QUIT");
  connection.close();
  hideOutage();
  say("You have left the chat.");
  isRegistered = hasTalked = false;
  byId("message").value = "";
  showView("join");
  byId("user").focus();
}

function handleLine(text) {
  const message = MESSAGE.exec(text);
  const refused = unconfirmed.find((sent) => !sent.refusal);
  if (message) {
    log.add({ sender: message[1], note: message[2] ? "" : "to you alone", text: message[3] });
  } else if (isRegistered && refused) {
    refused.refusal = text;
  } else {
    refusal = text;
    say(text, true);
  }
}

/** Send a message. The server confirms none, but it answers in order: a refusal comes before the reply to LIST. */
async function deliver(line) {
  const sent = { refusal: "" };
  unconfirmed.push(sent);
  connection.send(line);
  const isAnswered = await listPeople();
  unconfirmed = unconfirmed.filter((other) => other !== sent);
  if (sent.refusal) return `Not sent: ${sent.refusal}`;
  return isAnswered ? "" : UNCERTAIN;
}

function writeTo(user) {
  const select = byId("to");
  select.value = user;
  if (!select.value) select.append(createRecipient(user)); // not listed
  select.value = user;
  byId("message").focus();
}

const poll = pollWith(() => isRegistered && listPeople());

/** Ask who is there. Return whether the server answered. */
async function listPeople() {
  const isComplete = (lines) => lines.length === 1 + Number(LIST_HEAD.exec(lines[0])[1]);
  const lines = await connection.ask("LIST", { isPoll: true, isComplete });
  if (lines === null) return false;
  const names = lines.slice(1);
  showItems(byId("people"), names, createPerson);
  showRecipients(names.filter((user) => user !== name));
  return true;
}

function createPerson(user) {
  if (user === name) return element("li", {}, element("bdi", {}, user), " ", element("span", { class: "note" }, "you"));
  return element("li", {}, createNameButton(user, writeTo));
}

/** Offer the recipients. Keep a chosen recipient who has left: a private message must not go to all users. */
function showRecipients(names) {
  const select = byId("to");
  const chosen = select.value;
  const hasLeft = chosen && !names.includes(chosen);
  showItems(select, [ALL_USERS, ...names, ...(hasLeft ? [`${chosen} (has left)`] : [])], createRecipient);
  select.value = chosen;
}

function createRecipient(label) {
  return element("option", { value: label.split(" ")[0], translate: "no" }, label);
}

onSubmit(byId("join-form"), () => {
  if (connection.isOpen) return; // the reply to the first click has not arrived
  name = byId("user").value.trim();
  say("");
  connection.open();
});
onMessage(log, {
  isConnected: () => isRegistered && connection.isOpen,
  compose: (text) => {
    const to = byId("to").value;
    const line = to ? `MESG ${to} ${text}` : `BCST ${text}`;
    return { line, entry: { sender: name, note: to ? `to ${to} alone` : "", text } };
  },
  deliver,
});
byId("leave").addEventListener("click", leave);
askBeforeLeaving(() => hasTalked);
