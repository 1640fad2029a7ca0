"""Painters of tables, bars per name, maps, distributions and words."""

import math
from typing import Any, Final

from matplotlib import patches

from dashboards.preview.canvas import (
    CARD,
    FAINT,
    INK,
    Canvas,
    Drawn,
    axes_of,
    by_threshold,
    is_numeric,
    moment_text,
    short,
    width_of,
)
from dashboards.preview.frames import TIME
from dashboards.preview.looks import NEUTRAL, Look, look_of, palette, shown_columns

TABLE_ROWS_MAX: Final = 200
CELL_CHARACTERS_MAX: Final = 34
ROW_PIXELS: Final = 22.0


def draw_bar_chart(canvas: Canvas, drawn: Drawn, top: float) -> None:
    frame = next((frame for frame in drawn.frames if frame.length), None)
    if frame is None:
        return
    along = str(drawn.options.get("xField") or "")
    if along not in frame.columns:
        along = next((name for name, column in frame.columns.items() if not is_numeric(column)), TIME)
    names = [name for name, column in frame.columns.items() if name not in {along, TIME} and is_numeric(column)]
    labels = [
        moment_text(drawn, value, "%m-%d %H:%M") if along == TIME else str(value) for value in frame.columns[along]
    ]
    axes = axes_of(canvas, drawn, top, bottom=52 if max(map(len, labels), default=0) > 4 else 26)
    width, look = 0.8 / max(1, len(names)), look_of(drawn.panel, names[0] if names else "")
    for number, name in enumerate(names):
        one = look_of(drawn.panel, name, frame.ref)
        heights = [0 if value is None else value for value in frame.columns[name]]
        colours = [
            one.colour(value) if one.steps and by_threshold(drawn.panel) else palette(number) for value in heights
        ]
        axes.bar(
            [index + number * width for index in range(len(heights))], heights, width, color=colours, label=one.name
        )
    middle = width * (len(names) - 1) / 2
    axes.set_xticks([index + middle for index in range(len(labels))], labels, rotation=45 if len(labels) > 6 else 0,
                    ha="right" if len(labels) > 6 else "center", size=6.5)  # fmt: skip
    axes.yaxis.set_major_formatter(lambda value, _: look.text(short(value)))
    if len(names) > 1:
        axes.legend(fontsize=7, frameon=False, ncols=4, loc="upper right")


def draw_table(canvas: Canvas, drawn: Drawn, top: float) -> None:
    frame = next(iter(drawn.frames), None)
    if frame is None:
        return
    names = shown_columns(drawn.panel, list(frame.columns))
    room = int((top * drawn.height - ROW_PIXELS) / ROW_PIXELS)
    rows = min(frame.length, room, TABLE_ROWS_MAX)
    looks = {name: look_of(drawn.panel, name, frame.ref) for name in names}
    cells = [
        [_cell(drawn, looks[name], frame.columns[name][index], is_time=name == frame.time) for name in names]
        for index in range(rows)
    ]
    widths = [
        max([width_of(looks[name].name), *(width_of(row[place]) for row in cells)]) + 2
        for place, name in enumerate(names)
    ]
    total = max(1.0, sum(widths))
    size = max(5.0, min(8.0, 1.2 * drawn.width / total))
    x = 8 / drawn.width
    for place, name in enumerate(names):
        step = widths[place] / total * (1 - 16 / drawn.width)
        canvas.text(x, top - 6 / drawn.height, looks[name].name, va="top", size=size, color=NEUTRAL)
        for index, row in enumerate(cells):
            y = top - (ROW_PIXELS * (index + 1) + 4) / drawn.height
            value, look = frame.columns[name][index], looks[name]
            filled = look.coloured_cell and value is not None
            if filled:
                box = patches.Rectangle(
                    (x, y - ROW_PIXELS * 0.72 / drawn.height), step * 0.96, ROW_PIXELS * 0.9 / drawn.height,
                    transform=canvas.transSubfigure, facecolor=look.colour(value), linewidth=0,
                )  # fmt: skip
                canvas.add_artist(box)
            canvas.text(x + 2 / drawn.width, y, row[place], va="top", size=size, color="#FFFFFF" if filled else INK)
        x += step
    if frame.length > rows:
        more = f"+ {frame.length - rows}"
        canvas.text(1 - 8 / drawn.width, 4 / drawn.height, more, ha="right", va="bottom", size=7, color=FAINT)


def _cell(drawn: Drawn, look: Look, value: Any, *, is_time: bool) -> str:
    if isinstance(value, (int, float)) and (is_time or look.unit.startswith("dateTime")):
        return moment_text(drawn, value, "%m-%d %H:%M:%S")
    text = look.text(value)
    return text if len(text) <= CELL_CHARACTERS_MAX else text[: CELL_CHARACTERS_MAX - 1] + "…"


MAP_DEGREES_MIN: Final = 0.01
"""About a kilometre: one place alone is not drawn on a map of the province."""


def draw_geomap(canvas: Canvas, drawn: Drawn, top: float) -> None:
    axes = axes_of(canvas, drawn, top)
    for frame in drawn.frames:
        east, north = frame.columns.get("longitude"), frame.columns.get("latitude")
        if east is None or north is None:
            continue
        coloured = next((name for name, column in frame.values.items()
                         if name not in {"latitude", "longitude"} and is_numeric(column)), None)  # fmt: skip
        colours = [NEUTRAL] * frame.length
        if coloured:
            look = look_of(drawn.panel, coloured, frame.ref)
            colours = [look.colour(value) for value in frame.columns[coloured]]
        known = [index for index in range(frame.length) if east[index] is not None and north[index] is not None]
        axes.scatter(
            [east[index] for index in known], [north[index] for index in known], c=[colours[index] for index in known],
            s=22, edgecolors="#FFFFFF", linewidths=0.5,
        )  # fmt: skip
    for low_high, put in ((axes.get_xlim(), axes.set_xlim), (axes.get_ylim(), axes.set_ylim)):
        middle, half = sum(low_high) / 2, max(MAP_DEGREES_MIN, low_high[1] - low_high[0]) / 2
        if half < 1:  # one place alone gets a whole degree from the library
            put(middle - half, middle + half)
        else:
            put(middle - MAP_DEGREES_MIN, middle + MAP_DEGREES_MIN)
    axes.set_aspect(1 / math.cos(math.radians(38.86)), adjustable="box")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3f}° E")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3f}")


def draw_histogram(canvas: Canvas, drawn: Drawn, top: float) -> None:
    axes = axes_of(canvas, drawn, top)
    values = [
        value for frame in drawn.frames for column in frame.values.values() if is_numeric(column)
        for value in column if value is not None
    ]  # fmt: skip
    look = look_of(drawn.panel, "")
    if values:
        size = drawn.options.get("bucketSize")
        edges: Any = drawn.options.get("bucketCount") or 20
        if size:
            first = math.floor(min(values) / size) * size
            edges = [first + index * size for index in range(int((max(values) - first) // size) + 2)]
        axes.hist(values, bins=edges, color=palette(0), edgecolor=CARD)
    axes.xaxis.set_major_formatter(lambda value, _: look.text(short(value)))


def draw_text(canvas: Canvas, drawn: Drawn, top: float) -> None:
    content = str(drawn.options.get("content") or "")
    canvas.text(8 / drawn.width, top, content, va="top", size=8, color=INK, wrap=True)
