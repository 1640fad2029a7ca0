"""docker-compose.yml, Dockerfile and deploy/: what can be known without a container daemon."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cloud.settings import CloudSettings
from fleet import topics
from scripts import tidy

ROOT = tidy.ROOT
PKI_FOLDERS = ("online", "trust", "crl")
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


def test_every_service_is_watched_and_runs_without_root(compose):
    for name, service in compose["services"].items():
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["profiles"], name
        assert not service.get("privileged")


def test_profiles(compose):
    def of(profile):
        return {name for name, service in compose["services"].items() if profile in service["profiles"]}

    assert of("core") == {"broker", "cloud"}
    assert of("full") == set(compose["services"]) - {"cloud"}
    for profile in ("core", "full"):
        for name in of(profile):
            assert set(compose["services"][name].get("depends_on", {})) <= of(profile), name


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
        signs = any("pki/online" in mount for mount in mounts)
        assert signs is (name in {"cloud", "api"}), name
        assert (service.get("environment", {}).get("FLEET_PKI_DIRECTORY") == "/pki") is signs, name
        for mount in mounts:
            writes = not mount.endswith(":ro")
            assert writes is (signs and "/crl:" in mount), (name, mount)


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
    assert mounts["./dashboards/golden/zh"] == provider["options"]["path"]


def test_the_entrypoint_hands_secret_files_over(tmp_path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "fleet_influxdb_token").write_text("a b$c\n")
    (secrets / "command_key").write_text("not a setting")
    script = (ROOT / "deploy/entrypoint.sh").read_text().replace("/run/secrets", str(secrets))
    done = subprocess.run(["sh", "-c", script, "sh", "env"], capture_output=True, text=True, check=True)
    assert "FLEET_INFLUXDB_TOKEN=a b$c" in done.stdout.splitlines()
    assert "not a setting" not in done.stdout


@pytest.mark.parametrize(
    "script", sorted(path.relative_to(ROOT) for path in {*ROOT.glob("*/*.sh"), *ROOT.glob("deploy/**/*.sh")}), ids=str
)
def test_shell_scripts_parse_and_are_executable(script):
    path = ROOT / script
    shell = path.read_text().splitlines()[0].rsplit("/", 1)[-1].split()[-1]
    subprocess.run([shell, "-n", str(path)], check=True)
    assert path.stat().st_mode & 0o111


def test_compose_itself_accepts_the_file(tmp_path):
    """With the client's plugin: both profiles, interpolated. Without it the structure was checked above."""
    docker = shutil.which("docker")
    plugin = docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    if not plugin:
        return
    for profile in ("core", "full"):
        command = [docker, "compose", "-f", str(ROOT / "docker-compose.yml"), "--profile", profile, "config", "-q"]
        subprocess.run(command, check=True, cwd=tmp_path, timeout=60)


def test_paths_stay_inside_the_repository(compose):
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert Path(ROOT, source).resolve().is_relative_to(ROOT)


def test_every_setting_is_documented_with_its_default():
    page = (ROOT / "docs/operations.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `FLEET_")]
    documented = {name for row in rows for name in re.findall(r"`(FLEET_\w+)`", row.split("|")[1])}
    assert documented == {f"FLEET_{name}".upper() for name in CloudSettings.model_fields}
    for name, field in CloudSettings.model_fields.items():
        if isinstance(field.default, int | float) or (isinstance(field.default, str) and field.default):
            (row,) = [row for row in rows if f"`FLEET_{name.upper()}`" in row.split("|")[1]]
            assert f"`{field.default}`" in row, name
