"""What is right and wrong with this environment, and what to do about it: ``python -m scripts.doctor [--json]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from scripts.cli.entry_point import Parser


def main(argv: Sequence[str] | None = None) -> None:
    """Look, judge, print; ends with status 1 where there is a problem."""
    arguments = build_parser().parse_args(argv)
    from scripts.doctor.checks import examine, worst
    from scripts.doctor.facts import gather

    facts = gather()
    findings = examine(facts)
    if arguments.json:
        import json
        from dataclasses import asdict

        mark = worst(findings)
        print(json.dumps({"mark": mark, "findings": [*map(asdict, findings)], "facts": asdict(facts)}, indent=2))
    else:
        from scripts.reporting import Report

        rows = [{"mark": f.mark, "subject": f.subject, "found": f.found, "what to do": f.advice} for f in findings]
        Report("likeness doctor", rows, notes=[verdict([finding.mark for finding in findings])]).show()
    if worst(findings) == "problem":
        sys.exit(1)


def build_parser() -> Parser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness doctor",
        description="Look at packages, devices, memory, folders and loggers, and say what is wrong and what to do.",
        epilog="Exit status 1 where there is a problem, 0 where there are notes at most. No key is read or printed.",
    )
    parser.add_argument("--json", action="store_true", help="Print findings and facts as JSON, for a report of a bug.")
    return parser


def verdict(marks: Sequence[str]) -> str:
    """How many problems and notes there are, in a sentence."""
    problems, notes = marks.count("problem"), marks.count("note")
    return f"{problems or 'no'} problem{'s' * (problems != 1)}, {notes or 'no'} note{'s' * (notes != 1)}"
