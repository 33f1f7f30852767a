#!/usr/bin/env python3
"""Play all systems with the real programs, and check what they do.

    demo.py                  all scenarios, one after the other; the exit status is 0 if all happened as expected
    demo.py cinema           one of them: chat, cinema, rooms, dormitory or tls
    demo.py cinema --stay    only its servers, for you to use; Ctrl-C stops them
    demo.py --stay           the servers of all systems, and the front end for browsers

The programs run as processes, on free ports of 127.0.0.1 and on copies of the data files in a temporary directory.
scenarios/harness.py runs them and shows what they write; scenarios/scenarios.py contains the scenarios.
"""

import os
import sys

if sys.version_info < (3, 10):
    sys.exit("Python 3.10 or later is needed, but this is Python " + sys.version.split()[0])
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # PYTHONSAFEPATH leaves it out

import argparse
import signal
import tempfile
from pathlib import Path

from net.command_line import fail
from scenarios.harness import HOST, Harness, Unmet
from scenarios.report import BOLD, DIM, Outcome, Report, Stopped
from scenarios.scenarios import LISTENING, OTHER_NAMES, SCENARIOS, NotPlayed, OpenServer, Scenario

INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FRONT_END = "front_end.py"


def main() -> int:
    """Parse the command line; play scenarios or keep servers running; return the exit status."""
    options = parse_command_line()
    report = Report()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: report.stop())
    chosen = [SCENARIOS[OTHER_NAMES.get(options.name, options.name)]] if options.name else list(SCENARIOS.values())
    try:
        if options.stay:
            return stay(chosen if options.name else [each for each in chosen if each.front_end_option], report)
        return play_all(chosen, report)
    except Stopped:
        return 0 if options.stay else INTERRUPTED


def parse_command_line() -> argparse.Namespace:
    """Return the options; end the program with its usage if they are wrong."""
    parser = argparse.ArgumentParser(
        description="Play the systems with the real programs, and check what they do.",
        epilog="Example: python3 demo.py chat --stay",
    )
    parser.add_argument(
        "name",
        nargs="?",
        choices=[*SCENARIOS, *OTHER_NAMES],
        metavar="NAME",
        help=f"which scenario to play: {', '.join(SCENARIOS)} (default: all)",
    )
    parser.add_argument(
        "--stay",
        action="store_true",
        help="start the servers only, show lines to paste into other terminals, and wait for Ctrl-C",
    )
    return parser.parse_args()


def play_all(scenarios: list[Scenario], report: Report) -> int:
    """Play scenarios and show the table; return the exit status."""
    outcomes: list[Outcome] = []
    for number, scenario in enumerate(scenarios, 1):
        following = ", ".join(other.title for other in scenarios[number:])
        progress = f"[{number}/{len(scenarios)}] {scenario.title} ..."
        report.show(report.painted(progress, BOLD) + (f" next: {following}" if following else ""))
        outcomes += play(scenario, report)
        report.show()
    report.show_table(outcomes)
    met = sum(outcome.met for outcome in outcomes)
    report.show(report.painted(f"{met} of {len(outcomes)} expectations were met.", BOLD))
    return 0 if met == len(outcomes) else 1


def play(scenario: Scenario, report: Report) -> list[Outcome]:
    """Play one scenario; return a row for each expectation, and one for an error that ended the scenario early."""
    outcomes: list[Outcome] = []

    def check(situation: str, expected: str, happened: str) -> None:
        outcomes.append(Outcome(scenario.title, situation, expected, happened))

    with tempfile.TemporaryDirectory() as directory, Harness(report) as harness:
        try:
            scenario.play(harness, Path(directory), check)
        except NotPlayed as reason:
            report.show(f"Not played: {reason}.")
        except Unmet as unmet:
            check("the scenario goes on", unmet.expected, unmet.happened)
        except OSError as error:
            check("the scenario goes on", "its files are there", str(error))
    return outcomes


def stay(scenarios: list[Scenario], report: Report) -> int:
    """Start servers, show how to reach them, and wait for a signal to stop them; return the exit status."""
    with tempfile.TemporaryDirectory() as scratch, Harness(report, live=True) as harness:
        try:
            servers = [open_in(scenario, harness, Path(scratch, str(n))) for n, scenario in enumerate(scenarios)]
            url = start_front_end(scenarios, servers, harness)
        except (NotPlayed, Unmet, OSError) as error:
            return fail(str(error))
        report.show()
        report.show(report.painted("Paste into other terminals:", BOLD))
        for scenario, server in zip(scenarios, servers, strict=True):
            for line in scenario.invite(server):
                report.show(f"    {line}")
        if url:
            report.show(report.painted("Open in a browser:", BOLD))
            report.show(f"    {url}")
        report.show(report.painted("Ctrl-C here stops the servers.", DIM))
        report.wait_for_stop()
    return 0


def open_in(scenario: Scenario, harness: Harness, directory: Path) -> OpenServer:
    """Start the servers of a scenario with files in a directory of their own."""
    directory.mkdir()
    return scenario.open(harness, directory)


def start_front_end(scenarios: list[Scenario], servers: list[OpenServer], harness: Harness) -> str:
    """Start the front end for several systems; return the URL of its page, or an empty string for a single system."""
    if len(scenarios) == 1:
        return ""
    where = []
    for scenario, server in zip(scenarios, servers, strict=True):
        where += [scenario.front_end_option, f"{HOST}:{server.port}"]
    front_end = harness.start("front_end", FRONT_END, "0", *where)
    return f"http://{HOST}:{front_end.expect_number(LISTENING)}/"


if __name__ == "__main__":
    sys.exit(main())
