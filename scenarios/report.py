"""The output of demo.py: lines from several threads, in colour on a terminal, and the table at the end."""

import os
import shutil
import sys
import textwrap
import threading
import time
from typing import NamedTuple

from net.command_line import fail_to_write

PACE_SECONDS = 0.25  # on a terminal, so that the audience can read along
PLAIN_PACE_SECONDS = 0.03
WIDTH = 80  # in columns, where standard output is not a terminal
MARK_WIDTH = 4
SITUATION_WIDTH = 27
GAP = 2
MIN_CELL_WIDTH = 20

BOLD, DIM, RED, GREEN, PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m"
NAME_COLOURS = [f"\033[{number}m" for number in (36, 33, 35, 34, 32, 96, 93, 95, 94, 92, 97)]


class Stopped(Exception):
    """The demo has been asked to end."""


class Outcome(NamedTuple):
    """A row of the table: what a scenario expected in a situation, and what happened."""

    situation: str
    expected: str
    happened: str

    @property
    def met(self) -> bool:
        """Whether the expectation was met: what happened may be longer than what was expected."""
        return self.happened.startswith(self.expected)


class Report:
    """Standard output, one line at a time from any thread.

    Args:
        live: whether to show each participant's lines as soon as they arrive.
    """

    def __init__(self, live: bool) -> None:
        self.live = live
        self._terminal = bool(sys.stdout and sys.stdout.isatty() and os.getenv("TERM") != "dumb")
        self._in_colour = self._terminal and not os.getenv("NO_COLOR")
        self._stopping = False
        self._colours: dict[str, str] = {}  # by name
        self._lock = threading.Lock()  # held while a line is written

    def colour_of(self, name: str) -> str:
        """Return the colour of a name; choose one when the name is new."""
        return self._colours.setdefault(name, NAME_COLOURS[len(self._colours) % len(NAME_COLOURS)])

    def painted(self, text: str, colour: str) -> str:
        """Return a text in a colour, or unchanged where the output is not in colour."""
        return f"{colour}{text}{PLAIN}" if self._in_colour else text

    def show(self, line: str = "") -> None:
        """Write a line; if it cannot be written, stop the demo."""
        with self._lock:
            try:
                print(line, flush=True)
            except OSError as error:
                self.stop()
                fail_to_write(error)

    def show_table(self, title: str, outcomes: list[Outcome]) -> None:
        """Write a table of what was expected and what happened; where they differ, write both in full below the row."""
        columns = shutil.get_terminal_size((WIDTH, 0)).columns if self._terminal else WIDTH
        width = max((columns - MARK_WIDTH - SITUATION_WIDTH - GAP) // 2, MIN_CELL_WIDTH)
        self.show(self.painted(" " * MARK_WIDTH + _cells(Outcome(title, "Expected", "Happened"), width), BOLD))
        for outcome in outcomes:
            mark, colour = ("ok", GREEN) if outcome.met else ("NO", RED)
            self.show(self.painted(mark, colour) + " " * GAP + _cells(outcome, width))
            if not outcome.met:
                for sentence in (f"expected: {outcome.expected}", f"happened: {outcome.happened}"):
                    for part in textwrap.wrap(sentence, max(columns - MARK_WIDTH, MIN_CELL_WIDTH)):
                        self.show(self.painted(" " * MARK_WIDTH + part, RED))

    def pause(self) -> None:
        """Give the audience time to read.

        Raises:
            Stopped: stop() was called.
        """
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


def _cells(outcome: Outcome, width: int) -> str:
    expected, happened = (text if len(text) <= width else f"{text[: width - 3]}..." for text in outcome[1:])
    return f"{outcome.situation:<{SITUATION_WIDTH}}{expected:<{width}}" + " " * GAP + happened
