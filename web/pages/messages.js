// The messages of a chat or a room: a role=log, and the field in which the user writes.

import { fitsLine } from "./connection.js";
import { byId, element, followEnd, oncePerFrame, onSubmit, say, sayAt } from "./page.js";

const SHOWN_MESSAGES = 1000;
const GROUP_MILLISECONDS = 5 * 60 * 1000; // a message of the same sender within this time needs no new head
const WEB_ADDRESS = /(https?:\/\/[^\s<>"]*[^\s<>"'.,;:!?)\]])/;
const UNSENDABLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g; // servers replace these too
const TITLE = document.title;

export class MessageLog {
  #list = byId("messages");
  #newButton = byId("new-messages");
  #waiting = []; // entries that are not shown yet, oldest first: see add()
  #last = null; // the newest entry that is shown
  #isAtEnd = true;
  #new = 0; // messages below what the reader sees
  #unread = 0; // messages since the tab was hidden
  #showSoon = oncePerFrame(() => this.#show());

  constructor(writeTo) {
    this.writeTo = writeTo;
    const scroller = this.#list.parentElement;
    const goToEnd = followEnd(scroller, this.#list, (isAtEnd) => {
      this.#isAtEnd = isAtEnd;
      if (isAtEnd) this.#countNew(0);
    });
    this.#newButton.addEventListener("click", () => {
      goToEnd();
      byId("message").focus();
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.#countUnread(0));
  }

  /**
   * Add a message: {sender, note, text, isMine, isPending}. The sender and the note, which says to whom it was sent, may
   * be empty. A message that is pending stays so until settle().
   */
  add(entry) {
    entry.time = new Date();
    this.#waiting.push(entry);
    if (this.#waiting.length > 2 * SHOWN_MESSAGES) this.#waiting = this.#waiting.slice(-SHOWN_MESSAGES);
    if (document.hidden && !entry.isMine) this.#countUnread(this.#unread + 1);
    this.#showSoon();
  }

  /** Show that a pending message is sent, or, with a reason, that it is not. */
  settle(entry, reason) {
    entry.isPending = false;
    entry.reason = reason;
    if (!entry.item) return;
    entry.item.classList.remove("pending");
    if (reason) this.#showReason(entry);
  }

  /** Add a remark of the page itself. */
  remark(text) {
    this.add({ text, isRemark: true });
  }

  clear() {
    this.#waiting = [];
    this.#last = null;
    this.#list.replaceChildren();
    this.#countNew(0);
  }

  #show() {
    const added = this.#waiting.slice(-SHOWN_MESSAGES);
    this.#waiting = [];
    for (const entry of added) {
      entry.item = this.#createItem(entry);
      this.#last = entry;
    }
    this.#list.append(...added.map((entry) => entry.item));
    while (this.#list.childElementCount > SHOWN_MESSAGES) this.#list.firstElementChild.remove();
    if (!this.#isAtEnd) this.#countNew(this.#new + added.length);
  }

  #createItem(entry) {
    if (entry.isRemark) return element("li", { class: "remark" }, entry.text);
    const { sender, note, time, text } = entry;
    const head = element("p", { class: "head" }, ...(sender ? [this.#createSender(entry)] : []));
    if (note) head.append(" ", element("span", { class: "note" }, note));
    const clock = element("time", {}, time.toTimeString().slice(0, 5));
    entry.item = element("li", {}, head, element("bdi", { class: "words" }, ...withLinks(text)), clock);
    entry.item.classList.toggle("mine", Boolean(entry.isMine));
    entry.item.classList.toggle("again", this.#isAgain(entry));
    entry.item.classList.toggle("pending", Boolean(entry.isPending));
    if (entry.reason) this.#showReason(entry);
    return entry.item;
  }

  #createSender({ sender, isMine }) {
    if (!isMine && this.writeTo) return createNameButton(sender, this.writeTo);
    return element("bdi", { class: "sender", translate: "no" }, sender);
  }

  #isAgain({ sender, note, isMine, time }) {
    const last = this.#last;
    const isSame = last?.sender === sender && last.note === note && last.isMine === isMine;
    return isSame && !last.isRemark && time - last.time < GROUP_MILLISECONDS;
  }

  #showReason({ item, reason }) {
    item.classList.add("failed");
    item.querySelector(".words").after(element("p", { class: "reason" }, reason));
  }

  #countNew(count) {
    this.#new = count;
    this.#newButton.hidden = count === 0;
    this.#newButton.textContent = `↓ ${count} new`;
  }

  #countUnread(count) {
    this.#unread = count;
    document.title = count ? `(${count}) ${TITLE}` : TITLE;
  }
}

/** Return a button that shows a user's name, for writing to that user. */
export function createNameButton(user, writeTo) {
  const name = element("bdi", { class: "sender", translate: "no" }, user);
  const button = element("button", { type: "button", class: "name", title: `Write to ${user}` }, name);
  button.addEventListener("click", () => writeTo(user));
  return button;
}

/** Return a text as nodes in which addresses of the web are links. */
function withLinks(text) {
  const link = (address) => element("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, address);
  return text.split(WEB_ADDRESS).map((piece, index) => (index % 2 ? link(piece) : piece));
}

/**
 * Send what the user submits; each line of it is a message. A message that was not sent returns to the field.
 *
 * isConnected() tells whether messages can be sent, compose(text) returns the line to send and the log's entry, and
 * deliver(line) sends it and returns a promise: of "", or of the reason why it was not sent.
 */
export function onMessage(log, { isConnected, compose, deliver }) {
  const field = byId("message");
  const sent = []; // what the user has sent, oldest first
  let recalled = 0; // how far back the user has gone

  const post = async (text) => {
    const { line, entry } = compose(text);
    const shown = { ...entry, isMine: true, isPending: true };
    log.add(shown);
    const reason = await deliver(line);
    log.settle(shown, reason);
    if (reason && !field.value) field.value = text;
  };

  onSubmit(byId("send-form"), () => {
    const texts = field.value.split(/\r\n?|\n/).map((text) => text.replace(UNSENDABLE, "\ufffd"));
    const messages = texts.filter((text) => text.trim());
    if (!messages.length) return;
    if (!isConnected()) {
      sayAt(field, "There is no connection: the message was not sent.");
    } else if (!messages.every((text) => fitsLine(compose(text).line))) {
      sayAt(field, "The message is too long: a line has at most 4096 bytes.");
    } else {
      sent.push(field.value);
      recalled = 0;
      field.value = "";
      say("");
      messages.forEach(post);
      field.focus();
    }
  });

  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      byId("send-form").requestSubmit();
    }
    const isRecall = field.value === "" || (recalled > 0 && field.value === sent.at(-recalled));
    const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!step || !isRecall) return;
    event.preventDefault();
    recalled = Math.max(0, Math.min(sent.length, recalled + step));
    field.value = recalled ? sent.at(-recalled) : "";
  });
}
