"""The requirement locks: write them (`make lock`), and check that they still say what `pyproject.toml` asks for.

One lock per way of installing, all with hashes and without any registry's address. `dev.txt` is resolved first and
constrains the others, so that what is tested is what is installed.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
PYTHON_VERSION = "3.11"
COMPILE_TIMEOUT_S = 300

LOCKS: dict[str, tuple[str, ...]] = {
    "dev": ("--all-extras", "--group", "dev", "pyproject.toml"),
    "edge": ("--extra", "edge", "pyproject.toml"),
    "edge-hardware": ("--extra", "edge", "--extra", "edge-gpio", "--extra", "edge-modbus", "pyproject.toml"),
    "cloud": ("--extra", "cloud", "--extra", "planning", "pyproject.toml"),
    "export": ("--extra", "export", "pyproject.toml"),
    "sim": ("--extra", "sim", "pyproject.toml"),
    "dashboards": ("--extra", "dashboards", "pyproject.toml"),
    "demo": ("--extra", "cloud", "--extra", "edge", "--extra", "planning", "--extra", "sim", "pyproject.toml"),
    "bootstrap": ("requirements/bootstrap.in",),
}
"""Lock → what uv resolves for it; the first one constrains the rest."""

EXTRAS: dict[str, tuple[str, ...]] = {
    "dev": (
        "cloud", "dashboards", "edge", "edge-gpio", "edge-modbus", "export", "planning", "preview", "profile", "sim",
    ),
    "edge": ("edge",),
    "edge-hardware": ("edge", "edge-gpio", "edge-modbus"),
    "cloud": ("cloud", "planning"),
    "export": ("cloud", "export"),
    "sim": ("sim",),
    "dashboards": ("dashboards",),
    "demo": ("cloud", "edge", "planning", "sim"),
}  # fmt: skip

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: *; *([^\\]+?))? *\\?$", re.MULTILINE)
UNREACHABLE = re.compile(
    r"error sending request|failed to fetch|dns error|connection (?:refused|reset)|network|timed out|offline",
    re.IGNORECASE,
)


class RegistryUnreachableError(RuntimeError):
    """uv could not ask the package registry."""


def pins(text: str) -> dict[tuple[str, str], str]:
    """(name, marker) → version of every pin in a lock."""
    return {(canonicalize_name(name), marker or ""): version for name, version, marker in _PIN.findall(text)}


def uv() -> str:
    """The pinned uv of this environment."""
    path = Path(sys.executable).parent / "uv"
    if not path.is_file():
        sys.exit(f"{path} is missing; run `make setup`")
    return str(path)


def resolve(name: str, folder: Path, *, upgrade: bool = False) -> None:
    """Resolve one lock into `folder`; versions of a lock that is already there are kept unless `upgrade`."""
    command = [uv(), "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-emit-index-url"]
    command += ["--python-version", PYTHON_VERSION, "--custom-compile-command", "make lock", "--no-header"]
    command += [*LOCKS[name], "--output-file", str(folder / f"{name}.txt")]
    if name != "dev":
        command += ["--constraints", str(folder / "dev.txt"), "--no-annotate"]
    if upgrade:
        command.append("--upgrade")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
    if done.returncode:
        if UNREACHABLE.search(done.stderr):
            raise RegistryUnreachableError(done.stderr.strip())
        sys.exit(f"requirements/{name}.txt cannot be resolved:\n{done.stderr.strip()}")


def write(names: Sequence[str], *, upgrade: bool) -> int:
    """Write the locks, `dev` first."""
    for name in names:
        try:
            resolve(name, FOLDER, upgrade=upgrade)
        except RegistryUnreachableError as error:
            print(f"the package registry cannot be reached:\n{error}", file=sys.stderr)
            return 1
        path = FOLDER / f"{name}.txt"
        header = "# Made by `make lock` from " + LOCKS[name][-1] + "; do not edit.\n"
        path.write_text(header + path.read_text())
        print(f"requirements/{name}.txt: {len(pins(path.read_text()))} pins", file=sys.stderr)
    return 0


def check() -> int:
    """Whether every lock is what resolving would write; without a registry, whether it satisfies what is asked for."""
    with tempfile.TemporaryDirectory(prefix="fleet-locks-") as temporary:
        folder = Path(temporary)
        for name in LOCKS:
            (folder / f"{name}.txt").write_text((FOLDER / f"{name}.txt").read_text())
        try:
            for name in LOCKS:
                resolve(name, folder)
        except RegistryUnreachableError as error:
            print(f"locks: the package registry cannot be reached ({error.args[0].splitlines()[-1].strip()}); "
                  "checked against pyproject.toml only", file=sys.stderr)  # fmt: skip
            stale = unsatisfied()
        else:
            stale = [
                line
                for name in LOCKS
                for line in difference(name, (FOLDER / f"{name}.txt").read_text(), (folder / f"{name}.txt").read_text())
            ]
    for line in stale:
        print(line, file=sys.stderr)
    if stale:
        print("the locks are stale: run `make lock` and commit what it writes", file=sys.stderr)
    else:
        print(f"locks: {', '.join(LOCKS)} hold what pyproject.toml asks for", file=sys.stderr)
    return 1 if stale else 0


def difference(name: str, present: str, fresh: str) -> list[str]:
    """What resolving would change in a lock, one line per pin."""
    old, new = pins(present), pins(fresh)
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [
        f"requirements/{name}.txt: {' ; '.join(filter(None, key))} is {old.get(key, 'absent')}, "
        f"should be {new.get(key, 'absent')}"
        for key in changed
    ]


def unsatisfied() -> list[str]:
    """Direct requirements of `pyproject.toml` that a lock does not hold in a fitting version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = []
    for name, extras in EXTRAS.items():
        wanted = list(project["project"]["dependencies"])
        for extra in extras:
            wanted += project["project"]["optional-dependencies"][extra]
        if name == "dev":
            wanted += project["dependency-groups"]["dev"]
        locked = {package: version for (package, _), version in pins((FOLDER / f"{name}.txt").read_text()).items()}
        for requirement in map(Requirement, wanted):
            package = canonicalize_name(requirement.name)
            if package == canonicalize_name(project["project"]["name"]):
                continue
            version = locked.get(package)
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                found.append(f"requirements/{name}.txt: wants {requirement}, has {version or 'nothing'}")
    return found


def main(arguments: Sequence[str]) -> int:
    match list(arguments):
        case ["write"]:
            return write(list(LOCKS), upgrade=False)
        case ["write", "--upgrade"]:
            return write(list(LOCKS), upgrade=True)
        case ["check"]:
            return check()
        case _:
            print("usage: python -m scripts.locks write [--upgrade] | check", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
