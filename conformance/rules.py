"""Rules: each has an id, a level and a sentence, and a test that checks it."""

from typing import NamedTuple, NoReturn

import pytest

BASIC, ROBUST, BEYOND = "basic", "robust", "beyond"
LEVELS = (BASIC, ROBUST, BEYOND)
NOT_CHECKED = "not checked"  # how such a failure begins


class Rule(NamedTuple):
    """A rule: the id never changes; the level is one of LEVELS; the sentence says what must be the case."""

    id: str
    level: str
    sentence: str


RULES: dict[str, Rule] = {}  # by id


def rule(id: str, level: str, sentence: str) -> pytest.MarkDecorator:
    """Mark a test as the check of a rule."""
    RULES[id] = Rule(id, level, sentence)
    return pytest.mark.rule(RULES[id])


def needs(*ids: str) -> pytest.MarkDecorator:
    """Mark a test that says nothing about its own rule unless other rules hold."""
    return pytest.mark.needs(*ids)


def fail(sentence: str) -> NoReturn:
    """End a check: the rule does not hold. The report shows the sentence, and nothing of the code."""
    pytest.fail(sentence, pytrace=False)


def not_checked(reason: str) -> NoReturn:
    """End a check that can say nothing about its rule, because something does not work that it needs."""
    fail(f"{NOT_CHECKED}: {reason}")
