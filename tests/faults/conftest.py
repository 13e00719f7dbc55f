"""How many faults were tried and how many held: counted by the tests, told at the end of a run of them."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

MALFORMED = "malformed configurations"
Trial = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def trial(record_property: Callable[[str, object], None]) -> Trial:
    """``with trial(fault, times=n):`` counts n faults as tried, and as held where the block raises nothing."""

    @contextmanager
    def counted(fault: str, times: int = 1) -> Iterator[None]:
        held = 0
        try:
            yield
            held = times
        finally:
            record_property("fault", [fault, times, held])

    return counted


def pytest_terminal_summary(terminalreporter: Any) -> None:
    tried, held = Counter[str](), Counter[str]()
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, value in getattr(report, "user_properties", ()):
            if name == "fault" and report.when == "call":
                tried[value[0]] += value[1]
                held[value[0]] += value[2]
        if "test_malformed.py::" in report.nodeid and "[" in report.nodeid and report.when == "call":
            tried[MALFORMED] += 1
            held[MALFORMED] += report.passed
    if not tried:
        return
    terminalreporter.section("faults injected")
    terminalreporter.write_line(f"| {'fault':60s} | tried | held |")
    terminalreporter.write_line(f"|{'-' * 62}|------:|-----:|")
    for fault in tried:
        terminalreporter.write_line(f"| {fault:60s} | {tried[fault]:5d} | {held[fault]:4d} |")
