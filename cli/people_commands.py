"""`fleet people …`: who may sign in, on the database of this machine or of FLEET_DATABASE_URL.

The first admin of an installation is made here; later ones may be made on the API as well.
"""

import getpass
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.markup import escape

from cli.database import DataOption, Installation, command_line, with_services
from cli.output import USAGE, JsonOption, fail, print_json, print_rows, words

if TYPE_CHECKING:
    from cloud.members.service import MemberService

T = TypeVar("T")

app = typer.Typer(help="Add, list and disable people.", no_args_is_help=True)

_PAGE_ROWS = 200


def _with_members(data_directory: Path | None, work: "Callable[[MemberService], Awaitable[T]]") -> T:
    async def act(here: Installation) -> T:
        from cloud.members.service import MemberService

        return await work(MemberService(here.database, here.clock, secure_cookies=True))

    return with_services(data_directory, act)


@app.command("add")
def add(
    login: Annotated[str, typer.Argument(help="Name for signing in: a-z, 0-9, dot, underscore, hyphen.")],
    name: Annotated[str, typer.Option(help="The name that others see.")],
    role: Annotated[Literal["employee", "crew", "admin"], typer.Option(help="What this person may do.")] = "employee",
    language: Annotated[Literal["zh_CN", "en"], typer.Option(help="Language of the pages.")] = "zh_CN",
    password_file: Annotated[
        Path | None,
        typer.Option(help="Take the password from the first line of this file, `-` for stdin; else it is asked."),
    ] = None,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a person. The password is asked on the terminal, or read from a file; it is never an argument.

    Example: [bold]fleet people add wang --role admin --name 王小雨[/bold]
    """
    from pydantic import SecretStr, ValidationError

    from cloud.api.access import Role
    from cloud.members.schemas import PersonBody

    password = _password(password_file)
    try:
        body = PersonBody(login=login, name=name, role=Role(role), password=SecretStr(password), language=language)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise fail(f"{problem['loc'][0]}: {problem['msg']}; correct it", USAGE) from None
    row = _with_members(data_directory, lambda members: members.create(body, command_line()))
    if as_json:
        print_json({"id": row.id, "login": row.login, "name": row.name, "role": row.role})
    else:
        words.print(f"{escape(row.login)} may sign in as {row.role}")


@app.command("list")
def list_people(data_directory: DataOption = None, as_json: JsonOption = False) -> None:
    """Everybody with an account.

    Example: [bold]fleet people list --json[/bold]
    """
    columns = ("id", "login", "name", "role", "language", "created_at", "disabled_at")
    rows = [{column: getattr(row, column) for column in columns} for row in _with_members(data_directory, _everybody)]
    print_rows(
        rows, columns, as_json=as_json, empty="Nobody yet. Add one: fleet people add LOGIN --role admin --name NAME"
    )


@app.command("disable")
def disable(
    login: Annotated[str, typer.Argument(help="Whose account.")],
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close an account and end all its sessions; what the person did stays in the audit.

    Example: [bold]fleet people disable wang[/bold]
    """

    async def close(members: "MemberService") -> str | None:
        for row in await _everybody(members):
            if row.login == login:
                await members.disable(row.id, command_line())
                return str(row.id)
        return None

    person_id = _with_members(data_directory, close)
    if person_id is None:
        raise fail(f"no person {login!r}; list them: fleet people list")
    if as_json:
        print_json({"id": person_id, "login": login, "disabled": True})
    else:
        words.print(f"{escape(login)} may no longer sign in")


async def _everybody(members: "MemberService") -> list[Any]:
    rows: list[Any] = []
    while True:
        page = await members.persons(rows[-1].login if rows else "", _PAGE_ROWS)
        rows += page
        if len(page) < _PAGE_ROWS:
            return rows


def _password(file: Path | None) -> str:
    if file is None and sys.stdin.isatty():
        password = getpass.getpass("Password: ", stream=sys.stderr)
        if getpass.getpass("Again: ", stream=sys.stderr) != password:
            raise fail("the two passwords differ; try again", USAGE)
        return password
    if file is None:
        raise fail("password: there is no terminal to ask on; give --password-file FILE, or `-` for stdin", USAGE)
    if str(file) == "-":
        return sys.stdin.readline().rstrip("\r\n")
    try:
        return (file.read_text().splitlines() or [""])[0]
    except (OSError, UnicodeDecodeError) as error:
        raise fail(f"password: {file} can't be read ({type(error).__name__}); correct --password-file", USAGE) from None
