// The hall on the cinema's page: a grid of seats, each free, taken, the user's own choice, or lost to somebody else.

import { element } from "./page.js";
import { bestSeats } from "./seats.js";

const FREE = "0";
const TAKEN = "1";
const PAGE_ROWS = 5; // how far PageUp and PageDown go
const SIGNS = { taken: "×", yours: "✓", lost: "!" };

export class Hall {
  isFixed = false; // while an order is reviewed, a click changes nothing
  #grid;
  #changed;
  #pointed;
  #seats = []; // by row and column: {row, number, sign, mark, button}; mark is "yours", "lost" or ""

  /** Show a hall in an element. changed() is called after a change by the user, pointed(name) when a seat is pointed at. */
  constructor(grid, changed, pointed) {
    this.#grid = grid;
    this.#changed = changed;
    this.#pointed = pointed;
    const on = (type, handle) =>
      grid.addEventListener(type, (event) => {
        const button = event.target.closest("button");
        if (button) handle(this.#at(button.dataset), event);
      });
    on("click", (seat) => this.#toggle(seat));
    on("keydown", (seat, event) => this.#move(seat, event));
    on("focusin", (seat) => this.#takeFocus(seat));
    on("pointerover", (seat) => pointed(nameOf(seat)));
    grid.addEventListener("pointerleave", () => pointed(""));
  }

  get rows() {
    return this.#seats.map((row) => row.map(({ sign }) => sign));
  }

  get chosen() {
    return this.#seats.flat().filter(({ mark }) => mark === "yours");
  }

  /** Return those of some seats that are free. */
  freeOf(seats = this.#seats.flat()) {
    return seats.filter((seat) => this.#at(seat)?.sign === FREE);
  }

  /** Show the seats as the server sent them. Return the chosen ones that are lost: taken, but not held for the user. */
  show(rows, isHeld) {
    if (this.#seats.length !== rows.length || this.#seats[0].length !== rows[0].length) this.#build(rows);
    for (const seat of this.#seats.flat()) {
      seat.sign = rows[seat.row - 1][seat.number - 1];
      if (seat.sign === FREE && seat.mark === "lost") seat.mark = "";
      draw(seat);
    }
    const lost = this.chosen.filter((seat) => seat.sign === TAKEN && !isHeld(seat));
    lost.forEach((seat) => this.lose(seat));
    return lost;
  }

  /** Choose the best free seats instead of those that are chosen. */
  chooseBest(count) {
    const best = bestSeats(this.rows, count).map((seat) => this.#at(seat));
    this.clear();
    best.forEach((seat) => draw(seat, "yours"));
    best[0].button.scrollIntoView({ block: "nearest", inline: "center" });
    this.#changed();
  }

  /** Forget what was chosen and what was lost. */
  clear() {
    this.#seats.flat().forEach((seat) => draw(seat, ""));
  }

  /** Mark a seat that somebody else was faster to take. */
  lose(place) {
    const seat = this.#at(place);
    seat.sign = TAKEN;
    draw(seat, "lost");
  }

  /** Show the chosen seats as not held any more. */
  release() {
    for (const seat of this.chosen) seat.sign = FREE;
  }

  /** Show the chosen seats as taken. */
  sell() {
    for (const seat of this.chosen) seat.sign = TAKEN;
    this.clear();
  }

  #at({ row, number }) {
    return this.#seats[row - 1]?.[number - 1];
  }

  #build(rows) {
    const createSeat = (row, number) => {
      const attributes = { type: "button", role: "gridcell", tabindex: -1, "data-row": row, "data-number": number };
      return { row, number, sign: FREE, mark: "", button: element("button", attributes) };
    };
    const createRow = (seats, index) => {
      const label = element("span", { role: "rowheader", class: "row-label" }, String(index + 1));
      const right = element("span", { "aria-hidden": "true", class: "row-label" }, String(index + 1));
      return element("div", { role: "row", class: "row" }, label, ...seats.map(({ button }) => button), right);
    };
    this.#seats = rows.map((signs, index) => signs.map((_, column) => createSeat(index + 1, column + 1)));
    this.#grid.replaceChildren(...this.#seats.map(createRow));
    this.#grid.style.setProperty("--rows", rows.length);
    this.#grid.style.setProperty("--columns", rows[0].length);
    this.#seats[0][0].button.tabIndex = 0;
    const frame = this.#grid.parentElement;
    frame.scrollLeft = (frame.scrollWidth - frame.clientWidth) / 2;
  }

  #toggle(seat) {
    if (this.isFixed || (seat.sign === TAKEN && seat.mark !== "yours")) return;
    draw(seat, seat.mark === "yours" ? "" : "yours");
    this.#pointed(nameOf(seat));
    this.#changed();
  }

  #move({ row, number }, event) {
    const [lastRow, lastNumber] = [this.#seats.length, this.#seats[0].length];
    const place = {
      ArrowUp: [row - 1, number],
      ArrowDown: [row + 1, number],
      ArrowLeft: [row, number - 1],
      ArrowRight: [row, number + 1],
      PageUp: [Math.max(row - PAGE_ROWS, 1), number],
      PageDown: [Math.min(row + PAGE_ROWS, lastRow), number],
      Home: [event.ctrlKey ? 1 : row, 1],
      End: [event.ctrlKey ? lastRow : row, lastNumber],
    }[event.key];
    if (!place) return;
    event.preventDefault();
    this.#at({ row: place[0], number: place[1] })?.button.focus();
  }

  #takeFocus(seat) {
    for (const button of this.#grid.querySelectorAll('[tabindex="0"]')) button.tabIndex = -1;
    seat.button.tabIndex = 0;
    this.#pointed(nameOf(seat));
  }
}

/** Draw a seat, with a new mark or the one that it has. */
function draw(seat, mark = seat.mark) {
  seat.mark = mark;
  const { row, number, button } = seat;
  const state = mark || (seat.sign === TAKEN ? "taken" : "free");
  if (button.dataset.state === state) return;
  button.dataset.state = state;
  button.className = `seat ${state}`;
  button.textContent = SIGNS[state] ?? number;
  button.setAttribute("aria-label", `Row ${row}, seat ${number}, ${state}`);
  button.setAttribute("aria-selected", String(state === "yours"));
  button.setAttribute("aria-disabled", String(state === "taken" || state === "lost"));
}

function nameOf({ button }) {
  return button.getAttribute("aria-label");
}
