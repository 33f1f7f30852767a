#!/usr/bin/env python3
"""Draw docs/demo.svg, the picture in README.md: run demo.py in a terminal, and draw excerpts of what it shows there.

It needs pytest for the terminal, which it shares with the tests.
"""

import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from pseudo_terminal import ROWS, Terminal

PICTURE = Path(__file__).resolve().parent / "demo.svg"

# Each excerpt: the pattern of its first line, and the number of its lines.
EXCERPTS = [
    (r"\[1/5\]", 1),
    (r"chat_server +\$", 2),
    (r"bob +> JOIN alice", 12),
    (r"\[4/5\]", 1),
    (r"alice +> S233", 14),
    (r" +Cinema tickets +Expected", 1),
    (r"ok +the last seat, one", 3),
    (r" +Dormitory +Expected", 9),
]
OMITTED = "\033[2m...\033[0m"

COLUMNS = 106
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
FONT_SIZE, COLUMN_WIDTH, LINE_HEIGHT = 14, 8.4, 19  # in pixels
MARGIN, TITLE_HEIGHT = 18, 36
BACKGROUND, TITLE_BACKGROUND, FOREGROUND = "#1b1e28", "#262a37", "#c8cdd8"
BUTTONS = ["#f0635a", "#f2bd4f", "#5cc464"]
COLOURS = {  # by the number in the escape sequence; 2 is faint
    "2": "#7f8799",
    "31": "#f0716a",
    "32": "#8cc570",
    "33": "#e3b864",
    "34": "#6da7f2",
    "35": "#c98ae0",
    "36": "#56bfc9",
    "92": "#b4e39c",
    "93": "#f5d78a",
    "94": "#93c1ff",
    "95": "#e3aef2",
    "96": "#8de0e6",
    "97": "#ffffff",
}
ESCAPE = re.compile(r"\033\[(\d+)m")


def run_demo() -> list[str]:
    """Return the lines that the demo shows on a terminal, with their colours; exit if an expectation is not met."""
    terminal = Terminal("demo.py", window=(ROWS, COLUMNS))
    status = terminal.process.wait()
    terminal.close()
    if status:
        sys.exit(f"Nothing was drawn: demo.py ended with status {status}")
    return terminal.output.split("\r\n")


def excerpts(lines: list[str]) -> list[str]:
    """Return the lines of the excerpts, with OMITTED where lines are left out."""
    drawn: list[str] = []
    end = 0  # of the last excerpt
    for pattern, number in EXCERPTS:
        start = next(i for i in range(end, len(lines)) if re.match(pattern, ESCAPE.sub("", lines[i])))
        if start > end:
            drawn.append(OMITTED)
        drawn += lines[start : start + number]
        end = start + number
    return drawn


def svg(lines: list[str]) -> str:
    """Return an SVG picture of a terminal that shows these lines."""
    width = round(2 * MARGIN + COLUMNS * COLUMN_WIDTH)
    height = TITLE_HEIGHT + 2 * MARGIN + len(lines) * LINE_HEIGHT
    middle = TITLE_HEIGHT // 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"',
            f'font-family="{FONTS}" font-size="{FONT_SIZE}">',
            f'<rect width="{width}" height="{height}" rx="10" fill="{BACKGROUND}"/>',
            f'<path d="M0 {TITLE_HEIGHT}V10a10 10 0 0 1 10-10H{width - 10}a10 10 0 0 1 10 10V{TITLE_HEIGHT}z"'
            f' fill="{TITLE_BACKGROUND}"/>',
            *(f'<circle cx="{22 + 20 * i}" cy="{middle}" r="6" fill="{fill}"/>' for i, fill in enumerate(BUTTONS)),
            f'<text x="{width // 2}" y="{middle + 5}" fill="{FOREGROUND}" text-anchor="middle">python3 demo.py</text>',
            *(text(line, TITLE_HEIGHT + MARGIN + FONT_SIZE + n * LINE_HEIGHT) for n, line in enumerate(lines)),
            "</svg>\n",
        ]
    )


def text(line: str, y: int) -> str:
    """Return an SVG text for a line: a tspan for each piece in one style, at its column."""
    pieces = []
    column = 0
    for style, piece in styled(line[: COLUMNS + line.count("\033") * 5]):
        x = MARGIN + column * COLUMN_WIDTH
        length = f'textLength="{len(piece) * COLUMN_WIDTH:.1f}"'
        pieces.append(f'<tspan x="{x:.1f}" {length}{style}>{escape(piece, quote=False)}</tspan>')
        column += len(piece)
    return f'<text y="{y}" fill="{FOREGROUND}" xml:space="preserve">{"".join(pieces)}</text>'


def styled(line: str) -> Iterator[tuple[str, str]]:
    """Yield the pieces of a line, each after the SVG attributes of its style."""
    style = ""
    for number, piece in enumerate(ESCAPE.split(line)):
        if number % 2 == 0:
            if piece:
                yield style, piece
        elif piece in COLOURS:
            style += f' fill="{COLOURS[piece]}"'
        else:
            style = {"0": "", "1": f'{style} font-weight="bold"'}[piece]


if __name__ == "__main__":
    PICTURE.write_text(svg(excerpts(run_demo())), encoding="utf-8")
