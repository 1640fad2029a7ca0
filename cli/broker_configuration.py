"""The whole configuration of Mosquitto, written from a few choices; demo, benches, tests and deployments use this.

Two listeners. *Devices*: a client certificate of the devices' root is asked for and looked up in the revocation list,
its common name is user name and client id. *Services*: a certificate of the services' root. Neither domain is let in at
the other's door. docs/operations.md explains every group of lines; docs/adr/0011 says why.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet import topics

CONFIGURATION_NAME: Final = "mosquitto.conf"
ACCESS_LIST_NAME: Final = "acl"
OPENSSL_NAME: Final = "openssl.cnf"

CONNECTIONS_MAX: Final = 20_000
SERVICE_CONNECTIONS_MAX: Final = 200
QUEUED_MESSAGES_MAX: Final = 200_000
QUEUED_BYTES_MAX: Final = 268_435_456
PACKET_BYTES_MAX: Final = 131_072
KEEP_ALIVE_S_MAX: Final = 900


@dataclass(frozen=True, slots=True)
class BrokerTls:
    """Files of the two listeners, as the broker sees them."""

    devices_root: Path
    """Who devices are vouched for by."""
    services_root: Path
    """Who processes of ours are vouched for by; devices check the broker against it."""
    certificate: Path
    """The broker's own chain, for both listeners."""
    key: Path
    revocation_list: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPlan:
    """What is chosen. `directory` is where the three written files lie, as the broker sees it."""

    directory: Path
    tls: BrokerTls
    devices_port: int = 8883
    services_port: int = 8884
    address: str = ""
    """To listen on; empty: every interface."""
    services_address: str | None = None
    """For the services' listener, if it is another one: loopback where the cloud runs beside the broker."""
    connections_max: int = CONNECTIONS_MAX
    persist: bool = False
    pid_file: Path | None = None
    log: str = "stderr"
    """Mosquitto holds lines for stdout back until 4 KB of them are there, unless it is a terminal."""
    user: str = ""
    """Account to run as when started by root; empty: the package's own (`mosquitto`)."""
    publisher: str = ""
    """An identity that may speak and hear for every device: a bench's load, nothing else."""


def container_plan() -> BrokerPlan:
    """The plan of docker-compose.yml: its mounts, everything else as chosen by default."""
    pki = Path("/pki")
    tls = BrokerTls(
        pki / "trust/devices.pem", pki / "trust/services.pem", Path("/run/secrets/broker_certificate"),
        Path("/run/secrets/broker_key"), pki / "crl/devices.pem",
    )  # fmt: skip
    return BrokerPlan(directory=Path("/mosquitto/config"), tls=tls)


def configuration(plan: BrokerPlan) -> str:
    """Text of `mosquitto.conf`."""
    lines = [*_general(plan), *_limits(), *_memory(plan), *_who(plan), *_devices(plan), *_services(plan)]
    return "\n".join(lines) + "\n"


def plain_configuration(directory: Path, port: int, *, persist: bool = False, user: str = "") -> str:
    """One listener without TLS on loopback, open to everybody on this machine: benches only (decision 21).

    Limits, memory and log are those of `configuration`.
    """
    missing = Path()
    tls = BrokerTls(missing, missing, missing, missing, missing)
    plan = BrokerPlan(directory=directory, tls=tls, persist=persist, log="stderr", user=user)
    lines = [*_general(plan), *_limits(), *_memory(plan), "", f"listener {port} 127.0.0.1", "allow_anonymous true"]
    return "\n".join(lines) + "\n"


def access_list(publisher: str = "") -> str:
    """Text of the access list: each device its own topics, the ingester all of them, nobody anything else."""
    lines = [f"pattern {access} {pattern}" for access, pattern in topics.broker_acl_patterns()]
    lines += ["", f"user {topics.INGESTER_NAME}"]
    lines += [f"topic {access} {topic}" for access, topic in topics.broker_acl_ingester()]
    if publisher:
        lines += ["", f"user {publisher}", f"topic readwrite {topics.ROOT}/#"]
    return "\n".join(lines) + "\n"


def openssl_configuration() -> str:
    """Text of the file that OPENSSL_CONF must name for the broker: no session is ever resumed.

    A resumed session is not checked again, neither against the revocation list nor against the certificate's end.
    """
    return """\
# Written by `fleet broker config`. The broker's process must have OPENSSL_CONF set to this file.
openssl_conf = fleet
[fleet]
ssl_conf = fleet_ssl
[fleet_ssl]
system_default = fleet_tls
[fleet_tls]
MinProtocol = TLSv1.2
Options = -SessionTicket
NumTickets = 0
"""


def write(plan: BrokerPlan, folder: Path) -> list[Path]:
    """Write the three files into `folder`; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        CONFIGURATION_NAME: configuration(plan),
        ACCESS_LIST_NAME: access_list(plan.publisher),
        OPENSSL_NAME: openssl_configuration(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def _general(plan: BrokerPlan) -> Iterator[str]:
    yield "# Written by `fleet broker config`; docs/operations.md explains each group. Don't edit: write it again."
    yield f"log_dest {plan.log}"
    yield "log_type error"
    yield "log_type warning"
    yield "log_type notice"
    yield "log_timestamp_format %Y-%m-%dT%H:%M:%S"
    yield "sys_interval 0"
    if plan.user:
        yield f"user {plan.user}"
    if plan.pid_file is not None:
        yield f"pid_file {plan.pid_file}"


def _limits() -> Iterator[str]:
    yield ""
    yield "# Bursts: the defaults silently drop QoS 1 messages beyond 1000 queued and 20 in flight."
    yield f"max_queued_messages {QUEUED_MESSAGES_MAX}"
    yield f"max_queued_bytes {QUEUED_BYTES_MAX}"
    yield "max_inflight_messages 0"
    yield f"max_packet_size {PACKET_BYTES_MAX}"
    yield f"max_keepalive {KEEP_ALIVE_S_MAX}"
    yield "set_tcp_nodelay true"
    yield "# Commands are never retained: an old one must not wait for a device."
    yield "retain_available false"


def _memory(plan: BrokerPlan) -> Iterator[str]:
    yield ""
    yield "# The devices' journals are the durability; the broker may forget everything."
    if plan.persist:
        yield "persistence true"
        yield f"persistence_location {plan.directory}/"
        yield "autosave_interval 300"
        yield "autosave_on_changes false"
        yield "persistent_client_expiration 1d"
    else:
        yield "persistence false"


def _who(plan: BrokerPlan) -> Iterator[str]:
    yield ""
    yield "per_listener_settings false"
    yield "allow_anonymous false"
    yield "allow_zero_length_clientid false"
    yield f"acl_file {plan.directory / ACCESS_LIST_NAME}"


def _devices(plan: BrokerPlan) -> Iterator[str]:
    yield ""
    yield "# Devices. The common name of the certificate is user name and client id: nobody takes another's session."
    yield f"listener {plan.devices_port} {plan.address}".rstrip()
    yield from _certificates(plan.tls, plan.tls.devices_root)
    yield f"crlfile {plan.tls.revocation_list}"
    yield "use_username_as_clientid true"
    yield f"max_connections {plan.connections_max}"


def _services(plan: BrokerPlan) -> Iterator[str]:
    address = plan.address if plan.services_address is None else plan.services_address
    yield ""
    yield "# Processes of ours. Client ids are free: the cloud ends a device's session by taking it over."
    yield f"listener {plan.services_port} {address}".rstrip()
    yield from _certificates(plan.tls, plan.tls.services_root)
    yield f"max_connections {SERVICE_CONNECTIONS_MAX}"


def _certificates(tls: BrokerTls, root: Path) -> Iterator[str]:
    yield f"cafile {root}"
    yield f"certfile {tls.certificate}"
    yield f"keyfile {tls.key}"
    yield "tls_version tlsv1.2"
    yield "require_certificate true"
    yield "use_identity_as_username true"
