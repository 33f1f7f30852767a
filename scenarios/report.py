"""The screen of the demo: lines from many threads, in colour on a terminal, and the table at the end."""

import os
import sys
import threading
import time
from typing import NamedTuple, NoReturn

PACE_SECONDS = 0.25  # on a terminal: people read along
PLAIN_PACE_SECONDS = 0.03
TICK_SECONDS = 0.1
CELL_WIDTH = 36

BOLD, DIM, RED, GREEN, PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m"
NAME_COLOURS = [f"\033[{number}m" for number in (36, 33, 35, 34, 32, 96, 93, 95, 94, 92, 97)]


class Stopped(Exception):
    """The demo is to end."""


class Check(NamedTuple):
    """A row of the table: something that was expected of a story, and what happened."""

    story: str
    situation: str
    expected: str
    happened: str

    @property
    def met(self) -> bool:
        """Whether it happened; more may have been said of it."""
        return self.happened.startswith(self.expected)


class Screen:
    """Standard output, a line at a time from any thread, for those who watch."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty() and os.getenv("TERM") != "dumb"
        self._in_colour = self._terminal and not os.getenv("NO_COLOR")
        self._stopping = False
        self._colours: dict[str, str] = {}  # by name
        self._lock = threading.Lock()  # one line after the other

    def colour_of(self, name: str) -> str:
        """Return the colour for a name: always the same."""
        return self._colours.setdefault(name, NAME_COLOURS[len(self._colours) % len(NAME_COLOURS)])

    def painted(self, text: str, *colours: str) -> str:
        """Return a text in colours, if the screen has any."""
        return f"{''.join(colours)}{text}{PLAIN}" if self._in_colour and text else text

    def show(self, line: str = "") -> None:
        """Write a line; if nobody reads any more, stop."""
        with self._lock:
            try:
                print(line, flush=True)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                self.stop()

    def show_table(self, checks: list[Check]) -> None:
        """Write all that was expected and what happened, in full where it was not met."""
        self._show_row(BOLD, "", "Story", "Situation", "Expected", "Happened")
        for check in checks:
            if check.met:
                self._show_row(GREEN, "ok", *(_shortened(cell) for cell in check))
            else:
                self._show_row(RED, "NO", *check)

    def _show_row(self, colour: str, mark: str, story: str, situation: str, expected: str, happened: str) -> None:
        cells = f"{story:<14}  {situation:<25}  {expected:<{CELL_WIDTH}}  {happened}"
        self.show(
            self.painted(f"{mark:<2}", colour) + "  " + (cells if colour == GREEN else self.painted(cells, colour))
        )

    def pause(self) -> None:
        """Give people who watch the time to read."""
        self.go_on()
        time.sleep(PACE_SECONDS if self._terminal else PLAIN_PACE_SECONDS)

    def stop(self) -> None:
        """Have whatever is played end soon; a signal's handler may call this."""
        self._stopping = True

    def go_on(self) -> None:
        """Do nothing, unless the demo is to end.

        Raises:
            Stopped: it is.
        """
        if self._stopping:
            raise Stopped

    def wait_for_stop(self) -> NoReturn:
        """Wait until the demo is to end.

        Raises:
            Stopped: it is.
        """
        while True:
            time.sleep(TICK_SECONDS)
            self.go_on()


def _shortened(text: str) -> str:
    return text if len(text) <= CELL_WIDTH else f"{text[: CELL_WIDTH - 3]}..."
