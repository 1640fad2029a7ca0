"""One TOML file; a mistake costs one clear line."""

from pathlib import Path

import pytest

from edge.settings import SettingsError, load_settings
from edge.transports import SerialLine, TcpLine, line_from

GOOD = {
    "device_id": '"bell-001"',
    "kind": '"doorbell"',
    "transport": '"serial:/dev/ttyUSB0?baud=9600"',
    "data_directory": '"data"',
    "broker": '{ host = "broker.example", authority = "ca.pem", certificate = "own.pem", '
    'private_key = "/keys/own.key" }',
    "command_keys": '{ main = "command.pem" }',
}


def written(tmp_path, **changes):
    path = tmp_path / "edge.toml"
    path.write_text("\n".join(f"{key} = {value}" for key, value in {**GOOD, **changes}.items() if value))
    return path


def test_relative_paths_start_at_the_file(tmp_path):
    settings = load_settings(written(tmp_path, kind_folders='["kinds/doorbell"]'))
    assert settings.journal_path == tmp_path / "data" / "journal.sqlite"
    assert settings.broker.authority == tmp_path / "ca.pem"
    assert settings.broker.private_key == Path("/keys/own.key")
    assert settings.command_keys == {"main": tmp_path / "command.pem"}
    assert settings.kind_folders == (tmp_path / "kinds" / "doorbell",)
    assert settings.broker.port == 8883


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device_id": None}, ["device_id", "add it"]),
        ({"device_id": '"Bell_1"'}, ["device_id", "'Bell_1'", "a-z"]),
        ({"colour": '"red"'}, ["colour", "remove it"]),
        ({"transport": '"usb"'}, ["transport", "'usb'", "serial:/dev/"]),
        ({"broker": '{ host = "broker.example" }'}, ["broker", "authority, certificate, private_key", "PEM"]),
        ({"broker": '{ host = "broker.example", plain = true }'}, ["broker", "plain", "this host"]),
        ({"broker": '{ host = "127.0.0.1", plain = true, port = 99999 }'}, ["broker.port", "99999"]),
        ({"command_keys": "{}"}, ["command_keys"]),
        ({"device_id": "=="}, ["no TOML"]),
    ],
)
def test_a_mistake_is_one_line_with_key_source_and_fix(tmp_path, changes, words):
    path = written(tmp_path, **changes)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    assert all(word in text for word in words), text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"absent.toml.*--config"):
        load_settings(tmp_path / "absent.toml")


def test_lines_are_named_by_address():
    assert isinstance(line_from("serial:/dev/ttyUSB0"), SerialLine)
    assert isinstance(line_from("tcp://127.0.0.1:7000"), TcpLine)
    for wrong in ("serial:", "tcp://host", "serial:/dev/ttyUSB0?baud=fast", "/dev/ttyUSB0"):
        with pytest.raises(ValueError, match=r"line|baud"):
            line_from(wrong)
