// The wire panel: each line that this page sent and received, with its time and direction.

import { byId, element } from "./page.js";

const SHOWN_LINES = 500;
const CONTROL_CHARACTER = /([\u0000-\u001f\u007f-\u009f])/g;
const NEAR_END_PIXELS = 40;
const POLL_SHOWN_AFTER_MILLISECONDS = 300;

const showButton = byId("show-wire");
const hideButton = createButton("Hide the wire", () => showPanel(false));
const result = element("p", { role: "status" });
const list = element("ol", { tabindex: 0, "aria-label": "Lines sent and received" });
const panel = element(
  "aside",
  { class: "wire", "aria-label": "The wire", hidden: "" },
  element(
    "header",
    {},
    element("h2", {}, "The wire"),
    result,
    createButton("Copy", copy),
    createButton("Clear", clear),
    hideButton,
  ),
  list,
);
const entries = []; // what is shown, oldest first: {sent, text, label, time, count, item}
let polled = []; // lines of a poll whose reply is not complete; not shown yet
let shownPoll = []; // the entries of the last poll that was shown
let pollTimer = 0;

/** Record and show a line that was sent or received: {sent, text, label}. */
export function recordLine(line) {
  showPoll();
  show({ ...line, time: timeNow(), count: 1 });
}

/** Record a line of a poll. It is shown when the reply is complete, before any other line, or after a pause. */
export function recordPollLine(line) {
  polled.push({ ...line, time: timeNow(), count: 1 });
  clearTimeout(pollTimer);
  pollTimer = setTimeout(showPoll, POLL_SHOWN_AFTER_MILLISECONDS);
}

/** Note that a poll's reply is complete. If the last lines shown are the same poll, only raise their counts. */
export function endPoll() {
  const last = shownPoll.length ? entries.slice(-shownPoll.length) : [];
  const isRepeated =
    polled.length === last.length && last.every((entry, i) => entry === shownPoll[i] && isSameLine(entry, polled[i]));
  if (!isRepeated) {
    shownPoll = showPoll();
    return;
  }
  last.forEach((entry, i) => {
    entry.count += 1;
    entry.time = polled[i].time;
    entry.item.replaceChildren(...describe(entry));
  });
  polled = [];
}

function createButton(text, action) {
  const button = element("button", { type: "button", class: "quiet" }, text);
  button.addEventListener("click", action);
  return button;
}

function isSameLine(one, other) {
  return one.sent === other.sent && one.text === other.text;
}

function showPoll() {
  clearTimeout(pollTimer);
  const shown = polled;
  polled = [];
  shown.forEach(show);
  return shown;
}

function show(entry) {
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_END_PIXELS;
  entry.item = element("li", { class: entry.sent ? "sent" : "received" }, ...describe(entry));
  entries.push(entry);
  list.append(entry.item);
  if (entries.length > SHOWN_LINES) entries.shift().item.remove();
  if (follows) list.scrollTop = list.scrollHeight;
}

function timeNow() {
  const now = new Date();
  const parts = [now.getHours(), now.getMinutes(), now.getSeconds()].map((part) => String(part).padStart(2, "0"));
  return `${parts.join(":")}.${String(now.getMilliseconds()).padStart(3, "0")}`;
}

function describe(entry) {
  return [
    element("time", {}, entry.time),
    element("span", { class: "direction" }, entry.sent ? "→ sent" : "← received"),
    ...(entry.label ? [element("span", { class: "label" }, entry.label)] : []),
    ...(entry.count > 1 ? [element("span", { class: "count" }, `×${entry.count}`)] : []),
    element("bdi", { class: "line" }, ...withVisibleBytes(entry.text)),
  ];
}

/** Return a text as nodes in which a control character reads <1>. */
function withVisibleBytes(text) {
  return text.split(CONTROL_CHARACTER).map((piece, index) => (index % 2 ? element("b", {}, byteName(piece)) : piece));
}

function byteName(character) {
  return `<${character.charCodeAt(0)}>`;
}

function asText(entry) {
  const line = entry.text.replace(CONTROL_CHARACTER, byteName);
  const count = entry.count > 1 ? ` ×${entry.count}` : "";
  return `${entry.time} ${entry.sent ? "→" : "←"} ${entry.label ? `${entry.label}: ` : ""}${line}${count}`;
}

async function copy() {
  try {
    await navigator.clipboard.writeText(entries.map(asText).join("\n"));
    result.textContent = "Copied.";
  } catch {
    // Without TLS, a browser lets only pages of its own machine use the clipboard.
    getSelection().selectAllChildren(list);
    result.textContent = "The lines are selected: copy them with the keyboard.";
  }
}

function clear() {
  entries.length = 0;
  shownPoll = [];
  list.replaceChildren();
  result.textContent = "Cleared.";
}

function showPanel(visible) {
  const scrolled = [byId("page"), document.documentElement]; // while the panel is open, the page scrolls in its part
  const top = Math.max(...scrolled.map((node) => node.scrollTop));
  panel.hidden = !visible;
  showButton.hidden = visible;
  document.documentElement.classList.toggle("with-wire", visible);
  for (const node of scrolled) node.scrollTop = top;
  list.scrollTop = list.scrollHeight;
  (visible ? hideButton : showButton).focus();
}

showButton.addEventListener("click", () => showPanel(true));
document.body.append(panel);
