"""Scripts of deploy/: entrypoint, secrets of the first start, and what prepares InfluxDB."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cli.backup.sealing import KEY_BYTES, read_key
from scripts import tidy

ROOT = tidy.ROOT


def test_the_entrypoint_hands_secret_files_over(tmp_path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "fleet_influxdb_token").write_text("a b$c\n")
    (secrets / "command_key").write_text("not a setting")
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    (tokens / "fleet_influxdb_reader_token").write_text("r")
    script = (ROOT / "deploy/entrypoint.sh").read_text().replace("/run/secrets", str(secrets))
    script = script.replace("/run/tokens", str(tokens)).replace("/run/reader", str(tmp_path / "absent"))
    done = subprocess.run(["sh", "-c", script, "sh", "env"], capture_output=True, text=True, check=True)
    assert "FLEET_INFLUXDB_TOKEN=a b$c" in done.stdout.splitlines()
    assert "FLEET_INFLUXDB_READER_TOKEN=r" in done.stdout.splitlines()
    assert "not a setting" not in done.stdout


def test_fleet_has_its_secrets_also_where_nobody_ran_the_entrypoint(tmp_path):
    """As `docker compose exec api fleet people add` runs it."""
    docker = (ROOT / "Dockerfile").read_text()
    places = {"entrypoint.sh": "/usr/local/bin/fleet-entrypoint", "fleet.sh": "/opt/fleet/bin/fleet"}
    (tmp_path / "run/secrets").mkdir(parents=True)
    (tmp_path / "run/secrets/fleet_database_url").write_text("postgresql+psycopg://fleet:p@postgresql/fleet")
    for name, place in places.items():
        assert f"\nCOPY deploy/{name} {place}\n" in docker
        path = tmp_path / place.lstrip("/")
        path.parent.mkdir(parents=True)
        text = (ROOT / "deploy" / name).read_text()
        path.write_text(text.replace("/run/", f"{tmp_path}/run/").replace("/opt/cloud", f"{tmp_path}/opt/cloud")
                        .replace("/usr/local", f"{tmp_path}/usr/local"))  # fmt: skip
        path.chmod(0o755)
    real = tmp_path / "opt/cloud/bin/fleet"
    real.parent.mkdir(parents=True)
    real.write_text('#!/bin/sh\necho "$FLEET_DATABASE_URL"\nprintf "<%s>" "$@"\n')
    real.chmod(0o755)
    searched = re.search(r"^ENV PATH=(\S+?):\$PATH FLEET", docker, re.MULTILINE)[1].split(":")
    path = ":".join(f"{tmp_path}{folder}" for folder in searched)
    done = subprocess.run(["env", "fleet", "people", "add", "a b"], env={"PATH": f"{path}:/usr/bin:/bin"},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == "postgresql+psycopg://fleet:p@postgresql/fleet\n<people><add><a b>"


STUB = """#!/bin/sh
[ "$2" = init ] || exit 0
mkdir -p "$4/online" "$4/trust" "$4/crl" "$4/issued"
touch "$4/trust/devices.pem" "$4/online/devices.key" "$4/issued/broker.key" "$4/crl/.devices.lock"
"""
"""What `fleet pki` leaves behind, as far as the script looks at it."""


@pytest.fixture
def open_folder():
    """A folder that others than root may enter: `tmp_path` lies in one that they may not."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


def test_secrets_survive_an_interruption_and_a_second_run_by_somebody_without_root(open_folder):
    home = open_folder / "deploy"
    home.mkdir()
    (home / "secrets").mkdir(mode=0o755)  # as a container leaves it that mounts what is not there
    shutil.copy(ROOT / "deploy/make_secrets.sh", home)
    for name, text in (("fleet", STUB), ("ill/openssl", "#!/bin/sh\nexit 1\n")):
        (open_folder / name).parent.mkdir(exist_ok=True)
        (open_folder / name).write_text(text)
        (open_folder / name).chmod(0o755)
    user = {"user": "nobody"} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(home, "nobody")
        shutil.chown(home / "secrets", "nobody")

    def run(path):
        return subprocess.run(
            ["bash", home / "make_secrets.sh", "fleet.example"], cwd=home,
            env={"PATH": path, "FLEET": str(open_folder / "fleet")},
            capture_output=True, text=True, check=False, **user,
        )  # fmt: skip

    assert run(f"{open_folder / 'ill'}:/usr/bin:/bin").returncode != 0
    assert not (home / "secrets/postgresql_password").exists(), "an empty one would have been kept"
    done = run("/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    secret = (
        "postgresql_password",
        "influxdb_admin_token",
        "command_key",
        "web_push_key",
        "database_url",
        "backup_key",
    )
    made = {name: (home / "secrets" / name).read_bytes() for name in secret}
    assert all(len(content) > 40 for content in made.values())
    done = run("/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert {name: (home / "secrets" / name).read_bytes() for name in secret} == made
    assert stat.S_IMODE((home / "secrets").stat().st_mode) == 0o700
    assert len(read_key(home / "secrets/backup_key")) == KEY_BYTES
    if not user:
        return  # whose folder it is can be somebody else's only where there is somebody else
    shutil.chown(home / "secrets", "root")
    done = run("/usr/bin:/bin")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "belongs to somebody else" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [([], 2, "no host named"), (["-v"], 2, "is no name"), (["h.example", "--help"], 2, "is no name"),
     (["--help"], 0, "make_secrets.sh broker.example.com")],
)  # fmt: skip
def test_secrets_are_made_for_a_host_that_is_named(words, code, said, tmp_path):
    shutil.copy(ROOT / "deploy/make_secrets.sh", tmp_path)
    done = subprocess.run([tmp_path / "make_secrets.sh", *words], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in (done.stderr if code else done.stdout)
    assert not (tmp_path / "secrets").exists()


def test_on_a_fresh_clone_the_command_of_its_environment_is_taken_and_another_hosts_certificate_is_told(tmp_path):
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy/make_secrets.sh", tmp_path / "deploy")
    command = tmp_path / ".venv/bin/fleet"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m cli.main "$@"\n')
    command.chmod(0o755)

    def said(host):
        return subprocess.run([tmp_path / "deploy/make_secrets.sh", host], env={"PATH": "/usr/bin:/bin"}, check=True,
                              capture_output=True, text=True).stderr  # fmt: skip

    certificate = tmp_path / "deploy/secrets/pki/issued/broker.pem"
    said("one.example")
    made = certificate.read_bytes()
    command.write_text("#!/bin/sh\nexit 0\n")  # nothing is left to be made
    assert "was kept" not in said("one.example")
    for other in ("two.example", "10.0.0.3"):
        assert f"is not for {other} and was kept" in (words := said(other))
        assert f"pki server --replace --directory {tmp_path / 'deploy/secrets/pki'} --host {other}" in words
    assert certificate.read_bytes() == made


def test_without_python_the_image_is_taken_and_sees_the_folder_of_secrets_alone(tmp_path):
    shutil.copy(ROOT / "deploy/make_secrets.sh", tmp_path)
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >>"$0.asked"\nstat -c %a "{tmp_path}/secrets" >>"$0.asked"\nexit 1\n'
    )
    docker.chmod(0o755)
    path = f"{docker.parent}:/usr/bin:/bin"
    done = subprocess.run([tmp_path / "make_secrets.sh", "fleet.example"], env={"PATH": path}, capture_output=True,
                          text=True, check=False)  # fmt: skip
    asked, mode = docker.with_name("docker.asked").read_text().splitlines()
    assert mode == "700", "made before a container mounts it"
    mount = f"--volume {tmp_path}/secrets:{tmp_path}/secrets"
    user = f"--user {os.geteuid()}:{os.getegid()}"
    assert asked == f"run --rm --network none {user} {mount} gaoxin-fleet:0.1.0 fleet --version"
    assert done.returncode == 1
    assert "docker build -t gaoxin-fleet:0.1.0 ." in done.stderr


@pytest.mark.parametrize(("is_known", "code"), [(False, 1), (True, 0)])
def test_an_influxdb_that_is_away_keeps_nobody_from_starting_once_there_are_tokens(is_known, code, tmp_path):
    fleet = tmp_path / "fleet"
    fleet.write_text("#!/bin/sh\necho tried >&2\nexit 1\n")
    fleet.chmod(0o755)
    for folder, name in (("tokens", "fleet_influxdb_token"), ("reader", "fleet_influxdb_reader_token")):
        (tmp_path / folder).mkdir()
        if is_known:
            (tmp_path / folder / name).write_text("kept")
    done = subprocess.run(
        ["/bin/sh", ROOT / "deploy/prepare_influxdb.sh", tmp_path / "tokens", tmp_path / "reader", "admin", "1"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stderr.startswith("tried")
    assert ("earlier start" in done.stderr) is is_known


@pytest.mark.parametrize(
    "script", sorted(path.relative_to(ROOT) for path in {*ROOT.glob("*/*.sh"), *ROOT.glob("deploy/**/*.sh")}), ids=str
)
def test_shell_scripts_parse_and_are_executable(script):
    path = ROOT / script
    shell = path.read_text().splitlines()[0].rsplit("/", 1)[-1].split()[-1]
    subprocess.run([shell, "-n", str(path)], check=True)
    assert path.stat().st_mode & 0o111
