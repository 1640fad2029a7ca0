"""docker-compose.yml, Dockerfile and deploy/: what can be known without a container daemon."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cli.app import app
from cloud.settings import CloudSettings
from fleet import topics
from scripts import tidy

ROOT = tidy.ROOT
PKI_FOLDERS = ("online", "trust", "crl", "issued")
PINNED = re.compile(r"^[\w./-]+:\d+\.\d+\.?\d*[\w.-]*$")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_every_image_is_pinned_to_the_planned_version(compose):
    images = {name: service["image"] for name, service in compose["services"].items()}
    assert all(PINNED.match(image) for image in images.values()), images
    assert images["broker"].startswith("eclipse-mosquitto:2.0.")
    assert images["influxdb"].startswith("influxdb:2.7.")
    assert images["grafana"].startswith("grafana/grafana:11.6.")
    assert images["postgresql"].startswith("postgres:17.")
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert images["api"] == f"gaoxin-fleet:{version}"
    base = re.search(r"^ARG PYTHON=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)


ONE_SHOT = {"grafana-boards", "influxdb-setup", "doctor", "doctor-core", "doctor-scale"}
"""They end, and their exit code is what counts."""


def test_every_service_is_watched_and_runs_without_root(compose):
    for name, service in compose["services"].items():
        if name in ONE_SHOT:
            assert service["healthcheck"] == {"disable": True}, name
        else:
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["profiles"], name
        assert not service.get("privileged")


def of(compose, profile):
    return {name for name, service in compose["services"].items() if profile in service["profiles"]}


def test_profiles(compose):
    assert of(compose, "core") == {"broker", "cloud", "watchdog-core", "backup-core"}
    assert of(compose, "doctor") == {"doctor", "doctor-core", "doctor-scale"}
    assert of(compose, "scale") == {"ingest-two"}, "beside `full`"
    assert of(compose, "full") == set(compose["services"]) - {"cloud", "watchdog-core", "backup-core"} - of(
        compose, "doctor"
    ) - of(compose, "scale")
    for profile in ("core", "full"):
        for name in of(compose, profile):
            assert set(compose["services"][name].get("depends_on", {})) <= of(compose, profile), name
    assert set(compose["services"]["ingest-two"]["depends_on"]) <= of(compose, "full")


def test_two_ingesters_differ_in_their_data_directory_and_number_alone(compose):
    one, two = compose["services"]["ingest"], compose["services"]["ingest-two"]
    assert one["environment"]["FLEET_SHARDS"] == two["environment"]["FLEET_SHARDS"] == "share"
    assert {**one["environment"], "FLEET_INSTANCE": "1"} == two["environment"]
    assert one["volumes"][0] == "spool:/data"
    assert two["volumes"] == ["spool-two:/data", *one["volumes"][1:]]
    differing = {"profiles", "environment", "volumes"}
    assert {key: value for key, value in one.items() if key not in differing} == {
        key: value for key, value in two.items() if key not in differing
    }


def test_the_order_of_the_start_is_one_that_can_come_true(compose):
    services = compose["services"]
    for name, service in services.items():
        for other, wanted in service.get("depends_on", {}).items():
            ends = other in ONE_SHOT
            expected = "service_completed_successfully" if ends else "service_healthy"
            if (name, other) == ("influxdb-setup", "influxdb"):
                expected = "service_started"  # it waits by itself, and goes on without
            assert wanted["condition"] == expected, (name, other)
            assert not ends or services[other]["restart"].startswith("on-failure"), other
        before, rest = set(), [name]
        while rest:  # no circle
            for other in services[rest.pop()].get("depends_on", {}):
                assert other != name, f"{name} waits for itself"
                if other not in before:
                    before.add(other)
                    rest.append(other)


def test_everything_is_bounded_and_writes_only_where_it_may(compose):
    for name, service in compose["services"].items():
        limits = service["deploy"]["resources"]["limits"]
        assert float(limits["cpus"]) > 0, name
        assert re.fullmatch(r"\d+[MG]", limits["memory"]), name
        assert limits["pids"] > 0, name
        assert service["read_only"] is True, name
        assert (
            int(service["logging"]["options"]["max-file"]) * int(service["logging"]["options"]["max-size"][:-1]) <= 100
        )
        assert all("size=" in one or "/run/" in one for one in service.get("tmpfs", [])), name


def test_what_a_service_names_is_a_service_in_the_same_profile_on_the_same_network(compose):
    """Hosts and ports of settings, commands and health checks, against who listens there."""
    services = compose["services"]
    ports = {"broker": {8883, 8884}, "influxdb": {8086}, "grafana": {3000}, "postgresql": {5432}, "watchdog": {8090},
             "watchdog-core": {8090}}  # fmt: skip
    ports |= {name: {8000} for name in ("cloud", "api", "ingest", "ingest-two", "dispatch")}
    listeners = (ROOT / "deploy/mosquitto/mosquitto.conf").read_text()
    assert {int(port) for port in re.findall(r"^listener (\d+)", listeners, re.MULTILINE)} == ports["broker"]

    def named(service):
        environment = service.get("environment", {})
        texts = [*map(str, environment.values()), *map(str, service.get("command", []))]
        yield from ((host, int(port)) for text in texts for host, port in re.findall(r"http://([a-z-]+):(\d+)", text))
        for prefix in ("FLEET_BROKER", "FLEET_DEVICES_BROKER"):
            if f"{prefix}_HOST" in environment:
                yield environment[f"{prefix}_HOST"], int(environment[f"{prefix}_PORT"])

    def networks(service):
        return set(service.get("networks", ["default"]))

    for name, service in services.items():
        core = "core" in service["profiles"] or name.endswith("-core")
        for host, port in named(service):
            found = f"{host}-core" if core and f"{host}-core" in services else host
            assert port in ports[found], (name, host, port)
            assert networks(service) & networks(services[found]), (name, host)
            expected = of(compose, "core" if core else "full") | (
                of(compose, "scale") if name.endswith("-scale") else set()
            )
            assert found in expected, (name, host)
    assert "watchdog" in services["watchdog-core"]["networks"]["default"]["aliases"]
    assert compose["networks"]["stores"] == {"internal": True}
    assert networks(services["postgresql"]) == networks(services["influxdb"]) == {"stores"}


def as_by_default(word):
    """A text of the file where nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word)


def test_every_command_of_ours_is_one_that_the_command_line_knows(compose):
    from typer.main import get_command

    from cli.app import app

    for name, service in compose["services"].items():
        for words in (service.get("command"), service["healthcheck"].get("test", [""])[1:]):
            if not isinstance(words, list) or words[:1] != ["fleet"]:
                continue
            command, rest = get_command(app), [as_by_default(word) for word in words[1:]]
            context = command.make_context("fleet", [], resilient_parsing=True)
            while hasattr(command, "get_command") and rest:
                found = command.get_command(context, rest[0])
                assert found is not None, (name, words)
                command, rest = found, rest[1:]
            command.parse_args(command.make_context(command.name, [], resilient_parsing=True), rest)


def test_a_secret_that_is_read_is_one_that_is_given(compose):
    for name, service in compose["services"].items():
        given = {one if isinstance(one, str) else one["target"] for one in service.get("secrets", [])}
        read = set(
            re.findall(
                r"/run/secrets/(\w+)",
                str({key: service.get(key) for key in ("environment", "healthcheck", "command")}),
            )
        )
        assert read <= given, (name, read - given)


def test_what_grafana_shows_when_it_tells_of_the_platform_is_what_the_api_knows(compose):
    given = {"source": "platform_alert_secret", "target": "fleet_platform_alert_secret"}
    assert {name for name, one in compose["services"].items() if given in one.get("secrets", [])} == {"api", "grafana"}
    points = (ROOT / "deploy/grafana/alerting/contact-points.yaml").read_text()
    assert "$__file{/run/secrets/fleet_platform_alert_secret}" in points
    assert "http://api:8000/" in points
    mounted = compose["services"]["grafana"]["volumes"]
    assert "./deploy/grafana/alerting:/etc/grafana/provisioning/alerting:ro" in mounted


def test_backups_are_sealed_and_their_key_is_where_they_are_made_alone(compose):
    """Archives hold the keys that sign commands, and are copied to many places."""
    holders = {name for name, one in compose["services"].items() if "backup_key" in one.get("secrets", [])}
    assert holders == {"backup", "backup-core"}
    for name in holders:
        command = compose["services"][name]["command"]
        assert command[command.index("--key-file") + 1] == "/run/secrets/backup_key"


def test_the_second_ingester_is_asked_by_the_doctor_of_its_profile(compose):
    one, scale = (dict(compose["services"][name]) for name in ("doctor", "doctor-scale"))
    asked = {word for word in scale.pop("command") if word.startswith("http")}
    assert asked - {word for word in one.pop("command") if word.startswith("http")} == {"http://ingest-two:8000"}
    assert one == scale


def test_every_secret_is_made_by_the_script(compose):
    script = (ROOT / "deploy/make_secrets.sh").read_text()
    for secret in compose["secrets"].values():
        name = secret["file"].removeprefix("./deploy/secrets/")
        made = re.search(rf"(?:^|\| )(?:password|key|put) {re.escape(name)}\b", script, re.MULTILINE)
        assert made or name.startswith("pki/"), name


def test_grafana_and_the_people_behind_it_can_only_read(compose):
    grafana = compose["services"]["grafana"]
    assert not any("influxdb" in str(secret) for secret in grafana["secrets"])
    assert "influxdb-reader:/run/reader:ro" in grafana["volumes"]
    assert not any("influxdb-tokens" in volume for volume in grafana["volumes"])
    source = (ROOT / "deploy/grafana/datasources/influxdb.yaml").read_text()
    assert "$__file{/run/reader/fleet_influxdb_reader_token}" in source
    holders = {name for name, one in compose["services"].items() if "influxdb_admin_token" in one.get("secrets", [])}
    assert holders == {"influxdb", "influxdb-setup"}


def test_all_connections_to_postgresql_fit(compose):
    from cloud.adapters.sql.database import POSTGRESQL_SPARE, POSTGRESQL_WRITERS, READERS

    services = compose["services"]
    holders = [
        one
        for one in services.values()
        if {"source": "database_url", "target": "fleet_database_url"} in one.get("secrets", [])
    ]
    each = POSTGRESQL_WRITERS + READERS + POSTGRESQL_SPARE + 1  # and one that listens for wake-ups
    most = int(re.search(r"max_connections=(\d+)", services["postgresql"]["command"])[1])
    assert len(holders) == 8, "one of them a doctor's other form"
    assert len(holders) * each + 3 + 5 <= most, "and three for a superuser, five for people"


def test_what_is_mounted_exists_or_is_made_by_the_script(compose):
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./deploy/secrets/pki/"):
                assert source.removeprefix("./deploy/secrets/pki/") in PKI_FOLDERS, "made by the script"
                continue
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"], (name, volume)
        for secret in service.get("secrets", []):
            assert (secret if isinstance(secret, str) else secret["source"]) in compose["secrets"], (name, secret)
    assert all(secret["file"].startswith("./deploy/secrets/") for secret in compose["secrets"].values())


def test_secrets_are_in_files_only(compose):
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET|DATABASE_URL|_KEY", key):
                assert key.endswith("_FILE"), (name, key)
                assert str(value).startswith("/run/secrets/"), (name, key)
    ignored = subprocess.run(["git", "check-ignore", "-q", "deploy/secrets/command_key"], cwd=ROOT, check=False)
    assert ignored.returncode == 0
    assert "deploy/secrets" in (ROOT / ".dockerignore").read_text().splitlines()


def test_our_variables_are_settings(compose):
    known = {f"FLEET_{name}".upper() for name in CloudSettings.model_fields}
    for service in compose["services"].values():
        used = {key for key in service.get("environment", {}) if key.startswith("FLEET_")}
        targets = (secret["target"] for secret in service.get("secrets", []) if isinstance(secret, dict))
        assert used | {target.upper() for target in targets} <= known
    made = set(re.findall(r"/(fleet_\w+)", (ROOT / "deploy/prepare_influxdb.sh").read_text()))
    assert {name.upper() for name in made} == {"FLEET_INFLUXDB_TOKEN", "FLEET_INFLUXDB_READER_TOKEN"} <= known


def test_only_the_broker_listens_beyond_this_machine_by_default(compose):
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert name == "broker" or ":-127.0.0.1:" in port, (name, port)


def test_the_image_is_built_in_stages_from_hashed_locks():
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE) == ["build", "base", "edge", "cloud"]
    assert text.count("--require-hashes") == 3
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert text.count("\nHEALTHCHECK ") == 1
    copied = re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE)
    assert all((ROOT / source).exists() for source in copied)
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / name).exists() for name in sent)
    packages = re.search(r"^packages = \[(.+)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert {name.strip(' "') for name in packages.split(",")} <= set(sent)


def test_no_device_can_have_the_name_of_the_ingester():
    assert not topics.is_device_id(topics.INGESTER_NAME)
    script = (ROOT / "deploy/make_secrets.sh").read_text()
    assert f"pki service {topics.INGESTER_NAME} " in script


def test_who_signs_has_the_online_keys_and_nobody_has_the_offline_ones(compose):
    for name, service in compose["services"].items():
        mounts = [volume for volume in service.get("volumes", []) if volume.startswith("./deploy/secrets/pki")]
        assert all(mount.startswith(tuple(f"./deploy/secrets/pki/{one}:" for one in PKI_FOLDERS)) for mount in mounts)
        holds = any("pki/online" in mount for mount in mounts)
        watches = {"watchdog", "watchdog-core"}  # sign for the synthetic room
        reads = {"backup", "backup-core", "doctor", "doctor-core", "doctor-scale"}
        assert holds is (name in {"cloud", "api"} | watches | reads), name
        assert (service.get("environment", {}).get("FLEET_PKI_DIRECTORY") == "/pki") is holds, name
        assert any("pki/issued" in mount for mount in mounts) is (name in reads), name
        for mount in mounts:
            writes = not mount.endswith(":ro")
            assert writes is (name in {"cloud", "api"} and "/crl:" in mount), (name, mount)


def test_the_broker_resumes_no_session_and_reads_new_lists(compose):
    broker = compose["services"]["broker"]
    assert broker["environment"]["OPENSSL_CONF"] == "/mosquitto/config/openssl.cnf"
    assert broker["entrypoint"][-1] == "/mosquitto/config/run.sh"
    assert "./deploy/mosquitto:/mosquitto/config:ro" in broker["volumes"]


def test_grafana_reads_the_boards_that_are_tested(compose):
    source = yaml.safe_load((ROOT / "deploy/grafana/datasources/influxdb.yaml").read_text())["datasources"][0]
    environment = compose["services"]["influxdb"]["environment"]
    assert source["jsonData"]["dbName"] == environment["DOCKER_INFLUXDB_INIT_BUCKET"]
    provider = yaml.safe_load((ROOT / "deploy/grafana/boards/fleet.yaml").read_text())["providers"][0]
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    assert mounts["grafana-boards"] == provider["options"]["path"]


def test_compose_itself_accepts_the_file(tmp_path):
    """With the client, which needs no engine for it: every profile, interpolated, against its own schema."""
    alone, docker = shutil.which("docker-compose"), shutil.which("docker")
    client = [alone] if alone else [docker, "compose"] if docker else None
    if client is None or subprocess.run([*client, "version"], capture_output=True, check=False).returncode:
        return  # the structure is checked by the other tests
    (tmp_path / "deploy/secrets").mkdir(parents=True)
    (tmp_path / "deploy/secrets/fleet.env").write_text("")
    for profile in ("core", "full", "doctor"):
        command = [
            *client,
            "--project-directory",
            str(tmp_path),
            "-f",
            str(ROOT / "docker-compose.yml"),
            "--profile",
            profile,
        ]
        shown = subprocess.run(
            [*command, "config", "--services"], check=True, capture_output=True, text=True, timeout=60
        )
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        assert set(shown.stdout.split()) >= {name for name, one in services.items() if profile in one["profiles"]}


def test_paths_stay_inside_the_repository(compose):
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert Path(ROOT, source).resolve().is_relative_to(ROOT)


def test_grafana_reads_boards_whose_links_lead_into_the_application(compose, tmp_path):
    maker, grafana = compose["services"]["grafana-boards"], compose["services"]["grafana"]
    assert maker["environment"] == {"FLEET_PUBLIC_URL": "${FLEET_PUBLIC_URL:-}"}
    assert grafana["depends_on"]["grafana-boards"] == {"condition": "service_completed_successfully"}
    assert {one.partition(":")[0] for one in maker["volumes"]} & {one.partition(":")[0] for one in grafana["volumes"]}
    command = [str(tmp_path) if word == "/boards" else as_by_default(word) for word in maker["command"]][1:]
    (tmp_path / "fleet-gone.json").write_text("{}")
    done = CliRunner().invoke(app, command, env={"FLEET_PUBLIC_URL": "https://fleet.example/"})
    assert done.exit_code == 0, done.output
    boards = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.json")}
    assert "fleet-overview" in boards
    assert "fleet-gone" not in boards
    for board in boards.values():
        variables = {one["name"]: one for one in board["templating"]["list"]}
        assert variables["application"]["current"]["value"] == variables["application"]["query"]
        assert variables["application"]["query"] == "https://fleet.example"
    links = [one.get("url") for one in boards["fleet-overview"]["links"]]
    assert "${application:raw}/alarms" in links
