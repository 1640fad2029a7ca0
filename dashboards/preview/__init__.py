"""A board drawn without Grafana: its queries' answers on its own grid. Needs the extra `preview` (matplotlib)."""

from dashboards.preview.board import page_of, png_of, smaller, use_chinese_font

__all__ = ["page_of", "png_of", "smaller", "use_chinese_font"]
