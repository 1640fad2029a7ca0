"""A board drawn without Grafana: its queries' answers on its own grid, as PNG and as a page without scripts.

It shows what a board says, not every stroke of Grafana's; needs the extra `preview` (matplotlib).
"""

import base64
import html
import io
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from dashboards.check import Outcome
from dashboards.preview.canvas import PIXELS_PER_INCH, Drawn
from dashboards.preview.frames import frames_of
from dashboards.preview.panel import draw_panel
from dashboards.preview.transformations import transformed, unknown_transformations
from dashboards.queries import BOARD_WIDTH, Span, panels_in

WIDTH_PIXELS: Final = 1680
ROW_PIXELS: Final = 38
"""Height of one unit of the grid, as in Grafana."""
GAP_PIXELS: Final = 8
HEAD_PIXELS: Final = 56
CHINESE_FONTS: Final = (
    "Noto Sans CJK SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "Microsoft YaHei", "PingFang SC", "Heiti SC", "SimHei", "Droid Sans Fallback",
)  # fmt: skip
COLOURS: Final = 256
SIZE_MIN: Final = 0.3
NO_DATA: Final = "no data"


def use_chinese_font() -> str | None:
    """Make matplotlib draw Chinese with a font of this machine; its name, or None if there is none."""
    known = {entry.name for entry in font_manager.fontManager.ttflist}
    found = next((name for name in CHINESE_FONTS if name in known), None)
    mpl.rcParams["font.family"] = "sans-serif"
    mpl.rcParams["font.sans-serif"] = [*([found] if found else []), "DejaVu Sans"]
    mpl.rcParams["axes.unicode_minus"] = False
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # a font without a bold face is no news
    return found


def by_panel(outcomes: Sequence[Outcome]) -> dict[int, list[Outcome]]:
    """The outcomes of each panel's targets, by the panel's id."""
    grouped: defaultdict[int, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.query.place == "panel" and outcome.query.panel_id is not None:
            grouped[outcome.query.panel_id].append(outcome)
    return dict(grouped)


def drawn_of(panel: Mapping[str, Any], outcomes: Sequence[Outcome], span: Span) -> tuple[Drawn, str]:
    """A panel with what its queries answered, and what to say instead if there is nothing to draw."""
    at = panel["gridPos"]
    width = WIDTH_PIXELS * at["w"] / BOARD_WIDTH - GAP_PIXELS
    frames = transformed(frames_of(outcomes), panel)
    shown = outcomes[0].filled.span if outcomes else span
    drawn = Drawn(panel, frames, shown, width, at["h"] * ROW_PIXELS - GAP_PIXELS)
    if errors := [one.answer.error for one in outcomes if one.answer.error is not None]:
        return drawn, f"error: {errors[0]}"
    if unknown := unknown_transformations(panel):
        return drawn, f"not drawn here: {', '.join(unknown)}"
    if outcomes and not any(frame.length for frame in frames):
        defaults = (panel.get("fieldConfig") or {}).get("defaults") or {}
        return drawn, str(defaults.get("noValue") or NO_DATA)
    return drawn, ""


def png_of(board: Mapping[str, Any], outcomes: Sequence[Outcome], span: Span, *, scale: float = 1.0) -> bytes:
    """The whole board as one picture."""
    panels = list(panels_in(board))
    height = HEAD_PIXELS + ROW_PIXELS * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(WIDTH_PIXELS / PIXELS_PER_INCH, height / PIXELS_PER_INCH), facecolor="#F4F5F5")
    figure.text(
        12 / WIDTH_PIXELS, 1 - 14 / height, str(board["title"]), va="top", size=15, weight="bold", color="#24292E"
    )
    figure.text(1 - 12 / WIDTH_PIXELS, 1 - 20 / height, _shown(span), va="top", ha="right", size=9, color="#6E7781")
    grouped = by_panel(outcomes)
    for panel in panels:
        drawn, problem = drawn_of(panel, grouped.get(panel["id"], []), span)
        at = panel["gridPos"]
        left = (at["x"] / BOARD_WIDTH * WIDTH_PIXELS + GAP_PIXELS / 2) / WIDTH_PIXELS
        bottom = 1 - (HEAD_PIXELS + (at["y"] + at["h"]) * ROW_PIXELS - GAP_PIXELS / 2) / height
        part = _part(figure, (left, bottom, drawn.width / WIDTH_PIXELS, drawn.height / height))
        draw_panel(part, drawn, problem)
    return _saved(figure, "png", scale)


def _part(figure: Figure, box: tuple[float, float, float, float]) -> Any:
    """A sub-figure anywhere: matplotlib places them by a grid, so the grid gets these edges."""
    left, bottom, width, height = box
    grid = figure.add_gridspec(1, 1, left=left, right=left + width, bottom=bottom, top=bottom + height)
    part = figure.add_subfigure(grid[0, 0])
    part.bbox_relative.p0, part.bbox_relative.p1 = (left, bottom), (left + width, bottom + height)
    return part


def _saved(figure: Figure, form: str, scale: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=PIXELS_PER_INCH * scale, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def smaller(picture: bytes, bytes_max: int) -> bytes:
    """The picture with fewer colours, and then with fewer pixels, until it fits."""
    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    size = 1.0
    while True:
        shape = (round(whole.width * size), round(whole.height * size))
        made = whole if size == 1.0 else whole.resize(shape, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        made.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
        if buffer.tell() <= bytes_max or size < SIZE_MIN:
            return buffer.getvalue()
        size *= 0.9


def _shown(span: Span) -> str:
    first, last = (datetime.fromtimestamp(ms / 1000, UTC).astimezone(span.zone) for ms in (span.from_ms, span.to_ms))
    return f"{first:%Y-%m-%d %H:%M} – {last:%Y-%m-%d %H:%M}"


def page_of(board: Mapping[str, Any], outcomes: Sequence[Outcome], span: Span, picture: bytes) -> str:
    """A page that needs nothing else: the picture, and below it every panel with its words, queries, rows and times."""
    parts = [
        "<!doctype html>", '<meta charset="utf-8">', f"<title>{html.escape(str(board['title']))}</title>",
        f"<style>{_STYLE}</style>", f"<h1>{html.escape(str(board['title']))}</h1>", f"<p>{_shown(span)}</p>",
        f'<img alt="" src="data:image/png;base64,{base64.b64encode(picture).decode()}">',
    ]  # fmt: skip
    grouped = by_panel(outcomes)
    for panel in panels_in(board):
        parts.append(
            f"<details><summary>{html.escape(str(panel.get('title')))} <small>{panel['type']}</small></summary>"
        )
        parts.append(f"<p>{html.escape(str(panel.get('description') or '')).replace(chr(10), '<br>')}</p>")
        for one in grouped.get(panel["id"], []):
            words = one.answer.error or f"{one.answer.rows} rows, {one.answer.ms:.0f} ms"
            parts.append(f"<pre>{html.escape(one.filled.text)}</pre><p>{html.escape(words)}</p>")
        parts.append("</details>")
    return "\n".join(parts) + "\n"


_STYLE: Final = (
    "body{font:14px system-ui,sans-serif;margin:1rem;color:#24292e}img{max-width:100%}"
    "pre{white-space:pre-wrap;background:#f4f5f5;padding:.5rem}summary{cursor:pointer;padding:.25rem 0}"
)
