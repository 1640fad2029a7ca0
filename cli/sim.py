"""`fleet sim`: agents with simulated hardware."""

import asyncio
import dataclasses
import json
import random
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.kinds import KindFolderOption, add_kinds
from cli.output import print_json, usage_errors

if TYPE_CHECKING:
    from edge.host import EdgeHost
    from firmware_sim.line import MemoryLine

STATISTICS_EVERY_S: Final = 1.0
STATISTICS_FILE: Final = "statistics.json"
SETTLE_S_MAX: Final = 30.0
LINE_CHUNKS_MAX: Final = 10_000


class WorldLine:
    """`edge.transports.Line` on a simulated device's line."""

    def __init__(self, line: "MemoryLine") -> None:
        self._line = line
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue(LINE_CHUNKS_MAX)

    async def open(self) -> None:
        """Attach to the hardware."""
        self._line.attach(self._arrived)

    def _arrived(self, data: bytes) -> None:
        if not self._chunks.full():  # a UART loses bytes as well; the hardware repeats what matters
            self._chunks.put_nowait(data)

    async def read(self) -> bytes:
        """The bytes that arrived, joined."""
        data = await self._chunks.get()
        while not self._chunks.empty():
            data += self._chunks.get_nowait()
        return data

    def write(self, data: bytes) -> None:
        """Send to the hardware."""
        self._line.from_driver(data)

    def close(self) -> None:
        """Detach."""
        if self._line.attached:
            self._line.detach()


def parse_counts(texts: Sequence[str]) -> dict[str, int]:
    """`bike=10` → {"bike": 10}; raises ValueError naming what is wrong."""
    counts: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not number.isdigit():
            raise ValueError(f"--count {text!r}: write KIND=NUMBER, for example bike=10")
        counts[name] = int(number)
    return counts


def refuse_unknown_kinds(counts: Mapping[str, int]) -> None:
    """Raises ValueError that names the kinds there are."""
    import devices

    unknown = set(counts) - set(devices.kinds())
    if unknown:
        raise ValueError(f"--count: unknown kind {', '.join(sorted(unknown))}; known: {', '.join(devices.kinds())}")


def sim(
    broker_port: Annotated[int, typer.Option(help="Port of the broker.")],
    command_key: Annotated[Path, typer.Option(help="Public key (PEM) that signs commands.")],
    command_key_id: Annotated[str, typer.Option(help="Its name.")],
    directory: Annotated[Path, typer.Option(help="For the journal, the truth log and the statistics.")],
    identities: Annotated[
        Path | None, typer.Option(help="Folder with <device_id>.pem and <device_id>.key; unless --plain.")
    ] = None,
    authority: Annotated[Path | None, typer.Option(help="Certificate of the authority; unless --plain.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="No TLS: only for a bench on loopback.")] = False,
    press_every_s: Annotated[
        float, typer.Option(help="Presses at random rooms, so many business seconds apart.")
    ] = 0.0,
    storms: Annotated[
        int, typer.Option(min=0, help="Once the file DIRECTORY/storm is there: press every button, so many times.")
    ] = 0,
    storm_within_s: Annotated[float, typer.Option(min=0.01, help="Real seconds that the presses of one take.")] = 1.0,
    storm_every_s: Annotated[float, typer.Option(min=0.01, help="Real seconds from one to the next.")] = 5.0,
    broker_host: Annotated[str, typer.Option(help="Address of the broker.")] = "127.0.0.1",
    scenario: Annotated[str, typer.Option(help="quiet, demo or virtual.")] = "quiet",
    count: Annotated[list[str] | None, typer.Option(help="KIND=NUMBER; repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same day.")] = 1,
    speed: Annotated[float, typer.Option(help="Business seconds per real second.")] = 1.0,
    origin_ms: Annotated[int, typer.Option(help="Real moment at which the fast clock starts.")] = 0,
    shift_ms: Annotated[int, typer.Option(help="Business minus real time at that moment.")] = 0,
    connect_within_s: Annotated[float, typer.Option(help="Spread the first connections over this time.")] = 3.0,
    kind_folder: KindFolderOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="At the end, the last statistics as one JSON document.")
    ] = False,
) -> None:
    """Simulate hardware and run the edge agents of all its devices in this process.

    The truth log (truth.jsonl) is written before an agent sees what happened; statistics.json says each
    second how far the agents are. SIGUSR1 stops the world but not the agents, so that they can finish.

    Example: [bold]fleet sim --broker-port 1883 --plain --command-key command.pem --command-key-id main
    --directory sim --count bike=10 --count nursing_room=5 --speed 10[/bold]
    """
    from cli.clock import SystemClock
    from edge.identity import IdentityError
    from firmware_sim.scenario import Happening, scenario_named

    with usage_errors(ValueError):
        add_kinds(kind_folder)
        counts = parse_counts(count or ())
        refuse_unknown_kinds(counts)
        if not plain and (identities is None or authority is None):
            raise ValueError("devices need certificates: give --identities and --authority, or --plain for a bench")
        chosen = scenario_named(scenario)
    if press_every_s:
        presses = Happening(action="press", every_s=press_every_s, first_s=press_every_s)
        chosen = dataclasses.replace(chosen, happenings=(*chosen.happenings, presses))
    clock = SystemClock(speed=speed, origin_ms=origin_ms, shift_ms=shift_ms)
    directory.mkdir(parents=True, exist_ok=True)
    with usage_errors(IdentityError):
        asyncio.run(
            _simulate(
                clock=clock, counts=counts, seed=seed, scenario=chosen, directory=directory,
                address=(broker_host, broker_port), certificates=None if plain else (authority, identities),
                command_keys={command_key_id: command_key}, connect_within_s=connect_within_s,
                storms=Storms(storms, storm_within_s, storm_every_s),
            )
        )  # fmt: skip
    if as_json:
        print_json(json.loads((directory / STATISTICS_FILE).read_text()))


async def _simulate(
    *, clock: Any, counts: dict[str, int], seed: int, scenario: Any, directory: Path, address: tuple[str, int],
    certificates: Any, command_keys: dict[str, Path], connect_within_s: float, storms: "Storms",
) -> None:  # fmt: skip
    import devices
    from edge.credentials import Credentials
    from edge.host import EdgeHost
    from edge.identity import Identity, facts_of, load_tls_context, load_verifiers
    from edge.mqtt_link import BrokerAddress, MqttLink
    from firmware_sim.truth import TruthFile
    from firmware_sim.world import World

    with TruthFile(directory / "truth.jsonl") as truth:
        world = World(
            tuple(devices.kinds()), counts, seed, clock.now_ms(), scenario, truth=truth, clock=clock
        )  # fmt: skip
        host = EdgeHost(
            clock,
            random.Random(),  # jitter needs no secrecy
            directory / "journal.sqlite",
            first_connect_within_s=connect_within_s,
            firmware="sim-1",
        )
        verifiers = load_verifiers(command_keys)
        for device_id in world.device_ids:
            tls, credentials = None, Credentials()
            if certificates is not None:
                authority, folder = certificates
                tls = load_tls_context(authority, folder / f"{device_id}.pem", folder / f"{device_id}.key")
                credentials = Credentials(facts_of(folder / f"{device_id}.pem").serial)
            link = MqttLink(device_id, BrokerAddress(*address), tls)
            host.add(
                device_id, world.kind_of(device_id), WorldLine(world.line(device_id)), link,
                Identity(tls, verifiers, credentials),
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            standing_still = asyncio.Event()
            living = group.create_task(_live(world, clock, standing_still))
            reporting = group.create_task(_report(host, world, directory / STATISTICS_FILE))
            storming = group.create_task(_storm(world, storms, random.Random(f"{seed}:storm"), directory / "storm"))
            loop.add_signal_handler(signal.SIGUSR1, standing_still.set)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, host.stop)
            await host.run()
            living.cancel()
            reporting.cancel()
            storming.cancel()


@dataclasses.dataclass(frozen=True, slots=True)
class Storms:
    """Every button is pressed within `within_s` real seconds, `count` times, `every_s` apart."""

    count: int
    within_s: float
    every_s: float


async def _storm(world: Any, storms: Storms, rng: random.Random, signal_file: Path) -> None:
    """Presses every button in a shuffled order, evenly over the time; begins once the file is there."""
    import devices

    rooms = [name for name in world.device_ids if devices.kind_named(world.kind_of(name)).emergency]
    if not storms.count or not rooms:
        return
    while not await asyncio.to_thread(signal_file.exists):  # noqa: ASYNC110  # another process makes it
        await asyncio.sleep(0.05)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for number in range(storms.count):
        rng.shuffle(rooms)
        for place, room in enumerate(rooms):
            due_s = began_s + number * storms.every_s + place / len(rooms) * storms.within_s
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            world.act(room, "press")


async def _live(world: Any, clock: Any, standing_still: asyncio.Event) -> None:
    """Let the world go on; once it is told to stand still, only until no hardware keeps an event."""
    from firmware_sim import live

    async with asyncio.TaskGroup() as group:
        running = group.create_task(live.run(world, clock))
        await standing_still.wait()
        running.cancel()
    await live.settle(world, clock, within_s=SETTLE_S_MAX)


async def _report(host: "EdgeHost", world: Any, path: Path) -> None:
    while True:
        found = await host.statistics()
        document = {
            "devices": found.devices, "connected": found.connected, "journalled": found.journalled,
            "acknowledged": found.acknowledged, "pending": {lane.value: count for lane, count in found.pending.items()},
            "evicted": {lane.value: count for lane, count in found.evicted.items()}, "commits": found.commits,
            "counts": dict(found.counts), "business_ms": world.now_ms,
        }  # fmt: skip
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(document))
        fresh.replace(path)  # a reader never sees half a document
        await asyncio.sleep(STATISTICS_EVERY_S)
