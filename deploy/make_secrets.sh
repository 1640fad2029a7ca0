#!/usr/bin/env bash
# Make the secrets of a first installation in deploy/secrets/: passwords, the command key, and certificates for
# the broker, the ingester and the devices named as arguments. Existing files are kept. The authority's key stays in
# deploy/secrets/authority: move it off the machine when the devices have their certificates.
#   deploy/make_secrets.sh broker.example.com bike-001 room-001
set -euo pipefail
cd "$(dirname "$0")"
umask 077
host=${1:-localhost}
shift || true
mkdir -p secrets/authority secrets/devices
cd secrets

leaf() { # path prefix, common name, subject alternative names, usage
  [ -e "$1.pem" ] && return
  openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null ||
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
  openssl req -new -key "$1.key" -subj "/CN=$2" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA authority/ca.pem -CAkey authority/ca.key -CAcreateserial -days 90 -sha256 \
    -extfile <(printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$4" "$3") \
    -out "$1.pem" 2>/dev/null
  rm "$1.csr"
}

if [ ! -e authority/ca.pem ]; then
  openssl ecparam -name prime256v1 -genkey -noout -out authority/ca.key
  openssl req -x509 -new -key authority/ca.key -sha256 -days 3650 -subj "/CN=fleet authority" -out authority/ca.pem \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
fi
if [ ! -e ca.pem ]; then cp authority/ca.pem ca.pem; fi # what everybody trusts stays when the folder with its key is moved away
cmp -s authority/ca.pem ca.pem || { echo "secrets/authority is not the authority of secrets/ca.pem: put the old one back, or remove all of deploy/secrets to begin anew" >&2; exit 1; }
[ "$host" = localhost ] && names="DNS:localhost,DNS:broker,IP:127.0.0.1" || names="DNS:$host,DNS:localhost,DNS:broker,IP:127.0.0.1"
leaf broker broker "$names" serverAuth
# The dot keeps this name out of the device ids: no device can ever have the rights of the ingester.
leaf ingester fleet.ingester DNS:fleet.ingester clientAuth
for device in "$@"; do
  case $device in *[!a-z0-9-]* | "") echo "not a device id: $device" >&2; exit 2 ;; esac
  leaf "devices/$device" "$device" "DNS:$device" clientAuth
done

password() { [ -e "$1" ] || openssl rand -hex 24 | tr -d '\n' >"$1"; }
password postgresql_password
password influxdb_password
password influxdb_token
password grafana_password
[ -e command_key ] || openssl genpkey -algorithm ed25519 -out command_key
printf 'postgresql+psycopg://fleet:%s@postgresql:5432/fleet' "$(cat postgresql_password)" >database_url
# Containers run as users of their own, and compose mounts these files as they are; the folder keeps others out.
chmod 0444 ./*.pem broker.key ingester.key ./*_password influxdb_token command_key database_url
echo "secrets are in deploy/secrets/; keep deploy/secrets/authority somewhere else" >&2
