"""The options of a conformance run, the server that each check gets, and the report."""

import shlex
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from .chat import Chat
from .dialogue import Limits
from .rules import LEVELS, NOT_CHECKED, RULES, Rule, fail, not_checked
from .target import StartedTarget, Target

OWN_SERVER = Path(__file__).resolve().parent.parent / "chat_server.py"
SILENT_CHECKS = 3  # after this many checks in a row in which the server said nothing, waits become short
SHORT_ANSWER_SECONDS, SHORT_READY_SECONDS = 0.5, 1.0

HOLDS = pytest.StashKey[dict[str, bool]]()  # by the id of a rule that was to be checked; False if it was not checked
SILENT = pytest.StashKey[int]()  # how many checks in a row have received nothing
POINTS = pytest.StashKey[dict[str, float]]()  # by level


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say which server is checked, and how."""
    group = parser.getgroup("conformance", "the chat server that pytest conformance checks")
    group.addoption("--server", metavar="COMMAND", help="start this for each check, such as './chat {port}'")
    group.addoption("--address", metavar="HOST:PORT", help="check a server that is running already")
    group.addoption("--fresh-directory", action="store_true", help="start each server in an empty directory")
    group.addoption("--exact", action="store_true", help="compare whole replies, not only their essential phrases")
    group.addoption("--level", choices=LEVELS, default=LEVELS[-1], help="check the rules up to this level")
    group.addoption("--points", metavar="LEVEL=N,...", default="", help="print points, such as basic=70,robust=30")
    group.addoption("--answer-seconds", type=float, default=10.0, help="how long an answer may take (10)")
    group.addoption("--test-seconds", type=float, default=30.0, help="how long a check may take (30)")
    group.addoption("--ready-seconds", type=float, default=10.0, help="how long a server may take to listen (10)")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that make no sense.

    Raises:
        pytest.UsageError: the text says which option, and what is expected.
    """
    config.addinivalue_line("markers", "rule(rule): the rule of the chat that a test checks")
    config.addinivalue_line("markers", "needs(id, ...): the rules without which a test says nothing about its own")
    config.stash[HOLDS] = {}
    config.stash[SILENT] = 0
    config.stash[POINTS] = parsed_points(config.getoption("--points"))
    server, address = config.getoption("--server"), config.getoption("--address")
    if server and address:
        raise pytest.UsageError("--server and --address exclude each other")
    if server and "{port}" not in server:
        raise pytest.UsageError(f"--server {server!r}: {{port}} is expected where the server's port is to stand")
    if address and not address.rpartition(":")[2].isdecimal():
        raise pytest.UsageError(f"--address {address!r}: HOST:PORT is expected")
    if not (server or address or OWN_SERVER.exists()):
        raise pytest.UsageError("--server COMMAND or --address HOST:PORT is expected")


def parsed_points(text: str) -> dict[str, float]:
    """Return the points of each level in a text such as basic=70,robust=30."""
    points = {}
    for part in filter(None, text.split(",")):
        level, _, number = part.partition("=")
        if level not in LEVELS or not number.isdecimal():
            raise pytest.UsageError(f"--points {text!r}: LEVEL=N,... is expected, and {part!r} is not of that form")
        points[level] = float(number)
    return points


def pytest_report_header(config: pytest.Config) -> str:
    """Return a line that says which server is checked."""
    return f"chat server: {config.getoption('--address') or server_command(config)}"


def server_command(config: pytest.Config) -> str:
    """Return the command that starts the server, by default this project's own."""
    own = shlex.join([sys.executable, str(OWN_SERVER), "--host", "127.0.0.1", "{port}"])
    return config.getoption("--server") or own


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put rules into the JUnit report, and leave out those above the wanted level."""
    wanted = LEVELS[: LEVELS.index(config.getoption("--level")) + 1]
    left_out = []
    for item in items:
        if rule := rule_of(item):
            item.user_properties += [("rule", rule.id), ("level", rule.level)]
            if rule.level not in wanted:
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def rule_of(item: pytest.Item) -> Rule | None:
    """Return the rule that a test checks."""
    marker = item.get_closest_marker("rule")
    return marker.args[0] if marker else None


@pytest.fixture
def chat(request: pytest.FixtureRequest) -> Iterator[Chat]:
    """Provide the users of a check, who talk to a server of their own unless one is running already."""
    option = request.config.getoption
    is_silent = request.config.stash[SILENT] >= SILENT_CHECKS
    if option("--address"):
        host, _, port = option("--address").rpartition(":")
        target = Target(host, int(port))
    else:
        directory = request.getfixturevalue("tmp_path") if option("--fresh-directory") else None
        ready_seconds = SHORT_READY_SECONDS if is_silent else option("--ready-seconds")
        try:
            target = StartedTarget(server_command(request.config), ready_seconds, directory)
        except (OSError, ValueError) as error:
            fail(f"the server cannot be started: {error}")
    answer_seconds = SHORT_ANSWER_SECONDS if is_silent else option("--answer-seconds")
    is_own = not (option("--server") or option("--address"))
    limits = Limits(answer_seconds, option("--test-seconds"))
    answers_join = request.config.stash[HOLDS].get("JOIN-ACCEPTED", False)
    chat = Chat(target, limits, is_own or option("--exact"), answers_join)
    try:
        yield chat
    finally:
        chat.leave()
        target.stop()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run a check; a server that has ended does not pass, and a failure shows the dialogue."""
    rule = rule_of(pyfuncitem)
    chat = pyfuncitem.funcargs.get("chat")
    if rule is None or not isinstance(chat, Chat):
        return (yield)
    stash = pyfuncitem.config.stash
    holds = stash[HOLDS]
    holds[rule.id] = False
    needed = [needed_id for marker in pyfuncitem.iter_markers("needs") for needed_id in marker.args]
    if unmet := [needed_id for needed_id in needed if not holds.get(needed_id, True)]:
        not_checked(f"{', '.join(unmet)} should hold first")
    try:
        result = yield
        if death := chat.death():
            fail(f"the server {death}")
        holds[rule.id] = True
    except pytest.fail.Exception as failure:
        raise pytest.fail.Exception(explained(str(failure), chat), pytrace=False) from None
    finally:
        stash[SILENT] = 0 if chat.dialogue.has_received else stash[SILENT] + 1
    return result


def explained(sentence: str, chat: Chat) -> str:
    """Return the sentence that says how a check failed, with what led to it."""
    if (death := chat.death()) and death not in sentence:
        sentence = f"{sentence}; the server {death}"
    parts = [sentence, "", "The dialogue:", str(chat.dialogue)]
    if output := chat.target.output().strip():
        parts += ["", "The server's last lines:", output]
    return printable("\n".join(parts))


def printable(text: str) -> str:
    """Return a text without what a server may have sent to fool the reader's terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write how many rules of each level hold, which do not and why, and the points."""
    explanations = {}  # by the rule's id; empty if it holds
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            if rule_id := dict(report.user_properties).get("rule"):
                explanations[rule_id] = "" if outcome == "passed" else str(report.longrepr).strip()
    if not explanations:
        return
    points = config.stash[POINTS]
    earned = 0.0
    terminalreporter.section("rules")
    for level in LEVELS:
        rules = [rule for rule in RULES.values() if rule.level == level]
        holding = sum(explanations.get(rule.id) == "" for rule in rules)
        not_run = sum(rule.id not in explanations for rule in rules)
        line = f"{level}: {holding} of {len(rules)} rules hold"
        if level in points:
            earned += points[level] * holding / len(rules)
            line += f", {points[level] * holding / len(rules):.1f} of {points[level]:g} points"
        if not_run < len(rules) or level in points:
            terminalreporter.write_line(line + (f" ({not_run} were not run)" if not_run else ""), bold=True)
        for rule in rules:
            write_explanation(terminalreporter, rule, explanations.get(rule.id, ""))
    if points:
        terminalreporter.write_line(f"sum: {earned:.1f} of {sum(points.values()):g} points", bold=True)


def write_explanation(terminalreporter: pytest.TerminalReporter, rule: Rule, explanation: str) -> None:
    """Write why a rule does not hold, if it does not."""
    if explanation:
        is_failure = not explanation.startswith(NOT_CHECKED)
        terminalreporter.write_line(f"  {rule.id:<18} {rule.sentence}", red=is_failure, yellow=not is_failure)
        terminalreporter.write_line(f"  {'':<18} {explanation.splitlines()[0]}")
