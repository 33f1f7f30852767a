// The start page: a card for each system, with a fact that the system itself tells every few seconds.

import { Connection } from "./connection.js";
import { byId, element, pollWith, setText, systems } from "./page.js";

const LOOK_SECONDS = 10;

// For each system, requests that change nothing, and what the reply to the last of them tells; "" if it is a refusal.
const SYSTEMS = {
  dormitory: { requests: ["LOGIN guest", "LIST"], factIn: placesLeft },
  tickets: { requests: ["99999"], factIn: seatsLeft },
  chat: { requests: ["LIST"], factIn: (reply) => (reply.startsWith("Unregistered User") ? "Running" : "") },
  chatrooms: { requests: ["\u0003"], factIn: roomsOpen },
};

function placesLeft(reply) {
  if (!reply.startsWith("ROOMS")) return "";
  const places = [...reply.matchAll(/=(\d+)/g)].map(([, count]) => Number(count));
  const sum = places.reduce((total, count) => total + count, 0);
  return sum ? `${sum} places left in ${places.filter(Boolean).length} rooms` : "No places left";
}

function seatsLeft(reply) {
  const [, seats] = /^Only (\d+) seats? (?:is|are) free/.exec(reply) ?? [];
  if (seats) return { 0: "Sold out", 1: "1 seat left" }[seats] ?? `${seats} seats left`;
  return reply.startsWith("A number from") ? "Running" : ""; // the server limits the tickets of an order
}

function roomsOpen(reply) {
  if (!reply.startsWith("\u0000")) return "";
  const count = reply.length > 1 ? reply.split(",").length : 0;
  return { 0: "No rooms yet", 1: "1 room open" }[count] ?? `${count} rooms open`;
}

function watch(card) {
  const system = card.dataset.system;
  const { requests, factIn } = SYSTEMS[system];
  const text = element("span", {}, "Asking …");
  const detail = element("small");
  const state = element("p", { class: "state" }, text, detail);
  const show = (sign, sentence, small = "") => {
    state.className = `state ${sign}`;
    setText(text, sentence);
    setText(detail, small);
  };
  const opened = async () => {
    const reply = await ask(connection, requests);
    if (reply === null) return;
    connection.close();
    const fact = factIn(reply);
    if (fact) show("up", fact);
    else show("down", "Does not serve now.", reply);
  };
  const closed = (sentence, small) => show("down", sentence, small);
  const connection = new Connection(`/ws/${system}`, { opened, closed }, system, true);
  card.append(state);
  pollWith(() => connection.open(), LOOK_SECONDS)();
}

/** Send requests one after the other; return the reply to the last, or null if the connection ends before. */
async function ask(connection, requests) {
  let lines = null;
  for (const request of requests) {
    // The ticket server speaks first: it asks a question.
    lines = await connection.ask(request, { isComplete: (received) => !received.at(-1).endsWith("?") });
  }
  return lines?.at(-1) ?? null;
}

systems
  .then((given) => document.querySelectorAll(".card").forEach((card) => given[card.dataset.system] && watch(card)))
  .catch(() => (byId("nothing").hidden = false));
