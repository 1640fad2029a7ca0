"""Values as a Grafana panel writes them: units, decimals, durations. Pure; units as far as our boards use them."""

from collections.abc import Sequence
from typing import Any, Final

_SUFFIX: Final = {
    "": "", "none": "", "percent": " %", "celsius": " °C", "volt": " V", "velocitykmh": " km/h", "humidity": " %H",
    "velocityms": " m/s",
    "lengthkm": " km", "degree": "°", "dBm": " dBm", "dB": " dB", "watt": " W", "reqps": " req/s",
    "mps": " msg/s", "cps": "/s", "ops": " ops/s", "kwatth": " kWh", "watth": " Wh", "amp": " A", "mamp": " mA",
    "pressurehpa": " hPa", "ppm": " ppm", "lux": " lx", "rotrpm": " rpm", "massg": " g", "masskg": " kg",
}  # fmt: skip
_SCALES: Final = {
    "bytes": (1024, ("B", "KiB", "MiB", "GiB", "TiB")),
    "decbytes": (1000, ("B", "kB", "MB", "GB", "TB")),
    "short": (1000, ("", "K", "Mil", "Bil")),
    "Bps": (1000, ("B/s", "kB/s", "MB/s", "GB/s")),
    "lengthm": (1000, ("m", "km")),
    "binBps": (1024, ("B/s", "KiB/s", "MiB/s", "GiB/s")),
}
_SHORT_FROM: Final = 10_000
_MONEY: Final = {"currencyCNY": "¥", "currencyJPY": "¥", "currencyEUR": "€", "currencyUSD": "$"}
_BOOLEANS: Final = {"bool": ("True", "False"), "bool_yes_no": ("Yes", "No"), "bool_on_off": ("On", "Off")}
_TIMES: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms"))
_TIME_UNITS: Final = {
    "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "dtdurations": 1000, "dtdurationms": 1,
}  # fmt: skip


def written(value: Any, unit: str = "", decimals: int | None = None) -> str:
    """A value as a panel would show it; an unknown unit stands behind the number, as Grafana does it."""
    if value is not None and unit in _BOOLEANS:
        return _BOOLEANS[unit][0 if value else 1]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or unit.startswith("dateTime"):
        return "–" if value is None else str(value)
    if unit in _TIME_UNITS:
        return _duration(value * _TIME_UNITS[unit], decimals)
    if unit.startswith("currency"):
        sign = unit.removeprefix("currency:") if ":" in unit else _MONEY.get(unit, "")
        return f"{sign}{value:,.{2 if decimals is None else decimals}f}"
    if unit in _SCALES and (unit != "short" or abs(value) >= _SHORT_FROM):
        return _scaled(float(value), *_SCALES[unit], decimals)
    return _with_suffix(value, unit, decimals)


def _with_suffix(value: float, unit: str, decimals: int | None) -> str:
    if unit == "percentunit":
        return f"{number(value * 100, decimals)} %"
    if unit.startswith("prefix:"):
        return unit.removeprefix("prefix:") + number(value, decimals)
    if unit in {"short", "locale"}:
        return number(value, decimals)
    return number(value, decimals) + _SUFFIX.get(unit, f" {unit.removeprefix('suffix:').strip()}")


def number(value: float, decimals: int | None = None) -> str:
    """Without trailing zeros, unless the panel says how many decimals."""
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == int(value):
        return f"{int(value)}"
    digits = 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def _scaled(value: float, factor: int, names: Sequence[str], decimals: int | None) -> str:
    index = 0
    while abs(value) >= factor and index < len(names) - 1:
        value, index = value / factor, index + 1
    return f"{number(round(value, 2), decimals)} {names[index]}".strip()


def _duration(ms: float, decimals: int | None) -> str:
    for size, name in _TIMES:
        if abs(ms) >= size:
            return f"{number(round(ms / size, 2), decimals)} {name}"
    return f"{number(ms, decimals)} ms"
