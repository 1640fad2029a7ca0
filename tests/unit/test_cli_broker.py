"""Ports that stay free until their server starts; the broker's configuration, and that everybody runs the same one."""

import datetime as dt
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import broker
from cli.app import app
from cli.broker import BrokerError, free_port
from cli.broker_configuration import (
    BrokerPlan,
    BrokerTls,
    access_list,
    configuration,
    container_plan,
    plain_configuration,
    write,
)
from cloud.identity.pki_folder import PkiFolder
from scripts.tidy import ROOT


def test_a_free_port_can_be_bound_and_is_none_of_those_for_outgoing_connections():
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(50):
        port = free_port()
        assert port < max(ephemeral, 20_000)
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as every server does: old connections linger
            server.bind(("127.0.0.1", port))


def test_a_taken_port_is_not_chosen(monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        monkeypatch.setattr(broker.random, "randrange", lambda *_: taken)
        with pytest.raises(BrokerError, match="no free TCP port"):
            free_port()


@pytest.fixture
def plan(tmp_path):
    names = ("devices.pem", "services.pem", "broker.pem", "broker.key", "list.pem")
    return BrokerPlan(directory=tmp_path, tls=BrokerTls(*(tmp_path / name for name in names)), address="127.0.0.1")


def sections(text):
    """Lines before the first listener, then those of each listener."""
    found = [[]]
    for line in (line for line in text.splitlines() if line and not line.startswith("#")):
        if line.startswith("listener "):
            found.append([])
        found[-1].append(line)
    return found


def test_each_door_asks_for_a_certificate_of_its_own_domain(plan):
    general, devices, services = sections(configuration(plan))
    assert "allow_anonymous false" in general
    assert "allow_anonymous true" not in configuration(plan)
    assert devices[0] == "listener 8883 127.0.0.1"
    assert services[0] == "listener 8884 127.0.0.1"
    for lines, root in ((devices, "devices.pem"), (services, "services.pem")):
        assert {"require_certificate true", "use_identity_as_username true", "tls_version tlsv1.2"} <= set(lines)
        assert f"cafile {plan.directory / root}" in lines
    assert {"use_username_as_clientid true", f"crlfile {plan.directory / 'list.pem'}"} <= set(devices)
    assert "use_username_as_clientid true" not in services, "the cloud takes a device's session over by its client id"


def test_a_device_is_confined_to_its_own_topics_and_only_the_ingester_to_none():
    patterns, _, of_ingester = access_list().partition("user fleet.ingester")
    assert of_ingester
    for line in patterns.split("\n"):
        assert not line or ("pattern " in line and "/%u/" in line), f"not confined to the device's own topics: {line}"
    assert access_list("bench.load").endswith("user bench.load\ntopic readwrite f/#\n")
    assert "bench" not in access_list()


def test_nothing_is_kept_unless_asked_for(plan):
    text = configuration(plan)
    assert "persistence false" in text
    assert "autosave" not in text
    kept = configuration(replace(plan, persist=True))
    assert {"persistence true", "autosave_on_changes false"} <= set(kept.splitlines())


def test_demo_benches_and_tests_run_what_production_runs(plan):
    """One generator: a broker of ours differs from the deployed one in ports, places, log and account alone."""
    ours = configuration(replace(plan, log="stderr", user="root", pid_file=plan.directory / "pid", devices_port=1))
    deployed = (ROOT / "deploy/mosquitto/mosquitto.conf").read_text()
    placed = ("listener", "cafile", "certfile", "keyfile", "crlfile", "acl_file", "log_dest", "user", "pid_file")
    kept = [[line for line in text.splitlines() if line.split(" ")[0] not in placed] for text in (ours, deployed)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("name", ["acl", "mosquitto.conf", "openssl.cnf"])
def test_the_deployed_files_are_those_of_the_generator(tmp_path, name):
    """To renew them: fleet broker config --container --directory deploy/mosquitto"""
    write(container_plan(), tmp_path)
    assert (ROOT / "deploy/mosquitto" / name).read_text() == (tmp_path / name).read_text()


def test_the_plain_listener_is_on_loopback_and_has_the_same_limits(plan):
    plain = plain_configuration(plan.directory, 1883)
    general, listener = sections(plain)
    assert listener == ["listener 1883 127.0.0.1", "allow_anonymous true"]
    limits = {line for line in general if line.startswith(("max_", "set_", "retain_"))}
    assert limits
    assert limits <= set(configuration(plan).splitlines())


def test_every_line_is_explained_in_the_operations_page(plan):
    page = (ROOT / "docs/operations.md").read_text()
    text = configuration(replace(plan, persist=True, user="x", pid_file=plan.directory / "pid"))
    names = {line.split(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}
    assert {name for name in names if f"`{name}`" not in page} == set()


# --- the commands ------------------------------------------------------------------------------------------------


def fleet(*arguments):
    return CliRunner().invoke(app, ["broker", *map(str, arguments)])


@pytest.fixture
def pki(tmp_path):
    folder = PkiFolder(tmp_path / "pki")
    now = dt.datetime.now(dt.UTC)
    folder.initialise(now)
    folder.issue_server(["localhost"], now)
    return folder


def test_config_writes_everything_from_a_few_options(pki, tmp_path):
    done = fleet("config", "--directory", tmp_path / "out", "--pki", pki.directory, "--devices-port", 1, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert sorted(Path(file).name for file in told["files"]) == ["acl", "mosquitto.conf", "openssl.cnf"]
    assert Path(told["environment"]["OPENSSL_CONF"]).is_file()
    text = (tmp_path / "out" / "mosquitto.conf").read_text()
    for path in (pki.root_file("devices"), pki.root_file("services"), pki.revocation_file, *pki.issued_files("broker")):
        assert str(path) in text


def test_config_without_certificates_or_with_one_port_names_the_fix(pki, tmp_path):
    done = fleet("config", "--directory", tmp_path / "out", "--pki", tmp_path / "nowhere")
    assert done.exit_code == 1
    assert "fleet pki init" in done.stderr
    pki.issued_files("broker")[0].unlink()
    assert "fleet pki server" in fleet("config", "--directory", tmp_path / "out", "--pki", pki.directory).stderr
    same = fleet("config", "--directory", tmp_path, "--pki", pki.directory, "--services-port", 8883)
    assert same.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_check_says_what_is_wrong_and_what_to_do(pki):
    pki.revocation_file.write_text("garbage")
    pki.issued_files("broker")[1].chmod(0o644)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        done = fleet("check", "--pki", pki.directory, "--devices-port", port, "--services-port", port, "--json")
    assert done.exit_code == 3
    findings = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert "fleet pki crl" in findings["Revocation list"]["found"]
    assert "chmod" in findings["Broker's key"]["fix"]
    assert "start the broker" in findings["Services' port refuses strangers"]["fix"]
    assert findings["Broker's certificate"]["verdict"] == "ok"
