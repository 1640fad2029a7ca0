"""Faults that last: networks, messages, disks, clocks and the series store, one spell after the other."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cli.chaos.hostile import Rates
from cli.chaos.plan import Spell
from cli.chaos.promises import WrongClock
from cli.chaos.proxy import Weather
from cli.chaos.scene import Scene

if TYPE_CHECKING:
    from cli.chaos.torment import Deed

ONE_WAY_S_MAX: Final = 0.1
"""200 ms there and back."""
CLOCK_LAG_S: Final = 1.0
"""From what hardware measured to the agent's stamp, on a busy machine."""
START_LAG_S: Final = 2.0
"""From an error at the start of a process to its end."""
FLAP_S: Final = 0.5
"""Half a period: 1 Hz."""
BAD_LINK: Final = Weather(one_way_s_min=0.1, one_way_s_max=0.1, reset_share=0.2, reset_within_s=30.0)


class Sky:
    """Carries spells out on a scene; `clear` heals everything."""

    def __init__(self, scene: Scene, deed: "Deed", edge_disk: asyncio.Lock, *, always_bad: bool = False) -> None:
        """`always_bad`: the devices' link is `BAD_LINK` from the beginning, also for connections that stand."""
        self._scene = scene
        self._deed = deed
        self._edge_disk = edge_disk
        self._always_bad = always_bad
        self._do: dict[str, Callable[[Spell], Coroutine[Any, Any, None]]] = {
            "cut": self._cut, "cut_cloud": self._cut_cloud, "delay": self._delay, "resets": self._resets,
            "freeze": self._freeze, "flap": self._flap, "messages": self._messages, "disk_edge": self._disk_edge,
            "disk_cloud": self._disk_cloud, "clock_edge": self._clock_edge, "clock_cloud": self._clock_cloud,
            "series": self._series,
        }  # fmt: skip

    async def run(self, spells: Sequence[Spell]) -> None:
        """One after the other; cancelled when the kills are over."""
        if self._always_bad:
            self._scene.edge_proxy.weather = replace(BAD_LINK)
            self._scene.edge_proxy.cut()
        for spell in spells:
            await asyncio.sleep(spell.pause_s)
            self._scene.tell("spell", name=spell.name, lasts_s=round(spell.lasts_s, 2), value=spell.value)
            await self._do[spell.name](spell)
            self._deed.spells[spell.name] += 1

    async def clear(self) -> None:
        """Nothing is wrong any more."""
        scene = self._scene
        for proxy in scene.proxies:
            proxy.weather = Weather()
            proxy.set_frozen(frozen=False)
        scene.set_rates(Rates())
        for victim in scene.supervisor.victims.values():
            victim.control.set_clock(0)
        for disk in scene.disks.values():
            if disk.mounted:
                await disk.heal()
        if scene.series is not None:
            await scene.series.heal()

    # --- network -------------------------------------------------------------------------------------------------

    async def _cut(self, spell: Spell) -> None:
        proxy = self._scene.edge_proxy
        proxy.weather.refusing = spell.value < 0.5
        proxy.cut()
        try:
            await asyncio.sleep(spell.lasts_s)
        finally:
            proxy.weather.refusing = False

    async def _cut_cloud(self, spell: Spell) -> None:
        del spell
        self._scene.cloud_proxy.cut()

    async def _delay(self, spell: Spell) -> None:
        await self._weather(Weather(one_way_s_min=0.0, one_way_s_max=ONE_WAY_S_MAX), spell.lasts_s)

    async def _resets(self, spell: Spell) -> None:
        await self._weather(replace(BAD_LINK), spell.lasts_s)

    async def _weather(self, weather: Weather, lasts_s: float) -> None:
        proxies = self._scene.edge_proxy, self._scene.cloud_proxy
        for proxy in proxies:
            proxy.weather = weather
        try:
            await asyncio.sleep(lasts_s)
        finally:
            for proxy in proxies:
                proxy.weather = Weather()

    async def _freeze(self, spell: Spell) -> None:
        proxy = self._scene.edge_proxy if spell.value < 0.5 else self._scene.cloud_proxy
        proxy.set_frozen(frozen=True)
        try:
            await asyncio.sleep(spell.lasts_s)
        finally:
            proxy.set_frozen(frozen=False)

    async def _flap(self, spell: Spell) -> None:
        proxy = self._scene.flapping_proxy
        until_s = time.monotonic() + spell.lasts_s
        try:
            while time.monotonic() < until_s:
                proxy.weather.refusing = True
                proxy.cut()
                await asyncio.sleep(FLAP_S)
                proxy.weather.refusing = False
                await asyncio.sleep(FLAP_S)
        finally:
            proxy.weather.refusing = False

    async def _messages(self, spell: Spell) -> None:
        self._scene.set_rates(Rates(duplicated=0.1, reordered=0.1, truncated=0.05, forged=0.05))
        try:
            await asyncio.sleep(spell.lasts_s)
        finally:
            self._scene.set_rates(Rates())

    # --- disks, clocks, series -----------------------------------------------------------------------------------

    async def _disk_edge(self, spell: Spell) -> None:
        from cli.chaos.torment import unpromised_disk

        async with self._edge_disk:
            began_s = time.monotonic()
            disk = self._scene.disks["edge"]
            await disk.fill()
            try:
                await asyncio.sleep(spell.lasts_s)
            finally:
                await disk.heal()
                unpromised_disk(self._scene, self._deed, began_s)

    async def _disk_cloud(self, spell: Spell) -> None:
        disk = self._scene.disks["cloud"]
        began_s = time.monotonic()
        await disk.fill()
        try:
            await asyncio.sleep(spell.lasts_s)
        finally:
            await disk.heal()
            self._deed.cloud_disk_full_s.append((began_s, time.monotonic() + START_LAG_S))

    async def _clock_edge(self, spell: Spell) -> None:
        hosts = self._scene.hosts
        host = hosts[int(abs(spell.value)) % len(hosts)]
        began_s = time.monotonic()
        try:
            await self._jump([host], spell)
        finally:
            until_s = time.monotonic() + CLOCK_LAG_S
            self._deed.wrong_clocks.append(
                WrongClock(self._scene.devices_of(host), began_s - CLOCK_LAG_S, until_s, round(spell.value * 1000))
            )

    async def _clock_cloud(self, spell: Spell) -> None:
        by_ms = round(spell.value * 1000)
        await self._jump(list(self._scene.http_ports), spell)
        # Who was welcomed meanwhile keeps that time until the next welcome, which may be long; and what a box read
        # since its start, before anybody had told it the time, is corrected by the first welcome, also by a wrong one.
        self._deed.wrong_clocks.append(WrongClock(list(self._scene.fleet), -math.inf, math.inf, by_ms))

    async def _jump(self, names: Sequence[str], spell: Spell) -> None:
        for name in names:
            self._scene.victim(name).control.set_clock(round(spell.value * 1000))
        try:
            await asyncio.sleep(spell.lasts_s)
        finally:
            for name in names:
                self._scene.victim(name).control.set_clock(0)

    async def _series(self, spell: Spell) -> None:
        series = self._scene.series
        if series is None:
            return
        await series.fault(round(spell.value))
        try:
            await asyncio.sleep(spell.lasts_s)
        finally:
            with contextlib.suppress(OSError):
                await series.heal()
