// The chat: join under a name, see who is there, talk to everybody or to one person.

import { Connection } from "./connection.js";
import { MessageLog, onMessage } from "./messages.js";
import { byId, element, hideOutage, onSubmit, pollWith, say, showOutage, showView } from "./page.js";

const MESSAGE = /^FROM ([A-Za-z0-9]+)( \(all\))?: (.*)$/su;
const LIST_HEAD = /^Registered users \((\d+)\):$/;

let name = ""; // under which the user is, or wants to be, registered
let isRegistered = false; // whether the server has accepted it
let listing = null; // the part of the reply to LIST that has arrived: {names, expected}
const log = new MessageLog(byId("messages"));

const connection = new Connection("/ws/chat", {
  opened: () => connection.send(`JOIN ${name}`),
  line: handleLine,
  closed,
});

function handleLine(text) {
  hideOutage();
  const message = MESSAGE.exec(text);
  if (message) {
    const [, sender, isToAll, words] = message;
    log.add({ sender, note: isToAll ? "" : "to you alone", text: words });
  } else if (text === `JOIN ${name} accepted`) {
    enter();
  } else if (listing && (listing.expected || LIST_HEAD.test(text))) {
    takeListed(text);
  } else if (byId("talk").hidden) {
    refuse(text);
  } else {
    say(text, true);
  }
}

function enter() {
  const isFirst = byId("talk").hidden;
  isRegistered = true;
  showView("talk");
  say(isFirst ? `You are ${name}.` : `The chat is back. You are ${name}.`);
  if (isFirst) {
    log.clear();
    byId("message").focus();
  }
  listing = null;
  poll();
}

function refuse(text) {
  name = "";
  connection.close();
  say(text, true);
  byId("user").focus();
}

function closed(sentence) {
  listing = null;
  if (!name) return;
  if (isRegistered) log.remark(sentence);
  isRegistered = false;
  say("");
  showOutage(sentence, connection);
}

function leave() {
  connection.send("QUIT");
  connection.close();
  hideOutage();
  say("You have left the chat.");
  name = "";
  isRegistered = false;
  showView("join");
  byId("user").focus();
}

// Who is there

const poll = pollWith(() => {
  if (!isRegistered || listing) return;
  listing = { names: [], expected: 0 };
  connection.send("LIST", { isPoll: true });
});

function takeListed(text) {
  const head = LIST_HEAD.exec(text);
  if (head && !listing.expected) {
    listing.expected = Number(head[1]);
  } else {
    listing.names.push(text);
  }
  if (listing.names.length === listing.expected) {
    showPeople(listing.names);
    listing = null;
  }
}

function showPeople(names) {
  const items = names.map((user) => element("li", {}, element("bdi", {}, user)));
  items[names.indexOf(name)]?.append(element("span", { class: "note" }, "you"));
  byId("people").replaceChildren(...items);
  showRecipients(names.filter((user) => user !== name));
}

/** Offer the recipients. Keep a chosen recipient who has left: a private message must not go to everybody. */
function showRecipients(names) {
  const select = byId("to");
  const chosen = select.value;
  const offered = chosen && !names.includes(chosen) ? [...names, chosen] : names;
  const labels = ["everybody", ...offered.map((user) => (names.includes(user) ? user : `${user} (has left)`))];
  if ([...select.options].map((option) => option.text).join() === labels.join()) return;
  select.replaceChildren(...labels.map((label, i) => element("option", { value: i ? offered[i - 1] : "" }, label)));
  select.value = chosen;
}

onSubmit(byId("join-form"), () => {
  if (connection.isOpen) return; // the reply to the first click has not arrived
  name = byId("user").value.trim();
  say("");
  connection.open();
});
onMessage(log, (text) => {
  const to = byId("to").value;
  const line = to ? `MESG ${to} ${text}` : `BCST ${text}`;
  return { connection, line, entry: { sender: name, note: to ? `to ${to} alone` : "", text } };
});
byId("leave").addEventListener("click", leave);
