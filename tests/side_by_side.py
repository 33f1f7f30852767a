"""Run the test modules in several processes at once.

Most tests wait: for a server to start, for a time limit to pass. Modules are handed out to a few forked processes,
which send their reports to this one. The browser tests share two browsers, so they stay together. So do the tests of
the demo and of the documents, because both use the ports that the documents name.
"""

import os
import pickle
import selectors
import sys
import threading
from collections.abc import Iterator
from itertools import chain, groupby
from typing import BinaryIO

import pytest

PROCESSES = 4
BROWSER = "test_browser"
USING_REAL_PORTS = ("test_demo.py", "test_readme.py")

Group = list[pytest.Item]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run all tests, unless a debugger, a limit on failures or a single module is better served by one process."""
    option = session.config.option
    groups = groups_of(session.items)
    if len(groups) < 2 or option.usepdb or option.maxfail or option.collectonly or session.testsfailed:
        return None
    if threading.active_count() > 1:  # a forked process would lack the other threads, and perhaps inherit their locks
        return None
    tokens_reader, tokens_writer = os.pipe()
    os.write(tokens_writer, bytes(range(len(groups))))  # each process reads a byte for the next group
    os.close(tokens_writer)
    pipes = [start_process(session, groups, tokens_reader) for _ in range(PROCESSES)]
    os.close(tokens_reader)
    receive_reports(session, pipes)
    for _ in pipes:
        _, status = os.wait()
        if status:
            raise session.Failed("a process that runs tests has ended before all its tests were run")
    return True


def groups_of(items: list[pytest.Item]) -> list[Group]:
    """Return the tests by module, or several modules together, and the largest groups first."""

    def key(item: pytest.Item) -> str:
        if item.path.name in USING_REAL_PORTS:
            return USING_REAL_PORTS[0]
        return BROWSER if item.path.name.startswith(BROWSER) else item.path.name

    groups = [list(group) for _, group in groupby(sorted(items, key=key), key)]
    return sorted(groups, key=lambda group: (key(group[0]) != BROWSER, -len(group)))


def start_process(session: pytest.Session, groups: list[Group], tokens: int) -> BinaryIO:
    """Fork a process that runs groups of tests; return the pipe with its reports."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        return os.fdopen(reader, "rb")
    status = 1
    try:
        os.close(reader)
        with os.fdopen(writer, "wb") as reports:
            run_groups(session, Reporter(session.config, reports), taken_groups(groups, tokens))
        status = 0
    finally:
        os._exit(status)


class Reporter:
    """A plugin that sends reports to the first process, instead of showing them."""

    def __init__(self, config: pytest.Config, reports: BinaryIO) -> None:
        self._config = config
        self._reports = reports

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send a report."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        pickle.dump(data, self._reports)
        self._reports.flush()


def taken_groups(groups: list[Group], tokens: int) -> Iterator[Group]:
    """Yield groups that no other process has taken."""
    while token := os.read(tokens, 1):
        yield groups[token[0]]


def run_groups(session: pytest.Session, reporter: Reporter, groups: Iterator[Group]) -> None:
    """Run the tests of some groups, with captured output of their own."""
    plugins = session.config.pluginmanager
    plugins.register(reporter)
    capture = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the first process shows everything
    capture.start_global_capturing()
    items = chain.from_iterable(groups)  # a group is taken when the last test of the group before it begins
    item = next(items, None)
    while item:
        next_item = next(items, None)
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=next_item)
        item = next_item
    session.config.hook.pytest_sessionfinish(session=session, exitstatus=0)


def receive_reports(session: pytest.Session, pipes: list[BinaryIO]) -> None:
    """Show and count the reports of all processes until they end."""
    config = session.config
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ, pipe)
        while selector.get_map():
            for key, _ in selector.select():
                try:
                    data = pickle.load(key.data)
                except EOFError:
                    selector.unregister(key.data)
                    key.data.close()
                    continue
                report = config.hook.pytest_report_from_serializable(config=config, data=data)
                config.hook.pytest_runtest_logreport(report=report)
