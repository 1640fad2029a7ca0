"""Ports that stay free until their server starts, and an access list that names nobody twice."""

import socket
from pathlib import Path

import pytest

from cli import broker
from cli.broker import BrokerError, BrokerTls, configuration, free_port


def test_a_free_port_can_be_bound_and_is_none_of_those_for_outgoing_connections():
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(50):
        port = free_port()
        assert port < max(ephemeral, 20_000)
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))


def test_a_taken_port_is_not_chosen(monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        monkeypatch.setattr(broker.random, "randrange", lambda *_: taken)
        with pytest.raises(BrokerError, match="no free TCP port"):
            free_port()


def test_with_tls_nobody_comes_in_without_a_certificate(tmp_path):
    tls = BrokerTls(tmp_path / "ca.pem", tmp_path / "broker.pem", tmp_path / "broker.key")
    lines = configuration(tmp_path, 18_883, tls).splitlines()
    assert "listener 18883 127.0.0.1" in lines
    assert {"allow_anonymous false", "require_certificate true", "use_identity_as_username true"} <= set(lines)
    assert "allow_anonymous true" not in lines
    patterns, _, of_ingester = (tmp_path / "acl").read_text().partition("user fleet.ingester")
    assert of_ingester
    for line in patterns.split("\n"):
        assert not line or ("pattern " in line and "/%u/" in line), f"not confined to the device's own topics: {line}"
