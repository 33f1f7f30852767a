// What all pages share. Text from other users becomes text nodes only: no page builds HTML from it.

const CLICK_PAUSE_MILLISECONDS = 600; // clicks on one button that follow each other faster count as one
const POLL_MILLISECONDS = 1000;

const outageSentence = element("p", { role: "status" });
const outageCountdown = element("span", { "aria-hidden": "true" });
const tryNow = element("button", { type: "button" }, "Try now");
const outage = element("div", { class: "outage" }, outageSentence, outageCountdown, tryNow);
let outageTimer = 0;

/** Return the element of this page with an id. */
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

/** Show an item for each key, in this order. An item that is shown already is kept, so that the focus stays on it. */
export function showItems(list, keys, createItem) {
  const known = new Map([...list.children].map((item) => [item.dataset.key, item]));
  const items = keys.map((key) => known.get(key) ?? createItem(key));
  const kept = new Set(items);
  for (const item of known.values()) if (!kept.has(item)) item.remove();
  items.forEach((item, i) => {
    item.dataset.key = keys[i];
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
  });
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

/** Call an action on a click. Ignore a click that follows another one fast, or comes before the action is done. */
export function onSingleClick(button, action) {
  const act = oneAtATime(action);
  let clickedAt = -Infinity;
  button.addEventListener("click", (event) => {
    const isRepeated = event.detail > 1 || event.timeStamp - clickedAt < CLICK_PAUSE_MILLISECONDS;
    clickedAt = event.timeStamp;
    if (!isRepeated) act();
  });
}

/** Call an action once a second while the page is visible. Return a function that calls the action now. */
export function pollWith(action) {
  const poll = oneAtATime(action);
  const pollIfVisible = () => document.hidden || poll();
  setInterval(pollIfVisible, POLL_MILLISECONDS);
  document.addEventListener("visibilitychange", pollIfVisible);
  return poll;
}

/** Call an action when a form is submitted, instead of letting the browser load a page. */
export function onSubmit(form, action) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

/** Show the result of what the user did, in the page's role=status; a problem is marked with more than colour. */
export function say(text, isProblem = false) {
  const status = byId("status");
  status.className = text && isProblem ? "status problem" : "status";
  status.textContent = text;
}

/** Show that a connection has ended. Connect again after a pause, or when the user says so. */
export function showOutage(sentence, connection) {
  const end = Date.now() + 1000 * connection.retry();
  const count = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    outageCountdown.textContent = left > 0 ? `Next try in ${left} s` : "Trying …";
  };
  clearInterval(outageTimer);
  outageTimer = setInterval(count, 1000);
  count();
  outage.classList.add("shown");
  outageSentence.textContent = `${sentence} This page tries again by itself.`;
  tryNow.onclick = () => connection.open();
}

/** Hide what showOutage() showed. */
export function hideOutage() {
  clearInterval(outageTimer);
  outage.classList.remove("shown");
  outageSentence.textContent = "";
}

/** Return the names of the systems that the front end was given. */
export async function fetchSystems() {
  const answer = await fetch("/systems.json");
  const systems = await answer.json();
  return Object.keys(systems).filter((name) => systems[name]);
}

/** Show one of the page's views and hide the others; views are the children of <main> with the class "view". */
export function showView(id) {
  for (const view of document.querySelectorAll(".view")) view.hidden = view.id !== id;
}

async function hideLinksToAbsentSystems() {
  try {
    const systems = await fetchSystems();
    for (const link of document.querySelectorAll("nav [data-system]")) {
      link.parentElement.hidden = !systems.includes(link.dataset.system);
    }
  } catch {
    // The front end is not answering: the page's own connection reports that.
  }
}

byId("main").before(outage);
hideLinksToAbsentSystems();
