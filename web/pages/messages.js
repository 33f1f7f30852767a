// The list of messages in a chat or a room: a role=log that follows its end unless the reader has scrolled up.

import { fitsLine } from "./connection.js";
import { byId, element, onSubmit, say } from "./page.js";

const SHOWN_MESSAGES = 1000;
const NEAR_END_PIXELS = 80;

export class MessageLog {
  #list;

  constructor(list) {
    this.#list = list;
  }

  /** Add a message: who sent it, to whom if that matters, and the text. */
  add({ sender = "", note = "", text, isMine = false }) {
    const head = element("p", {}, element("bdi", { class: "sender" }, sender));
    if (note) head.append(" ", element("span", { class: "note" }, note));
    const words = element("bdi", { class: "words" }, text);
    const time = element("time", {}, new Date().toTimeString().slice(0, 5));
    this.#append(element("li", { class: isMine ? "mine" : "" }, ...(sender ? [head] : []), words, time));
  }

  /** Add a remark of the page itself. */
  remark(text) {
    this.#append(element("li", { class: "remark" }, text));
  }

  clear() {
    this.#list.replaceChildren();
  }

  #append(item) {
    const log = this.#list.parentElement; // what scrolls
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PIXELS;
    this.#list.append(item);
    if (this.#list.childElementCount > SHOWN_MESSAGES) this.#list.firstElementChild.remove();
    if (follows) log.scrollTop = log.scrollHeight;
  }
}

/** Send what the user submits. compose(text) returns the connection to use, the line to send, and the log's entry. */
export function onMessage(log, compose) {
  const field = byId("message");
  onSubmit(byId("send-form"), () => {
    if (!field.value.trim()) return;
    const { connection, line, entry } = compose(field.value);
    if (!fitsLine(line)) {
      say("The message is too long: a line has at most 4096 bytes.", true);
    } else if (connection.send(line)) {
      log.add({ ...entry, isMine: true });
      field.value = "";
      say("");
    } else {
      say("There is no connection to the server: the message was not sent.", true);
    }
    field.focus();
  });
}
