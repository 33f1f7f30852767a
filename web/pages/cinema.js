// The cinema: choose seats in the hall, review the order while the server holds them, and book it.

import { Hall } from "./hall.js";
import {
  askBeforeLeaving, byId, element, hideOutage, local, onSingleClick, onSubmit, pollWith, say, sayAt, session, setText,
  showOutage, showView, whilePending,
} from "./page.js";
import { namesOf } from "./seats.js";
import { createLookout, Order } from "./tickets.js";

const LOOK_SECONDS = 3;
const USUAL_SECONDS = 600; // the default of --hold-seconds
const WARNING_SECONDS = 45;

let stage = "choosing"; // then "holding" (the server is asked), "reviewing" and "booking"
let order = null; // the present order, from "holding" on
let doubtful = []; // the seats of an order that may be booked

const hall = new Hall(byId("hall"), showBar, (name) => setText(byId("pointed"), name));
const lookout = createLookout(showHall, showOutage);

const look = pollWith(() => {
  const isShown = !byId("order").hidden && (stage === "choosing" || stage === "reviewing");
  return isShown && lookout.look();
}, LOOK_SECONDS);

function showHall(rows) {
  hideOutage();
  const seats = rows.length ? rows : hall.rows.map((signs) => signs.fill("1"));
  byId("house").hidden = !seats.length;
  const lost = seats.length ? hall.show(seats, (seat) => Boolean(order?.holds(seat))) : [];
  const free = hall.freeOf().length;
  setText(byId("free"), free ? `${free} of ${seats.flat().length} seats are free` : "Sold out");
  if (doubtful.length) settleDoubt();
  if (lost.length) {
    leaveOrder();
    say(`${namesOf(lost).join("; ")}: somebody else was faster. Nothing is booked; choose another seat.`, true);
  }
  showBar();
}

function chooseBest() {
  const count = Number(byId("tickets").value);
  const free = hall.freeOf().length;
  if (stage !== "choosing") return;
  if (count > free) {
    sayAt(byId("tickets"), free === 1 ? "Only 1 seat is free." : `Only ${free} seats are free.`);
    return;
  }
  hall.chooseBest(count);
  const groups = namesOf(hall.chosen);
  say(`${groups.length > 1 ? `No ${count} adjacent seats are free; the nearest are: ` : ""}${groups.join("; ")}.`);
}

async function review() {
  if (stage !== "choosing" || !hall.chosen.length) return;
  const present = new Order(hall.chosen, orderEnded);
  order = present;
  setStage("holding");
  say("");
  if (!(await whilePending(byId("review"), present.hold()))) return;
  setStage("reviewing");
  byId("bar-title").focus();
}

async function book() {
  setStage("booking");
  const line = await order.book();
  if (!line) return;
  hall.sell();
  order = null;
  setStage("choosing");
  session.receipt = JSON.stringify({ line, time: Date.now() }); // a reload does not lose it
  showReceipt();
  say(line.includes(",") ? "Your seats are booked." : "Your seat is booked.");
}

/** Handle the end of an order that was not booked, or perhaps was. */
function orderEnded(sentence) {
  const { seats, mayBeBooked } = order;
  if (sentence.startsWith("Time is up.")) local["hold-seconds"] = Math.round(secondsOf(order));
  leaveOrder();
  const lost = /^Seat (\d+)-(\d+) is taken/.exec(sentence);
  if (lost) hall.lose({ row: Number(lost[1]), number: Number(lost[2]) });
  if (mayBeBooked) {
    hall.sell();
    doubtful = seats;
  }
  const doubt = " It is not certain whether the order is booked.";
  say(mayBeBooked && !sentence.includes("not certain") ? sentence + doubt : sentence, true);
  showBar();
  byId("bar-title").focus();
}

/** Say what the hall shows about an order that may be booked. It was booked as a whole or not at all. */
function settleDoubt() {
  const free = hall.freeOf(doubtful);
  doubtful = [];
  const names = namesOf(free).join("; ");
  if (free.length) say(`The order is probably not booked. Still free: ${names}.`, true);
  else say("The order is probably booked: all its seats are taken now. Its receipt did not arrive.", true);
}

/** End the present order, if there is one, but keep the seats chosen. */
function leaveOrder() {
  if (order) hall.release();
  order?.cancel();
  order = null;
  setStage("choosing");
}

function changeSeats() {
  leaveOrder();
  byId("bar-title").focus();
}

function giveUp() {
  say(order ? "You gave up the order. Nothing was booked." : "");
  hall.clear();
  changeSeats();
}

function setStage(next) {
  stage = next;
  hall.isFixed = stage !== "choosing";
  lookout.discard(); // a look that began before may find the seats of this order taken
  showBar();
}

function showBar() {
  const seats = order?.seats ?? hall.chosen;
  const isReviewed = stage === "reviewing" || stage === "booking";
  setText(byId("bar-title"), namesOf(seats).join("; ") || "No seats chosen");
  setText(byId("bar-note"), noteOn(seats.length, isReviewed));
  setText(byId("book"), seats.length > 1 ? `Book ${seats.length} seats` : "Book 1 seat");
  byId("review").setAttribute("aria-disabled", String(!seats.length));
  byId("review").hidden = isReviewed;
  byId("book").hidden = !isReviewed;
  byId("give-up").hidden = !seats.length || stage === "booking";
  byId("change").hidden = stage !== "reviewing";
  byId("best").setAttribute("aria-disabled", String(stage !== "choosing"));
  showTime();
}

function noteOn(tickets, isReviewed) {
  if (!tickets) return "Choose them in the hall, or take the best ones.";
  if (!isReviewed) return "Not held yet. You can review the order before it is booked.";
  if (tickets === 1) return "Nothing is booked yet, and the seat is not held.";
  return "Nothing is booked yet. The seats are held for you, except the last one.";
}

/** Show how long the order has taken. The protocol does not say how long it may take: the last one that ran out told. */
function showTime() {
  const timer = byId("time-left");
  const isRunning = Boolean(order?.startedAt);
  const spent = isRunning ? Math.floor(secondsOf(order)) : 0;
  const usual = Number(local["hold-seconds"]) || USUAL_SECONDS;
  const isShort = isRunning && usual - spent <= WARNING_SECONDS;
  const wasShort = timer.classList.contains("soon");
  timer.hidden = !isRunning;
  timer.classList.toggle("soon", isShort);
  setText(timer, `${clock(spent)} of usually ${clock(usual)}`);
  if (isShort && !wasShort) say(`An order may usually take ${clock(usual)}: book your seats now.`, true);
}

function secondsOf({ startedAt }) {
  return (performance.now() - startedAt) / 1000;
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

function showReceipt() {
  const { line, time } = JSON.parse(session.receipt);
  const seats = [...line.matchAll(/(\d+)-(\d+)/g)].map(([, row, seat]) => ({ row: Number(row), number: Number(seat) }));
  byId("receipt-seats").replaceChildren(...namesOf(seats).map((name) => element("li", {}, name)));
  byId("receipt-time").textContent = new Date(time).toLocaleString([], { dateStyle: "long", timeStyle: "short" });
  byId("receipt-line").textContent = line;
  lookout.stop();
  hideOutage();
  showView("receipt");
  byId("receipt-title").focus();
}

function orderMore() {
  session.receipt = "";
  say("");
  showView("order");
  look();
  byId("bar-title").focus();
}

onSubmit(byId("best-form"), chooseBest);
byId("review").addEventListener("click", review);
onSingleClick(byId("book"), book);
byId("give-up").addEventListener("click", giveUp);
byId("change").addEventListener("click", changeSeats);
byId("print").addEventListener("click", () => print());
byId("order-more").addEventListener("click", orderMore);
askBeforeLeaving(() => order !== null);
setInterval(showTime, 250);
if (session.receipt) showReceipt();
else look();
