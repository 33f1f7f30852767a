"""The steps towards the chat server break exactly the rules that docs/course.md and their own docstrings name."""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from checking import Checks
from conftest import ROOT

from conformance import test_chat
from conformance.target import StartedTarget

STEPS = sorted((ROOT / "steps").glob("chat_*.py"))
THREADS = 24
READY_SECONDS = 60.0  # on a busy machine, with as many servers as threads
STUCK_SECONDS = 1.0
ROW = re.compile(r"\| `([A-Z-]+)` \|(.*)\|")


@pytest.fixture(scope="module")
def checks() -> Iterator[list[Checks]]:
    """Check all steps at the same time."""
    commands = [shlex.join([sys.executable, "-I", str(step), "{port}"]) for step in STEPS]
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(THREADS) as pool:
        patch.setattr(test_chat, "STUCK_SECONDS", STUCK_SECONDS)
        yield [Checks(pool, partial(StartedTarget, command, READY_SECONDS)) for command in commands]
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("number", range(len(STEPS)), ids=[step.stem for step in STEPS])
def test_a_step_breaks_the_rules_that_the_table_and_its_docstring_name(checks: list[Checks], number: int) -> None:
    always, sometimes = rules_in_table(number, "fails"), rules_in_table(number, "sometimes")
    docstring = ast.get_docstring(ast.parse(STEPS[number].read_text(encoding="utf-8"))) or ""
    sentence = re.findall(r"Rules that still fail: ([^.]*)\.", docstring)[0]
    assert [re.findall("[A-Z-]{6,}", part) for part in sentence.partition("sometimes")[::2]] == [always, sometimes]
    broken = checks[number].broken_rules()
    assert [rule_id for rule_id in broken if rule_id not in sometimes] == always, broken


def rules_in_table(step: int, word: str) -> list[str]:
    """Return the rules of which the table in docs/course.md says something about a step."""
    text = Path(ROOT / "docs/course.md").read_text(encoding="utf-8")
    return [rule_id for rule_id, cells in ROW.findall(text) if cells.split("|")[step].strip() == word]
