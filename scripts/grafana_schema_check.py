"""Asks Grafana's own types (npm `@grafana/schema`, in the version the boards are made for) whether boards fit them.

`python -m scripts.grafana_schema_check [FILE …]` checks files, or the boards of this tree. The types become a JSON
schema once for every lock file, in `.stamps/`; nothing of it is committed or shipped.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft7Validator

from scripts.assets import MANIFESTS, ROOT, AssetsError, install, node

SOURCE: Final = ROOT / "scripts/grafana_schema"
PROGRAM: Final = "generate.cjs"
INPUTS: Final = (PROGRAM, "boards.ts", "tsconfig.json")
GENERATE_S_MAX: Final = 120
FAULTS_MAX: Final = 50
OPEN_TYPES: Final = ("AnnotationQuery",)
"""To these every data source adds properties of its own."""
CUSTOM: Final = "custom."


def grafana_version() -> str:
    """Version of Grafana's types, which is the one of the boards' builder."""
    return str(json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))["dependencies"]["@grafana/schema"])


def schema(root: Path = ROOT) -> dict[str, Any]:
    """JSON schema of `boards.ts`, made once for its inputs; raises AssetsError."""
    digest = hashlib.sha256()
    for name in (*MANIFESTS, *INPUTS):
        digest.update((SOURCE / name).read_bytes())
    made = root / ".stamps" / f"grafana-{grafana_version()}-{digest.hexdigest()[:16]}.json"
    if not made.is_file():
        work = made.with_suffix(".new")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        for name in (*MANIFESTS, *INPUTS):
            shutil.copy(SOURCE / name, work / name)
        install(work, "Grafana's types")
        (work / "schema.json").write_text(_generated(work), encoding="utf-8")
        (work / "schema.json").rename(made)
        shutil.rmtree(work)
    loaded: dict[str, Any] = json.loads(made.read_text(encoding="utf-8"))
    for name in OPEN_TYPES:
        loaded["definitions"][name].pop("additionalProperties", None)
    return loaded


def _generated(work: Path) -> str:
    program, _ = node()
    done = subprocess.run(
        [str(program), PROGRAM], cwd=work, capture_output=True, text=True, timeout=GENERATE_S_MAX, check=False
    )
    if done.returncode:
        raise AssetsError(f"Grafana's types: {done.stderr.strip()[-1000:]}")
    return done.stdout


class BoardSchema:
    """Validators of the whole board and of each panel's own parts."""

    def __init__(self, made: Mapping[str, Any]) -> None:
        self._made = made
        parts = made["definitions"]["Board"]["properties"]
        self._board = self._validator(parts["dashboard"])
        self._options = {name: self._validator(part) for name, part in parts["options"]["properties"].items()}
        self._custom = {name: self._validator(part) for name, part in parts["custom"]["properties"].items()}
        self._custom_names = {name: set(part["properties"]) for name, part in parts["custom"]["properties"].items()}

    def _validator(self, part: Mapping[str, Any]) -> Draft7Validator:
        return Draft7Validator({"$schema": self._made["$schema"], "definitions": self._made["definitions"], **part})

    def faults(self, board: Mapping[str, Any]) -> list[str]:
        """One line per property that Grafana does not know, or that has another type there."""
        found = list(_said(self._board, board, "board"))
        for panel in board.get("panels", []):
            found += self._panel(panel)
        return found[:FAULTS_MAX]

    def _panel(self, panel: Mapping[str, Any]) -> Iterator[str]:
        name, where = panel["type"], f"panel {panel.get('title')!r}"
        if name not in self._options:
            yield f"{where}: panels of type {name!r} are not among the ones in {SOURCE.name}/boards.ts"
            return
        yield from _said(self._options[name], panel.get("options", {}), f"{where} options")
        config = panel.get("fieldConfig", {})
        if custom := config.get("defaults", {}).get("custom"):
            if name in self._custom:
                yield from _said(self._custom[name], custom, f"{where} custom")
            else:
                yield f"{where}: panels of type {name!r} have no custom settings of a field"
        for override in config.get("overrides", []):
            for item in override["properties"]:
                if item["id"].startswith(CUSTOM):
                    key = item["id"].removeprefix(CUSTOM)
                    if key not in self._custom_names.get(name, set()):
                        yield f"{where}: an override sets {item['id']!r}, which panels of type {name!r} do not have"
                    else:
                        yield from _said(self._custom[name], {key: item["value"]}, f"{where} override")


def _said(validator: Draft7Validator, value: Any, where: str) -> Iterator[str]:
    for error in validator.iter_errors(value):
        path = ".".join(map(str, error.absolute_path))
        yield f"{where}: {path or 'itself'}: {error.message[:200]}"


def main(arguments: Sequence[str]) -> int:
    if arguments:
        boards = {name: json.loads(Path(name).read_text(encoding="utf-8")) for name in arguments}
    else:
        from dashboards.build import build_all  # noqa: PLC0415  # a file can be checked without the product

        boards = build_all("en")
    try:
        checked = BoardSchema(schema())
    except AssetsError as error:
        print(error, file=sys.stderr)
        return 1
    faults = [f"{name}: {fault}" for name, board in boards.items() for fault in checked.faults(board)]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"Grafana {grafana_version()}: {len(boards)} boards, {len(faults)} faults", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
