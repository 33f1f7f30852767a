#!/usr/bin/env python3
"""Draw docs/demo.svg, the picture in README.md: run demo.py in a terminal, and draw excerpts of what it shows there."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
DEMO = DOCS.parent / "demo.py"
PICTURE = DOCS / "demo.svg"

# Each excerpt: the pattern of its first line, and the number of its lines.
EXCERPTS = [
    (r"\[1/5\]", 1),
    (r"chat_server +\$", 2),
    (r"bob +> JOIN alice", 12),
    (r"\[4/5\]", 1),
    (r"alice +> S233", 14),
    (r" +Cinema tickets +Expected", 1),
    (r"ok +the last seat, one", 3),
    (r" +Dormitory +Expected", 8),
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
    """Return the lines that the demo shows on a terminal, with their colours.

    Raises:
        subprocess.CalledProcessError: an expectation was not met.
    """
    terminal, tty = pty.openpty()
    fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack("HHHH", 0, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    with subprocess.Popen([sys.executable, str(DEMO)], stdin=tty, stdout=tty, stderr=tty, env=environment) as demo:
        os.close(tty)
        output = b"".join(read_to_end(terminal))
    os.close(terminal)
    if demo.returncode:
        raise subprocess.CalledProcessError(demo.returncode, demo.args)
    return output.decode().replace("\r\n", "\n").split("\n")


def read_to_end(terminal: int) -> Iterator[bytes]:
    """Yield what programs write to a terminal, until none has it open."""
    while True:
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # Linux reports the end in this way
            return
        if not data:
            return
        yield data


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


def main() -> int:
    """Draw the picture; return the exit status."""
    try:
        lines = run_demo()
    except subprocess.CalledProcessError as error:
        print(f"Nothing was drawn: {error}", file=sys.stderr)
        return 1
    PICTURE.write_text(svg(excerpts(lines)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
