// What all pages share. Text from other users becomes text nodes only: no page builds HTML from it.

const CLICK_PAUSE_MILLISECONDS = 600; // clicks on one button that follow each other faster count as one
const PENDING_MILLISECONDS = 400;
const SUCCESS_MILLISECONDS = 5000;
const NEAR_END_PIXELS = 40;
const ACTIVE_SECONDS = 60; // after the pointer has moved, a key was pressed or the window got the focus
const CALM_INTERVALS = 5; // between two polls, when the user has done nothing for longer than that

let outageTimer = 0;
let statusTimer = 0;

/** A promise of the systems that the front end was given, as {dormitory: true, ...}. */
export const systems = fetch("/systems.json").then((answer) => answer.json());

/** Return a storage of the browser; if it allows none, an object that lasts as long as the page. */
function storage(name) {
  try {
    return window[name];
  } catch {
    return {};
  }
}

export const local = storage("localStorage");
export const session = storage("sessionStorage"); // which is forgotten with the tab

export function byId(id) {
  return document.getElementById(id);
}

/** Return a new element with attributes and children; strings become text. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Show an item for each key, in this order. Items that are shown already stay; the focus of one that goes moves on. */
export function showItems(list, keys, createItem) {
  const known = new Map([...list.children].map((item) => [item.dataset.key, item]));
  const items = keys.map((key) => known.get(key) ?? createItem(key));
  const kept = new Set(items);
  const focused = [...list.children].findIndex((item) => item.contains(document.activeElement));
  const losesFocus = focused >= 0 && !kept.has(list.children[focused]);
  for (const item of known.values()) if (!kept.has(item)) item.remove();
  items.forEach((item, i) => {
    item.dataset.key = keys[i];
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
  });
  if (losesFocus) ((items[focused] ?? items.at(-1))?.querySelector("button") ?? byId("main")).focus();
}

/** Set the text of an element, unless it is there already: a selection in it stays. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Return a text as a sentence: with a full stop, unless it has an end already. */
export function sentenceOf(text) {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** Return a function that calls an action, unless an earlier call has not finished. */
function oneAtATime(action) {
  let isBusy = false;
  return async () => {
    if (isBusy) return;
    isBusy = true;
    try {
      await action();
    } finally {
      isBusy = false;
    }
  };
}

/** Show a button as busy if a promise takes longer than 400 ms; return the promise's result. */
export async function whilePending(button, promise) {
  const timer = setTimeout(() => button.setAttribute("aria-busy", "true"), PENDING_MILLISECONDS);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    button.removeAttribute("aria-busy");
  }
}

/** Call an action on a click. Ignore a click that follows another one fast, or comes before the action is done. */
export function onSingleClick(button, action) {
  const act = oneAtATime(() => whilePending(button, action()));
  let clickedAt = -Infinity;
  button.addEventListener("click", (event) => {
    const isRepeated = event.detail > 1 || event.timeStamp - clickedAt < CLICK_PAUSE_MILLISECONDS;
    clickedAt = event.timeStamp;
    if (!isRepeated) act();
  });
}

/**
 * Call an action every second, or every few, while the page is visible; less often while the user does nothing, since a
 * class of thirty leaves thirty pages open. Return a function that calls it now.
 */
export function pollWith(action, seconds = 1) {
  const poll = oneAtATime(action);
  const pollIfVisible = () => document.hidden || poll();
  let idle = 0; // intervals since the user did something
  setInterval(() => {
    idle += 1;
    if (idle * seconds <= ACTIVE_SECONDS || idle % CALM_INTERVALS === 0) pollIfVisible();
  }, 1000 * seconds);
  for (const sign of ["pointermove", "keydown", "focus"]) addEventListener(sign, () => (idle = 0));
  document.addEventListener("visibilitychange", pollIfVisible);
  return poll;
}

/** Return a function that lets an action be called once, before the next frame; a hidden tab draws none. */
export function oncePerFrame(action) {
  let isDue = false;
  const act = () => {
    isDue = false;
    action();
  };
  return () => {
    if (!isDue) requestAnimationFrame(act);
    isDue = true;
  };
}

/** Keep a scroller at its end, unless the reader has scrolled up. Call changed(isAtEnd). Return how to go to the end. */
export function followEnd(scroller, content, changed = () => {}) {
  let isAtEnd = true;
  const goToEnd = () => (scroller.scrollTop = scroller.scrollHeight);
  scroller.addEventListener("scroll", () => {
    isAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END_PIXELS;
    changed(isAtEnd);
  });
  const follow = () => isAtEnd && goToEnd();
  new ResizeObserver(follow).observe(scroller);
  new MutationObserver(follow).observe(content, { childList: true }); // at once: a scroll event must find the end
  return goToEnd;
}

/** Call an action when a form is submitted and the action is not still being done; the browser loads no page. */
export function onSubmit(form, action) {
  const act = oneAtATime(() => whilePending(form.querySelector("[type=submit]"), action()));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act();
  });
}

/** Show the result of what the user did, at the foot of the window: a success for 5 seconds, a problem until the next. */
export function say(text, isProblem = false) {
  const status = byId("status");
  clearTimeout(statusTimer);
  status.classList.toggle("problem", Boolean(text) && isProblem);
  status.textContent = text;
  if (text && !isProblem) statusTimer = setTimeout(() => say(""), SUCCESS_MILLISECONDS);
}

/** Show what is wrong with a field, below it, until its text changes; move the focus to it. */
export function sayAt(field, text) {
  const id = `${field.id}-error`;
  const clear = () => {
    byId(id)?.remove();
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  };
  clear();
  field.after(element("p", { id, class: "field-error", role: "alert" }, text));
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", id);
  field.addEventListener("input", clear, { once: true });
  field.focus();
}

/** Show that a connection has ended, with a detail in small print. Connect again after a pause, or on a click. */
export function showOutage(sentence, connection, detail = "") {
  let left = connection.retry();
  const count = () => {
    byId("outage-countdown").textContent = left > 0 ? `Next try in ${left} s` : "Trying …";
    left -= 1;
  };
  clearInterval(outageTimer);
  outageTimer = setInterval(count, 1000);
  count();
  byId("outage").classList.add("shown");
  setText(byId("outage-sentence"), `${sentence} This page tries again by itself.`);
  setText(byId("outage-detail"), detail);
  byId("try-now").onclick = () => connection.open();
}

export function hideOutage() {
  clearInterval(outageTimer);
  byId("outage").classList.remove("shown");
  byId("outage-sentence").textContent = byId("outage-detail").textContent = "";
}

/** Let the browser ask before the page is left or loaded again, while isNeeded() returns true. */
export function askBeforeLeaving(isNeeded) {
  addEventListener("beforeunload", (event) => {
    const mayAsk = navigator.userActivation?.hasBeenActive ?? true; // else browsers only complain
    if (mayAsk && isNeeded()) event.preventDefault();
  });
}

/** Show one of the page's views and hide the others; views are the children of <main> with the class "view". */
export function showView(id) {
  for (const view of document.querySelectorAll(".view")) view.hidden = view.id !== id;
}

for (const link of document.querySelectorAll(".top a")) {
  if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
}
systems
  .then((given) => {
    for (const node of document.querySelectorAll("[data-system]")) node.hidden = !given[node.dataset.system];
  })
  .catch(() => {}); // the page's own connection reports it
