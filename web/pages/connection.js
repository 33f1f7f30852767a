// A WebSocket to the front end, which connects it to one system: a message is a line of that system's protocol.

import { endPoll, recordLine, recordPollLine } from "./wire.js";

const FIRST_PAUSE_SECONDS = 1;
const LONGEST_PAUSE_SECONDS = 30;
const NORMAL_CLOSE = 1000;
const NO_CLOSE_FRAME = 1006; // the browser's own code: the front end is not answering, or refused the request
const MESSAGE_BYTES = 4096;

export class Connection {
  #path;
  #label;
  #handlers;
  #socket = null;
  #pauseSeconds = FIRST_PAUSE_SECONDS;
  #timer = 0;
  #asked = []; // requests whose reply has not arrived, oldest first: {isPoll, resolve}

  /**
   * Prepare a connection; open() opens it.
   *
   * handlers.opened() is called when lines can be sent, handlers.line(text) for each line that is not the reply to
   * ask(), and handlers.closed(sentence) when the other side has ended the connection. handlers.isPollReply(text) tells
   * whether a line that is not the reply to ask() answers a poll. opened and isPollReply may be missing.
   */
  constructor(path, handlers, label = "") {
    this.#path = path;
    this.#handlers = handlers;
    this.#label = label;
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Connect now, unless a connection is being opened; close the present one first. */
  open() {
    if (this.#socket?.readyState === WebSocket.CONNECTING) return;
    this.close();
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${this.#path}`);
    this.#socket = socket;
    socket.addEventListener("open", () => socket === this.#socket && this.#handlers.opened?.());
    socket.addEventListener("message", (event) => socket === this.#socket && this.#receive(event.data));
    socket.addEventListener("close", (event) => socket === this.#socket && this.#ended(event));
  }

  /** Connect after a pause, which doubles until a line arrives. Return the pause in seconds. */
  retry() {
    const seconds = this.#pauseSeconds;
    this.#pauseSeconds = Math.min(2 * seconds, LONGEST_PAUSE_SECONDS);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.open(), 1000 * seconds);
    return seconds;
  }

  /** Send a line; the wire panel shows `shown` in its place. Return whether there was a connection to send it on. */
  send(line, { shown = line, isPoll = false } = {}) {
    if (!this.isOpen) return false;
    this.#socket.send(line);
    (isPoll ? recordPollLine : recordLine)({ sent: true, text: shown, label: this.#label });
    return true;
  }

  /** Send a request; return its reply, which is one line, or null if the connection ends before it arrives. */
  ask(line, options = {}) {
    if (!this.send(line, options)) return Promise.resolve(null);
    return new Promise((resolve) => this.#asked.push({ isPoll: options.isPoll, resolve }));
  }

  /** Close the connection and do not connect again. */
  close() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(NORMAL_CLOSE);
    this.#giveUpReplies();
  }

  #receive(text) {
    this.#pauseSeconds = FIRST_PAUSE_SECONDS;
    const request = this.#asked.shift();
    const isPoll = request ? request.isPoll : this.#handlers.isPollReply?.(text);
    (isPoll ? recordPollLine : recordLine)({ sent: false, text, label: this.#label });
    if (!request) {
      this.#handlers.line(text);
      return;
    }
    if (isPoll) endPoll();
    request.resolve(text);
  }

  #giveUpReplies() {
    for (const request of this.#asked.splice(0)) request.resolve(null);
  }

  #ended({ code, reason }) {
    this.#socket = null;
    this.#giveUpReplies();
    const text = reason || (code === NO_CLOSE_FRAME ? "The front end is not answering" : "The connection has ended");
    this.#handlers.closed(/[.!?]$/.test(text) ? text : `${text}.`);
  }
}

/** Return whether a line is short enough for the servers, which count bytes of UTF-8. */
export function fitsLine(line) {
  return new TextEncoder().encode(line).length <= MESSAGE_BYTES;
}
