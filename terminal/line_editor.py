"""A line editor with a history, like readline, but without a terminal.

The standard library's readline reads a whole line by itself, and cannot show lines that arrive from the network
meanwhile. This editor receives keys one by one and never waits.
"""

import re
import unicodedata

# ECMA-48: a control sequence is ESC [, parameters and a final character; F1 to F5 of the Linux console have one more [.
# ESC ] and some others begin a string that BEL or ESC \ ends, such as a late answer of the terminal to another program.
# ESC O and a character is a key of the keypad, ESC and any other character a key pressed together with Alt. A sequence
# whose end is missing has no effect.
KEY = re.compile(
    r"\x1b\[\[?[0-?]*[ -/]*[@-Z\\-~]?|\x1b[]PX^_][^\x00-\x1f]*(?:\x07|\x1b\\)?|\x1bO[ -~]?|\x1b[^\x00-\x1f]?|.",
    re.DOTALL,
)
UNFINISHED_KEY = re.compile(rb"\x1b(\[\[?[ -?]*|O|[]PX^_][^\x00-\x1f]*\x1b?)?\Z")

# The sequences of each key on common terminals, and the control character that readline takes for the same.
_LEFT = ("\x1b[D", "\x1bOD", "\x02")
_RIGHT = ("\x1b[C", "\x1bOC", "\x06")
_UP = ("\x1b[A", "\x1bOA", "\x10")
_DOWN = ("\x1b[B", "\x1bOB", "\x0e")
_HOME = ("\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~", "\x01")
_END = ("\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~", "\x05")
_BACKSPACE = ("\x7f", "\b")
_DELETE = ("\x1b[3~", "\x04")
_ERASE_BEFORE, _ERASE_AFTER, _ERASE_WORD = "\x15", "\x0b", "\x17"  # Ctrl-U, Ctrl-K, Ctrl-W

_JOINER = "\N{ZERO WIDTH JOINER}"
# Vowels and final consonants of decomposed Hangul, and skin tones: their category is not that of a mark.
_FOLLOWER = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff\U0001f3fb-\U0001f3ff]")


class LineEditor:
    """A line being edited, its cursor, and the history, which are the lines entered before; finish() adds to them."""

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
        if key == "\t" or (len(key) == 1 and unicodedata.category(key) != "Cc"):
            self.before += key
        elif key in _UP:
            self._recall(self._position - 1)
        elif key in _DOWN:
            self._recall(self._position + 1)
        else:
            self._edit(key)

    def _edit(self, key: str) -> None:
        before, after = _clusters(self.before), _clusters(self.after)
        if key in _LEFT:
            before, after = before[:-1], before[-1:] + after
        elif key in _RIGHT:
            before, after = before + after[:1], after[1:]
        elif key in _HOME:
            before, after = [], before + after
        elif key in _END:
            before, after = before + after, []
        elif key in _BACKSPACE:
            before = before[:-1]
        elif key in _DELETE:
            after = after[1:]
        elif key == _ERASE_BEFORE:
            before = []
        elif key == _ERASE_AFTER:
            after = []
        elif key == _ERASE_WORD:
            before = [re.sub(r"\S*\s*\Z", "", self.before)]
        self.before, self.after = "".join(before), "".join(after)

    def finish(self) -> str:
        """Return the line; add it to the history, unless it is blank or repeats the last line of the history."""
        if self.text.strip() and self._history[-1:] != [self.text]:
            self._history.append(self.text)
        return self.text

    def view(self, prompt: str, columns: int) -> tuple[str, str]:
        """Return the part of the prompt and the line that fits into the columns, split at the cursor."""
        before = (prompt + self.before).replace("\t", " ")[-columns:]
        after = self.after.replace("\t", " ")[:columns]
        while width(before) > columns:
            before = before[1:]
        while width(before + after) > columns:
            after = after[:-1]
        return before, after

    def _recall(self, position: int) -> None:
        if 0 <= position < len(self._lines):
            self._lines[self._position] = self.text
            self._position = position
            self.before, self.after = self._lines[position], ""


def width(text: str) -> int:
    """Return about how many columns a text takes; terminals differ in the widths of joined and invisible characters."""
    return sum(map(_character_width, text))


def _clusters(text: str) -> list[str]:
    """Divide a text where a cursor may stand: not between a letter and its accent, or inside a joined emoji."""
    clusters: list[str] = []
    for character in text:
        if clusters and (_character_width(character) == 0 or clusters[-1].endswith(_JOINER)):
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf") or _FOLLOWER.match(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
