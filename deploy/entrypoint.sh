#!/bin/sh
# Settings that are secrets come as files: /run/secrets/fleet_x is handed over as FLEET_X. So are the tokens that were
# made at the first start: /run/tokens and /run/reader. Nothing is printed.
set -eu
for file in /run/secrets/fleet_* /run/tokens/fleet_* /run/reader/fleet_*; do
  [ -f "$file" ] || continue
  name=$(basename "$file" | tr '[:lower:]' '[:upper:]')
  case $name in *_FILE | *[!A-Z0-9_]*) continue ;; esac
  export "$name=$(cat "$file")"
done
exec "$@"
