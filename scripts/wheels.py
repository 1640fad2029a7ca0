"""Every locked requirement must have a wheel for the machines the product runs on: nothing is compiled at a customer's.

Asks the package registry for the metadata only; nothing is downloaded or installed.
"""

import os
import subprocess
import sys
import tempfile

from scripts.locks import FOLDER, PYTHON_VERSION, UNREACHABLE, uv

_SERVERS = ("x86_64-manylinux_2_34", "aarch64-manylinux_2_34")  # Debian 12 has glibc 2.36
_OLDER = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")  # edge boxes
PLATFORMS = {"dev": _SERVERS, "bootstrap": _OLDER, "edge-hardware": _OLDER, "sim": _OLDER}
"""Lock → where each of its pins must have a wheel; every other lock is a part of one of these."""
TIMEOUT_S = 300


def missing(lock: str, platform: str) -> str | None:
    """What uv says when a pin of `lock` has no wheel for `platform`; None if all have."""
    with tempfile.TemporaryDirectory(prefix="fleet-wheels-") as target:
        command = [uv(), "pip", "install", "--dry-run", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--require-hashes", "--python-version", PYTHON_VERSION, "--python-platform", platform]
        command += ["--target", target, "--requirements", str(FOLDER / f"{lock}.txt")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return done.stderr.strip() if done.returncode else None


def main() -> int:
    strict = os.environ.get("FLEET_CHECK_STRICT") == "1"
    for lock, platforms in PLATFORMS.items():
        for platform in platforms:
            reason = missing(lock, platform)
            if reason is None:
                continue
            if UNREACHABLE.search(reason) and not strict:
                print("wheels: NOT CHECKED, the package registry cannot be reached", file=sys.stderr)
                return 0
            print(f"wheels: requirements/{lock}.txt on {platform}:\n{reason}", file=sys.stderr)
            return 1
    for lock, platforms in PLATFORMS.items():
        print(f"wheels: every pin of {lock} has one for {' and '.join(platforms)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
