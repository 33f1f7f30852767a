#!/usr/bin/env python3
"""Play all systems with the real programs, and check what they do.

    demo.py                  all scenarios, one after the other; the exit status is 0 if all happened as expected
    demo.py tickets          one of them: chat, tickets, chatrooms, dormitory or tls
    demo.py tickets --step   Enter shows the next line
    demo.py tickets --stay   only its servers, for you to use; Ctrl-C stops them
    demo.py --stay           the servers of all systems, and the front end for browsers

The programs run as processes, on copies of the data files in a temporary directory.
"""

import argparse
import shlex
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from net.addresses import without_brackets
from net.command_line import fail, prepare_streams, shown_address
from scenarios.harness import EVERYWHERE, HOST, Harness, Unmet
from scenarios.report import BOLD, DIM, Outcome, Report, Stopped
from scenarios.scenarios import SCENARIOS, SYSTEMS, NotPlayed, Scenario, open_front_end

INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended
OTHER_NAMES = {"cinema": "tickets", "rooms": "chatrooms"}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Parse the command line; play scenarios or keep servers running; return the exit status."""
    options = parse_command_line()
    prepare_streams()
    report = Report(options.step)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: report.stop())
    everything = SYSTEMS if options.stay else list(SCENARIOS)
    names = [OTHER_NAMES.get(options.name, options.name)] if options.name else everything
    try:
        if options.stay:
            return stay(names, report, options.host or HOST, not options.show_logs)
        return play_all([SCENARIOS[name] for name in names], report)
    except Stopped:
        return 0 if options.stay else INTERRUPTED


def parse_command_line() -> argparse.Namespace:
    """Return the options; end the program with its usage if they are wrong."""
    parser = argparse.ArgumentParser(
        description="Play the systems with the real programs, and check what they do.",
        epilog="Example: python3 demo.py chat --stay",
    )
    which = f"which scenario to play: {', '.join(SCENARIOS)} (default: all)"
    parser.add_argument("name", nargs="?", choices=[*SCENARIOS, *OTHER_NAMES], metavar="NAME", help=which)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--step", action="store_true", help="show the next line when you press Enter")
    modes.add_argument("--stay", action="store_true", help="start the servers only, and show how to use them")
    where = f"with --stay: where to listen; 0.0.0.0 admits other machines (default: {HOST})"
    parser.add_argument("--host", type=without_brackets, help=where)
    parser.add_argument("--show-logs", action="store_true", help="with --stay: show what the servers write")
    options = parser.parse_args()
    if not options.stay and (options.host or options.show_logs):
        parser.error("--host and --show-logs are expected with --stay only")
    return options


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
    with TemporaryDirectory() as directory, Harness(report, Path(directory)) as harness:
        try:
            scenario.play(harness)
        except NotPlayed as reason:
            report.show(f"Not played: {reason}.")
        except Unmet as unmet:
            harness.check("the scenario goes on", *unmet.args)
        except OSError as error:
            harness.check("the scenario goes on", "no error", str(error))
    return harness.outcomes


def stay(names: list[str], report: Report, host: str, has_logs: bool) -> int:
    """Start servers, show how to reach them, and wait for a signal to stop them; return the exit status."""
    with TemporaryDirectory(prefix="demo-") as directory, Harness(report, Path(directory), host, has_logs) as harness:
        try:
            systems = {name: SCENARIOS[name].open(harness) for name in names}
            if len(systems) > 1:
                open_front_end(harness, systems)
        except (NotPlayed, Unmet, OSError) as error:
            return fail(str(error))
        lines = [report.painted("Paste into other terminals:", BOLD), *harness.invitations]
        if len(systems) > 1:
            address = shown_address(harness.addresses[0], harness.servers["front_end"].port)
            lines += [report.painted("Open in a browser:", BOLD), f"    http://{address}/"]
        if has_logs:
            first, *others = harness.servers
            lines.append(report.painted(f"Follow the status lines of {first}:", BOLD))
            lines.append(f"    {shlex.join(['tail', '-f', f'{harness.directory / first}.log'])}")
            lines += [f"  or of {', '.join(others)}"] if others else []
        if host in EVERYWHERE:
            lines.append(f"This machine's addresses: {', '.join(harness.addresses)}")
        report.show("\n".join([*lines, report.painted("Ctrl-C here stops the servers.", DIM)]))
        while True:
            harness.receive()


if __name__ == "__main__":
    sys.exit(main())
