"""A pytest plugin that writes down which tests failed, one id a line.

`-p tools.failed_tests --failed-tests FILE`; the file is written at the end, empty when all is well.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--failed-tests FILE`."""
    parser.addoption("--failed-tests", type=Path, default=None, help="where to name what failed")


def pytest_configure(config: pytest.Config) -> None:
    """Only where somebody asked, and only in the process that hears of all tests."""
    path = config.getoption("--failed-tests")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Failed(path))


class _Failed:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._ids[report.nodeid] = None

    def pytest_sessionfinish(self) -> None:
        self._path.write_text("".join(f"{each}\n" for each in self._ids), encoding="utf-8")
