"""Run the checks of conformance/ in threads: each server gets all of them, and most of the time they wait."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from conformance import test_chat
from conformance.chat import Chat
from conformance.dialogue import Limits
from conformance.rules import NOT_CHECKED
from conformance.target import Target

ANSWER_SECONDS = 5.0  # on a busy machine; only a check that fails takes this long
CHECK_SECONDS = 60.0

CHECKS: list[Any] = [check for name, check in vars(test_chat).items() if name.startswith("test_")]


class Checks:
    """All checks of one server, which is started afresh for each."""

    def __init__(self, pool: ThreadPoolExecutor, start: Callable[[], Target]) -> None:
        self.start = start
        self._complaints: dict[str, Future[str]] = {}  # by rule
        for check in CHECKS:
            marks = {mark.name: mark.args for mark in check.pytestmark}
            needed = [self._complaints[rule_id] for rule_id in marks.get("needs", ())]
            joining = self._complaints.get("JOIN-ACCEPTED")
            self._complaints[marks["rule"][0].id] = pool.submit(complaint, check, start, needed, joining)

    def broken_rules(self) -> dict[str, str]:
        """Wait for the checks; return what is wrong by rule, without rules that could not be checked."""
        complaints = {rule_id: future.result() for rule_id, future in self._complaints.items()}
        return {rule_id: text for rule_id, text in complaints.items() if text and not text.startswith(NOT_CHECKED)}


def complaint(
    check: Callable[[Chat], None], start: Callable[[], Target], needed: list[Future[str]], joining: Future[str] | None
) -> str:
    """Start a server and check it; return what is wrong, with the dialogue, or an empty string.

    The checks whose results it waits for were submitted earlier, so that they have a thread.
    """
    if any(future.result() for future in needed):
        return NOT_CHECKED
    answers_join = joining is not None and not joining.result()
    target = start()
    chat = Chat(target, Limits(ANSWER_SECONDS, CHECK_SECONDS), exact=False, answers_join=answers_join)
    try:
        check(chat)
    except pytest.fail.Exception as failure:
        return f"{failure}\n{chat.dialogue}"
    else:
        return chat.death()
    finally:
        chat.leave()
        target.stop()
