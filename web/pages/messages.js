// The messages of a chat or a room: a role=log, and the field in which the user writes.

import { fitsLine } from "./connection.js";
import { byId, element, followEnd, oncePerFrame, onSubmit, say, sayAt } from "./page.js";

const SHOWN_MESSAGES = 1000;
const GROUP_MILLISECONDS = 5 * 60 * 1000; // a message of the same sender within this time needs no new head
const WEB_ADDRESS = /(https?:\/\/[^\s<>"]*[^\s<>"'.,;:!?)\]])/;
const UNSENDABLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g; // servers replace these too
const TITLE = document.title;
export const UNCERTAIN = "No answer came: it is not certain whether this was sent.";

export class MessageLog {
  #list = byId("messages");
  #newButton = byId("new-messages");
  #waiting = []; // items that are not shown yet, oldest first
  #last = null; // the newest message; null after a remark
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
   * Add a message, and return its item. The sender and the note, which says to whom it was sent, may be empty. With
   * isMine, it is a message of this page's user, which is pending until settle().
   */
  add({ sender, note = "", text, isMine = false }) {
    const message = { sender, note, isMine, time: new Date() };
    const head = element("p", { class: "head" }, ...(sender ? [this.#createSender(message)] : []));
    if (note) head.append(" ", element("span", { class: "note" }, note));
    const clock = element("time", {}, message.time.toTimeString().slice(0, 5));
    const item = element("li", {}, head, element("bdi", { class: "words" }, ...withLinks(text)), clock);
    item.classList.toggle("mine", isMine);
    item.classList.toggle("pending", isMine);
    item.classList.toggle("again", this.#isAgain(message));
    this.#last = message;
    this.#append(item);
    return item;
  }

  /** Show that a pending message was sent, or, with a reason, that it was not. */
  settle(item, reason) {
    item.classList.remove("pending");
    if (!reason) return;
    item.classList.add("failed");
    item.querySelector(".words").after(element("p", { class: "reason" }, reason));
  }

  /** Add a remark of the page itself. */
  remark(text) {
    this.#last = null;
    this.#append(element("li", { class: "remark" }, text));
  }

  clear() {
    this.#waiting = [];
    this.#last = null;
    this.#list.replaceChildren();
    this.#countNew(0);
  }

  #append(item) {
    this.#waiting.push(item);
    if (this.#waiting.length > 2 * SHOWN_MESSAGES) this.#waiting = this.#waiting.slice(-SHOWN_MESSAGES);
    if (document.hidden) this.#countUnread(this.#unread + 1);
    this.#showSoon();
  }

  #show() {
    const added = this.#waiting.slice(-SHOWN_MESSAGES);
    this.#waiting = [];
    this.#list.append(...added);
    while (this.#list.childElementCount > SHOWN_MESSAGES) this.#list.firstElementChild.remove();
    if (!this.#isAtEnd) this.#countNew(this.#new + added.length);
  }

  #createSender({ sender, isMine }) {
    if (!isMine && this.writeTo) return createNameButton(sender, this.writeTo);
    return element("bdi", { class: "sender", translate: "no" }, sender);
  }

  #isAgain({ sender, note, isMine, time }) {
    const last = this.#last;
    const isSame = last?.sender === sender && last.note === note && last.isMine === isMine;
    return isSame && time - last.time < GROUP_MILLISECONDS;
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
    const item = log.add({ ...entry, isMine: true });
    const reason = await deliver(line);
    log.settle(item, reason);
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
