// The start page: a card for each system, and whether that system answers.

import { Connection } from "./connection.js";
import { byId, fetchSystems } from "./page.js";

// For each system, a request that changes nothing; the ticket server needs none, because it speaks first.
const QUESTIONS = { dormitory: "LIST", tickets: null, chat: "LIST", chatrooms: "\u0003" };

function watch(card) {
  const system = card.dataset.system;
  const state = card.querySelector(".state");
  const show = (text, isUp) => {
    state.textContent = text;
    state.classList.toggle("up", isUp);
    state.classList.toggle("down", !isUp);
  };
  let hasAnswered = false; // on the present connection
  const connection = new Connection(
    `/ws/${system}`,
    {
      opened: () => QUESTIONS[system] && connection.send(QUESTIONS[system]),
      line: () => {
        hasAnswered = true;
        show("Answers", true);
      },
      closed: (sentence) => {
        if (!hasAnswered) show(`Does not answer. ${sentence}`, false); // a server ends an idle connection
        hasAnswered = false;
        connection.retry();
      },
    },
    system,
  );
  card.hidden = false;
  connection.open();
}

async function start() {
  try {
    const systems = await fetchSystems();
    for (const system of systems) watch(document.querySelector(`.card[data-system="${system}"]`));
  } catch {
    byId("nothing").hidden = false;
  }
}

start();
