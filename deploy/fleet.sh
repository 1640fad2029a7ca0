#!/bin/sh
# The command `fleet` of the images, before the real one in PATH: `docker compose exec` runs no entrypoint, and this way
# every `fleet` has the settings that come as secret files, whoever calls it.
set -eu
for command in /opt/cloud/bin/fleet /opt/edge/bin/fleet; do
  [ ! -x "$command" ] || exec /usr/local/bin/fleet-entrypoint "$command" "$@"
done
echo "this image holds no fleet" >&2
exit 127
