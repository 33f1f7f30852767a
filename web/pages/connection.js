// A WebSocket to the front end, which connects it to one system: a message is a line of that system's protocol.

import { sentenceOf } from "./page.js";
import { record } from "./wire.js";

const FIRST_PAUSE_SECONDS = 1;
const LONGEST_PAUSE_SECONDS = 30;
const ANSWER_SECONDS = 5; // a request without an answer for this long is an outage
const SETTLED_MILLISECONDS = 2000; // a connection that has lasted this long is no refusal
const NORMAL_CLOSE = 1000;
const NO_CLOSE_FRAME = 1006; // the browser's own code
const NOT_REACHED = 1014;
export const REFUSED = 1008; // trying again does not help
const MESSAGE_BYTES = 4096;
const SYSTEMS = { dormitory: "dormitory", tickets: "cinema", chat: "chat", chatrooms: "chat room server" };

export class Connection {
  #path;
  #name; // of the system, in words
  #handlers;
  #record; // a function that shows a line or an event in the wire panel
  #socket = null;
  #openedAt = 0;
  #pauseSeconds = FIRST_PAUSE_SECONDS;
  #retryTimer = 0;
  #openTimer = 0;
  #asked = []; // requests whose reply is not complete, oldest first: see ask()

  /**
   * Prepare a connection; open() opens it. These handlers are called: opened(), when lines can be sent; line(text) for
   * a line that is not part of a reply to ask(); isReply(text), which tells whether a line may be (without it, every one
   * may); closed(sentence, detail, code), with a sentence for people, what the front end said, and its close code, when
   * the other side has ended the connection or does not answer. With isPoll, all of it is a poll to the wire panel.
   */
  constructor(path, handlers, label = "", isPoll = false) {
    this.#path = path;
    this.#name = SYSTEMS[path.split("/")[2]];
    this.#handlers = handlers;
    this.#record = (kind, text, isPolled = false) => record({ kind, text, label, isPoll: isPoll || isPolled });
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
    socket.addEventListener("open", () => socket === this.#socket && this.#opened());
    socket.addEventListener("message", (event) => socket === this.#socket && this.#receive(event.data));
    socket.addEventListener("close", (event) => socket === this.#socket && this.#closed(event));
    this.#openTimer = this.#giveUpAfter(ANSWER_SECONDS, "The front end is not answering.");
  }

  /** Connect after a pause, which doubles until a connection has lasted. Return the pause in seconds. */
  retry() {
    const seconds = this.#pauseSeconds;
    this.#pauseSeconds = Math.min(2 * seconds, LONGEST_PAUSE_SECONDS);
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.open(), 1000 * seconds);
    return seconds;
  }

  /** Send a line, if there is a connection, and return whether there is; the wire panel shows `shown` in its place. */
  send(line, { shown = line, isPoll = false } = {}) {
    if (!this.isOpen) return false;
    this.#socket.send(line);
    this.#record("sent", shown, isPoll);
    return true;
  }

  /**
   * Send a request; return its reply, or null if the connection ends before. A reply that takes longer than `seconds`
   * is an outage. With null, nothing is sent: the system speaks first, and the connection may still be being opened. The
   * reply is one line; with isComplete(lines), it is an array of all lines until isComplete() returns true.
   */
  ask(line, { shown, isPoll = false, isComplete = null, seconds = ANSWER_SECONDS } = {}) {
    const isPossible = line === null ? this.#socket !== null : this.send(line, { shown, isPoll });
    if (!isPossible) return Promise.resolve(null);
    const timer = this.#giveUpAfter(seconds, `The ${this.#name} did not answer within ${seconds} seconds.`);
    return new Promise((resolve) => this.#asked.push({ isPoll, isComplete, lines: [], resolve, timer }));
  }

  /** Close the connection and do not connect again. */
  close() {
    clearTimeout(this.#retryTimer);
    if (this.#socket) this.#record("event", "closed by this page");
    this.#drop();
  }

  #opened() {
    clearTimeout(this.#openTimer);
    this.#openedAt = performance.now();
    this.#record("event", `opened ${this.#path}`);
    this.#handlers.opened?.();
  }

  #receive(text) {
    if (performance.now() - this.#openedAt > SETTLED_MILLISECONDS) this.#pauseSeconds = FIRST_PAUSE_SECONDS;
    const request = this.#handlers.isReply?.(text) === false ? null : this.#asked[0];
    this.#record("received", text, request?.isPoll);
    request?.lines.push(text);
    if (!request) this.#handlers.line?.(text);
    if (!request || request.isComplete?.(request.lines) === false) return;
    this.#asked.shift();
    clearTimeout(request.timer);
    request.resolve(request.isComplete ? request.lines : text);
  }

  #closed({ code, reason }) {
    this.#record("event", `closed, ${code}${reason && ` ${reason}`}`);
    const isNotRunning = code === NOT_REACHED && reason.startsWith("Cannot connect");
    if (code === NO_CLOSE_FRAME) this.#end("The front end is not answering.");
    else if (code === NORMAL_CLOSE) this.#end(`The ${this.#name} ended the connection.`);
    else if (isNotRunning) this.#end(`The ${this.#name} is not running.`, reason);
    else this.#end(sentenceOf(reason || "The connection has ended"), "", code);
  }

  #giveUpAfter(seconds, sentence) {
    return setTimeout(() => {
      this.#record("event", `given up: no answer within ${seconds} seconds`);
      this.#end(sentence);
    }, 1000 * seconds);
  }

  #end(sentence, detail = "", code = NORMAL_CLOSE) {
    this.#drop();
    this.#handlers.closed(sentence, detail, code);
  }

  /** Forget the present connection, and give up the replies that are awaited. */
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    clearTimeout(this.#openTimer);
    socket?.close(NORMAL_CLOSE);
    for (const request of this.#asked.splice(0)) {
      clearTimeout(request.timer);
      request.resolve(null);
    }
  }
}

/** Return whether a line is short enough for the servers, which count bytes of UTF-8. */
export function fitsLine(line) {
  return new TextEncoder().encode(line).length <= MESSAGE_BYTES;
}
