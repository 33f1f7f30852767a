// The hall on the cinema's page: a grid of seats, each free, taken, the user's own choice, or lost to somebody else.

import { element } from "./page.js";
import { bestSeats } from "./seats.js";

const FREE = "0";
const TAKEN = "1";
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const PAGE_ROWS = 5; // how far PageUp and PageDown go

export class Hall {
  isFixed = false; // while an order is reviewed, a click changes nothing
  #grid;
  #handlers;
  #seats = []; // by row and column: {row, number, button, sign, mark}; mark is "yours", "lost" or ""

  /** Show a hall in an element. handlers.changed() is called after each click, handlers.pointed(text) to name a seat. */
  constructor(grid, handlers) {
    this.#grid = grid;
    this.#handlers = handlers;
    grid.addEventListener("click", (event) => this.#click(this.#seatOf(event)));
    grid.addEventListener("keydown", (event) => this.#move(event, this.#seatOf(event)));
    grid.addEventListener("focusin", (event) => this.#takeFocus(this.#seatOf(event)));
    grid.addEventListener("pointerover", (event) => handlers.pointed(nameOf(this.#seatOf(event))));
    grid.addEventListener("pointerleave", () => handlers.pointed(""));
  }

  get rows() {
    return this.#seats.map((row) => row.map(({ sign }) => sign));
  }

  get chosen() {
    return this.#seats.flat().filter(({ mark }) => mark === "yours");
  }

  get free() {
    return this.#seats.flat().filter(({ sign }) => sign === FREE).length;
  }

  /**
   * Show the signs that the server sent; [] means that nothing is free. Return the chosen seats that are lost: taken, but
   * not held for the user.
   */
  show(rows, isHeld) {
    if (!rows.length) rows = this.rows.map((signs) => signs.fill(TAKEN));
    if (this.#seats.length !== rows.length || this.#seats[0]?.length !== rows[0]?.length) this.#build(rows);
    const lost = [];
    for (const seat of this.#seats.flat()) {
      seat.sign = rows[seat.row - 1][seat.number - 1];
      if (seat.sign !== TAKEN && seat.mark === "lost") seat.mark = "";
      if (seat.sign === TAKEN && seat.mark === "yours" && !isHeld(seat)) lost.push(seat);
      draw(seat);
    }
    lost.forEach((seat) => this.lose(seat));
    return lost;
  }

  /** Choose the best free seats instead of those that are chosen. */
  chooseBest(count) {
    const best = bestSeats(this.rows, count);
    this.clear();
    for (const { row, number } of best) mark(this.#seats[row - 1][number - 1], "yours");
    this.chosen[0].button.scrollIntoView({ block: "nearest", inline: "center" });
    this.#handlers.changed();
  }

  /** Forget what was chosen and what was lost. */
  clear() {
    for (const seat of this.#seats.flat()) mark(seat, "");
  }

  isFree({ row, number }) {
    return this.#seats[row - 1]?.[number - 1]?.sign === FREE;
  }

  /** Mark a seat that somebody else was faster to take. */
  lose({ row, number }) {
    const seat = this.#seats[row - 1][number - 1];
    seat.sign = TAKEN;
    mark(seat, "lost");
  }

  /** Show the seats that were chosen as taken. */
  sell() {
    for (const seat of this.chosen) seat.sign = TAKEN;
    this.clear();
  }

  #build(rows) {
    const createSeat = (row, number) => {
      const attributes = { type: "button", role: "gridcell", tabindex: -1, "data-row": row, "data-number": number };
      return { row, number, sign: "", mark: "", button: element("button", attributes) };
    };
    this.#seats = rows.map((signs, index) => signs.map((_, column) => createSeat(index + 1, column + 1)));
    const lines = this.#seats.map((seats, index) => {
      const row = String(index + 1);
      const label = element("span", { role: "rowheader", class: "row-label", "aria-label": `Row ${row}` }, row);
      const right = element("span", { "aria-hidden": "true", class: "row-label" }, row);
      return element("div", { role: "row", class: "row" }, label, ...seats.map(({ button }) => button), right);
    });
    this.#grid.replaceChildren(...lines);
    this.#grid.style.setProperty("--rows", rows.length);
    this.#grid.style.setProperty("--columns", rows[0].length);
    this.#seats[0][0].button.tabIndex = 0;
    const frame = this.#grid.parentElement;
    frame.scrollLeft = (this.#grid.scrollWidth - frame.clientWidth) / 2;
  }

  #seatOf(event) {
    const { row, number } = event.target.closest("button")?.dataset ?? {};
    return row && this.#seats[row - 1][number - 1];
  }

  #click(seat) {
    if (!seat || this.isFixed) return;
    if (seat.mark === "yours") mark(seat, "");
    else if (seat.sign !== TAKEN) mark(seat, "yours");
    else return;
    this.#handlers.changed();
    this.#handlers.pointed(nameOf(seat));
  }

  #move(event, seat) {
    if (!seat) return;
    const [lastRow, lastNumber] = [this.#seats.length, this.#seats[0].length];
    let { row, number } = seat;
    if (STEPS[event.key]) {
      row += STEPS[event.key][0];
      number += STEPS[event.key][1];
    } else if (event.key === "PageUp") {
      row -= PAGE_ROWS;
    } else if (event.key === "PageDown") {
      row += PAGE_ROWS;
    } else if (event.key === "Home") {
      [row, number] = [event.ctrlKey ? 1 : row, 1];
    } else if (event.key === "End") {
      [row, number] = [event.ctrlKey ? lastRow : row, lastNumber];
    } else {
      return;
    }
    event.preventDefault();
    row = Math.min(Math.max(row, 1), lastRow);
    number = Math.min(Math.max(number, 1), lastNumber);
    this.#seats[row - 1][number - 1].button.focus();
  }

  #takeFocus(seat) {
    if (!seat) return;
    for (const button of this.#grid.querySelectorAll('[tabindex="0"]')) button.tabIndex = -1;
    seat.button.tabIndex = 0;
    this.#handlers.pointed(nameOf(seat));
  }
}

function mark(seat, text) {
  seat.mark = text;
  draw(seat);
}

function draw(seat) {
  const { row, number, button } = seat;
  const state = stateOf(seat);
  if (button.dataset.state === state) return;
  button.dataset.state = state;
  button.className = `seat ${state}`;
  button.textContent = { free: number, taken: "×", yours: "✓", lost: "!" }[state];
  button.setAttribute("aria-label", `Row ${row}, seat ${number}, ${state}`);
  button.setAttribute("aria-selected", String(state === "yours"));
  button.setAttribute("aria-disabled", String(state === "taken" || state === "lost"));
}

function stateOf({ sign, mark }) {
  return mark || (sign === TAKEN ? "taken" : "free");
}

function nameOf(seat) {
  return seat ? seat.button.getAttribute("aria-label") : "";
}
