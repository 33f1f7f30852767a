// The wire panel: the lines that this page sent and received, and what happened to its connections.

import { byId, element, followEnd, oncePerFrame, recall, remember } from "./page.js";

const MAX_LINES = 1000; // older ones are forgotten
const MAX_POLLED_LINES = 200;
const CONTROL_CHARACTER = /([\u0000-\u001f\u007f-\u009f])/g;
const ARROWS = { sent: "→", received: "←", event: "·" };
const LEGEND = "→ sent ← received · connection. <1> is the byte 1, which has no printable sign.";

const showButton = byId("show-wire");
const pauseButton = createButton("Pause", pause);
const filter = element("input", { type: "search", placeholder: "Filter", "aria-label": "Filter the wire" });
const withPolls = element("input", { type: "checkbox" });
const result = element("p", { class: "wire-result", role: "status" });
const list = element("ol");
const scroller = element("div", { class: "wire-lines", tabindex: 0, role: "region", "aria-label": "Lines" }, list);
const panel = element(
  "aside",
  { class: "wire", "aria-label": "The wire", hidden: "" },
  element("header", {}, element("h2", {}, "The wire"), result, filter),
  element(
    "div",
    { class: "wire-tools" },
    element("label", { class: "check" }, withPolls, "Polls"),
    pauseButton,
    createButton("Copy", copy),
    createButton("Save", save),
    createButton("Clear", clear),
  ),
  scroller,
  element("p", { class: "legend" }, LEGEND),
);
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
  return (withPolls.checked || !entry.isPoll) && asText(entry).toLowerCase().includes(filter.value.toLowerCase());
}

function showWanted() {
  for (const entry of shown) entry.item.hidden = !isWanted(entry);
}

function createItem(entry) {
  return element(
    "li",
    { class: entry.kind },
    element("time", {}, entry.time),
    element("span", { class: "arrow" }, ARROWS[entry.kind]),
    ...(entry.label ? [element("span", { class: "label" }, entry.label)] : []),
    element("bdi", { class: "line" }, ...withVisibleBytes(entry.text)),
  );
}

/** Return a text as nodes in which a control character reads <1>. */
function withVisibleBytes(text) {
  return text.split(CONTROL_CHARACTER).map((piece, index) => (index % 2 ? element("b", {}, byteName(piece)) : piece));
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

function createButton(text, action) {
  const button = element("button", { type: "button", class: "quiet" }, text);
  button.addEventListener("click", action);
  return button;
}

/** Return the lines that can be seen, as text. */
function visibleText() {
  return shown.filter(isWanted).map((entry) => `${asText(entry)}\n`).join("");
}

async function copy() {
  try {
    await navigator.clipboard.writeText(visibleText());
    result.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(list); // without TLS, only pages of this machine may use the clipboard
    result.textContent = "Selected: copy the lines with the keyboard.";
  }
}

function save() {
  const url = URL.createObjectURL(new Blob([visibleText()], { type: "text/plain" }));
  element("a", { href: url, download: "wire.txt" }).click();
  URL.revokeObjectURL(url);
  result.textContent = "Saved as wire.txt.";
}

function clear() {
  waiting = [];
  shown = [];
  list.replaceChildren();
  result.textContent = "Cleared.";
}

function pause() {
  isPaused = !isPaused;
  pauseButton.textContent = isPaused ? "Go on" : "Pause";
  result.textContent = isPaused ? "Paused." : "";
  showSoon();
}

function showPanel(isVisible) {
  const scrolled = [byId("page"), document.documentElement]; // while the panel is open, the page scrolls in its part
  const top = Math.max(...scrolled.map((node) => node.scrollTop));
  panel.hidden = !isVisible;
  showButton.textContent = isVisible ? "Hide the wire" : "Show the wire";
  document.documentElement.classList.toggle("with-wire", isVisible);
  for (const node of scrolled) node.scrollTop = top;
  remember("wire", isVisible ? "open" : "", "sessionStorage");
  showSoon();
  goToEnd();
}

showButton.addEventListener("click", () => showPanel(panel.hidden));
filter.addEventListener("input", showWanted);
withPolls.addEventListener("change", showWanted);
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || panel.hidden) return;
  if (panel.contains(document.activeElement)) showButton.focus();
  showPanel(false);
});
document.body.append(panel);
if (recall("wire", "sessionStorage")) showPanel(true);
