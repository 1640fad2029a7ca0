"""The naive way, tuned as its libraries' documents advise: paho callback → json → pydantic → Point → WriteApi.

What a user would write by hand with paho-mqtt and influxdb-client: MQTT 3.1.1 (cheaper in paho), one
thread, batches of 5,000 points, gzip off. It acknowledges before anything is durable, checks no order and
keeps no state. The points go to an HTTP server in another process that answers 204 and counts them. docs/performance.md
lists every setting.
"""

import json
import resource
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

BATCH_POINTS: Final = 5_000
TOPICS: Final = "f/+/+/up/telemetry"


def receive(port: int, sink_port: int, messages: int, qos: int, identity: Sequence[str]) -> None:
    """Receive `messages`, write them, print the CPU they took.

    `identity`: files of authority, certificate and key for mutual TLS; empty connects in plain.
    """
    import paho.mqtt.client as paho
    from influxdb_client.client.influxdb_client import InfluxDBClient
    from influxdb_client.client.write.point import Point
    from influxdb_client.client.write_api import WriteOptions
    from paho.mqtt.enums import CallbackAPIVersion

    from devices.bike.messages import Reading
    from fleet.messages import EpochMs, Message

    class Readings(Message):
        readings: tuple[Reading, ...]

    class Telemetry(Message):
        version: int
        kind: str
        device_id: str
        boot_epoch: int
        lane: str
        seq: int
        occurred_at: EpochMs
        payload: Readings

    done = threading.Event()
    count = 0
    client = InfluxDBClient(url=f"http://127.0.0.1:{sink_port}", token="none", org="none")  # noqa: S106  # the sink asks for none
    writer = client.write_api(write_options=WriteOptions(batch_size=BATCH_POINTS, flush_interval=1_000))

    def on_message(_client: Any, _data: Any, message: Any) -> None:
        nonlocal count
        found = Telemetry.model_validate(json.loads(message.payload), strict=False)
        for reading in found.payload.readings:
            point: Any = Point(found.kind)  # type: ignore[no-untyped-call]
            point.tag("device_id", found.device_id).time(reading.at, "ms")
            for name, value in reading.model_dump(exclude={"at"}).items():
                point.field(name, value)
            writer.write(bucket="none", record=point)
        count += 1
        if count >= messages:
            done.set()

    receiver = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-naive", protocol=paho.MQTTv311)
    receiver.on_message = on_message
    if identity:
        authority, certificate, key = identity
        receiver.tls_set(authority, certificate, key)
    receiver.connect("127.0.0.1", port)
    receiver.subscribe(TOPICS, qos=qos)
    receiver.loop_start()
    time.sleep(0.5)  # the subscription must stand before the load begins
    before = resource.getrusage(resource.RUSAGE_SELF)
    print("ready", flush=True)
    done.wait()
    writer.close()  # type: ignore[no-untyped-call]
    after = resource.getrusage(resource.RUSAGE_SELF)
    receiver.loop_stop()
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu_us_per_message": cpu_s / messages * 1e6, "messages": count}), flush=True)


def main() -> None:
    """`python -m cli.bench.naive receive PORT SINK_PORT MESSAGES QOS [CA CERT KEY]`."""
    port, sink_port, messages, qos = (int(text) for text in sys.argv[2:6])
    receive(port, sink_port, messages, qos, sys.argv[6:9])


if __name__ == "__main__":
    main()
