"""A push button on pins of a single-board computer, with libgpiod's character device (extra `edge-gpio`).

The button has two contacts: one closes when it is pressed, one opens. A cable that is cut, shorted or unplugged makes
the two agree, which a working button never does for longer than its spring takes to move: that is the supervision.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from pydantic import BaseModel, ConfigDict, Field

DEBOUNCE_S: Final = 0.03
"""A contact bounces for 5 to 20 ms; a press is told only after this, so it is part of every press's latency."""
DISAGREEMENT_S_MAX: Final = 0.5


class ButtonSettings(BaseModel):
    """Table `[hardware.button]`: pins by their number on the chip."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chip: str = Field(default="/dev/gpiochip0", pattern=r"^/dev/gpiochip\d+$")
    closes: int = Field(ge=0, le=1_023)
    """Pin of the contact that closes to ground when pressed."""
    opens: int = Field(ge=0, le=1_023)
    """Pin of the contact that opens from ground when pressed."""


class Pins(Protocol):
    """Two inputs with pull-ups; True is connected to ground."""

    def levels(self) -> tuple[bool, bool]:
        """(closing contact, opening contact) now; raises OSError."""
        ...

    async def changed(self) -> None:
        """Return after an edge on either; raises OSError."""
        ...

    def close(self) -> None:
        """Release the pins."""
        ...


class Button:
    """Debounced and supervised; `run` until cancelled."""

    def __init__(
        self,
        pins: Pins,
        on_press: Callable[[], None],
        on_link: Callable[[bool], None],
        *,
        pressed: bool = False,
    ) -> None:
        """`on_press` once per press; `on_link` whenever the cable turns out to be good or bad.

        `pressed`: this press was told already, before the line was opened anew.
        """
        self._pins = pins
        self._on_press = on_press
        self._on_link = on_link
        self.link_ok: bool | None = None
        self.pressed = pressed

    async def run(self) -> None:
        """Raises OSError when the pins are gone."""
        while True:
            levels = await self._settled()
            await self._judge(levels)
            if self._pins.levels() == levels:  # else it moved on while we judged
                await self._pins.changed()

    async def _settled(self) -> tuple[bool, bool]:
        """What both contacts say twice in a row, a debounce apart."""
        levels = self._pins.levels()
        while True:
            await asyncio.sleep(DEBOUNCE_S)
            before, levels = levels, self._pins.levels()
            if levels == before:
                return levels

    async def _judge(self, levels: tuple[bool, bool]) -> None:
        closed, opened = levels[0], not levels[1]
        if closed != opened:
            if closed:  # a call is told although the other contact may be broken: better one too many
                self._press(pressed=True)
            await asyncio.sleep(DISAGREEMENT_S_MAX)
            if self._pins.levels() == levels:
                self._link(ok=False)
            return
        self._link(ok=True)
        self._press(pressed=closed)

    def _press(self, *, pressed: bool) -> None:
        if pressed and not self.pressed:
            self._on_press()
        self.pressed = pressed

    def _link(self, *, ok: bool) -> None:
        if ok != self.link_ok:
            self.link_ok = ok
            self._on_link(ok)


class GpioPins:
    """The real thing. It has never run on real pins yet: see the table in docs/hardware.md."""

    def __init__(self, settings: ButtonSettings) -> None:
        """Take the pins; raises OSError."""
        try:
            import gpiod  # noqa: PLC0415  # an optional extra
            from gpiod.line import Bias, Direction, Edge, Value  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise OSError("gpiod is not installed: pip install 'gaoxin-fleet[edge-gpio]'") from error
        self._settings = settings
        self._ground = Value.INACTIVE
        wanted = gpiod.LineSettings(direction=Direction.INPUT, edge_detection=Edge.BOTH, bias=Bias.PULL_UP)
        self._request = gpiod.request_lines(
            settings.chip, consumer="fleet-edge", config={(settings.closes, settings.opens): wanted}
        )

    def levels(self) -> tuple[bool, bool]:
        """See Pins."""
        closes, opens = self._request.get_values([self._settings.closes, self._settings.opens])
        return closes == self._ground, opens == self._ground

    async def changed(self) -> None:
        """See Pins."""
        loop = asyncio.get_running_loop()
        edge = loop.create_future()

        def arrived() -> None:
            if not edge.done():
                edge.set_result(None)

        loop.add_reader(self._request.fd, arrived)
        try:
            await edge
            self._request.read_edge_events()
        finally:
            loop.remove_reader(self._request.fd)

    def close(self) -> None:
        """See Pins."""
        self._request.release()
