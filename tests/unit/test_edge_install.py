"""`fleet edge install`: the unit is what systemd accepts, is hardened, bounded, and fits several devices on one box."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from cli import edge_unit
from cli.app import app
from cli.edge_install import InstallError, plan
from edge.settings import load_settings

EXPOSURE_MAX = 2.0
"""systemd's own measure from 0 to 10; a plain service has 9.6."""


def write_config(folder, *, device_id="bike-001", transport="serial:/dev/ttyUSB0?baud=9600", more="", data=None):
    public = Ed25519PrivateKey.generate().public_key()
    (folder / "main.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    config = folder / f"{device_id}.toml"
    config.write_text(f"""
device_id = "{device_id}"
kind = "bike"
transport = "{transport}"
data_directory = "{data or f"/var/lib/fleet-edge/{device_id}"}"
[broker]
host = "127.0.0.1"
plain = true
[command_keys]
main = "main.pem"
{more}
""")
    return config


def fleet(*arguments):
    """In this process: a start of Python for each would be most of the time."""
    ended = CliRunner().invoke(app, ["edge", *map(str, arguments)])
    return SimpleNamespace(returncode=ended.exit_code, stdout=ended.stdout, stderr=ended.stderr)


def lines_of(text):
    return [line for line in text.splitlines() if line and not line.startswith(("#", "["))]


def test_a_dry_run_changes_nothing_and_says_everything(tmp_path):
    config, root = write_config(tmp_path), tmp_path / "root"
    ended = fleet("install", "--config", config, "--root", root, "--dry-run", "--json")
    assert ended.returncode == 0, ended.stderr
    assert not root.exists()
    document = json.loads(ended.stdout)
    assert document["done"] is False
    assert document["service"] == "fleet-edge@bike-001.service"
    assert document["next"] == "systemctl enable --now fleet-edge@bike-001.service"
    assert {Path(name).name for name in document["files"]} == {
        "fleet-edge@.service", "device.conf", "fleet-edge.conf", "journald@fleet-edge.conf",
    }  # fmt: skip


def test_two_devices_share_a_template_and_a_second_run_changes_nothing(tmp_path):
    root = tmp_path / "root"
    for device_id, port in (("bike-001", "/dev/ttyUSB0"), ("room-007", "/dev/ttyAMA0")):
        ended = fleet("install", "--config", write_config(tmp_path, device_id=device_id, transport=f"serial:{port}"),
                      "--root", root)  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert f"systemctl enable --now fleet-edge@{device_id}.service" in ended.stderr
    units = root / "etc/systemd/system"
    assert sorted(path.name for path in units.iterdir()) == [
        "fleet-edge@.service", "fleet-edge@bike-001.service.d", "fleet-edge@room-007.service.d",
    ]  # fmt: skip
    assert "DeviceAllow=char-ttyAMA rw" in (units / "fleet-edge@room-007.service.d/device.conf").read_text()
    before = {path: path.read_text() for path in root.rglob("*") if path.is_file()}
    fleet("install", "--config", tmp_path / "bike-001.toml", "--root", root)
    assert before == {path: path.read_text() for path in root.rglob("*") if path.is_file()}


def test_the_unit_never_gives_up_and_has_every_bound():
    lines = lines_of(edge_unit.template(["/opt/fleet/bin/fleet"], "fleet-edge"))
    assert {
        "Type=notify", "WatchdogSec=60", "Restart=always", "StartLimitIntervalSec=0", "MemoryMax=128M", "CPUQuota=50%",
        "NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "CapabilityBoundingSet=",
        "DevicePolicy=closed",
        "StateDirectory=fleet-edge/%i", "LogNamespace=fleet-edge", "LogRateLimitBurst=300", "User=fleet-edge",
        "ExecStart=/opt/fleet/bin/fleet edge run --config /etc/fleet-edge/%i.toml",
    } <= set(lines)  # fmt: skip


@pytest.mark.parametrize(
    ("devices", "allowed"),
    [
        (["/dev/ttyUSB0"], ["char-ttyUSB"]),
        (["/dev/ttyACM3", "/dev/gpiochip0"], ["char-gpiochip", "char-ttyACM"]),
        (["/dev/serial/by-id/usb-FTDI"], ["char-ttyACM", "char-ttyUSB"]),
        (["/dev/pts/4"], ["char-pts"]),
        (["/dev/lock0"], ["/dev/lock0"]),
        ([], []),
    ],
)
def test_the_driver_is_allowed_and_not_the_number_of_one_plugging_in(devices, allowed):
    assert edge_unit.allowed(devices) == allowed


def test_what_lies_elsewhere_is_made_writable_and_named(tmp_path):
    config = write_config(
        tmp_path, data=tmp_path / "own data", more=f'[log]\nfile = "{tmp_path}/logs/edge.log"', transport="tcp://h:1"
    )
    planned = plan(load_settings(config), config, user="fleet-edge", root=tmp_path / "root")
    (drop_in,) = [text for path, text in planned.files.items() if path.name == "device.conf"]
    assert f'ReadWritePaths="{tmp_path}/own data"' in drop_in
    assert f"ReadWritePaths={tmp_path}/logs" in drop_in
    assert f"edge run --config {config}" in drop_in
    assert "DeviceAllow" not in drop_in
    assert edge_unit.quoted("/a b/50%") == '"/a b/50%%"'


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config.write_text(config.read_text().replace('"bike"', '"byke"')), "byke"),
        (lambda config: (config.parent / "main.pem").unlink(), "main.pem"),
    ],
)
def test_a_file_that_would_start_no_agent_is_refused(tmp_path, change, words):
    config = write_config(tmp_path)
    change(config)
    ended = fleet("install", "--config", config, "--root", tmp_path / "root")
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "root").exists()


def test_where_nothing_can_be_written_one_line_says_so(tmp_path):
    config = write_config(tmp_path)
    (tmp_path / "root").write_text("a file")
    ended = fleet("install", "--config", config, "--root", tmp_path / "root")
    assert ended.returncode == 1
    assert "--dry-run" in ended.stderr
    assert "Traceback" not in ended.stderr
    with pytest.raises(InstallError, match="user"):
        plan(load_settings(config), config, user="a b", root=tmp_path)


def analyze(*arguments, units):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
    )  # fmt: skip


def test_systemd_itself_accepts_the_unit_and_finds_little_exposed(tmp_path):
    root = tmp_path / "root"
    assert fleet("install", "--config", write_config(tmp_path), "--root", root).returncode == 0
    units = root / "etc/systemd/system"
    verified = analyze("verify", "fleet-edge@bike-001.service", units=units)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = analyze(
        "security", "--offline=true", f"--root={root}", "--json=short", "fleet-edge@bike-001.service", units=units
    )
    exposure = sum(float(line["exposure"] or 0) for line in json.loads(judged.stdout))
    assert 0 < exposure <= EXPOSURE_MAX
    drop_in = units / "fleet-edge@bike-001.service.d/device.conf"
    drop_in.write_text(drop_in.read_text() + "NoSuchSetting=1\n")
    assert "NoSuchSetting" in analyze("verify", "fleet-edge@bike-001.service", units=units).stderr
