"""`fleet bench ingest` and `fleet bench bounds` at small scale: real broker, real cloud, real rivals."""

import json
import re
import sys
import textwrap

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.bench import ingest, ingest_press, ingest_rivals, press
from cli.bench.ingest_flow import IngestLoad
from cli.bench.ingest_load import Fleet
from cli.bench.rig import BenchError
from cli.broker import Broker, find_mosquitto
from cli.clock import real_now_ms

pytestmark = pytest.mark.mosquitto

RIVAL = """
import sys, urllib.request
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

port, topic, sink_port = int(sys.argv[1]), sys.argv[2], sys.argv[3]
every = int(sys.argv[4]) if len(sys.argv) > 4 else 1
count = 0

def on_message(client, data, message):
    global count
    count += 1
    if count % every == 0:
        body = b"bike value=1i\\n" * every
        urllib.request.urlopen(f"http://127.0.0.1:{sink_port}/write?db=x", body).close()

client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
client.on_message = on_message
client.connect("127.0.0.1", port)
client.subscribe(topic, qos=1)
client.loop_forever()
"""


@pytest.fixture(autouse=True)
def installed():
    if find_mosquitto() is None:
        pytest.skip("Mosquitto is not installed; `make test` installs it when it is root")
    try:
        ingest_rivals.mosquitto_sub()
    except BenchError:
        pytest.skip("mosquitto_sub is not installed; `make test` installs it when it is root")


@pytest.fixture
def rival(tmp_path):
    path = tmp_path / "rival.py"
    path.write_text(textwrap.dedent(RIVAL))
    return f"{sys.executable} {path} {{port}} {{topic}} {{sink_port}}"


def figures(*arguments):
    result = CliRunner().invoke(app, ["bench", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_burst_a_picture_and_a_rival_of_ones_own(tmp_path, monkeypatch, rival):
    monkeypatch.setattr(ingest, "BURST_MESSAGES", 2_000)
    picture = tmp_path / "flame.svg"
    found = figures(
        "ingest", "--messages", 1_000, "--devices", 20, "--saturate", "--burst", "--flame", picture, "--vs", rival
    )
    assert (found["messages"], found["devices"], found["qos"], found["rate_asked_per_second"]) == (1_000, 20, 1, None)
    assert found["compared"]["messages"] >= 2 * 1_000 + 2 * 2_000
    assert (found["compared"]["lost"], found["compared"]["doubled"], found["compared"]["twins"]) == (0, 0, 20)
    assert [found["burst"][name]["messages"] for name in ("busy", "stopped")] == [2_000, 2_000]
    assert found["mosquitto_sub"]["messages"] == 1_000
    assert found["rival"]["lines"] == 1_000
    assert found["ratio_rival"] == pytest.approx(
        found["rival"]["cpu_us_per_message"] / found["cpu_us_per_message"], abs=0.01
    )
    assert 0 < found["batch_messages"]["mean"] <= found["batch_messages"]["max"] <= 1_000
    assert 0 < found["rss_mb_start"] <= found["rss_mb_max"]
    svg = picture.read_text()
    assert re.search(r"<title>Pipeline\.run \(cloud/pipeline\.py\): \d+\.\d%</title>", svg)
    assert str(tmp_path) not in svg
    assert sum(part["percent"] for part in found["where"].values()) == pytest.approx(100, abs=15)


def test_mutual_tls_qos_0_and_a_rate_beside_the_naive_way_then_presses_while_telemetry_saturates(monkeypatch):
    monkeypatch.setattr(ingest, "SETTLE_S", 0.0)
    monkeypatch.setattr(ingest, "IDLE_S", 0.3)
    monkeypatch.setattr(press, "COUNTS", {"bike": 0, "meal_machine": 0, "nursing_room": 4})
    monkeypatch.setattr(ingest_press, "FULL_MESSAGES", 2_000)
    found = figures(
        "ingest", "--messages", 1_000, "--devices", 20, "--rate", 1_000, "--qos", 0, "--tls", "--presses", 3
    )
    assert (found["listener"], found["qos"], found["rate_asked_per_second"]) == ("mutual TLS", 0, 1_000)
    assert 500 <= found["messages_per_second"] <= 1_050
    assert 0 < found["mosquitto_sub"]["messages_per_second"] <= 1_050
    assert found["cpu_us_per_message_above_idle"] <= found["cpu_us_per_message"]
    assert found["naive_cpu_us_per_message"] == found["rival"]["cpu_us_per_message"] > 0
    presses = found["presses"]
    assert presses["presses"] >= 3
    assert 0 < presses["press_to_notified_ms"]["p50"] <= presses["press_to_notified_ms"]["max"]
    assert presses["goal_held"] is (presses["press_to_notified_ms"]["p99"] <= 250)
    assert presses["telemetry_messages_per_second"] > 0


def test_bounds_of_this_machine(tmp_path):
    found = figures("bounds", "--seconds", 0.05, "--messages", 1_000, "--folder", tmp_path)
    assert found["broker"]["messages"] == 800
    assert found["memcpy_gb_per_second"] > 0
    for name in ("fdatasync_4_kb_ms", "fdatasync_batch_ms", "sqlite_full_commit_ms"):
        assert found[name]["p50"] > 0
        assert found[name]["p99"] <= found[name]["max"]
    assert found["gzip_1_us_per_line"]["isal"] > 0
    assert found["gzip_1_us_per_line"]["ratio"] > 1
    assert not list(tmp_path.iterdir())


# --- rivals, on a broker alone -----------------------------------------------------------------------------------


@pytest.fixture
def contest(tmp_path):
    broker = Broker(tmp_path / "broker")
    broker.start()
    load = IngestLoad(Fleet(10, real_now_ms()), broker.port)
    yield ingest_rivals.Contest(load, broker.port, broker.pid, (), 0.0, 1_000)
    load.stop()
    broker.stop()


def test_a_rival_that_ends_is_no_figure(contest, tmp_path):
    with pytest.raises(BenchError, match=r"ended with 3 before it subscribed\nno such broker"):
        ingest_rivals.against_command(contest, "sh -c 'echo no such broker; exit 3' {port} {sink_port}", tmp_path)


def test_a_rival_that_never_subscribes_is_no_figure(contest, tmp_path, monkeypatch):
    monkeypatch.setattr(ingest_rivals, "READY_S_MAX", 0.3)
    with pytest.raises(BenchError, match=r"did not subscribe to f/\+/\+/up/telemetry"):
        ingest_rivals.against_command(contest, "sleep 60 {port} {sink_port}", tmp_path)


def test_a_rival_that_writes_less_than_it_got_is_no_figure(contest, tmp_path, rival):
    with pytest.raises(BenchError, match="it wrote 900 lines of 1000 messages"):
        ingest_rivals.against_command(contest, f"{rival} 900", tmp_path, limit_s=1.5)


def test_a_command_that_is_not_there_any_more_is_an_error(contest, tmp_path):
    with pytest.raises(BenchError, match="nowhere"):
        ingest_rivals.against_command(contest, "/nowhere/telegraf {port} {sink_port}", tmp_path)
