"""What tests measured (`record_property`) is printed at the end of the run, a line a test."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = []
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("xfailed"):
        if report.when == "call" and report.user_properties:
            measured = ", ".join(f"{name} {value}" for name, value in report.user_properties)
            lines.append(f"{report.nodeid.rpartition('::')[2]}: {measured}")
    if lines:
        terminalreporter.section("measured")
        for line in sorted(lines):
            terminalreporter.write_line(line)
