"""Painters of what happened over time: lines, bars, states."""

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

from matplotlib.axes import Axes

from dashboards.preview.canvas import (
    FAINT,
    INK,
    LEGEND_MAX,
    Canvas,
    Drawn,
    axes_of,
    by_threshold,
    is_numeric,
    short,
    time_axis,
    when,
    width_of,
)
from dashboards.preview.frames import TIME
from dashboards.preview.looks import Look, colour_of, look_of, palette

RIGHT_PIXELS = 52.0
LEGEND_PIXELS = 110.0


def draw_time_series(canvas: Canvas, drawn: Drawn, top: float) -> None:
    series = [
        (name, frame.columns[TIME], column, look_of(drawn.panel, name, frame.ref))
        for frame in drawn.frames
        if TIME in frame.columns
        for name, column in frame.values.items()
    ]
    series = [one for one in series if is_numeric(one[2]) and not one[3].hidden]
    has_legend = (drawn.options.get("legend") or {}).get("showLegend", True) and bool(series)
    columns = max(1, int(drawn.width // LEGEND_PIXELS))
    rows = math.ceil(min(len(series), LEGEND_MAX) / columns) if has_legend else 0
    axes = axes_of(canvas, drawn, top, bottom=(29 if rows else 24) + 13 * rows)
    base = look_of(drawn.panel, "")
    dressed: dict[str, tuple[Axes, list[Look]]] = {}
    lows: dict[Any, float] = {}
    right: Axes | None = None
    bar_days = min((b - a for _, times, _, _ in series for a, b in pairwise(times)), default=3_600_000) / 86_400_000
    is_stacked = (base.custom.get("stacking") or {}).get("mode") in {"normal", "percent"}
    for index, (name, times, column, look) in enumerate(series):
        points = [(at, value) for at, value in zip(times, column, strict=True) if value is not None]
        if not points:
            continue
        xs, ys = [when(drawn, at) for at, _ in points], [float(value) for _, value in points]
        on = axes
        if look.custom.get("axisPlacement") == "right":
            right = right or _right_axes(axes, look, drawn)
            on = right
        else:
            base = look if not base.unit else base
        dressed.setdefault("right" if on is right else "left", (on, []))[1].append(look)
        colour = look.fixed or (look.colour(ys[-1]) if by_threshold(drawn.panel) else palette(index))
        if look.custom.get("drawStyle") == "bars":
            width = bar_days * 0.85
            bottoms = [lows.get(at, 0.0) if is_stacked else 0.0 for at in xs]
            axes.bar(xs, ys, width=width, bottom=bottoms, color=colour, label=look.name or name)
            if is_stacked:
                lows.update({at: low + value for at, low, value in zip(xs, bottoms, ys, strict=True)})
            continue
        step = {"stepAfter": "steps-post", "stepBefore": "steps-pre"}.get(str(look.custom.get("lineInterpolation")))
        style = "none" if look.custom.get("drawStyle") == "points" else "-"
        xs, ys = _with_gaps(xs, ys, look.custom.get("spanNulls"))
        on.plot(
            xs, ys, color=colour, linewidth=1.1, linestyle=style, drawstyle=step or "default",
            marker="o" if len(points) < 40 or style == "none" else None, markersize=2.2, label=look.name or name,
        )  # fmt: skip
        if (fill := float(look.custom.get("fillOpacity") or 0)) and min(value for _, value in points) >= 0:
            on.fill_between(xs, ys, 0, color=colour, alpha=fill / 250, linewidth=0, step="post" if step else None)
    for on, looks in dressed.values():
        _limits(on, looks)
    time_axis(axes, drawn)
    axes.yaxis.set_major_formatter(lambda value, _: base.text(short(value)))
    if has_legend:
        shown = min(len(series), LEGEND_MAX)
        handles, labels = axes.get_legend_handles_labels()
        if right is not None:
            more, names = right.get_legend_handles_labels()
            handles, labels = [*handles, *more], [*labels, *names]
        axes.legend(
            handles[:shown], labels[:shown], loc="upper left", bbox_to_anchor=(0, -20 / (drawn.height * 0.75)),
            ncols=columns, fontsize=7, frameon=False, labelcolor=INK, borderaxespad=0,
            handlelength=1.2, columnspacing=1.0,
        )  # fmt: skip


def _right_axes(axes: Axes, look: Look, drawn: Drawn) -> Axes:
    """A second scale with a unit of its own."""
    place = axes.get_position()
    axes.set_position((place.x0, place.y0, place.width - RIGHT_PIXELS / drawn.width, place.height))
    right = axes.twinx()
    right.tick_params(labelsize=7, colors=FAINT, length=0)
    for spine in right.spines.values():
        spine.set_visible(False)
    right.yaxis.set_major_formatter(lambda value, _: look.text(short(value)))
    return right


def _with_gaps(xs: list[Any], ys: list[float], span_nulls: Any) -> tuple[list[Any], list[float]]:
    """A gap longer than the panel bridges is one."""
    if not isinstance(span_nulls, (int, float)) or isinstance(span_nulls, bool):
        return xs, ys
    longest = span_nulls / 86_400_000
    out_x, out_y = xs[:1], ys[:1]
    for before, at, value in zip(xs, xs[1:], ys[1:], strict=False):
        if at - before > longest * 1.5:
            out_x.append((before + at) / 2)
            out_y.append(math.nan)
        out_x.append(at)
        out_y.append(value)
    return out_x, out_y


def _limits(axes: Axes, looks: Sequence[Look]) -> None:
    """Lines of the limits of everything drawn here, and where the axis begins and ends."""
    for look in looks:
        style = ((look.custom.get("thresholdsStyle") or {}).get("mode")) or "off"
        for start, name in look.steps if style != "off" else ():
            if start is not None:
                axes.axhline(start, color=colour_of(name), linewidth=0.9, linestyle="--", alpha=0.8)
    lows = [look.minimum for look in looks if look.minimum is not None]
    highs = [look.maximum for look in looks if look.maximum is not None]
    if len(lows) == len(looks):
        if axes.dataLim.ymax <= min(lows):  # nothing but the lowest: an axis of no height shows what is above it
            axes.set_ylim(top=min(lows) + 1)
        axes.set_ylim(bottom=min(lows))
    if highs and len(highs) == len(looks):
        axes.set_ylim(top=max(highs))


def draw_state_timeline(canvas: Canvas, drawn: Drawn, top: float) -> None:
    lanes = [
        (
            look_of(drawn.panel, name, frame.ref).name or name,
            frame.columns[TIME],
            column,
            look_of(drawn.panel, name, frame.ref),
        )
        for frame in drawn.frames
        if TIME in frame.columns
        for name, column in frame.values.items()
    ]
    axes = axes_of(canvas, drawn, top, left=min(130, drawn.width * 0.3))
    end = when(drawn, drawn.span.to_ms)
    for index, (_, times, column, look) in enumerate(lanes):
        points = [(at, value) for at, value in zip(times, column, strict=True) if value is not None]
        runs = [(value, [at for at, _ in same]) for value, same in groupby(points, key=lambda point: point[1])]
        starts = [when(drawn, ats[0]) for _, ats in runs]
        for number, (value, start, stop) in enumerate(
            zip([value for value, _ in runs], starts, [*starts[1:], end], strict=True)
        ):
            colour = look.colour(value, palette(number))
            axes.barh(index, stop - start, left=start, height=0.75, color=colour)
            text = look.text(value)
            if (stop - start) / (end - when(drawn, drawn.span.from_ms)) * drawn.width > 9 * width_of(text):
                axes.text((start + stop) / 2, index, text, ha="center", va="center", size=7, color=INK)
    axes.set_yticks(range(len(lanes)), [name for name, *_ in lanes], size=7)
    axes.invert_yaxis()
    time_axis(axes, drawn)
