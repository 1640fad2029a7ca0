"""The tables and the plot of docs/scale.md, from the model's figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cli.scale_model import Costs, described

BEGIN: Final = "<!-- made by `fleet scale --page`: begin -->"
END: Final = "<!-- made by `fleet scale --page`: end -->"
PLOT: Final = "images/scale.svg"
CURVE_SIZES: Final = tuple(round(400 * 10 ** (step / 2)) for step in range(9))

_UNITS: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"))


def size_text(size_bytes: float) -> str:
    """`1.5 GB`."""
    for factor, unit in _UNITS:
        if size_bytes >= factor:
            return (
                f"{size_bytes / factor:,.3g} {unit}"
                if size_bytes < factor * 1_000
                else f"{size_bytes / factor:,.0f} {unit}"
            )
    return f"{size_bytes:.0f} B"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def rows_of(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """One row per figure: its name, then a column per size."""
    kinds = list(found[0]["messages_per_second"])
    rows = [
        [f"messages a second, {kind}", *(_number(one["messages_per_second"][kind]) for one in found)] for kind in kinds
    ]
    plain = {
        "messages a second, all, mean": "messages_per_second_mean",
        "messages a second, busiest hour": "messages_per_second_busiest_hour",
        "readings a day": "readings_per_day",
        "events a day (SQL rows)": "sql_rows_per_day",
        "twins written a second": "twins_written_per_second",
    }
    rows += [[text, *(_number(one[name]) for one in found)] for text, name in plain.items()]
    rows.append(["on the wire a day", *(size_text(one["wire_bytes_per_day"]) for one in found)])
    for level, text in (("raw", "raw, 30 days"), ("minute", "minutes, 1 year"), ("hour", "hours, 5 years")):
        daily = [size_text(one["stored_bytes_per_day"][level]) for one in found]
        full = [size_text(one["stored_gb"][level] * 1e9) for one in found]
        rows.append([f"stored a day → when full: {text}", *map(" → ".join, zip(daily, full, strict=True))])
    rows.append(["database log a second", *(size_text(one["wal_mb_per_second"] * 1e6) for one in found)])
    needed = {
        "ingesters": "ingesters", "brokers of one CPU": "brokers", "CPUs of brokers": "cores_brokers",
        "CPUs of ingesters": "cores_ingesters",
        "CPUs of PostgreSQL": "cores_sql", "database servers of 16 CPUs": "databases",
        "CPUs of InfluxDB": "cores_influx", "broker memory for connections, GB": "broker_memory_gb",
        "CPU seconds for everybody's TLS at a return": "reconnect_cpu_s",
        "shortest time for that, s": "reconnect_s_min",
    }  # fmt: skip
    rows += [[text, *(_number(one[name]) for one in found)] for text, name in needed.items()]
    for name, text in (("cpu", "CPU"), ("disk", "disk"), ("mobile_data", "mobile data of bikes")):
        rows.append([
            f"CNY per device and month, {text}", *(f"{one['cny_per_device_month'][name]:.3f}" for one in found)
        ])  # fmt: skip
    rows.append(["CNY per device and month", *(f"{one['cny_per_device_month_total']:.3f}" for one in found)])
    return rows


def assumption_rows(costs: Costs) -> list[dict[str, Any]]:
    """Every assumption as a row."""
    return [{"name": name, **one} for name, one in described(costs).items()]


def tables(found: Sequence[dict[str, Any]], costs: Costs) -> str:
    """What stands between the page's marks."""
    heads = [f"{one['devices']:,} devices" for one in found]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows_of(found)]
    lines += ["", "What this assumes; each can be changed with `--assume NAME=NUMBER`:", ""]
    lines += ["| name | value | unit | where it comes from |", "|---|---:|---|---|"]
    lines += [
        f"| `{one['name']}` | {one['value']:g} | {one['unit']} | {one['source']} |" for one in assumption_rows(costs)
    ]
    return "\n".join(lines)


def write(page: Path, found: Sequence[dict[str, Any]], costs: Costs) -> list[Path]:
    """Put the tables into `page` and the plot beside it; returns both paths.

    Raises:
        ValueError: the page does not have both marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"it has no place for the tables: put {BEGIN} and {END} into it")
    page.write_text(f"{before}{BEGIN}\n{tables(found, costs)}\n{END}{after}", encoding="utf-8")
    plot = page.parent / PLOT
    draw(plot, costs)
    return [page, plot]


def draw(path: Path, costs: Costs) -> None:
    """CPUs and money over the number of devices. Raises ValueError where matplotlib is not installed."""
    try:
        import matplotlib as mpl  # only where a picture is asked for
    except ImportError:
        raise ValueError("the plot needs matplotlib: pip install gaoxin-fleet[dashboards]") from None
    from cli.scale import figures  # it imports this module

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "fleet"
    from matplotlib import pyplot as plt

    found = [figures(size, costs) for size in CURVE_SIZES]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, label in (
        ("cores_brokers", "brokers"), ("cores_ingesters", "ingesters"), ("cores_sql", "PostgreSQL"),
        ("cores_influx", "InfluxDB"),
    ):  # fmt: skip
        left.loglog(CURVE_SIZES, [one[name] for one in found], label=label)
    left.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    left.text(CURVE_SIZES[0], 1.1, "one CPU", color="grey", fontsize=8)
    left.set(title="CPUs in the busiest hour", xlabel="devices", ylabel="CPUs")
    left.legend()
    for name, label in (
        ("wire_bytes_per_day", "on the wire"),
        ("raw", "stored raw"),
        ("minute", "stored by the minute"),
    ):
        values = [one.get(name) or one["stored_bytes_per_day"].get(name) for one in found]
        right.loglog(CURVE_SIZES, [value / 1e9 for value in values], label=label)
    right.set(title="Bytes a day", xlabel="devices", ylabel="GB a day")
    right.legend()
    for axes in (left, right):
        axes.grid(visible=True, which="major", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
