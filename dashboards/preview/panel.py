"""One panel: its title, and the painter of its type; what is shown, `frames`, `transformations` and `looks` decide."""

from collections.abc import Callable, Mapping
from typing import Final

from dashboards.preview.canvas import CARD, FAINT, INK, TITLE_PIXELS, Canvas, Drawn
from dashboards.preview.numbers import draw_bar_gauge, draw_gauge, draw_pie, draw_stat
from dashboards.preview.others import draw_bar_chart, draw_geomap, draw_histogram, draw_table, draw_text
from dashboards.preview.over_time import draw_state_timeline, draw_time_series


def draw_panel(canvas: Canvas, drawn: Drawn, problem: str = "") -> None:
    """Title and content; `problem` instead of content when there is none to show."""
    canvas.set_facecolor(CARD)
    top = 1 - TITLE_PIXELS / drawn.height
    title = str(drawn.panel.get("title") or "")
    canvas.text(8 / drawn.width, 1 - 7 / drawn.height, title, va="top", ha="left", size=9.5, color=INK, weight="medium")
    if problem:
        canvas.text(0.5, 0.5, problem, ha="center", va="center", size=8.5, color=FAINT, wrap=True)
        return
    painter = PAINTERS.get(str(drawn.panel.get("type")), _unknown)
    painter(canvas, drawn, top)


def _unknown(canvas: Canvas, drawn: Drawn, top: float) -> None:
    canvas.text(0.5, top / 2, f"({drawn.panel.get('type')})", ha="center", va="center", size=9, color=FAINT)


PAINTERS: Final[Mapping[str, Callable[[Canvas, Drawn, float], None]]] = {
    "barchart": draw_bar_chart,
    "bargauge": draw_bar_gauge,
    "gauge": draw_gauge,
    "geomap": draw_geomap,
    "histogram": draw_histogram,
    "piechart": draw_pie,
    "stat": draw_stat,
    "state-timeline": draw_state_timeline,
    "status-history": draw_state_timeline,
    "table": draw_table,
    "text": draw_text,
    "timeseries": draw_time_series,
    "trend": draw_time_series,
}
