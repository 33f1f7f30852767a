// The dormitory's rooms on its page: a list for each kind of room. Each kind has a back end of its own.

import { element, onSingleClick, showItems } from "./page.js";

const KINDS = ["S", "D", "U"];

const rooms = new Map(); // by code: {item, button, count, fill, left, isBusy}
const most = {}; // by kind: the largest number of places left that a room has had, which is a full bar
const lastCount = {}; // by kind: when its back end last answered

/** Show a reply to LIST; in "ROOMS S233=6 D=?", Server D does not answer. A click on a button calls reserve(code). */
export function showRooms(reply, reserve) {
  const counts = reply.split(" ").slice(1).map((field) => field.split("="));
  for (const letter of KINDS) {
    const isSilent = counts.some(([name]) => name === letter);
    if (!isSilent) showKind(letter, counts.filter(([code]) => code.startsWith(letter)), reserve);
    markSilent(letter, isSilent ? `Server ${letter}` : "");
  }
}

/** Note when each back end that answered LIST did so, even if its counts are the same as before. */
export function noteCounts(reply) {
  const fields = reply.split(" ");
  for (const letter of KINDS) if (!fields.includes(`${letter}=?`)) lastCount[letter] = new Date();
}

/** Show that the whole dormitory does not answer, if any rooms are shown. */
export function markAllSilent() {
  if (rooms.size) KINDS.forEach((letter) => markSilent(letter, "The dormitory"));
}

/** Forget all rooms. */
export function clearRooms() {
  for (const { item } of rooms.values()) item.remove();
  rooms.clear();
}

/** Return how many places of a room are left, as far as this page knows. */
export function placesLeft(code) {
  return rooms.get(code)?.left ?? 0;
}

/** Show how many places of a room are left. */
export function setPlacesLeft(code, left) {
  if (!rooms.has(code)) return;
  setLeft(rooms.get(code), left);
  summarize(code[0]);
}

/** Show whether a room is being reserved. */
export function setBusy(code, isBusy) {
  if (!rooms.has(code)) return;
  rooms.get(code).isBusy = isBusy;
  showWhetherReservable(rooms.get(code));
}

/** Return whether a room can be reserved. */
export function isReservable(code) {
  return rooms.get(code)?.button.getAttribute("aria-disabled") === "false";
}

function showKind(letter, counts, reserve) {
  const codes = counts.map(([code]) => code);
  showItems(sectionOf(letter).querySelector(".rooms"), codes, (code) => createRoom(code, reserve));
  const listed = new Set(codes);
  for (const [code] of roomsOf(letter)) if (!listed.has(code)) rooms.delete(code);
  for (const [code, left] of counts) setLeft(rooms.get(code), Number(left));
  summarize(letter);
}

function createRoom(code, reserve) {
  const fill = element("span");
  const count = element("span", { class: "left" });
  const button = element("button", { type: "button", "aria-label": `Reserve ${code}` }, "Reserve");
  onSingleClick(button, () => reserve(code));
  const item = element(
    "li",
    { class: "room" },
    element("p", {}, element("span", { class: "code" }, code), count),
    button,
    element("span", { class: "bar" }, fill),
  );
  rooms.set(code, { item, button, count, fill, left: null, isBusy: false });
  return item;
}

function setLeft(room, left) {
  if (room.left === left) return;
  const isChange = room.left !== null;
  room.left = left;
  room.count.textContent = left ? `${left} left` : "Full";
  room.item.classList.toggle("full", left === 0);
  showWhetherReservable(room);
  if (isChange) {
    room.item.classList.remove("changed");
    void room.item.offsetWidth; // restarts the animation
    room.item.classList.add("changed");
  }
}

function showWhetherReservable(room) {
  const isSilent = room.item.closest(".kind").classList.contains("silent");
  room.button.setAttribute("aria-disabled", String(room.left === 0 || room.isBusy || isSilent));
}

/** Show how many places a kind of room has left in all, and draw its bars. */
function summarize(letter) {
  const counts = roomsOf(letter).map(([, { left }]) => left);
  const places = counts.reduce((sum, left) => sum + left, 0);
  const open = counts.filter(Boolean).length;
  most[letter] = Math.max(1, most[letter] ?? 1, ...counts);
  for (const [, { fill, left }] of roomsOf(letter)) fill.style.width = `${(100 * left) / most[letter]}%`;
  const some = places ? `${places} left in ${open} of ${counts.length} rooms` : "No places left";
  sectionOf(letter).querySelector(".summary").textContent = counts.length ? some : "No rooms";
}

/** Show who does not answer for a kind of room, and the time of the last answer; "" means that it answers. */
function markSilent(letter, who) {
  const section = sectionOf(letter);
  const time = lastCount[letter] ? ` This was the count at ${lastCount[letter].toTimeString().slice(0, 8)}.` : "";
  const text = who && `${who} is not answering.${time}`;
  const notice = section.querySelector(".notice");
  if (notice.textContent !== text) notice.textContent = text;
  section.classList.toggle("silent", Boolean(who));
  for (const [, room] of roomsOf(letter)) showWhetherReservable(room);
}

function roomsOf(letter) {
  return [...rooms].filter(([code]) => code.startsWith(letter));
}

function sectionOf(letter) {
  return document.querySelector(`.kind[data-letter="${letter}"]`);
}
