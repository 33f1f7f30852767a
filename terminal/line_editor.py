"""A line editor with a history, like readline, but without a terminal.

The standard library's readline reads a whole line by itself, and cannot show lines that arrive from the network
meanwhile. This editor receives keys one by one and never waits.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from itertools import accumulate, takewhile

# ECMA-48: an escape sequence is ESC [, parameters and a final character, or ESC O and one character. Any other ESC, and
# a sequence whose end is missing, is a key that has no effect.
KEY = re.compile(r"\x1b\[[ -?]*[^ -?]?|\x1bO.?|.", re.DOTALL)
UNFINISHED_KEY = re.compile(rb"\x1b(\[[ -?]*|O)?\Z")

# How far each key goes in the history: Up and Ctrl-P, Down and Ctrl-N.
_STEPS = {"\x1b[A": -1, "\x1bOA": -1, "\x10": -1, "\x1b[B": 1, "\x1bOB": 1, "\x0e": 1}

# How each key changes the text before the cursor and the text after it.
_Edit = Callable[[str, str], tuple[str, str]]
_EDITS: list[tuple[_Edit, tuple[str, ...]]] = [
    (lambda before, after: (before[:-1], before[-1:] + after), ("\x1b[D", "\x1bOD", "\x02")),  # Left, Ctrl-B
    (lambda before, after: (before + after[:1], after[1:]), ("\x1b[C", "\x1bOC", "\x06")),  # Right, Ctrl-F
    (lambda before, after: ("", before + after), ("\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~", "\x01")),  # Home, Ctrl-A
    (lambda before, after: (before + after, ""), ("\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~", "\x05")),  # End, Ctrl-E
    (lambda before, after: (before[:-1], after), ("\x7f", "\b")),  # Backspace
    (lambda before, after: (before, after[1:]), ("\x1b[3~", "\x04")),  # Delete, Ctrl-D
    (lambda before, after: ("", after), ("\x15",)),  # Ctrl-U
    (lambda before, after: (before, ""), ("\x0b",)),  # Ctrl-K
    (lambda before, after: (re.sub(r"\S*\s*\Z", "", before), after), ("\x17",)),  # Ctrl-W
]
_EDIT_BY_KEY = {key: edit for edit, keys in _EDITS for key in keys}


class LineEditor:
    """A line being edited, its cursor, and the history.

    Args:
        history: the lines entered before; finish() adds to them.

    Attributes:
        before: the text before the cursor.
        after: the text after it.
    """

    def __init__(self, history: list[str]) -> None:
        self.before = ""
        self.after = ""
        self._history = history
        self._lines = [*history, ""]  # the lines that Up and Down recall, with the changes made to them
        self._position = len(history)  # the index of the line being edited

    @property
    def text(self) -> str:
        """The whole line."""
        return self.before + self.after

    def press(self, key: str) -> None:
        """Apply a key, which is a match of KEY; ignore a key that has no meaning here."""
        if key in _EDIT_BY_KEY:
            self.before, self.after = _EDIT_BY_KEY[key](self.before, self.after)
        elif key in _STEPS:
            self._recall(self._position + _STEPS[key])
        elif key == "\t" or (len(key) == 1 and unicodedata.category(key) != "Cc"):
            self.before += key

    def finish(self) -> str:
        """Return the line; add it to the history, unless it is blank or repeats the last line of the history."""
        if self.text.strip() and self._history[-1:] != [self.text]:
            self._history.append(self.text)
        return self.text

    def view(self, prompt: str, columns: int) -> tuple[str, str]:
        """Return the part of the prompt and the line that fits into the columns, split at the cursor."""
        before = (prompt + self.before).replace("\t", " ")
        before = before[len(before) - _characters_that_fit(reversed(before), columns) :]
        after = self.after.replace("\t", " ")
        return before, after[: _characters_that_fit(after, columns - width(before))]

    def _recall(self, position: int) -> None:
        if 0 <= position < len(self._lines):
            self._lines[self._position] = self.text
            self._position = position
            self.before, self.after = self._lines[position], ""


def width(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _characters_that_fit(characters: Iterable[str], columns: int) -> int:
    """Return how many of the first characters fit into the columns."""
    ends = accumulate(map(_character_width, characters))
    return len(list(takewhile(lambda end: end <= columns, ends)))
