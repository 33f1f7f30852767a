#!/usr/bin/env python3
"""Play all four systems with the real programs, and check what they do.

    demo.py                  all four stories, one after the other; the exit status is 0 if all happened as expected
    demo.py cinema           one of them: chat, cinema, rooms or dormitory
    demo.py cinema --stay    only the servers, for you to play; Ctrl-C stops them

The programs run as processes, on free ports of 127.0.0.1 and on copies of the data files in a temporary directory.
stage.py runs them and shows who says what; stories.py tells what is played.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from scenarios.harness import Stage, Unmet
from scenarios.report import BOLD, DIM, Check, Screen, Stopped
from scenarios.scenarios import SYSTEMS, System

INTERRUPTED = 130  # as a shell says it of a program that Ctrl-C ended
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def play_all(systems: list[System], screen: Screen) -> int:
    """Play stories and show the table; return the exit status."""
    checks: list[Check] = []
    for number, system in enumerate(systems, 1):
        following = ", ".join(other.title for other in systems[number:])
        progress = f"[{number}/{len(systems)}] {system.title} ..."
        screen.show(screen.painted(progress, BOLD) + (f" next: {following}" if following else ""))
        checks += play(system, screen)
        screen.show()
    screen.show_table(checks)
    met = sum(check.met for check in checks)
    screen.show(screen.painted(f"{met} of {len(checks)} expectations were met.", BOLD))
    return 0 if met == len(checks) else 1


def play(system: System, screen: Screen) -> list[Check]:
    """Play one story; return what was checked, and what ended it early if anything did."""
    checks: list[Check] = []

    def check(situation: str, expected: str, happened: str) -> None:
        checks.append(Check(system.title, situation, expected, happened))

    with tempfile.TemporaryDirectory() as scratch, Stage(screen) as stage:
        try:
            system.play(stage, Path(scratch), check)
        except Unmet as unmet:
            check("the story goes on", unmet.expected, unmet.happened)
        except OSError as error:
            check("the story goes on", "its files are there", str(error))
    return checks


def stay(system: System, screen: Screen) -> int:
    """Start the servers of a system and say how to reach them, until a signal comes; return the exit status."""
    with tempfile.TemporaryDirectory() as scratch, Stage(screen) as stage:
        try:
            lines = system.invite(system.open(stage, Path(scratch)))
            screen.show()
            screen.show(screen.painted("Paste into other terminals:", BOLD))
            for line in lines:
                screen.show(f"    {line}")
            screen.show(screen.painted("Ctrl-C here stops the servers.", DIM))
            screen.wait_for_stop()
        except Stopped:
            return 0
        except (Unmet, OSError) as error:
            print(error, file=sys.stderr)
            return 1


def main() -> int:
    """Read the command line; play or stay; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Play the four systems with the real programs, and check what they do."
    )
    parser.add_argument("story", nargs="?", choices=list(SYSTEMS), help="which one (default: all)")
    parser.add_argument(
        "--stay", action="store_true", help="start the servers of this one only, and say how to use them"
    )
    arguments = parser.parse_args()
    if arguments.stay and not arguments.story:
        parser.error(f"--stay needs a story: one of {', '.join(SYSTEMS)} is expected")
    screen = Screen()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: screen.stop())
    if arguments.stay:
        return stay(SYSTEMS[arguments.story], screen)
    try:
        return play_all([SYSTEMS[arguments.story]] if arguments.story else list(SYSTEMS.values()), screen)
    except Stopped:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
