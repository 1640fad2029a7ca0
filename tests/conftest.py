"""The order of all tests: what takes longest begins first, so that at the end no worker waits for one long test."""

from typing import Final

import pytest

LONGEST_FIRST: Final = ("e2e/test_chaos", "e2e/", "adapters/", "simulation/", "web/", "api/")
"""Begins of paths below `tests`; everything else comes after them, as it is found."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only between files: within one the order stays."""
    root = config.rootpath / "tests"

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(root).as_posix() if item.path.is_relative_to(root) else ""
        return next((place for place, begin in enumerate(LONGEST_FIRST) if path.startswith(begin)), len(LONGEST_FIRST))

    items.sort(key=rank)
