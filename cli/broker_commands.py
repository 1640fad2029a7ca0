"""`fleet broker`: the whole configuration of Mosquitto, and whether a folder of it is fit to start."""

import datetime as dt
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cli.output import UNHEALTHY, JsonOption, data, fail, print_json, words

if TYPE_CHECKING:
    from cli.broker_configuration import BrokerTls
    from cli.doctor.finding import Finding

app = typer.Typer(help="Configure Mosquitto for devices and cloud.", no_args_is_help=True)

PkiOption = Annotated[Path, typer.Option("--pki", envvar="FLEET_PKI_DIRECTORY", help="Folder of fleet pki.")]


@app.command()
def config(
    directory: Annotated[Path, typer.Option(help="Where mosquitto.conf, acl and openssl.cnf are written.")],
    pki: PkiOption = Path("pki"),
    devices_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for devices.")] = 8883,
    services_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for the cloud's processes.")] = 8884,
    host: Annotated[str, typer.Option(help="Address to listen on; every interface if empty.")] = "",
    services_host: Annotated[
        str | None, typer.Option(help="Another address for the cloud's port, such as 127.0.0.1 beside the cloud.")
    ] = None,
    connections: Annotated[int, typer.Option(min=1, help="Devices connected at once, at most.")] = 20_000,
    persist: Annotated[bool, typer.Option("--persist", help="Keep sessions over a planned restart.")] = False,
    user: Annotated[str, typer.Option(help="Account to run as when started by root; `mosquitto` if empty.")] = "",
    pid_file: Annotated[Path | None, typer.Option(help="For FLEET_BROKER_PID_FILE.")] = None,
    container: Annotated[bool, typer.Option("--container", help="With the paths of docker-compose.yml.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the whole configuration: both listeners, access list, limits, memory, log. Nothing else is needed.

    Example: [bold]fleet broker config --directory /etc/mosquitto/fleet --pki /etc/fleet/pki[/bold]
    """
    from cli import broker_configuration
    from cli.broker_account import PACKAGE_ACCOUNT, let_read
    from cli.broker_configuration import BrokerPlan

    if devices_port == services_port:
        raise fail("--devices-port and --services-port are the same; devices and cloud need a port each", 2)
    if container:
        plan = broker_configuration.container_plan()
    else:
        plan = BrokerPlan(
            directory=directory.resolve(), tls=_tls(pki), devices_port=devices_port, services_port=services_port,
            address=host, services_address=services_host, connections_max=connections, persist=persist, user=user,
            pid_file=None if pid_file is None else pid_file.resolve(),
        )  # fmt: skip
    try:
        files = broker_configuration.write(plan, directory)
    except OSError as error:
        raise fail(f"{error.filename}: {error.strerror}; name a folder that can be written") from error
    warnings = [] if container else list(let_read(user or PACKAGE_ACCOUNT, plan.tls))
    for warning in warnings:
        words.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    if as_json:
        environment = {"OPENSSL_CONF": str(files[-1].resolve())}
        print_json({"files": [str(file) for file in files], "environment": environment, "warnings": warnings})
        return
    for file in files:
        data.print(escape(str(file)))
    words.print(f"Start it with OPENSSL_CONF={escape(str(files[-1].resolve()))} in its environment.")


@app.command()
def check(
    pki: PkiOption = Path("pki"),
    host: Annotated[str, typer.Option(help="Where the broker runs.")] = "127.0.0.1",
    devices_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for devices.")] = 8883,
    services_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for the cloud's processes.")] = 8884,
    as_json: JsonOption = False,
) -> None:
    """Check files and a running broker: certificates, list, listeners. Exit code 3 if something needs mending.

    Example: [bold]fleet broker check --pki pki --host fleet.example.org[/bold]
    """
    findings = list(_findings(pki, host, devices_port, services_port))
    healthy = all(found.verdict == "ok" for found in findings)
    if as_json:
        print_json({"healthy": healthy, "findings": [asdict(found) for found in findings]})
    else:
        for found in findings:
            sign = "[green]✓[/green]" if found.verdict == "ok" else "[red]✗[/red]"
            data.print(f"{sign} {found.check}: {escape(found.found)}")
            if found.fix:
                data.print(f"    → {escape(found.fix)}")
    if not healthy:
        words.print("Something needs mending; see the arrows.")
        raise typer.Exit(UNHEALTHY)


def _tls(pki: Path) -> "BrokerTls":
    from cli.broker_configuration import BrokerTls
    from cloud.identity.pki_folder import PkiFolder

    folder = PkiFolder(pki.resolve())
    tls = BrokerTls(
        folder.root_file("devices"), folder.root_file("services"), *folder.issued_files("broker"),
        folder.revocation_file,
    )  # fmt: skip
    for path, fix in (
        (tls.devices_root, f"fleet pki init --directory {pki}"),
        (tls.certificate, f"fleet pki server --directory {pki} --host …"),
        (tls.revocation_list, f"fleet pki crl --directory {pki}"),
    ):
        if not path.exists():
            raise fail(f"{path} is missing; make it: {fix}")
    return tls


def _findings(pki: Path, host: str, devices_port: int, services_port: int) -> "Iterator[Finding]":
    from cli.broker_check import door, files
    from cli.doctor.finding import Finding
    from cloud.identity.revocation_list import problem_of

    now = dt.datetime.now(dt.UTC)
    tls = _tls(pki)
    yield from files(tls, now)
    wrong = problem_of(tls.revocation_list, now)
    yield Finding("Revocation list", "problem" if wrong else "ok", wrong or "can be used and is fresh", "")
    service = pki / "issued" / "fleet.ingester.pem"
    yield door("Devices' port refuses services", host, devices_port, tls.services_root, service, welcome=False)
    yield door("Services' port refuses strangers", host, services_port, tls.services_root, None, welcome=False)
    if service.exists() and os.access(service.with_suffix(".key"), os.R_OK):
        yield door("Services' port lets the cloud in", host, services_port, tls.services_root, service, welcome=True)
