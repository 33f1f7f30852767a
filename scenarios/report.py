"""The output of demo.py: lines from several threads, in colour on a terminal, and the table at the end."""

import os
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from net.command_line import discard_output, fail, reason

PACE_SECONDS = 0.25  # on a terminal, so that the audience can read along
PLAIN_PACE_SECONDS = 0.03
TICK_SECONDS = 0.1
WIDTH = 80  # in columns, where standard output is not a terminal
MARK_WIDTH = 4
SITUATION_WIDTH = 25
GAP = 2

BOLD, DIM, RED, GREEN, PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m"
NAME_COLOURS = [f"\033[{number}m" for number in (36, 33, 35, 34, 32, 96, 93, 95, 94, 92, 97)]


class Stopped(Exception):
    """The demo has been asked to end."""


class Outcome(NamedTuple):
    """A row of the table: what a scenario expected in a situation, and what happened."""

    scenario: str
    situation: str
    expected: str
    happened: str

    @property
    def met(self) -> bool:
        """Whether the expectation was met: what happened may be longer than what was expected."""
        return self.happened.startswith(self.expected)


class Report:
    """Standard output, one line at a time from any thread."""

    def __init__(self) -> None:
        self._terminal = bool(sys.stdout and sys.stdout.isatty() and os.getenv("TERM") != "dumb")
        self._in_colour = self._terminal and not os.getenv("NO_COLOR")
        self._stopping = False
        self._colours: dict[str, str] = {}  # by name
        self._lock = threading.Lock()  # held while a line is written

    def colour_of(self, name: str) -> str:
        """Return the colour of a name, which stays the same."""
        return self._colours.setdefault(name, NAME_COLOURS[len(self._colours) % len(NAME_COLOURS)])

    def painted(self, text: str, *colours: str) -> str:
        """Return a text in colours, or unchanged where the output is not in colour."""
        return f"{''.join(colours)}{text}{PLAIN}" if self._in_colour and text else text

    def show(self, line: str = "") -> None:
        """Write a line; if it cannot be written, stop the demo."""
        with self._lock:
            try:
                print(line, flush=True)
            except OSError as error:
                discard_output()
                self.stop()
                if not isinstance(error, BrokenPipeError):
                    fail(f"Cannot write: {reason(error)}")

    def show_table(self, outcomes: list[Outcome]) -> None:
        """Write a table of what was expected and what happened; below a row where they differ, write both in full."""
        columns = shutil.get_terminal_size((WIDTH, 0)).columns if self._terminal else WIDTH
        width = max((columns - MARK_WIDTH - SITUATION_WIDTH - 2 * GAP) // 2, GAP)
        for scenario, rows in groupby(outcomes, lambda outcome: outcome.scenario):
            self.show(self.painted(_row("", scenario, "Expected", "Happened", width), BOLD))
            for row in rows:
                mark, colour = ("ok", GREEN) if row.met else ("NO", RED)
                line = _row(mark, row.situation, row.expected, row.happened, width)
                self.show(self.painted(mark, colour) + line[len(mark) :])
                for full in [] if row.met else _in_full(row, columns):
                    self.show(self.painted(full, RED))

    def pause(self) -> None:
        """Give the audience time to read."""
        self.check()
        time.sleep(PACE_SECONDS if self._terminal else PLAIN_PACE_SECONDS)

    def stop(self) -> None:
        """Make the next check() raise Stopped; a signal handler may call this."""
        self._stopping = True

    def check(self) -> None:
        """Raise Stopped if the demo has been asked to end.

        Raises:
            Stopped: stop() was called.
        """
        if self._stopping:
            raise Stopped

    def wait_for_stop(self) -> None:
        """Wait until stop() is called."""
        while not self._stopping:
            time.sleep(TICK_SECONDS)


def _row(mark: str, situation: str, expected: str, happened: str, width: int) -> str:
    cells = [f"{mark:<{MARK_WIDTH - GAP}}", f"{_cut(situation, SITUATION_WIDTH):<{SITUATION_WIDTH}}"]
    return (" " * GAP).join([*cells, f"{_cut(expected, width):<{width}}", _cut(happened, width)])


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _in_full(row: Outcome, columns: int) -> Iterator[str]:
    indent = " " * MARK_WIDTH
    for sentence in (f"expected: {row.expected}", f"happened: {row.happened}"):
        yield from textwrap.wrap(
            sentence, max(columns, MARK_WIDTH + 20), initial_indent=indent, subsequent_indent=indent
        )
