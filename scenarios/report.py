"""The output of demo.py: lines, in colour on a terminal, and the table at the end."""

import os
import select
import shutil
import sys
import termios
import textwrap
import time
from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from net.command_line import fail_to_write

PACE_SECONDS = 0.25  # on a terminal, so that the audience can read along
PLAIN_PACE_SECONDS = 0.03
TICK_SECONDS = 0.1
WIDTH = 80  # in columns, where standard output is not a terminal
NAME_WIDTH = 15
MARK_WIDTH = 4
GAP = 2
MAX_SITUATION_WIDTH = 27  # that of the longest
MIN_CELL_WIDTH = 10

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
    """Standard output; if it steps, the user presses Enter for each line of a dialogue."""

    def __init__(self, steps: bool = False) -> None:
        self._steps = steps
        self._terminal = sys.stdout.isatty() and os.getenv("TERM") != "dumb"
        self._in_colour = self._terminal and not os.getenv("NO_COLOR")
        self._stopping = False
        self._colours: dict[str, str] = {}  # by name

    def painted(self, text: str, colour: str) -> str:
        """Return a text in a colour, or unchanged where the output is not in colour."""
        return f"{colour}{text}{PLAIN}" if self._in_colour else text

    def show(self, line: str = "", end: str = "\n") -> None:
        """Write a line; if it cannot be written, stop the demo."""
        try:
            print(line, end=end, flush=True)
        except OSError as error:
            self.stop()
            fail_to_write(error)

    def show_step(self, name: str, sign: str, text: str) -> None:
        """Write a participant's line; if the demo steps, wait for Enter, which ends the line on a terminal."""
        colour = self._colours.setdefault(name, NAME_COLOURS[len(self._colours) % len(NAME_COLOURS)])
        line = self.painted(f"{name:<{NAME_WIDTH}} {sign}", colour) + f" {text}"
        enter_is_shown = self._steps and sys.stdin.isatty()
        if enter_is_shown:
            termios.tcflush(sys.stdin, termios.TCIFLUSH)  # an Enter that came too early has ended no line
        self.show(line, "" if enter_is_shown else "\n")
        if self._steps:
            while not select.select([sys.stdin], [], [], TICK_SECONDS)[0]:
                self.check()
            self._steps = bool(os.read(sys.stdin.fileno(), 1 << 10))  # at the end of the input, the demo runs on

    def show_table(self, title: str, outcomes: list[Outcome]) -> None:
        """Write a table of what was expected and what happened; texts that are too long for a line take several."""
        columns = shutil.get_terminal_size((WIDTH, 0)).columns if self._terminal else WIDTH
        situation_width = min(MAX_SITUATION_WIDTH, columns // 3)
        width = max((columns - MARK_WIDTH - situation_width) // 2 - GAP, MIN_CELL_WIDTH)
        widths = (situation_width, width, width)
        for line in _lines(Outcome(title, "Expected", "Happened"), widths):
            self.show(self.painted(" " * MARK_WIDTH + line, BOLD))
        for outcome in outcomes:
            mark, colour = ("ok", GREEN) if outcome.met else ("NO", RED)
            for line in _lines(outcome, widths):
                shown = line if outcome.met else self.painted(line, RED)
                self.show(self.painted(f"{mark:<{MARK_WIDTH}}", colour) + shown)
                mark = ""

    def pause(self) -> None:
        """Give the audience time to read."""
        if not self._steps:
            time.sleep(PACE_SECONDS if self._terminal else PLAIN_PACE_SECONDS)

    def stop(self) -> None:
        """Make the next check() raise Stopped; a signal handler may call this."""
        self._stopping = True

    def check(self) -> None:
        """Raise Stopped if the demo has been asked to end."""
        if self._stopping:
            raise Stopped


def _lines(outcome: Outcome, widths: tuple[int, int, int]) -> Iterator[str]:
    """Yield the lines of a row, in which each text is wrapped to the width of its column."""
    cells = [textwrap.wrap(text, width, break_on_hyphens=False) for text, width in zip(outcome, widths, strict=True)]
    for row in zip_longest(*cells, fillvalue=""):
        yield (" " * GAP).join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
