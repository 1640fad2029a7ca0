"""The week as one page: alarms hour by hour, ways of the crew on the ground; inline SVG and no script."""

import html
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import select

from cli.week.geography import Point
from cli.week.plan import DEPOT, MONDAY_MS
from cli.week.run import Week
from cloud.tables import alarm, alarm_transition
from firmware_sim.demand import HOUR_MS

PRIORITIES: Final = ("high", "medium", "low")
COLOURS: Final = {"high": "#c0392b", "medium": "#e08e0b", "low": "#7f8c8d"}
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WIDTH, _HEIGHT = 1_000, 220
_MAP: Final = 620
_SOUTH_WEST: Final = (38.835, 121.472)
_NORTH_EAST: Final = (38.893, 121.565)
_CREW: Final = ("#1f6feb", "#2da44e", "#bf3989", "#8250df", "#bc4c00", "#0a7ea4", "#6e7781", "#116329")
_STYLE: Final = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1040px;color:#1f2328}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #d0d7de}"
    "svg{max-width:100%;height:auto;background:#fff}text{font:11px system-ui,sans-serif;fill:#57606a}"
)


@dataclass
class Picture:
    """What the page draws."""

    hours: Counter[tuple[int, str]] = field(default_factory=Counter)
    """(hour of the week, priority) → alarms that sounded."""
    ways: dict[str, list[tuple[Point, Point]]] = field(default_factory=dict)
    stops: list[tuple[str, Point]] = field(default_factory=list)
    """(kind, where) of every device."""
    days: float = 7.0


def drawing(week: Week) -> Picture:
    """Taken from a week that has run."""
    picture = Picture(days=week.plan.days)
    query = select(alarm_transition.c.at, alarm.c.priority).join(alarm, alarm.c.id == alarm_transition.c.alarm_id)
    query = query.where(alarm_transition.c.event == "activate")
    for at, priority in week.cloud.database.read_here(lambda tx: tx.execute(query).all()):
        picture.hours[(at - MONDAY_MS) // HOUR_MS, priority] += 1
    for name, member in sorted(week.crew.members.items()):
        picture.ways[name] = [(trip.start, trip.end) for trip in member.van.trips]
    for device_id, unit in week.hardware.units.items():
        site = week.hardware.world.site(device_id)
        picture.stops.append((unit.kind, (site.latitude, site.longitude)))
    return picture


def draw(picture: Picture, document: dict[str, Any]) -> str:
    """One HTML document."""
    planned = document["planned"]
    rows = "".join(
        f"<tr><td>{html.escape(actor['kind'])}</td><td>{html.escape(actor['key'])}</td><td>{actor['per_day']}</td>"
        f"<td>{_percent(actor['led_to_action'])}</td></tr>"
        for actor in planned["alarms"]["bad_actors"]
    )
    fixed = document["rounds"]
    ways = f"{planned['crew']['kilometres']} km"
    if fixed is not None:
        ways += f", with fixed rounds {fixed['crew']['kilometres']} km ({_percent(document['saved'])} saved)"
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>A normal week, seed {planned['seed']}</title>"
        f"<style>{_STYLE}</style><h1>A normal week (seed {planned['seed']})</h1>"
        f"<p>{planned['alarms']['per_day']} alarms a day, {_percent(planned['alarms']['led_to_action'])} led to "
        "action; "
        f"{planned['telephones']['alarms_per_person_10_min']['mean']} per person and ten minutes on average; "
        f"crew {ways}.</p><h2>Alarms by hour</h2>{_bars(picture)}<h2>Ways of the crew</h2>{_ways(picture)}"
        f"<h2>What sounds most</h2><table><tr><th>kind<th>alarm<th>a day<th>led to action</tr>{rows}</table></html>"
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _bars(picture: Picture) -> str:
    hours = max(1, round(picture.days * 24))
    totals = Counter[int]()
    for (hour, _), count in picture.hours.items():
        totals[hour] += count
    top = max(totals.values(), default=1)
    wide, scale = (_WIDTH - 40) / hours, (_HEIGHT - 40) / top
    parts = [f"<text x='2' y='20'>{top}</text><text x='2' y='{_HEIGHT - 22}'>0</text>"]
    for hour in range(hours):
        base = float(_HEIGHT - 20)
        for priority in PRIORITIES:
            height = picture.hours[hour, priority] * scale
            if height:
                base -= height
                parts.append(
                    f"<rect x='{30 + hour * wide:.1f}' y='{base:.1f}' width='{max(1.0, wide - 1):.1f}' "
                    f"height='{height:.1f}' fill='{COLOURS[priority]}'/>"
                )
    parts += [
        f"<text x='{30 + day * 24 * wide:.0f}' y='{_HEIGHT - 4}'>{_DAYS[day % 7]}</text>"
        for day in range(-(-hours // 24))
    ]
    legend = "".join(
        f"<rect x='{_WIDTH - 230 + 75 * index}' y='4' width='10' height='10' fill='{COLOURS[priority]}'/>"
        f"<text x='{_WIDTH - 215 + 75 * index}' y='13'>{priority}</text>"
        for index, priority in enumerate(PRIORITIES)
    )
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='alarms by hour'>{''.join(parts)}{legend}</svg>"
    )


def _at(point: Point) -> str:
    across = (point[1] - _SOUTH_WEST[1]) / (_NORTH_EAST[1] - _SOUTH_WEST[1]) * _WIDTH
    up = (point[0] - _SOUTH_WEST[0]) / (_NORTH_EAST[0] - _SOUTH_WEST[0]) * _MAP
    return f"{across:.0f},{_MAP - up:.0f}"


def _ways(picture: Picture) -> str:
    parts = []
    for kind, point in picture.stops:
        x, y = _at(point).split(",")
        radius = {"meal_machine": 5, "nursing_room": 2.5}.get(kind, 1.2)
        parts.append(f"<circle cx='{x}' cy='{y}' r='{radius}' fill='#afb8c1'/>")
    for index, (name, ways) in enumerate(picture.ways.items()):
        colour = _CREW[index % len(_CREW)]
        path = "".join(f"M{_at(start)}L{_at(end)}" for start, end in ways)
        if path:
            parts.append(
                f"<path d='{path}' stroke='{colour}' stroke-width='1' fill='none' opacity='0.35'>"
                f"<title>{html.escape(name)}</title></path>"
            )
        parts.append(f"<text x='8' y='{16 + 14 * index}' style='fill:{colour}'>{html.escape(name)}</text>")
    x, y = _at(DEPOT).split(",")
    parts.append(f"<rect x='{int(x) - 6}' y='{int(y) - 6}' width='12' height='12' fill='#1f2328'/>")
    return f"<svg viewBox='0 0 {_WIDTH} {_MAP}' role='img' aria-label='ways of the crew'>{''.join(parts)}</svg>"
