"""How a panel dresses a value: unit, decimals, name, colour by threshold or mapping. From its JSON; pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dashboards.preview.readable import written

PALETTE: Final = (
    "#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2", "#B877D9", "#705DA0", "#37872D", "#FADE2A",
    "#447EBC", "#C15C17", "#890F02", "#0A437C", "#6D1F62", "#584477",
)  # fmt: skip
"""Grafana's classic palette, as far as it can be told apart."""
NAMED: Final = {
    "green": "#56A64B", "dark-green": "#19730E", "semi-dark-green": "#37872D", "light-green": "#96D98D",
    "red": "#E02F44", "dark-red": "#AD0317", "semi-dark-red": "#C4162A", "light-red": "#FF7383",
    "orange": "#FF780A", "dark-orange": "#E55400", "semi-dark-orange": "#FA6400", "light-orange": "#FFB357",
    "yellow": "#E0B400", "dark-yellow": "#CC9D00", "semi-dark-yellow": "#E0B400", "light-yellow": "#FFEE52",
    "blue": "#3274D9", "dark-blue": "#1250B0", "semi-dark-blue": "#1F60C4", "light-blue": "#8AB8FF",
    "purple": "#A352CC", "dark-purple": "#7C2EA3", "semi-dark-purple": "#8F3BB8", "light-purple": "#CA95E5",
    "text": "#24292E", "transparent": "#FFFFFF", "gray": "#8E8E8E",
}  # fmt: skip
NEUTRAL: Final = "#3274D9"


@dataclass(frozen=True, slots=True)
class Look:
    """How one column of a panel looks."""

    unit: str = ""
    decimals: int | None = None
    name: str = ""
    steps: tuple[tuple[float | None, str], ...] = ()
    mappings: tuple[Mapping[str, Any], ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    fixed: str = ""
    hidden: bool = False
    coloured_cell: bool = False
    no_value: str = ""
    custom: Mapping[str, Any] = field(default_factory=dict)

    def text(self, value: Any) -> str:
        """The value in words."""
        if value is None:
            return self.no_value or "–"
        found = self._mapped(value)
        if found and found.get("text"):
            return str(found["text"])
        return written(value, self.unit, self.decimals)

    def colour(self, value: Any, otherwise: str = NEUTRAL) -> str:
        """Its colour: a mapping's, else a threshold's, else the fixed one."""
        if (found := self._mapped(value)) and found.get("color"):
            return colour_of(str(found["color"]))
        if self.fixed:
            return self.fixed
        if not self.steps or not isinstance(value, (int, float)):
            return otherwise
        passed = [name for start, name in self.steps if start is None or value >= start]
        return colour_of(passed[-1]) if passed else otherwise

    def _mapped(self, value: Any) -> Mapping[str, Any] | None:
        for mapping in self.mappings:
            options = mapping.get("options") or {}
            match mapping.get("type"):
                case "value":
                    key = str(value).lower() if isinstance(value, bool) else _plain(value)
                    if isinstance(found := options.get(key), Mapping):
                        return found
                case "range":
                    low, high = options.get("from"), options.get("to")
                    if (
                        isinstance(value, (int, float))
                        and (low is None or value >= low)
                        and (high is None or value <= high)
                    ):
                        return dict(options.get("result") or {})
                case "special":
                    if options.get("match") in {"null", "null+nan"} and value is None:
                        return dict(options.get("result") or {})
                case "regex":
                    if re.search(str(options.get("pattern", "$^")).strip("/"), str(value)):
                        return dict(options.get("result") or {})
        return None


def _plain(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


def colour_of(name: str) -> str:
    """A Grafana colour's name as one that can be drawn."""
    return name if name.startswith("#") else NAMED.get(name, NEUTRAL)


def look_of(panel: Mapping[str, Any], column: str, ref: str = "", value: Any = None) -> Look:
    """How a column of this panel looks: the defaults, then every override that fits, in their order."""
    config = panel.get("fieldConfig") or {}
    defaults: dict[str, Any] = dict(config.get("defaults") or {})
    properties = {key: value for key, value in defaults.items() if key != "custom"}
    custom = dict(defaults.get("custom") or {})
    for override in config.get("overrides") or ():
        if not _fits(override.get("matcher") or {}, column, ref, value):
            continue
        for one in override.get("properties") or ():
            key, new = str(one["id"]), one.get("value")
            if key.startswith("custom."):
                custom[key.removeprefix("custom.")] = new
            else:
                properties[key] = new
    color = properties.get("color") or {}
    steps = (properties.get("thresholds") or {}).get("steps") or ()
    cell = custom.get("cellOptions") or {}
    return Look(
        str(properties.get("unit") or ""), properties.get("decimals"), str(properties.get("displayName") or column),
        tuple((step.get("value"), str(step.get("color"))) for step in steps),
        tuple(properties.get("mappings") or ()), properties.get("min"), properties.get("max"),
        colour_of(str(color.get("fixedColor"))) if color.get("mode") == "fixed" else "",
        bool((custom.get("hideFrom") or {}).get("viz") or custom.get("hidden")),
        str(cell.get("type", "")).startswith("color"), str(properties.get("noValue") or ""), custom,
    )  # fmt: skip


def _fits(matcher: Mapping[str, Any], column: str, ref: str, value: Any) -> bool:
    options = matcher.get("options")
    match matcher.get("id"):
        case "byName":
            return bool(options == column)
        case "byNames":
            return column in ((options or {}).get("names") or ())
        case "byRegexp":
            return re.search(str(options).strip("/"), column) is not None
        case "byFrameRefID":
            return bool(options == ref)
        case "byType":
            return bool(options == ("number" if isinstance(value, (int, float)) else "string"))
    return False


def palette(index: int) -> str:
    """Colour of the n-th series."""
    return PALETTE[index % len(PALETTE)]


def shown_columns(panel: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Columns of a table that are not hidden."""
    return [name for name in columns if not look_of(panel, name).hidden]
