"""House rules as ordinary tests: the tree keeps them, and each rule is able to fail."""

import json
import subprocess
import tomllib

import pytest

from scripts import assets, locks, skipped, tidy


@pytest.mark.parametrize("rule", tidy.RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule):
    assert rule(tidy.ROOT) == []


@pytest.fixture
def tree(tmp_path):
    """A small repository that keeps every rule."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3\n")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/edge.txt").write_text("one==1 \\\n    --hash=sha256:00\n")
    (tmp_path / "docs/adr").mkdir(parents=True)
    (tmp_path / "docs/adr/README.md").write_text("- [1](0001-first.md)\n")
    (tmp_path / "docs/adr/0001-first.md").write_text("## Context\n## Decision\n## Consequences\n## Kept by\n")
    return tmp_path


def test_a_tidy_tree_has_no_violations(tree):
    assert [line for rule in tidy.RULES for line in rule(tree)] == []


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        ("a.txt", "see https://files.python" + "hosted.org/x", tidy.no_registry_host),
        ("requirements/x.txt", "--index" + "-url https://mirror.example/simple", tidy.no_registry_host),
        ("package-lock.json", '{"resolved"' + ': "https://mirror.example/x.tgz"}', tidy.no_registry_host),
        ("a.py", 'HERE = "/wo' + 'rk/main/x"', tidy.no_machine_path),
        ("a.md", "in /ho" + "me/somebody/x", tidy.no_machine_path),
        ("long.py", "x = 1\n" * (tidy.PYTHON_LINES_MAX + 1), tidy.short_files),
        ("requirements/edge.txt", "one==1\ntwo==2 \\\n    --hash=sha256:00\n", tidy.locks_are_hashed),
        ("docs/adr/0003-third.md", "## Context\n## Decision\n## Consequences\n", tidy.decisions_are_indexed),
        ("pyproject.toml", '[project]\nversion = "1.2.4"\n', tidy.changelog_names_version),
        ("README.md", "[gone](docs/gone.md)", tidy.links_lead_somewhere),
    ],
)
def test_each_rule_finds_its_violation(tree, path, text, rule):
    (tree / path).write_text(text)
    assert rule(tree)
    assert all(line.count(":") >= 2 for line in rule(tree))


def test_ignored_and_binary_files_are_not_read(tree):
    (tree / ".gitignore").write_text("ignored.txt\n")
    (tree / "ignored.txt").write_text("/ho" + "me/somebody")
    (tree / "picture.png").write_bytes(b"\x89PNG\0/ho" + b"me/somebody")
    assert tidy.no_machine_path(tree) == []


def test_every_lock_is_committed_and_satisfies_the_project():
    assert {path.stem for path in locks.FOLDER.glob("*.txt")} == set(locks.LOCKS)
    assert locks.unsatisfied() == []


@pytest.mark.parametrize("name", [name for name in locks.LOCKS if name != "dev"])
def test_what_is_installed_is_what_is_tested(name):
    tested = locks.pins((locks.FOLDER / "dev.txt").read_text())
    for (package, marker), version in locks.pins((locks.FOLDER / f"{name}.txt").read_text()).items():
        anywhere = {found for (other, _), found in tested.items() if other == package}
        alike = {tested[package, marker]} if (package, marker) in tested else anywhere
        assert not alike or version in alike, package


def test_an_edge_box_installs_no_server():
    edge = {package for package, _ in locks.pins((locks.FOLDER / "edge.txt").read_text())}
    assert not edge & {"fastapi", "sqlalchemy", "uvicorn", "influxdb-client", "grafana-foundation-sdk", "pytest"}
    assert {"aiomqtt", "cryptography", "msgspec", "pydantic"} <= edge


def test_a_stale_lock_is_told_from_a_fresh_one():
    fresh = "one==2 \\\n    --hash=sha256:00\nwindows==1 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
    assert locks.pins(fresh) == {("one", ""): "2", ("windows", "sys_platform == 'win32'"): "1"}
    assert locks.difference("x", fresh, fresh) == []
    assert locks.difference("x", fresh.replace("one==2", "one==1"), fresh) == [
        "requirements/x.txt: one is 1, should be 2"
    ]


def test_front_end_versions_are_exact_and_locked_with_hashes():
    folder = tidy.ROOT / "cloud/web/assets"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert all(version[0].isdigit() for version in wanted.values())
    for name, version in wanted.items():
        assert packages[f"node_modules/{name}"]["version"] == version
    for name, package in packages.items():
        if name:
            assert package["integrity"].startswith("sha512-")
            assert "resolved" not in package


def test_assets_are_current_only_when_made_from_this_lock(tmp_path):
    manifests, vendor = tmp_path / "cloud/web/assets", tmp_path / "cloud/web/static/vendor"
    manifests.mkdir(parents=True)
    for name in assets.MANIFESTS:
        (manifests / name).write_text("{}")
    for _, target in assets.copies():
        (vendor / target).parent.mkdir(parents=True, exist_ok=True)
        (vendor / target).write_text("x")
    assert not assets.is_built(tmp_path)
    (vendor / assets.STAMP_NAME).write_text(assets.fingerprint(manifests))
    assert assets.is_built(tmp_path)
    assert assets.build(tmp_path) is False
    (manifests / "package-lock.json").write_text('{"other": 1}')
    assert not assets.is_built(tmp_path)


def test_a_skipped_test_fails_the_run(tmp_path, capsys):
    report = tmp_path / "junit.xml"
    case = '<testcase classname="tests.a" name="one">{}</testcase>'
    report.write_text(f"<testsuites><testsuite>{case.format('')}</testsuite></testsuites>")
    assert skipped.main([str(report)]) == 0
    mark = '<skipped message="no broker"/>'
    report.write_text(f"<testsuite>{case.format(mark)}</testsuite>")
    assert skipped.main([str(report)]) == 1
    assert "tests.a::one: no broker" in capsys.readouterr().err
    report.write_text("<testsuite/>")
    assert skipped.main([str(report)]) == 1
    assert skipped.main([str(tmp_path / "absent.xml")]) == 1


def contract_named(part):
    contracts = tomllib.loads((tidy.ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (found,) = [contract for contract in contracts if part in contract["name"]]
    return found


def test_the_import_contracts_name_every_part_of_the_cloud_and_every_kind():
    parts = {path.stem for path in (tidy.ROOT / "cloud").iterdir() if path.suffix == ".py" or path.is_dir()}
    wanted = {f"cloud.{part}" for part in parts - {"__init__", "__pycache__", "adapters", "bootstrap"}}
    assert set(contract_named("only bootstrap knows the adapters")["source_modules"]) == wanted
    kinds = {f"devices.{path.parent.name}" for path in (tidy.ROOT / "devices").glob("*/__init__.py")}
    assert set(contract_named("device kinds do not know each other")["modules"]) == kinds
    for part in ("nothing of them in cloud", "in edge", "in dashboards", "in firmware_sim"):
        assert {name.rpartition(".")[0] for name in contract_named(part)["forbidden_modules"]} == kinds
