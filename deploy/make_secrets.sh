#!/usr/bin/env bash
# Make the secrets of a first installation in deploy/secrets/: both domains of certificates (fleet pki), the broker's and
# the ingester's certificates, those of the devices named as arguments, passwords and the command key. What exists is kept.
# Afterwards carry deploy/secrets/pki/offline away: it is needed only to renew an intermediate.
#   deploy/make_secrets.sh broker.example.com bike-001 room-001
# FLEET names the command; without Python on this machine, for example
#   FLEET="docker run --rm --user $(id -u) --volume $PWD/deploy/secrets:$PWD/deploy/secrets gaoxin-fleet:0.1.0 fleet"
set -euo pipefail
cd "$(dirname "$0")"
umask 077
host=${1:-localhost}
shift || true
read -ra fleet <<<"${FLEET:-fleet}"
"${fleet[@]}" --version >/dev/null 2>&1 || { echo "the command ${fleet[*]} does not run: install this package, or set FLEET (see the top of this script)" >&2; exit 1; }
mkdir -p secrets
cd secrets
pki=$PWD/pki

[ -e pki/trust/devices.pem ] || "${fleet[@]}" pki init --directory "$pki"
hosts=(--host "$host")
for name in localhost broker 127.0.0.1; do [ "$name" = "$host" ] || hosts+=(--host "$name"); done
[ -e pki/issued/broker.pem ] || "${fleet[@]}" pki server --directory "$pki" "${hosts[@]}"
[ -e pki/issued/fleet.ingester.pem ] || "${fleet[@]}" pki service fleet.ingester --directory "$pki"
for device in "$@"; do
  [ -e "pki/issued/devices/$device.pem" ] || "${fleet[@]}" pki device "$device" --directory "$pki"
done

password() { [ -e "$1" ] || openssl rand -hex 24 | tr -d '\n' >"$1"; }
password postgresql_password
password influxdb_password
password influxdb_token
password grafana_password
[ -e command_key ] || openssl genpkey -algorithm ed25519 -out command_key
printf 'postgresql+psycopg://fleet:%s@postgresql:5432/fleet' "$(cat postgresql_password)" >database_url
# Containers run as users of their own, and compose mounts these files as they are; the folder keeps others out.
chmod 0755 pki pki/online pki/issued
chmod 0444 pki/online/*.key pki/issued/*.key ./*_password influxdb_token command_key database_url
chmod 0777 pki/crl # the role `api` replaces the list there
chmod 0666 pki/crl/.*.lock
echo "secrets are in deploy/secrets/; carry deploy/secrets/pki/offline away now" >&2
