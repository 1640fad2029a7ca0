"""`fleet roster crews|crew|member`: who works with whom, from where, and what they can do."""

import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cli.database import DataOption, command_line
from cli.output import USAGE, JsonOption, fail, print_rows, usage_errors, words
from cli.roster_commands import print_model, with_roster

if TYPE_CHECKING:
    from cloud.roster.schemas import CrewList

_SKILLS_HELP = "What they can do, comma-separated: repair, restock, battery, rebalance, inspection. Empty: all."


def list_crews(data_directory: DataOption = None, as_json: JsonOption = False) -> None:
    """Crews, their members and what these can do.

    Example: [bold]fleet roster crews --json[/bold]
    """
    _say_crews(with_roster(data_directory, lambda roster: roster.crews()), as_json=as_json)


def put_crew(
    crew_id: Annotated[str, typer.Argument(help="Its id: a-z, 0-9, hyphen.")],
    name_zh: Annotated[str, typer.Option(help="Its name in Chinese.")],
    name_en: Annotated[str, typer.Option(help="Its name in English.")],
    latitude: Annotated[float, typer.Option(min=-90, max=90, help="Of its home base, WGS-84.")],
    longitude: Annotated[float, typer.Option(min=-180, max=180, help="Of its home base, WGS-84.")],
    vehicle_capacity: Annotated[int, typer.Option(min=0, max=100_000, help="Boxes its vehicle carries.")],
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make or change a crew.

    Example: [bold]fleet roster crew north --name-zh 北区 --name-en North --latitude 38.87 --longitude 121.52
    --vehicle-capacity 40[/bold]
    """
    from cloud.roster.schemas import CrewBody

    if not re.fullmatch(r"[a-z0-9-]{1,32}", crew_id):
        raise fail(f"{crew_id!r}: write an id of a-z, 0-9 and hyphens, at most 32", USAGE)
    with usage_errors(ValueError):
        body = CrewBody(
            name_zh=name_zh, name_en=name_en, latitude=latitude, longitude=longitude, vehicle_capacity=vehicle_capacity
        )
    _say_crews(
        with_roster(data_directory, lambda roster: roster.put_crew(crew_id, body, command_line())), as_json=as_json
    )


def put_member(
    person: Annotated[str, typer.Argument(help="Who, by id or login.")],
    crew: Annotated[str, typer.Option(help="Their crew's id; empty: none.")] = "",
    skills: Annotated[str, typer.Option(help=_SKILLS_HELP)] = "",
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set somebody's crew and skills; they gain and lose the crews' shifts from now on.

    Example: [bold]fleet roster member li --crew north --skills repair,battery[/bold]
    """
    from cloud.roster.duty import SKILLS
    from cloud.roster.schemas import MemberBody

    wanted = [part.strip() for part in skills.split(",") if part.strip()]
    unknown = sorted(set(wanted) - SKILLS)
    if unknown:
        raise fail(f"unknown skills {', '.join(unknown)}; there are {', '.join(sorted(SKILLS))}", USAGE)
    body = MemberBody.model_validate({"crew_id": crew or None, "skills": wanted or None})
    _say_crews(
        with_roster(data_directory, lambda roster: roster.put_member(person, body, command_line())), as_json=as_json
    )


def _say_crews(answer: "CrewList", *, as_json: bool) -> None:
    if as_json:
        print_model(answer)
        return
    members = [*(one for crew in answer.crews for one in crew.members), *answer.without_crew]
    rows = [
        {"crew": one.crew_id, "login": one.login, "name": one.name, "skills": ", ".join(one.skills)} for one in members
    ]
    print_rows(rows, ("crew", "login", "name", "skills"), as_json=False, empty="Nobody yet: fleet people add")
    for crew in answer.crews:
        place = f"{crew.latitude}, {crew.longitude}"
        words.print(
            escape(f"{crew.id}: {crew.name.zh} / {crew.name.en}, from {place}, carries {crew.vehicle_capacity}")
        )
