#!/bin/sh
# Runs Mosquitto, and has it read the revocation list again whenever the file was replaced by another complete list.
set -eu
configuration=${1:-/mosquitto/config/mosquitto.conf}
list=$(sed -n 's/^crlfile //p' "$configuration")
seen=$(cksum <"$list")
mosquitto -c "$configuration" &
broker=$!
ending=
trap 'ending=yes; kill -TERM "$broker" 2>/dev/null || true' TERM INT
trap 'kill -HUP "$broker" 2>/dev/null || true' HUP
while kill -0 "$broker" 2>/dev/null; do
  sleep 0.5 &
  wait "$!" || true # a signal for us ends this wait at once
  # Mosquitto forgets a TERM that comes between opening its ports and its main loop: say it until it is gone.
  [ -z "$ending" ] || kill -TERM "$broker" 2>/dev/null || true
  now=$(cksum 2>/dev/null <"$list") || continue
  [ "$now" = "$seen" ] && continue
  seen=$now
  # After reading anything else the broker would let revoked devices in.
  case $(tail -n 1 "$list") in
    *"END X509 CRL"*) kill -HUP "$broker" 2>/dev/null || true ;;
    *) echo "$list is no revocation list: not read; make it again with fleet pki crl" >&2 ;;
  esac
done
wait "$broker" || [ -n "$ending" ] # an end that was asked for is none by error, however early it came
