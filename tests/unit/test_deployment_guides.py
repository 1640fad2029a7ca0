"""What README and the operations guide say of the deployment, against docker-compose.yml and the settings."""

import re

import pytest
import yaml

from cloud.adapters.sql.database import POSTGRESQL_SPARE, POSTGRESQL_WRITERS, READERS
from cloud.settings import CloudSettings
from scripts import tidy

ROOT = tidy.ROOT


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_the_image_that_the_guides_build_is_the_one_that_compose_runs(compose):
    pages = ["README.md", "README.zh.md", "docs/operations.md", "docs/operations.zh.md", "deploy/make_secrets.sh"]
    for page in pages:
        named = set(re.findall(r"gaoxin-fleet:\d[\w.]*", (ROOT / page).read_text()))
        assert named == {compose["services"]["api"]["image"]}, page
        assert f"docker build -t {compose['services']['api']['image']} ." in (ROOT / page).read_text(), page


def test_every_service_and_volume_stands_in_the_guides(compose):
    for page in ("docs/operations.md", "docs/operations.zh.md"):
        text = (ROOT / page).read_text()
        rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
        told = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row[1])}
        assert set(compose["services"]) <= told, page
        kept = {name for row in rows if len(row) == 6 for name in re.findall(r"`([a-z-]+)`", row[4])}
        assert set(compose["volumes"]) <= kept, page
        interpolated = set(re.findall(r"\$\{(FLEET_\w+):-", (ROOT / "docker-compose.yml").read_text()))
        assert interpolated <= set(re.findall(r"`(\w+)`", text)), page


def test_every_setting_is_documented_with_its_default():
    page = (ROOT / "docs/operations.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `FLEET_")]
    documented = {name for row in rows for name in re.findall(r"`(FLEET_\w+)`", row.split("|")[1])}
    assert documented == {f"FLEET_{name}".upper() for name in CloudSettings.model_fields}
    for name, field in CloudSettings.model_fields.items():
        if isinstance(field.default, int | float) or (isinstance(field.default, str) and field.default):
            (row,) = [row for row in rows if f"`FLEET_{name.upper()}`" in row.split("|")[1]]
            assert f"`{field.default}`" in row, name


@pytest.mark.parametrize("page", ["docs/operations.md", "docs/operations.zh.md", "docs/scale.md"])
def test_one_number_of_connections_is_told_everywhere(page, compose):
    text = (ROOT / page).read_text()
    told = re.findall(r"(?:up to|and|最多保持)\s(\d+) (?:connections|个连接)", text)
    assert {int(number) for number in told} == {POSTGRESQL_WRITERS + READERS + POSTGRESQL_SPARE + 1}
    most = re.search(r"max_connections=(\d+)", compose["services"]["postgresql"]["command"])[1]
    assert set(re.findall(r"`max_connections`\s*(?:is|为) (\d+)", text)) == (set() if "scale" in page else {most})
