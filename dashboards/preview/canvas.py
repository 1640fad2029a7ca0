"""What every painter draws on: the panel with its answers, its area, axes and times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from dashboards.preview.frames import Frame
from dashboards.queries import Span

INK, FAINT, GRID, CARD = "#24292E", "#6E7781", "#E1E4E8", "#FFFFFF"
LEGEND_MAX: Final = 12
TITLE_PIXELS: Final = 26.0
PIXELS_PER_INCH: Final = 100.0

Canvas = Figure | SubFigure


@dataclass(frozen=True, slots=True)
class Drawn:
    """A panel ready to be drawn."""

    panel: Mapping[str, Any]
    frames: Sequence[Frame]
    span: Span
    width: float
    height: float
    """Pixels."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The panel's own options."""
        return self.panel.get("options") or {}


def axes_of(canvas: Canvas, drawn: Drawn, top: float, *, left: float = 52, bottom: float = 24) -> Axes:
    x, y = left / drawn.width, bottom / drawn.height
    axes = canvas.add_axes((x, y, max(0.05, 1 - x - 12 / drawn.width), max(0.05, top - y)))
    axes.tick_params(labelsize=7, colors=FAINT, length=0)
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def when(drawn: Drawn, ms: float) -> Any:
    return dates.date2num(  # type: ignore[no-untyped-call]
        datetime.fromtimestamp(ms / 1000, UTC).astimezone(drawn.span.zone).replace(tzinfo=None)
    )


def moment_text(drawn: Drawn, ms: float, form: str) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(drawn.span.zone).strftime(form)


def time_axis(axes: Axes, drawn: Drawn) -> None:
    axes.set_xlim(when(drawn, drawn.span.from_ms), when(drawn, drawn.span.to_ms))
    locator = dates.AutoDateLocator(  # type: ignore[no-untyped-call]
        minticks=3, maxticks=max(3, round(drawn.width / 90))
    )
    axes.xaxis.set_major_locator(locator)
    formatter = dates.ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)


def is_numeric(column: Sequence[Any]) -> bool:
    present = [value for value in column if value is not None]
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present)


def width_of(text: str) -> float:
    """In characters, Chinese ones count twice."""
    return sum(2 if ord(one) > 0x2E80 else 1 for one in text)


def short(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 4)


def by_threshold(panel: Mapping[str, Any]) -> bool:
    color = ((panel.get("fieldConfig") or {}).get("defaults") or {}).get("color") or {}
    return bool(color.get("mode") == "thresholds")
