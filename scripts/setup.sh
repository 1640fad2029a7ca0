#!/usr/bin/env bash
# Make .venv ready for `dev` (everything, with the tools) or `demo` (what the demo needs). A second run is instant.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-dev}
case $what in dev | demo) ;; *) echo "usage: scripts/setup.sh dev|demo" >&2; exit 2 ;; esac
venv=.venv
say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

stamp_of() { cat requirements/bootstrap.txt "requirements/$1.txt" pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1; }
is_current() { [ -x "$venv/bin/fleet" ] && [ "$(cat "$venv/.stamps/$1" 2>/dev/null)" = "$(stamp_of "$1")" ]; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13}; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

make_venv() {
  [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null && return
  local python
  python=$(find_python) || fail "Python 3.11 or newer is needed; install it, or name it: make setup PYTHON=/path/to/python3.11"
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    local package
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      say "this Python cannot make virtual environments: installing $package with apt-get"
      apt-get update -qq
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
    else
      fail "this Python cannot make virtual environments; fix: sudo apt-get install $package"
    fi
  fi
  say "making $venv with $("$python" --version)"
  "$python" -m venv --clear "$venv"
}

if is_current "$what" || { [ "$what" = demo ] && is_current dev; }; then
  "$venv/bin/python" -m scripts.assets 2>/dev/null || "$venv/bin/python" -m scripts.assets
  exit 0
fi

make_venv
say "installing the installer (requirements/bootstrap.txt)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
  -r requirements/bootstrap.txt || fail "pip failed; is the package registry reachable? Behind a proxy set HTTPS_PROXY; for a mirror set PIP_INDEX_URL and UV_INDEX_URL"
say "installing requirements/$what.txt"
"$venv/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" --require-hashes --only-binary :all: -r "requirements/$what.txt" \
  || fail "uv failed; is the package registry reachable? Behind a proxy set HTTPS_PROXY; for a mirror set UV_INDEX_URL"
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
"$venv/bin/python" -m scripts.assets
mkdir -p "$venv/.stamps"
stamp_of "$what" >"$venv/.stamps/$what"
say "ready: $venv/bin/fleet --help"
