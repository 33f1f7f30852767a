// The cinema: order tickets. This page answers the server's questions with the seats that the user clicks.

import { Connection } from "./connection.js";
import { byId, element, hideOutage, onSubmit, say, showOutage, showView } from "./page.js";

// The protocol does not say how long an order may take. For a server that was started with another --hold-seconds,
// open cinema.html?hold-seconds=N.
const HOLD_SECONDS = Number(new URLSearchParams(location.search).get("hold-seconds")) || 600;
const WARNING_SECONDS = 45;
const SLOPE_DEGREES_PER_SEAT = 0.9; // a row is an arc, which rises towards its ends
const MAX_SLOPE_DEGREES = 13;
const SEAT_PITCH_PIXELS = 48;
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

let order = null; // the present order, or the one that has just ended: see startOrder()

const connection = new Connection("/ws/tickets", { line: handleLine, closed });

function startOrder(tickets) {
  if (order && order.stage !== "over" && connection.isOpen) return; // the reply to the first click has not arrived
  order = {
    tickets,
    stage: "connecting", // then "begun" (the number of tickets is sent), "choosing" (the hall is shown) and "over"
    isWarned: false, // that time is short
    endsAt: 0, // as performance.now() counts
    rows: [], // of the hall, as the server sent them: "0" is free
    choices: [], // the seats that the user clicked, in order
    reserved: 0, // how many of them the server holds
    question: null, // what the server asks for the next of them: "row" or "number"
  };
  say("");
  connection.open();
}

// The dialogue

const HANDLERS = [
  [/^How many tickets/, begin],
  [/^Row +\d+((?: +[01])+)$/, ([, seats]) => order.rows.push(seats.trim().split(/ +/))],
  [/^Row for ticket \d+\?$/, () => takeQuestion("row")],
  [/^Seat for ticket \d+\?$/, () => takeQuestion("number")],
  [/^Ticket \d+ reserved$/, reserved],
  [/^Booked: (.+)$/, ([line, seats]) => showReceipt(line, seats.split(", "))],
  [/^(?:Choose a row .*| *Seat(?: +\d+)+)$/, () => {}],
];

function handleLine(text) {
  hideOutage();
  for (const [pattern, handle] of HANDLERS) {
    const match = pattern.exec(text);
    if (match) {
      handle(match);
      return;
    }
  }
  end(text);
}

function begin() {
  if (order.stage !== "connecting") return; // the server refused the number, and a line of its own says why
  order.stage = "begun";
  order.endsAt = performance.now() + 1000 * HOLD_SECONDS;
  connection.send(String(order.tickets));
}

function takeQuestion(question) {
  if (order.stage === "begun") showHall();
  order.question = question;
  answer();
}

/** Answer the open question with the next chosen seat, if there is one. */
function answer() {
  const choice = order.choices[order.reserved];
  if (!choice || !order.question) return;
  connection.send(String(choice.dataset[order.question]));
  order.question = null;
}

function reserved() {
  const seat = order.choices[order.reserved];
  setSeat(seat, "yours");
  order.reserved += 1;
  showProgress();
  if (order.reserved < order.tickets) say(`Row ${seat.dataset.row}, seat ${seat.dataset.number} is held for you.`);
}

/** End an order that was not booked: say why, and offer to start again. */
function end(sentence) {
  if (!order || order.stage === "over") return;
  order.stage = "over";
  connection.close();
  say(sentence, true);
  if (!order.rows.length) {
    showView("order");
    byId("tickets").focus();
    return;
  }
  for (const seat of byId("hall").querySelectorAll(".chosen, .yours")) setSeat(seat, "free");
  const lost = /^Seat (\d+)-(\d+) is taken/.exec(sentence);
  if (lost) setSeat(seatAt(Number(lost[1]), Number(lost[2])), "taken");
  byId("hall").classList.add("over");
  byId("choice-title").textContent = "Nothing was booked";
  byId("time-left").textContent = "";
  byId("choice-help").hidden = true;
  byId("start-again").hidden = false;
  byId("give-up").textContent = "Back";
  byId("start-again").focus();
}

function closed(sentence) {
  if (!order || order.stage === "over") return;
  if (order.stage === "connecting") {
    showOutage(sentence, connection);
  } else if (order.choices.length === order.tickets) {
    end(`${sentence} It is not certain whether the order is booked. Start again to see whether your seats are taken.`);
  } else {
    end(`${sentence} Order cancelled, nothing was booked.`);
  }
}

function giveUp() {
  const wasOver = order.stage === "over";
  order.stage = "over";
  connection.close();
  showView("order");
  byId("tickets").focus();
  say(wasOver ? "" : "You gave up the order. Nothing was booked.");
}

// The hall

function showHall() {
  order.stage = "choosing";
  const columns = order.rows[0].length;
  const hall = byId("hall");
  const screen = element("div", { class: "screen" }, element("span", {}, "Screen"));
  hall.replaceChildren(screen, ...order.rows.map((states, index) => createRow(index + 1, states, columns)));
  hall.classList.remove("over");
  hall.style.setProperty("--lift", `${-placeOnArc(0, columns).lift}px`);
  showView("choice");
  byId("start-again").hidden = true;
  byId("give-up").textContent = "Give up";
  byId("choice-help").hidden = false;
  hall.parentElement.scrollLeft = (hall.scrollWidth - hall.parentElement.clientWidth) / 2;
  const first = hall.querySelector(".free") ?? hall.querySelector(".seat");
  first.tabIndex = 0;
  byId("choice-title").focus({ preventScroll: true });
  showProgress();
  showTime();
}

function createRow(row, states, columns) {
  const label = (column) => {
    const { lift } = placeOnArc(column, columns);
    const node = element("span", { class: "row-number", "aria-hidden": "true" }, String(row));
    node.style.transform = `translateY(${lift}px)`;
    return node;
  };
  const seats = states.map((state, column) => createSeat(row, column + 1, state === "1" ? "taken" : "free", columns));
  return element("div", { class: "row" }, label(0), ...seats, label(columns - 1));
}

function createSeat(row, number, state, columns) {
  const seat = element("button", { type: "button", tabindex: -1, "data-row": row, "data-number": number });
  const { lift, slope } = placeOnArc(number - 1, columns);
  seat.style.transform = `translateY(${lift}px) rotate(${slope}deg)`;
  setSeat(seat, state);
  return seat;
}

/** Return how far a seat is raised from the middle of its row, in pixels, and its slope in degrees: a row is an arc. */
function placeOnArc(column, columns) {
  const fromMiddle = (column - (columns - 1) / 2) / Math.max(1, (columns - 1) / 2);
  const endSlope = Math.min(columns * SLOPE_DEGREES_PER_SEAT, MAX_SLOPE_DEGREES);
  const slope = -fromMiddle * endSlope;
  const radius = ((columns / 2) * SEAT_PITCH_PIXELS) / Math.sin((endSlope * Math.PI) / 180);
  return { slope, lift: -radius * (1 - Math.cos((slope * Math.PI) / 180)) };
}

/** Show a seat's state: free, taken, yours; or chosen, while the server is asked. */
function setSeat(seat, state) {
  const { row, number } = seat.dataset;
  seat.className = `seat ${state}`;
  seat.textContent = { free: number, taken: "×", yours: "✓", chosen: "…" }[state];
  seat.setAttribute("aria-label", `Row ${row}, seat ${number}, ${state}`);
  seat.setAttribute("aria-disabled", String(state !== "free"));
  if (document.activeElement === seat) describe(seat);
}

function seatAt(row, number) {
  return byId("hall").querySelector(`[data-row="${row}"][data-number="${number}"]`);
}

function choose(seat) {
  const mayChoose = order.stage === "choosing" && order.choices.length < order.tickets;
  if (!mayChoose || !seat.classList.contains("free")) return;
  order.choices.push(seat);
  setSeat(seat, "chosen");
  answer();
}

function move(event, seat) {
  const { row, number } = seat.dataset;
  const step = ARROWS[event.key];
  const ends = { Home: 1, End: order.rows[0].length };
  if (!step && !ends[event.key]) return;
  event.preventDefault();
  const next = step ? seatAt(Number(row) + step[0], Number(number) + step[1]) : seatAt(row, ends[event.key]);
  next?.focus();
}

function takeFocus(seat) {
  for (const other of byId("hall").querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
  seat.tabIndex = 0;
  describe(seat);
}

function describe(seat) {
  byId("readout").textContent = seat?.getAttribute("aria-label") ?? "";
}

function showProgress() {
  const left = order.tickets - order.reserved;
  byId("choice-title").textContent = left > 0 ? `Choose ${count(left)}` : "Booking …";
}

/** Return how many seats are still to be chosen, as words. */
function count(left) {
  const more = order.reserved ? " more" : "";
  return left > 1 ? `${left}${more} seats` : `one${more} seat`;
}

function showTime() {
  if (order?.stage !== "choosing") return;
  const left = Math.max(0, Math.ceil((order.endsAt - performance.now()) / 1000));
  byId("time-left").textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")} left`;
  byId("time-left").classList.toggle("soon", left <= WARNING_SECONDS);
  if (left <= WARNING_SECONDS && !order.isWarned) {
    order.isWarned = true;
    say(`${left} seconds left to choose your seats.`, true);
  }
}

// The receipt

function showReceipt(line, seats) {
  order.stage = "over";
  byId("receipt-title").textContent = line;
  byId("receipt-time").textContent = new Date().toLocaleString([], { dateStyle: "long", timeStyle: "short" });
  byId("receipt-seats").replaceChildren(
    ...seats.map((seat) => {
      const [row, number] = seat.split("-");
      return element(
        "li",
        {},
        element("span", {}, "Row ", element("b", {}, row)),
        element("span", {}, "Seat ", element("b", {}, number)),
      );
    }),
  );
  showView("receipt");
  say(seats.length > 1 ? `Your ${seats.length} seats are booked.` : "Your seat is booked.");
  byId("receipt-title").focus();
}

onSubmit(byId("order-form"), () => startOrder(Number(byId("tickets").value)));
byId("start-again").addEventListener("click", () => startOrder(order.tickets));
byId("give-up").addEventListener("click", giveUp);
byId("order-more").addEventListener("click", () => {
  showView("order");
  say("");
  byId("tickets").focus();
});
const hall = byId("hall");
const seatOf = (event) => event.target.closest(".seat");
hall.addEventListener("click", (event) => seatOf(event) && choose(seatOf(event)));
hall.addEventListener("keydown", (event) => seatOf(event) && move(event, seatOf(event)));
hall.addEventListener("focusin", (event) => seatOf(event) && takeFocus(seatOf(event)));
hall.addEventListener("pointerover", (event) => describe(seatOf(event)));
setInterval(showTime, 250);
