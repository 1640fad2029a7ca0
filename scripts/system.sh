#!/usr/bin/env bash
# Install the real components that `make test` runs against. Says what it does, and what it cannot do.
set -euo pipefail

export PATH="$PATH:/usr/sbin:/sbin:/usr/local/sbin"  # where brokers and servers are

has() {
  case $1 in
    mosquitto) command -v mosquitto ;;
    mosquitto-clients) command -v mosquitto_sub ;;
    influxdb) command -v influxd ;;
    nginx-light) command -v nginx ;;
    postgresql-15) ls /usr/lib/postgresql/*/bin/postgres ;;
    chromium) command -v chromium || command -v chromium-browser || command -v google-chrome ;;
    fonts-wqy-microhei) ls /usr/share/fonts/truetype/wqy/wqy-microhei.ttc ;;
  esac >/dev/null 2>&1
}

purpose() {
  case $1 in
    mosquitto) echo "the MQTT broker" ;;
    mosquitto-clients) echo "the ratio to mosquitto_sub in benches" ;;
    influxdb | nginx-light) echo "tests of the time series on a real InfluxDB" ;;
    postgresql-15) echo "tests of the state on a real PostgreSQL" ;;
    chromium | fonts-wqy-microhei) echo "tests of the pages in a real browser, in Chinese" ;;
  esac
}

wanted="mosquitto mosquitto-clients influxdb nginx-light postgresql-15 chromium fonts-wqy-microhei"
absent=""
for package in $wanted; do has "$package" || absent="$absent $package"; done
[ -n "$absent" ] || exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "system: installing with apt-get:$absent (their services are kept from starting)" >&2
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
  fi
  apt-get update -qq
  # shellcheck disable=SC2086  # a list of package names
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $absent >/dev/null
else
  for package in $absent; do echo "system: SKIPPED without root: $package ($(purpose "$package"))" >&2; done
  echo "system: fix: sudo apt-get install --no-install-recommends$absent" >&2
  exit 0
fi

for package in $absent; do
  has "$package" || { echo "system: $package was installed but cannot be found ($(purpose "$package"))" >&2; exit 1; }
done
