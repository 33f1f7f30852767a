#!/usr/bin/env python3
"""Play all systems with the real programs, and check what they do.

    demo.py                  all scenarios, one after the other; the exit status is 0 if all happened as expected
    demo.py tickets          one of them: chat, tickets, chatrooms, dormitory or tls
    demo.py tickets --stay   only its servers, for you to use; Ctrl-C stops them
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
from scenarios.scenarios import SCENARIOS, SYSTEMS, NotPlayed, Scenario

INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended
OTHER_NAMES = {"cinema": "tickets", "rooms": "chatrooms"}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Parse the command line; play scenarios or keep servers running; return the exit status."""
    options = parse_command_line()
    report = Report(live=options.stay)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: report.stop())
    everything = SYSTEMS if options.stay else list(SCENARIOS)
    names = [options.name] if options.name else everything
    try:
        return stay(names, report) if options.stay else play_all([SCENARIOS[name] for name in names], report)
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
        type=lambda name: OTHER_NAMES.get(name, name),
        choices=SCENARIOS,
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
    """Play scenarios and show their tables; return the exit status."""
    tables: dict[str, list[Outcome]] = {}
    for number, scenario in enumerate(scenarios, 1):
        following = ", ".join(other.title for other in scenarios[number:])
        progress = f"[{number}/{len(scenarios)}] {scenario.title} ..."
        report.show(report.painted(progress, BOLD) + (f" next: {following}" if following else ""))
        tables[scenario.title] = play(scenario, report)
        report.show()
    for title, outcomes in tables.items():
        if outcomes:
            report.show_table(title, outcomes)
    met = [outcome.met for outcomes in tables.values() for outcome in outcomes]
    report.show(report.painted(f"{sum(met)} of {len(met)} expectations were met.", BOLD))
    return 0 if all(met) else 1


def play(scenario: Scenario, report: Report) -> list[Outcome]:
    """Play one scenario; return a row for each expectation, and one for an error that ended the scenario early."""
    with tempfile.TemporaryDirectory() as directory, Harness(report, Path(directory)) as harness:
        try:
            scenario.play(harness)
        except NotPlayed as reason:
            report.show(f"Not played: {reason}.")
        except Unmet as unmet:
            harness.check("the scenario goes on", *unmet.args)
        except OSError as error:
            harness.check("the scenario goes on", "no error", str(error))
    return harness.outcomes


def stay(names: list[str], report: Report) -> int:
    """Start servers, show how to reach them, and wait for a signal to stop them; return the exit status."""
    with tempfile.TemporaryDirectory() as directory, Harness(report, Path(directory)) as harness:
        try:
            servers = {name: SCENARIOS[name].open(harness) for name in names}
            if len(servers) > 1:
                where = [f"--{name}={HOST}:{server.port}" for name, server in servers.items()]
                harness.start_server("front_end.py", "0", *where)
        except (NotPlayed, Unmet, OSError) as error:
            return fail(str(error))
        report.show()
        report.show(report.painted("Paste into other terminals:", BOLD))
        for line in harness.invitation:
            report.show(f"    {line}")
        if "front_end" in harness.servers:
            report.show(report.painted("Open in a browser:", BOLD))
            report.show(f"    http://{HOST}:{harness.servers['front_end'].port}/")
        report.show(report.painted("Ctrl-C here stops the servers.", DIM))
        while True:
            report.pause()


if __name__ == "__main__":
    sys.exit(main())
