// The wire panel: the lines that this page sent and received, and what happened to its connections.

import { byId, element, followEnd, oncePerFrame, session } from "./page.js";

const MAX_LINES = 1000; // older ones are forgotten
const MAX_POLLED_LINES = 200;
const CONTROL_CHARACTER = /([\u0000-\u001f\u007f-\u009f])/g;
const ARROWS = { sent: "→", received: "←", event: "·" };

const panel = byId("wire");
const scroller = byId("wire-lines");
const list = scroller.firstElementChild;
let waiting = []; // entries that are not shown yet, oldest first: {kind, text, label, isPoll, time}
let shown = []; // those that are, each with its item
let isPaused = false;

/** Record {kind, text, label, isPoll}, where kind is "sent" or "received", or "event" of a connection. */
export function record(entry) {
  waiting.push({ ...entry, time: timeNow() });
  if (waiting.length > 2 * MAX_LINES) waiting = newest(waiting);
  showSoon();
}

const showSoon = oncePerFrame(() => {
  if (panel.hidden || isPaused) return;
  const added = newest(waiting);
  waiting = [];
  for (const entry of added) {
    entry.item = createItem(entry);
    entry.item.hidden = !isWanted(entry);
  }
  list.append(...added.map((entry) => entry.item));
  const all = [...shown, ...added];
  shown = newest(all);
  const kept = new Set(shown);
  for (const entry of all) if (!kept.has(entry)) entry.item.remove();
});
const goToEnd = followEnd(scroller, list);

/** Return the newest entries, so that polls do not displace other lines. */
function newest(entries) {
  const lines = entries.filter(({ isPoll }) => !isPoll).slice(-MAX_LINES);
  const polls = entries.filter(({ isPoll }) => isPoll).slice(-MAX_POLLED_LINES);
  const kept = new Set([...lines, ...polls]);
  return entries.filter((entry) => kept.has(entry));
}

function isWanted(entry) {
  const wanted = byId("wire-filter").value.toLowerCase();
  return (byId("wire-polls").checked || !entry.isPoll) && asText(entry).toLowerCase().includes(wanted);
}

function showWanted() {
  for (const entry of shown) entry.item.hidden = !isWanted(entry);
}

/** Return an item in which a control character reads <1>. */
function createItem({ time, kind, label, text }) {
  const pieces = text.split(CONTROL_CHARACTER).map((piece, i) => (i % 2 ? element("b", {}, byteName(piece)) : piece));
  const item = element("li", { class: kind }, element("time", {}, time));
  item.append(element("span", { class: "arrow" }, ARROWS[kind]));
  if (label) item.append(element("span", { class: "label" }, label));
  item.append(element("bdi", { class: "line" }, ...pieces));
  return item;
}

function byteName(character) {
  return `<${character.charCodeAt(0)}>`;
}

function asText({ time, kind, label, text }) {
  return `${time} ${ARROWS[kind]} ${label ? `${label}: ` : ""}${text.replace(CONTROL_CHARACTER, byteName)}`;
}

function timeNow() {
  const now = new Date();
  return new Date(now - now.getTimezoneOffset() * 60_000).toISOString().slice(11, 23);
}

/** Return the lines that can be seen, as text. */
function visibleText() {
  return shown.filter(isWanted).map((entry) => `${asText(entry)}\n`).join("");
}

async function copy() {
  try {
    await navigator.clipboard.writeText(visibleText());
    showResult("Copied.");
  } catch {
    getSelection().selectAllChildren(list); // without TLS, only pages of this machine may use the clipboard
    showResult("Selected: copy the lines with the keyboard.");
  }
}

function save() {
  const url = URL.createObjectURL(new Blob([visibleText()], { type: "text/plain" }));
  element("a", { href: url, download: "wire.txt" }).click();
  URL.revokeObjectURL(url);
  showResult("Saved as wire.txt.");
}

function clear() {
  waiting = [];
  shown = [];
  list.replaceChildren();
  showResult("Cleared.");
}

function showResult(text) {
  byId("wire-result").textContent = text;
}

function pause() {
  isPaused = !isPaused;
  byId("wire-pause").textContent = isPaused ? "Go on" : "Pause";
  showResult(isPaused ? "Paused." : "");
  showSoon();
}

function showPanel(isVisible) {
  const scrolled = [byId("page"), document.documentElement]; // while the panel is open, the page scrolls in its part
  const top = Math.max(...scrolled.map((node) => node.scrollTop));
  panel.hidden = !isVisible;
  byId("show-wire").textContent = isVisible ? "Hide the wire" : "Show the wire";
  document.documentElement.classList.toggle("with-wire", isVisible);
  for (const node of scrolled) node.scrollTop = top;
  session.wire = isVisible ? "open" : "";
  showSoon();
  goToEnd();
}

byId("show-wire").addEventListener("click", () => showPanel(panel.hidden));
for (const id of ["wire-filter", "wire-polls"]) byId(id).addEventListener("input", showWanted);
const actions = { pause, copy, save, clear };
for (const [name, action] of Object.entries(actions)) byId(`wire-${name}`).addEventListener("click", action);
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || panel.hidden) return;
  if (panel.contains(document.activeElement)) byId("show-wire").focus();
  showPanel(false);
});
if (session.wire) showPanel(true);
