"""`fleet edge enrol`: a box comes to its identity, with a claim that somebody typed in."""

import time
from pathlib import Path
from typing import Annotated

import typer

from cli.output import FAILURE, USAGE, JsonOption, fail, print_json, words


def enrol(
    server: Annotated[str, typer.Option(help="Address of the pages, https://…")],
    claim: Annotated[str, typer.Option(help="The claim that `fleet devices enrol` showed.")],
    serial: Annotated[str, typer.Option(help="The serial number on the housing of this box.")],
    directory: Annotated[Path, typer.Option(help="Where key, certificate and settings are written.")],
    transport: Annotated[
        str,
        typer.Option(help="The line to the hardware, as in edge.toml.", show_default="serial:/dev/ttyUSB0?baud=115200"),
    ] = "",
    wait_s: Annotated[int, typer.Option(min=0, max=86_400, help="How long to wait for the approval.")] = 3600,
    anew: Annotated[
        bool,
        typer.Option("--anew", help="Another identity for a box that has one; settings and undelivered events stay."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make this box's key, ask for its certificate with a claim, and write its settings once an admin approved.

    The same command again goes on where it was. The key never leaves the box.

    Example: [bold]sudo fleet edge enrol --server https://fleet.example.org --claim ABCD-… --serial FB-0042
    --directory /etc/fleet-edge/room-007[/bold]
    """
    from edge.enrolment import POLL_S, Box, Enrolment, EnrolmentError
    from edge.transports import line_from
    from fleet.claim import ClaimError, parse_claim

    try:
        if transport:
            line_from(transport)
        box = Box(server, parse_claim(claim), serial, directory, transport, anew)
    except (ClaimError, ValueError) as error:
        raise fail(str(error), USAGE) from error
    try:
        enrolment = Enrolment(box)
        enrolment.meet()
        device_id = enrolment.ask()
        words.print(f"asked as {device_id}; fingerprint of this box's key:")
        words.print(f"[bold]{_grouped(enrolment.fingerprint)}[/bold]")
        words.print(
            f"Waiting for an admin: the page of {device_id}, or "
            f"fleet devices approve {device_id} --fingerprint {enrolment.fingerprint[:16]}"
        )
        answer = enrolment.wait(time.sleep, max(1, round(wait_s / POLL_S)))
        settings = enrolment.install(answer)
    except EnrolmentError as error:
        raise fail(str(error), FAILURE) from error
    if as_json:
        print_json({"device_id": device_id, "fingerprint": enrolment.fingerprint, "settings": str(settings)})
    words.print(f"enrolled as {device_id}. Next: fleet edge check --config {settings}")
    if anew:
        words.print(
            f"A running agent goes on with its former settings: systemctl restart fleet-edge@{device_id}.service"
        )


def _grouped(fingerprint: str) -> str:
    return " ".join(fingerprint[start : start + 4] for start in range(0, len(fingerprint), 4))
