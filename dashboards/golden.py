"""The boards as files: for people to import, for Grafana's provisioning, and beside the source as golden copies."""

import json
import sys
from pathlib import Path
from typing import Any, Final

from dashboards.build import LANGUAGES, build_all

FOLDER: Final = Path(__file__).resolve().parent / "golden"


def text_of(board: dict[str, Any]) -> str:
    """A board as it stands in a file."""
    return json.dumps(board, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def write_boards(folder: Path, language: str) -> list[Path]:
    """Write every board to `<folder>/<uid>.json`; other boards of ours there are removed. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for uid, board in build_all(language).items():
        path = folder / f"{uid}.json"
        path.write_text(text_of(board), encoding="utf-8")
        written.append(path)
    for stale in set(folder.glob("fleet-*.json")) - set(written):
        stale.unlink()
    return written


def main() -> int:
    for language in LANGUAGES:
        for path in write_boards(FOLDER / language, language):
            print(path.relative_to(FOLDER.parent.parent), file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
