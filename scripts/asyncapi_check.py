"""Asks the official AsyncAPI parser (npm `@asyncapi/parser`) what it thinks of `fleet docs asyncapi`.

`python -m scripts.asyncapi_check [FILE]` checks a file, or the document of this tree. The parser is installed from
the committed lock file into `.stamps/`, once for every lock file; nothing of it is shipped.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.assets import MANIFESTS, ROOT, AssetsError, install, node

SOURCE: Final = ROOT / "scripts/asyncapi"
CHECK: Final = "check.cjs"
PARSE_S_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class Remark:
    """One diagnostic of the parser; `level` is error, warning, info or hint."""

    level: str
    code: str
    message: str
    path: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the parser said of one document."""

    parsed: bool
    remarks: Sequence[Remark]

    @property
    def errors(self) -> list[Remark]:
        """What makes the document invalid."""
        return [remark for remark in self.remarks if remark.level == "error"]


def parser_folder(root: Path = ROOT) -> Path:
    """A folder in which the parser is installed; raises AssetsError."""
    digest = hashlib.sha256()
    for name in MANIFESTS:
        digest.update((SOURCE / name).read_bytes())
    folder = root / ".stamps" / f"asyncapi-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        fresh = folder.with_name(folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name in MANIFESTS:
            shutil.copy(SOURCE / name, fresh / name)
        install(fresh, "AsyncAPI parser")
        fresh.rename(folder)
    shutil.copy(SOURCE / CHECK, folder / CHECK)
    return folder


def check(text: str) -> Verdict:
    """Parse and validate a document; raises AssetsError when the parser cannot be had."""
    program, _ = node()
    folder = parser_folder()
    done = subprocess.run(
        [str(program), CHECK], cwd=folder, input=text, capture_output=True, text=True, timeout=PARSE_S_MAX, check=False
    )
    if done.returncode:
        raise AssetsError(f"AsyncAPI parser: {done.stderr.strip()[-1000:]}")
    answer = json.loads(done.stdout)
    return Verdict(answer["parsed"], [Remark(**remark) for remark in answer["said"]])


def main(arguments: Sequence[str]) -> int:
    if arguments:
        text = Path(arguments[0]).read_text(encoding="utf-8")
    else:
        from cli.asyncapi import document  # noqa: PLC0415  # a file can be checked without the product

        text = json.dumps(document())
    try:
        verdict = check(text)
    except AssetsError as error:
        print(error, file=sys.stderr)
        return 1
    for remark in verdict.remarks:
        print(f"{remark.level}: {remark.path}: {remark.message} ({remark.code})", file=sys.stderr)
    print(f"AsyncAPI: {len(verdict.errors)} errors, {len(verdict.remarks)} remarks", file=sys.stderr)
    return 0 if verdict.parsed and not verdict.errors else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
