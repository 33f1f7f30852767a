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
  #takeFirstQuestion = () => {};

  /** ended(sentence) is called when the order ends without being booked, unless the user cancels it. */
  constructor(seats, ended) {
    this.seats = seats;
    this.#ended = ended;
    this.#connection = new Connection(
      PATH,
      {
        line: (text) => (text === FIRST_QUESTION ? this.#takeFirstQuestion() : this.#end(text)),
        closed: (sentence) => this.#end(this.mayBeBooked ? sentence : `${sentence} Nothing was booked.`),
      },
      "order",
    );
  }

  /** Return whether the server holds a seat for this order. */
  holds(seat) {
    return !this.isOver && this.seats.slice(0, -1).includes(seat);
  }

  /** Hold all seats but the last; return whether that succeeded. */
  async hold() {
    const asked = new Promise((resolve) => (this.#takeFirstQuestion = resolve));
    this.#connection.open();
    await asked;
    this.startedAt = performance.now();
    let lines = await this.#answer(this.seats.length, "Row for ");
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

  /** Leave; the server then releases what it holds. */
  cancel() {
    this.isOver = true;
    this.#connection.close();
    this.#takeFirstQuestion();
  }

  /** Send an answer; return what the server said, or null if that is not what was expected, and the order has ended. */
  async #answer(number, expected) {
    const lines = this.isOver ? null : await this.#connection.ask(String(number), { isComplete });
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

/** Looks at the hall as a customer who asks for one ticket, and leaves when the server has shown the seats. */
export class Lookout {
  #connection;
  #handlers;
  #startedAt = 0;
  #isLooking = false;
  #isOut = false; // the last look failed, and the connection tries again by itself

  /**
   * handlers.hall(rows, startedAt) gets the seats as they were after a time, [] if none was free; handlers.failed(
   * sentence, connection, detail) arranges for the next try.
   */
  constructor(handlers) {
    this.#handlers = handlers;
    this.#connection = new Connection(
      PATH,
      {
        line: (text) => (text === FIRST_QUESTION ? this.#ask() : this.#fail(text)),
        closed: (sentence, detail) => this.#fail(sentence, detail),
      },
      "look",
      true,
    );
  }

  look() {
    if (this.#isLooking || this.#isOut) return;
    this.#isLooking = true;
    this.#connection.open();
  }

  stop() {
    this.#isLooking = this.#isOut = false;
    this.#connection.close();
  }

  async #ask() {
    this.#startedAt = performance.now();
    const lines = await this.#connection.ask("1", { isComplete, isPoll: true });
    if (!lines) return;
    const last = lines.at(-1);
    const rows = lines.map((line) => ROW.exec(line)).filter(Boolean).map(([, signs]) => signs.trim().split(/ +/));
    if (!rows.length && !last.startsWith("Only 0 ")) {
      this.#fail(last.replace(CANCELLED, ""));
      return;
    }
    this.stop();
    this.#handlers.hall(rows, this.#startedAt);
  }

  #fail(sentence, detail) {
    this.stop();
    this.#isOut = true;
    this.#handlers.failed(sentence, this.#connection, detail);
  }
}

/**
 * Find out how many seconds an order may take, which the protocol does not say: begin one, hold nothing, and see when the
 * server ends it. Orders of the user's that begin later also end later. Call measured(0) if there is no answer.
 */
export function measureLimit(measured) {
  let startedAt = 0;
  const connection = new Connection(
    PATH,
    {
      line: (text) => {
        if (text === FIRST_QUESTION) {
          startedAt = performance.now();
          connection.send("1", { isPoll: true });
        } else if (text.startsWith("Time is up.")) {
          connection.close();
          measured(Math.floor((performance.now() - startedAt) / 1000));
        }
      },
      closed: () => measured(0),
    },
    "clock",
    true,
  );
  connection.open();
}
