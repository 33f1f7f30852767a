// The dialogue with ticket_server.py, which asks for a row and a number for each seat, and books with the last answer.

import { Connection } from "./connection.js";

const PATH = "/ws/tickets";
const FIRST_QUESTION = "How many tickets do you want?";
const ROW = /^Row +\d+((?: +[01])+)$/;
const EXPECTED = " is expected."; // ends the refusal of an answer; the question follows again
const CANCELLED = " Order cancelled, nothing was booked.";
// After these lines, the server says more before it waits.
const GOES_ON = /^(?:Choose a row .*| *(?:Seat|Row)[ \d]+|Ticket \d+ reserved|.* is expected\.)$/;
const isComplete = (lines) => !GOES_ON.test(lines.at(-1));

/** An order of seats: hold() lets the server hold all but the last, book() takes the last, which books them all. */
export class Order {
  startedAt = 0; // when the server's time limit began, as performance.now() counts
  mayBeBooked = false; // whether the last answer was sent, and the server has not refused it
  isOver = false;
  #connection;
  #ended;

  /** ended(sentence) is called when the order ends without being booked, unless the user cancels it. */
  constructor(seats, ended) {
    this.seats = seats;
    this.#ended = ended;
    const line = (text) => this.#end(text); // while the user reviews the order
    const closed = (sentence) => this.#end(this.mayBeBooked ? sentence : `${sentence} Nothing was booked.`);
    this.#connection = new Connection(PATH, { line, closed }, "order");
  }

  /** Return whether the server holds a seat for this order. */
  holds(seat) {
    return !this.isOver && this.seats.slice(0, -1).includes(seat);
  }

  /** Hold all seats but the last; return whether that succeeded. */
  async hold() {
    this.#connection.open();
    let lines = await this.#answer(null, FIRST_QUESTION);
    this.startedAt = performance.now();
    lines &&= await this.#answer(this.seats.length, "Row for ");
    for (const seat of this.seats.slice(0, -1)) {
      lines &&= await this.#answer(seat.row, "Seat for ");
      lines &&= await this.#answer(seat.number, "Row for ");
    }
    return lines !== null;
  }

  /** Take the last seat; return the line in which the server says that the order is booked, or null. */
  async book() {
    const last = this.seats.at(-1);
    if (!(await this.#answer(last.row, "Seat for "))) return null;
    this.mayBeBooked = true;
    const lines = await this.#answer(last.number, "Booked: ");
    if (!lines) return null;
    this.cancel();
    return lines.at(-1);
  }

  /** Leave; the server then releases the seats. */
  cancel() {
    this.isOver = true;
    this.#connection.close();
  }

  /** Answer a question; return what the server said, or null if that was not as expected, and the order has ended. */
  async #answer(number, expected) {
    const lines = await this.#connection.ask(number && String(number), { isComplete });
    if (!lines || lines.at(-1).startsWith(expected)) return lines;
    this.#end(lines.find((line) => !GOES_ON.test(line) || line.endsWith(EXPECTED)));
    return null;
  }

  #end(sentence) {
    if (this.isOver) return;
    if (sentence.endsWith(CANCELLED)) this.mayBeBooked = false;
    this.cancel();
    this.#ended(sentence);
  }
}

/**
 * Look at the hall, as a customer who asks for one ticket and leaves when the seats are shown. shown(rows) is called
 * with the seats, [] if none is free; failed(sentence, connection, detail) arranges for the next try. look() returns a
 * promise, which is fulfilled when the server has answered, or by stop(). After discard(), what the present look finds is
 * not shown.
 */
export function createLookout(shown, failed) {
  let finish = () => {}; // fulfils the promise
  let isDiscarded = false;

  const ask = async () => {
    isDiscarded = false;
    let lines = await connection.ask(null, { isComplete });
    if (lines?.at(-1) === FIRST_QUESTION) lines = await connection.ask("1", { isComplete });
    if (!lines) return;
    const rows = lines.map((line) => ROW.exec(line)).filter(Boolean).map(([, signs]) => signs.trim().split(/ +/));
    if (rows.length || lines[0].startsWith("Only 0 ")) {
      stop();
      if (!isDiscarded) shown(rows);
    } else {
      connection.close();
      closed(lines[0].replace(CANCELLED, ""));
    }
  };
  const closed = (sentence, detail) => failed(sentence, connection, detail);
  const connection = new Connection(PATH, { opened: ask, closed }, "look", true);
  const look = () => {
    connection.open();
    return new Promise((resolve) => (finish = resolve));
  };
  const discard = () => (isDiscarded = true);
  const stop = () => {
    connection.close();
    finish();
  };
  return { look, discard, stop };
}
