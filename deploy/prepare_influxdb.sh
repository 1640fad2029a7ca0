#!/bin/sh
# Has InfluxDB hold what the product needs (fleet influx init), and puts the two tokens where they are read:
# the writer's for our processes, the reader's for Grafana. InfluxDB shows a token only once: it is kept in its volume.
# Calls for help do not wait for it: where both tokens are there from an earlier start, an InfluxDB that does not answer
# ends this well, and the spool keeps what belongs into it.
# Options are those of `fleet influx init`: --raw-days 60. What is kept for longer stays so, unless --shorten says otherwise.
# When a volume was lost: delete the token there (influx auth list, influx auth delete), and start this again.
set -eu
case ${1:-} in -*) set -- /run/tokens /run/reader /run/secrets/influxdb_admin_token 24 "$@" ;; esac
tokens=${1:-/run/tokens}
reader=${2:-/run/reader}
administrator=${3:-/run/secrets/influxdb_admin_token}
tries=${4:-24}
if [ "$#" -gt 4 ]; then shift 4; else set --; fi
umask 077
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
kept=
until fleet influx init --token-file "$administrator" --tokens-directory "$made" "$@" 2>"$made/words"; do
  cat "$made/words" >&2
  tries=$((tries - 1))
  # Somebody set by hand that a level is kept for longer: once more with the days that are there.
  hint=$(tr -s '[:space:]' ' ' <"$made/words" | sed -n 's/.*say --shorten if that is meant, or \(--[a-z]*-days [0-9]*\).*/\1/p')
  case "$kept " in
    *" ${hint% *} "*) tries=0 ;; # it was, and waiting does not change it
    *)
      [ -z "$hint" ] || {
        kept="$kept ${hint% *}"
        set -- "$@" "${hint% *}" "${hint#* }"
        echo "kept as it is: ${hint#* } days" >&2
        continue
      }
      ;;
  esac
  [ "$tries" -gt 0 ] && sleep 5 && continue
  if [ -s "$tokens/fleet_influxdb_token" ] && [ -s "$reader/fleet_influxdb_reader_token" ]; then
    echo "going on with the tokens of an earlier start; InfluxDB was not looked at: fleet doctor" >&2
    exit 0
  fi
  exit 1
done
cat "$made/words" >&2
# Beside their place and then renamed: a name is there as a whole or not at all.
put() {
  [ -s "$1" ] || return 0
  cp "$1" "$2.new"
  chmod 0444 "$2.new" # the volume is mounted where it is needed, and nowhere else
  mv "$2.new" "$2"
}
put "$made/influxdb-writer" "$tokens/fleet_influxdb_token"
put "$made/influxdb-reader" "$reader/fleet_influxdb_reader_token"
for file in "$tokens/fleet_influxdb_token" "$reader/fleet_influxdb_reader_token"; do
  [ -s "$file" ] || {
    echo "$file is missing, and InfluxDB shows a token only once: delete its token there (influx auth list, influx auth delete) and run this again" >&2
    exit 1
  }
done
