"""What was not tested: told at the end of every call of pytest, and a failure where all has to be tested.

A reason for a skip says what is missing and how to have it. With REGRAFT_REQUIRE_DATA set, as on a build
server, only what no installation brings may be missing: a reason that begins otherwise than those of
MACHINE is a failure.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import Any, TypeVar

import pytest

MACHINE = (
    "needs a GPU",
    "needs a processor",
    "needs a user who is not root",
    "needs Windows",
    "needs macOS",
    "needs Linux",
    "needs POSIX",
    "needs s3fs",  # which does not install beside the lock: its botocore takes no python-dateutil 4
)
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that was skipped, or whose fixture was."""
    return insisted((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file that was skipped as a whole."""
    return insisted((yield))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A line a reason."""
    reasons = Counter(reason(report) for report in terminalreporter.stats.get("skipped", []))
    if reasons:
        terminalreporter.section("not tested, and what it takes")
    for text, count in reasons.most_common():
        terminalreporter.write_line(f"{count} x {text}")


def insisted(report: Report) -> Report:
    """The report, failed if it tells of a skip that REGRAFT_REQUIRE_DATA does not allow."""
    skipped = report.outcome == "skipped" and not hasattr(report, "wasxfail")
    if skipped and os.environ.get("REGRAFT_REQUIRE_DATA") and not reason(report).startswith(MACHINE):
        report.outcome = "failed"
        report.longrepr = (
            f"skipped: {reason(report)}\nREGRAFT_REQUIRE_DATA is set, and that can be had (tests/skips.py)."
        )
    return report


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test or a file was skipped."""
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr).removeprefix(
        "Skipped: "
    )
