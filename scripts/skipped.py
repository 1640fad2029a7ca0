"""Read a JUnit report: the run counts only if tests ran and none was skipped. Used by `.ci/run`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET


def skipped(report: str) -> tuple[int, list[str]]:
    """(number of tests, one line per skipped test with its reason) of a JUnit report."""
    cases = ET.fromstring(report).findall(".//testcase")  # noqa: S314  # written by our own pytest a moment ago
    lines = []
    for case in cases:
        mark = case.find("skipped")
        if mark is not None:
            lines.append(f"{case.get('classname')}::{case.get('name')}: {mark.get('message', 'no reason given')}")
    return len(cases), lines


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        print("skipped: there is no test report", file=sys.stderr)
        return 1
    count, lines = skipped(Path(arguments[0]).read_text())
    for line in lines:
        print(f"skipped: {line}", file=sys.stderr)
    print(f"{count} tests, {len(lines)} skipped", file=sys.stderr)
    return 1 if lines or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
