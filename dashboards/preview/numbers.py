"""Painters of single numbers: stat, gauge, bar gauge, pie."""

import math
import re
from typing import Any, Final

from matplotlib import patches

from dashboards.preview.canvas import FAINT, INK, Canvas, Drawn, axes_of, is_numeric, width_of
from dashboards.preview.looks import Look, look_of, palette
from dashboards.preview.transformations import reduced

BARS_MIN: Final = 6
"""A few bars do not fill the panel."""


def _values(drawn: Drawn) -> list[tuple[str, Any, Look]]:
    """(name, value, look) of every number that a stat, gauge or bar gauge shows."""
    reduce_options = drawn.options.get("reduceOptions") or {}
    calculation = (reduce_options.get("calcs") or ["lastNotNull"])[0]
    wanted = str(reduce_options.get("fields") or "")
    found: list[tuple[str, Any, Look]] = []
    for frame in drawn.frames:
        names = [name for name, column in frame.values.items() if wanted or is_numeric(column)]
        if wanted and wanted not in {"/.*/", "/^.*$/"}:
            names = [name for name in names if name == wanted or re.search(wanted.strip("/"), name)]
        words = [name for name, column in frame.values.items() if not is_numeric(column)]
        for name in names:
            column = frame.values[name]
            if reduce_options.get("values"):
                for index, value in enumerate(column):
                    label = str(frame.columns[words[0]][index]) if words else name
                    found.append((label, value, look_of(drawn.panel, name, frame.ref, value)))
                continue
            value = reduced(column, calculation)
            look = look_of(drawn.panel, name, frame.ref, value)
            found.append((look.name, value, look))
    return found


def draw_stat(canvas: Canvas, drawn: Drawn, top: float) -> None:
    values = _values(drawn) or [("", None, look_of(drawn.panel, ""))]
    columns = _columns(len(values), drawn.width, drawn.height)
    rows = math.ceil(len(values) / columns)
    mode = str(drawn.options.get("textMode", "auto"))
    for index, (name, value, look) in enumerate(values):
        x, y = (index % columns + 0.5) / columns, top * (1 - (index // columns + 0.5) / rows)
        named = (len(values) > 1 and mode not in {"value", "none"}) or mode == "value_and_name"
        text = look.text(value)
        cell_width, cell_height = drawn.width / columns, top * drawn.height / rows
        size = max(6.0, min(30.0, cell_height * 0.34, 1.25 * cell_width / max(3, width_of(text))))
        colour = look.colour(value, INK) if value is not None else FAINT
        lift = 0.11 * top / rows if named else 0.0
        canvas.text(x, y + lift, text, ha="center", va="center", size=size, color=colour, weight="bold")
        if named:
            small = max(5.5, min(9.0, 1.3 * cell_width / max(4, width_of(name))))
            canvas.text(x, y - 0.24 * top / rows, name, ha="center", va="center", size=small, color=FAINT)


def _columns(count: int, width: float, height: float) -> int:
    if count <= 1:
        return 1
    return max(1, min(count, round(math.sqrt(count * width / max(1.0, height) * 0.5)) or 1))


def draw_bar_gauge(canvas: Canvas, drawn: Drawn, top: float) -> None:
    values = _values(drawn)
    if not values:
        draw_stat(canvas, drawn, top)
        return
    numbers = [value for _, value, _ in values if isinstance(value, (int, float))]
    axes = axes_of(canvas, drawn, top, left=min(210, drawn.width * 0.35), bottom=8)
    axes.grid(visible=False)
    axes.set_xticks([])
    high = max([look.maximum for *_, look in values if look.maximum is not None] or [max(numbers, default=1) or 1])
    low = min([look.minimum for *_, look in values if look.minimum is not None] or [0])
    axes.set_xlim(low, high * 1.15 if high > 0 else 1)
    for index, (_, value, look) in enumerate(values):
        number = value if isinstance(value, (int, float)) else 0
        axes.barh(index, high - low, left=low, color="#F1F3F5", height=0.7)
        axes.barh(index, number - low, left=low, color=look.colour(value), height=0.7)
        axes.text(max(low, min(number, high)), index, " " + look.text(value), va="center", size=7.5, color=INK)
    axes.set_yticks(range(len(values)), [name for name, *_ in values], size=7.5)
    axes.set_ylim(max(len(values), BARS_MIN) - 0.5, -0.5)


def draw_gauge(canvas: Canvas, drawn: Drawn, top: float) -> None:
    values = _values(drawn)
    if not values:
        draw_stat(canvas, drawn, top)
        return
    columns = _columns(len(values), drawn.width, drawn.height)
    rows = math.ceil(len(values) / columns)
    for index, (name, value, look) in enumerate(values):
        width, height = 1 / columns, top / rows
        left, bottom = index % columns * width, top - (index // columns + 1) * height
        axes = canvas.add_axes((left, bottom, width, height))
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.set_xlim(-1.15, 1.15)
        axes.set_ylim(-0.55, 1.1)
        low = 0.0 if look.minimum is None else look.minimum
        high = 100.0 if look.maximum is None else look.maximum
        share = 0.0 if not isinstance(value, (int, float)) or high <= low else (value - low) / (high - low)
        axes.add_patch(patches.Wedge((0, 0), 1.0, -20, 200, width=0.22, color="#E9ECEF"))
        end = 200 - 220 * max(0.0, min(1.0, share))
        axes.add_patch(patches.Wedge((0, 0), 1.0, end, 200, width=0.22, color=look.colour(value)))
        axes.text(0, 0.05, look.text(value), ha="center", va="center", size=14, color=look.colour(value), weight="bold")
        if len(values) > 1:
            axes.text(0, -0.42, name, ha="center", va="center", size=7.5, color=FAINT)


def draw_pie(canvas: Canvas, drawn: Drawn, top: float) -> None:
    values = [
        (name, value, look) for name, value, look in _values(drawn) if isinstance(value, (int, float)) and value > 0
    ]
    if not values:
        draw_stat(canvas, drawn, top)
        return
    axes = canvas.add_axes((0.02, 0.04, 0.5, top - 0.06))
    colours = [look.fixed or palette(index) for index, (_, _, look) in enumerate(values)]
    hole = 0.55 if drawn.options.get("pieType") == "donut" else 1.0
    wedges = axes.pie([value for _, value, _ in values], colors=colours, wedgeprops={"width": hole}, startangle=90)[0]
    labels = [f"{name}  {look.text(value)}" for name, value, look in values]
    axes.legend(wedges, labels, loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7.5, frameon=False)
