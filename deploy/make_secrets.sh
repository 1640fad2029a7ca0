#!/usr/bin/env bash
# Make the secrets of a first installation in deploy/secrets/: both domains of certificates (fleet pki), the broker's and
# the ingester's certificates, those of the devices named as arguments, passwords and keys. What exists is kept.
# Afterwards carry deploy/secrets/pki/offline away: it is needed only to renew an intermediate. Copy backup_key elsewhere,
# too: without it no backup can be read.
#   deploy/make_secrets.sh broker.example.com bike-001 room-001
# The first name is the host under which devices reach the broker. The command `fleet` is taken from PATH, from .venv, or
# from the image (docker build -t gaoxin-fleet:0.1.0 .); the variable FLEET names another one.
set -euo pipefail
usage="usage: deploy/make_secrets.sh HOST [DEVICE …]; --help says more"
case ${1:-} in
  -h | --help) sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0" && exit 0 ;;
  "") echo "no host named: under which name or address do devices reach the broker? $usage" >&2 && exit 2 ;;
esac
for name in "$@"; do
  case $name in -* | "") echo "'$name' is no name of a host or device; $usage" >&2 && exit 2 ;; esac
done
host=$1
shift
cd "$(dirname "$0")"
umask 077
if [ -n "${FLEET:-}" ]; then
  read -ra fleet <<<"$FLEET"
elif command -v fleet >/dev/null; then
  fleet=(fleet)
elif [ -x ../.venv/bin/fleet ]; then
  fleet=("$(dirname "$PWD")/.venv/bin/fleet")
else
  fleet=(docker run --rm --network none --user "$(id -u):$(id -g)" --volume "$PWD/secrets:$PWD/secrets" gaoxin-fleet:0.1.0 fleet)
fi
# Before anything else runs: a container that mounts a folder which is not there makes one that everybody may enter.
[ ! -e secrets ] || [ -O secrets ] || {
  echo "$PWD/secrets belongs to somebody else: sudo chown -R $(id -un) $PWD/secrets, then this again" >&2
  exit 1
}
install -d -m 0700 secrets
"${fleet[@]}" --version >/dev/null 2>&1 || { echo "the command ${fleet[*]} does not run: docker build -t gaoxin-fleet:0.1.0 . or make setup, or set FLEET" >&2; exit 1; }
cd secrets
pki=$PWD/pki

[ -e pki/trust/devices.pem ] || "${fleet[@]}" pki init --directory "$pki"
hosts=(--host "$host")
for name in localhost broker 127.0.0.1; do [ "$name" = "$host" ] || hosts+=(--host "$name"); done
# Whether the certificate is for a name or an address: openssl says so in words alone, and takes any name for an address.
is_for() {
  local check=-checkip
  case $2 in *:*) ;; *[!0-9.]*) check=-checkhost ;; esac
  openssl x509 -in "$1" -noout "$check" "$2" | grep -q "does match"
}
if [ ! -e pki/issued/broker.pem ]; then
  "${fleet[@]}" pki server --directory "$pki" "${hosts[@]}"
elif ! is_for pki/issued/broker.pem "$host"; then
  echo "the broker's certificate is not for $host and was kept; to replace it:" >&2
  echo "  ${fleet[*]} pki server --replace --directory $pki ${hosts[*]}" >&2
  echo "  then this script again, and docker compose restart broker" >&2
fi
[ -e pki/issued/fleet.ingester.pem ] || "${fleet[@]}" pki service fleet.ingester --directory "$pki"
for device in "$@"; do
  [ -e "pki/issued/devices/$device.pem" ] || "${fleet[@]}" pki device "$device" --directory "$pki"
done

# Beside its place and then renamed: what was interrupted leaves no empty secret that would be kept.
put() { cat >"$1.new" && [ -s "$1.new" ] && mv -f "$1.new" "$1"; }
password() { [ -s "$1" ] || openssl rand -hex 24 | tr -d '\n' | put "$1"; }
key() { [ -s "$1" ] || openssl genpkey "${@:2}" | put "$1"; }
password postgresql_password
password influxdb_password
[ ! -e influxdb_token ] || mv influxdb_token influxdb_admin_token # its name before there were writer and reader
password influxdb_admin_token
password grafana_password
password platform_alert_secret
key web_push_key -algorithm EC -pkeyopt ec_paramgen_curve:P-256
[ -e fleet.env ] || printf '# Further settings, one FLEET_NAME=value a line: docs/operations.md\n' | put fleet.env
key command_key -algorithm ed25519
[ -s backup_key ] || openssl rand -base64 32 | put backup_key # what `fleet backup key` makes
printf 'postgresql+psycopg://fleet:%s@postgresql:5432/fleet' "$(cat postgresql_password)" | put database_url
# Containers run as users of their own, and compose mounts these files as they are; the folder keeps others out.
chmod 0755 pki pki/online pki/issued
[ ! -d pki/issued/devices ] || chmod 0755 pki/issued/devices # the backup job reads it
chmod 0444 pki/online/*.key pki/issued/*.key ./*_password influxdb_admin_token platform_alert_secret command_key web_push_key backup_key database_url
chmod 0777 pki/crl # the role `api` replaces the list there
chmod 0666 pki/crl/.*.lock
echo "secrets are in deploy/secrets/; carry deploy/secrets/pki/offline away now, and copy deploy/secrets/backup_key off this machine: no backup can be read without it" >&2
