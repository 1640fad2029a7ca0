"""House rules that no other tool keeps, as plain functions: `make check` runs them, and so does a test.

Each rule returns one line per violation, `path:line: what`.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON_LINES_MAX = 400
TEXT_BYTES_MAX = 2_000_000

# Where packages come from is the installing machine's own business.
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|yarnpkg\.com|npmmirror\.com|taobao\.org|tsinghua\.edu|aliyun\.com/pypi"
    r"|golang\.org/dl|(?:^|\s)--(?:extra-)?index-url[ =]|(?:^|\s)--find-links[ =]|\"resolved\":\s*\"http",
)
# A path of the machine somebody worked on.
MACHINE_PATH = re.compile(r"(?<![\w.])(?:/[w]ork/|/[r]oot/|/home/\w|/Users/\w|[A-Z]:\\Users)")


def files(root: Path = ROOT) -> list[Path]:
    """Every file that is tracked, or would be by `git add`; without git, everything that is not made by tools."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607  # git is where PATH says
        cwd=root, capture_output=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        raise RuntimeError(f"git ls-files failed: {listed.stderr.decode().strip()}")
    paths = (root / name for name in listed.stdout.decode().split("\0") if name)
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def texts(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """(path from the root, text) of every text file."""
    for path in files(root):
        data = path.read_bytes()
        if b"\0" in data[:8192] or len(data) > TEXT_BYTES_MAX:
            continue
        yield path.relative_to(root).as_posix(), data.decode("utf-8", "replace")


def matching(pattern: re.Pattern[str], what: str, root: Path) -> list[str]:
    """Lines of text files that match."""
    return [
        f"{name}:{number}: {what}: {line.strip()[:120]}"
        for name, text in texts(root)
        if pattern.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def no_registry_host(root: Path = ROOT) -> list[str]:
    """No file names a package registry."""
    return matching(REGISTRY, "names a package registry", root)


def no_machine_path(root: Path = ROOT) -> list[str]:
    """No file names a path of somebody's machine."""
    return matching(MACHINE_PATH, "names a path of one machine", root)


def short_files(root: Path = ROOT) -> list[str]:
    """A Python file is a page one can hold in mind."""
    return [
        f"{name}:{length}: {length} lines, more than {PYTHON_LINES_MAX}; split where the idea splits"
        for name, text in texts(root)
        if name.endswith(".py") and (length := text.count("\n")) > PYTHON_LINES_MAX
    ]


def locks_are_hashed(root: Path = ROOT) -> list[str]:
    """Every pin of every lock has a hash."""
    found = []
    for path in sorted((root / "requirements").glob("*.txt")):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if (
                "==" in line
                and not line.startswith((" ", "#"))
                and "--hash=" not in "".join(lines[number : number + 1])
            ):
                found.append(f"requirements/{path.name}:{number}: no hash: {line}")
    return found


def decisions_are_indexed(root: Path = ROOT) -> list[str]:
    """Every decision record stands in the index, in order, and names what keeps it."""
    folder = root / "docs/adr"
    index = (folder / "README.md").read_text()
    found = []
    for expected, path in enumerate(sorted(folder.glob("[0-9]*.md")), 1):
        text = path.read_text()
        if not path.name.startswith(f"{expected:04d}-"):
            found.append(f"docs/adr/{path.name}:1: expected number {expected:04d}")
        if f"({path.name})" not in index:
            found.append(f"docs/adr/{path.name}:1: not in docs/adr/README.md")
        found += [
            f"docs/adr/{path.name}:1: no section {section!r}"
            for section in ("## Context", "## Decision", "## Consequences", "## Kept by")
            if section not in text
        ]
    return found


def changelog_names_version(root: Path = ROOT) -> list[str]:
    """The changelog has a section for the version in `pyproject.toml`."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    present = re.search(rf"^## \[?{re.escape(version)}\b", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    return [] if present else [f"CHANGELOG.md:1: no section for version {version}"]


def links_lead_somewhere(root: Path = ROOT) -> list[str]:
    """Relative links of our Markdown pages point at files that exist."""
    found = []
    for name, text in texts(root):
        if not name.endswith(".md"):
            continue
        here = (root / name).parent
        found += [
            f"{name}:{number}: leads nowhere: {target}"
            for number, line in enumerate(text.splitlines(), 1)
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", line)
            if "://" not in target and not target.startswith("mailto:") and not (here / target).exists()
        ]
    return found


RULES: tuple[Callable[[Path], list[str]], ...] = (
    no_registry_host,
    no_machine_path,
    short_files,
    locks_are_hashed,
    decisions_are_indexed,
    changelog_names_version,
    links_lead_somewhere,
)


def main() -> int:
    found = [line for rule in RULES for line in rule(ROOT)]
    for line in found:
        print(line, file=sys.stderr)
    print(f"house rules: {len(RULES)} checked, {len(found)} violations", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
