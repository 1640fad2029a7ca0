"""The parts of `fleet bench ingest`: what is sent, what is compared, what is asked for, and the picture."""

import json
import shutil
import time
from types import SimpleNamespace

import pytest
from cli_support import fleet, one_line
from mqtt5 import PublishPacket, QoS

from cli.bench import ingest, ingest_check, ingest_flame, ingest_flow, ingest_load, ingest_rivals
from cli.bench.ingest_load import Fleet, Phase, Templates, sent_envelope, sent_reading
from cli.bench.load import LOW_BATTERY_DEVICES, bench_device
from cli.bench.rig import BenchError, Rig
from cloud.timeseries.spool import Spool

FLEET = Fleet(devices=10, at_ms=1_700_000_000_000)


# --- the load ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1])
def test_packets_put_together_from_parts_are_what_a_device_sends(qos):
    sender = Fleet(10, FLEET.at_ms, qos)
    templates = Templates(sender)
    ids = [number.to_bytes(2) for number in range(1, 11)]
    for seq in (1, 9, 10, 99, 100, 123_456, 10):
        expected = b"".join(
            PublishPacket(
                *sent_envelope(sender, number, seq), qos=QoS(qos), packet_id=number + 1 if qos else None
            ).write()
            for number in range(10)
        )
        assert templates.packets(seq, 0, 10, ids) == expected


def test_readings_change_from_message_to_message():
    assert ingest_load.variants(400) == 20
    assert ingest_load.variants(100_000) == 2
    one, other = (sent_reading(FLEET, 7, seq) for seq in (1, 2))
    assert {name for name in one if one[name] != other[name]} >= {"at", "battery_percent", "temperature_celsius"}


@pytest.mark.parametrize(("rate", "largest"), [(0.0, 3), (500.0, 1), (1_000_000.0, 3)])
def test_every_device_sends_each_of_its_messages_once_in_order_over_one_connection(rate, largest):
    seen: dict[int, list[tuple[int, int]]] = {}
    for seq, connection, first, end in ingest_load._parts(FLEET, Phase(5, 3, rate)):
        assert 1 <= end - first <= largest
        for number in range(first, end):
            seen.setdefault(number, []).append((seq, connection))
    assert sorted(seen) == list(range(10))
    for parts in seen.values():
        assert [seq for seq, _ in parts] == [5, 6, 7]
        assert len({connection for _, connection in parts}) == 1


# --- memory ------------------------------------------------------------------------------------------------------


def test_the_slope_of_memory_is_that_of_the_second_half():
    climbing = ingest_flow.Memory([(0.0, 500.0)] * 20 + [(number * 1e5, 100 + number) for number in range(20)])
    assert climbing.slope_mb_per_million() == pytest.approx(10.0)
    assert ingest_flow.Memory([(number * 1e5, 100.0) for number in range(40)]).slope_mb_per_million() == 0.0
    assert ingest_flow.Memory([(1.0, 100.0)] * 40).slope_mb_per_million() is None
    assert ingest_flow.Memory([(number * 1e5, 100.0) for number in range(8)]).slope_mb_per_million() is None


class Stalled(Rig):
    """A cloud that has taken five messages and takes no more."""

    def __init__(self):
        self.cloud = SimpleNamespace(running=True, last_words=str)

    def metric(self, name):
        return {ingest_flow.TELEMETRY: 5.0, "fleet_holes_total": 7.0}.get(name, 0.0)


def test_a_flow_that_stalls_ends_the_bench_and_says_what_was_counted_instead(tmp_path, monkeypatch):
    for name in ("QUIET_S", "ASK_S", "STALL_S_MAX"):
        monkeypatch.setattr(ingest_flow, name, 0.0)
    rig = Stalled()
    progress = ingest_flow.SpoolProgress(rig, tmp_path)
    with pytest.raises(BenchError, match=r"5 of 10 messages are committed.*fleet_holes_total 7"):
        ingest_flow.wait_for(rig, progress, 10, 5.0)
    ingest_flow.wait_for(rig, progress, 5, 5.0)


def test_the_end_of_a_flow_is_not_before_what_came_while_the_cloud_was_asked(tmp_path, monkeypatch):
    """A count may know of messages that the last look at the spool had not seen yet."""
    for name in ("QUIET_S", "ASK_S"):
        monkeypatch.setattr(ingest_flow, name, 0.0)
    asked_s = []

    class Growing(Stalled):
        def metric(self, name):
            assert name == ingest_flow.TELEMETRY
            spool_of(tmp_path, [1])
            asked_s.append(time.monotonic())
            return 10.0

    rig = Growing()
    assert ingest_flow.wait_for(rig, ingest_flow.SpoolProgress(rig, tmp_path), 10, 5.0) >= asked_s[0]


def test_the_size_of_a_spool_is_known_from_outside_also_when_it_let_go_of_its_beginning(tmp_path):
    assert ingest_flow.spool_position(tmp_path / "none") == 0
    spool_of(tmp_path, range(1, 9), segment_bytes_max=8_000, release=True)
    spool = Spool(tmp_path, consumers=("twin",))
    assert ingest_flow.spool_position(tmp_path) == spool.synced_position > 8_000
    spool.close()


# --- what the cloud must hold ------------------------------------------------------------------------------------


def good(last_seq=3):
    names = [bench_device(number) for number in range(10)]
    return ingest_check.Held(
        dict.fromkeys(names, last_seq),
        {name: {**sent_reading(FLEET, number, last_seq), "more": 1} for number, name in enumerate(names)},
        {bench_device(number) for number in range(LOW_BATTERY_DEVICES)},
        0,
    )


def test_a_database_that_holds_what_was_sent_passes():
    ingest_check.compare_database(good(), FLEET, 3)


def spoil_mark(held):
    held.marks["bike-0007"] = 2


def spoil_missing(held):
    del held.marks["bike-0010"]


def spoil_reading(held):
    held.readings["bike-0003"]["battery_percent"] = 1.5


def spoil_alarms(held):
    held.alarmed.discard("bike-0001")


def spoil_more_alarms(held):
    held.alarmed.add("bike-0009")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_mark, "1 twins are not at message 3: bike-0007"),
        (spoil_missing, "not at message 3: bike-0010"),
        (spoil_reading, "the twin of bike-0003 holds"),
        (spoil_alarms, "alarms for bike-0001"),
        (spoil_more_alarms, "alarms for bike-0009"),
    ],
)
def test_anything_else_is_no_figure(spoil, words):
    held = good()
    spoil(held)
    with pytest.raises(BenchError, match=words):
        ingest_check.compare_database(held, FLEET, 3)


def test_what_was_set_aside_is_no_figure():
    held = good()
    with pytest.raises(BenchError, match="2 messages were set aside"):
        ingest_check.compare_database(ingest_check.Held(held.marks, held.readings, held.alarmed, 2), FLEET, 3)


def spool_of(folder, seqs, *, segment_bytes_max=1 << 20, release=False):
    """Each device's messages with these numbers, a batch for each number."""
    spool = Spool(folder, consumers=("twin",), segment_bytes_max=segment_bytes_max)
    for seq in seqs:
        spool.append([sent_envelope(FLEET, number, seq)[1] for number in range(10)], [0] * 10)
        spool.sync()
    if release:
        spool.release("twin", spool.synced_position)
    spool.close()


def test_a_whole_spool_passes_and_tells_its_batches(tmp_path):
    spool_of(tmp_path, [1, 2, 3])
    ingest_check.compare_spool(tmp_path, FLEET, 3)
    assert ingest_check.batch_sizes(tmp_path, range(2, 4)) == {"mean": 10.0, "p50": 10.0, "max": 10.0}
    assert ingest_check.batch_sizes(tmp_path, range(4, 9)) is None


def test_a_spool_may_have_let_go_of_its_beginning_only(tmp_path):
    spool_of(tmp_path, range(1, 9), segment_bytes_max=8_000, release=True)
    assert not (tmp_path / f"{0:020d}.spool").exists()
    ingest_check.compare_spool(tmp_path, FLEET, 8)
    with pytest.raises(BenchError, match="does not hold what bike-0001 sent"):
        ingest_check.compare_spool(tmp_path, FLEET, 9)


@pytest.mark.parametrize(
    ("seqs", "words"),
    [
        ([1, 3], "bike-0001's message 3 follows 1"),
        ([1, 2, 2, 3], "bike-0001's message 2 follows 2"),
        ([2, 3], "messages 2 to 3 of 3"),
        ([1, 2], "messages 1 to 2 of 3"),
        ([], "messages None to None of 3"),
    ],
)
def test_a_hole_in_the_spool_is_no_figure(tmp_path, seqs, words):
    spool_of(tmp_path, seqs)
    with pytest.raises(BenchError, match=words):
        ingest_check.compare_spool(tmp_path, FLEET, 3)


# --- the picture -------------------------------------------------------------------------------------------------

FOLDED = """\
thread (12): MainThread;<module> (cli/main.py:1);_run_once (asyncio/base_events.py:9);accept (cloud/ingest/a.py:3) 6
thread (12): MainThread;<module> (cli/main.py:1);accept (cloud/ingest/a.py:3);<lambda> (re/__init__.py:1) 2
thread (0x7F12): spool_0;_worker (concurrent/futures/thread.py:69) 900
thread (0x7F12): spool_0;_worker (concurrent/futures/thread.py:69);append (cloud/timeseries/spool.py:8) 1
thread (12): MainThread;select (selectors.py:451) 1
not a stack
"""


def test_shares_go_to_the_innermost_file_of_ours_and_waiting_threads_do_not_count():
    stacks = list(ingest_flame.parse(FOLDED))
    assert [stack.thread for stack in stacks] == ["MainThread", "MainThread", "spool", "MainThread"]
    assert ingest_flame.shares(stacks) == {
        "cloud/ingest/a.py": 0.8, "cloud/timeseries/spool.py": 0.1, ingest_flame.OTHERS: 0.1,
    }  # fmt: skip


def test_the_picture_names_each_function_with_its_share():
    picture = ingest_flame.draw(list(ingest_flame.parse(FOLDED)), "5 < 6 µs")
    assert "5 &lt; 6 µs" in picture
    assert "<title>accept (cloud/ingest/a.py): 80.0%</title>" in picture
    assert "<title>&lt;lambda&gt; (re/__init__.py): 20.0%</title>" in picture
    assert "cli/main.py" not in picture


def test_what_is_made_from_the_tables_of_alarms_counts_for_who_makes_it():
    folded = "thread (1): MainThread;fold (cloud/pipeline.py:1);quiet (<quiet>:1) 4\n"
    assert ingest_flame.shares(list(ingest_flame.parse(folded))) == {"cloud/rules/conditions.py": 1.0}


def test_a_profiler_that_may_not_look_says_what_to_allow(tmp_path):
    class Refused:
        returncode = 1

        def communicate(self, timeout):
            assert timeout == 1
            return "", "Error: Permission Denied: Try running again with elevated permissions"

    with pytest.raises(BenchError, match="SYS_PTRACE"):
        ingest_flame.Recording(Refused(), tmp_path / "nothing").finish(1)


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rate", "2000", "--saturate"], "--rate and --saturate exclude each other"),
        (["--vs", "sh {port} {sink_port} {host}"], "unknown placeholder {host}; known: {messages}, {port}"),
        (["--vs", "sh {port}"], "the command needs {sink_port}"),
        (["--vs", "sh -c 'unclosed {port} {sink_port}"], "No closing quotation"),
        (["--vs", "sh {port {sink_port}"], "is meant as one is written twice"),
        (["--vs", "telegraf-nowhere {port} {sink_port}"], "'telegraf-nowhere' is not installed here"),
        (["--vs", "env PORT={port} telegraf-nowhere {sink_port}"], "'telegraf-nowhere' is not installed here"),
        (["--vs", ""], "write naive, none or a command line"),
        (["--vs", "sh {port} {sink_port}", "--tls"], "leave out --tls"),
        (["--messages", "1000", "--devices", "4000"], "4000 devices send at least one each"),
        (["--flame", "/no/such/folder/f.svg"], "there is no such folder"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(arguments, words, monkeypatch):
    monkeypatch.setattr(ingest, "measure", pytest.fail)
    result = fleet("bench", "ingest", *arguments, "--json")
    assert result.exit_code == 2
    assert words in one_line(result)
    assert not result.stdout


@pytest.mark.parametrize("arguments", [("--rate", "0"), ("--qos", "2"), ("--messages", "1"), ("--devices", "1")])
def test_numbers_out_of_range_are_refused(arguments):
    assert fleet("bench", "ingest", *arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "missing", "words"),
    [
        (["ingest"], "mosquitto_sub", "install mosquitto-clients"),
        (["bounds"], "mosquitto_sub", "install mosquitto-clients"),
        (["ingest", "--flame", "flame.svg"], "py-spy", "pip install 'gaoxin-fleet[profile]'"),
    ],
)
def test_a_missing_tool_is_named_before_anything_starts(arguments, missing, words, monkeypatch, tmp_path):
    which = shutil.which
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name, **more: None if name == missing else which(name, **more) or name)
    monkeypatch.setattr(ingest_flame.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(ingest, "Rig", pytest.fail)
    result = fleet("bench", *arguments)
    assert result.exit_code == 1
    assert words in " ".join(result.stderr.split())


def test_bounds_need_a_folder_that_is_there():
    result = fleet("bench", "bounds", "--folder", "/no/such/folder")
    assert result.exit_code == 2
    assert "there is no such folder" in one_line(result)


@pytest.mark.parametrize("command", ["sh -c 'x {{literal}}' {port} {topic} {sink_port} {messages}"])
def test_a_command_with_known_placeholders_passes(command):
    ingest_rivals.check_command(command)


def test_the_load_reads_its_fleet_from_the_command_line():
    arguments = ingest_load.arguments(FLEET, 1883, ["ca", "certificate", "key"])
    assert Fleet(**json.loads(arguments[3])) == FLEET
    assert arguments[4:] == ["1883", "ca", "certificate", "key"]
