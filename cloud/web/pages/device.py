"""One device: what it is now, what it did, what it can be told."""

import types
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic.fields import FieldInfo

from cloud.api.access import Person
from cloud.api.services import service
from cloud.devices import views
from cloud.devices.link_views import data_link_answer, sensors_of
from cloud.devices.schemas import DeviceAnswer
from cloud.devices.service import DeviceService, numeric_fields
from cloud.web.pages.base import OnDuty, go_to, page
from cloud.web.pages.identity import identity_of
from fleet.kind import Kind, Text, literal_of
from fleet.messages import Command
from fleet.units import FEN_PER_YUAN, label_of, unit_of

router = APIRouter(include_in_schema=False)

Fleet = Annotated[DeviceService, Depends(service(DeviceService))]
EVENTS_SHOWN = 30
COMMANDS_SHOWN = 12
SHORT_UNITS = {
    "percent": "%", "relative_humidity_percent": "%", "volts": "V", "celsius": "°C", "degrees": "°", "metres": "m",
    "kilometres": "km", "metres_per_second": "m/s", "dbm": "dBm", "seconds": "s", "minutes": "min", "hours": "h",
    "milliseconds": "ms", "watts": "W",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fact:
    """A labelled value; `table` is set instead of `value` for a list of objects: its rows."""

    label: Text
    value: Any
    unit: str = ""
    table: tuple[tuple["Fact", ...], ...] = ()
    stale: bool = False
    """Its sensor gives no values any more: what stands here is old."""


@dataclass(frozen=True, slots=True)
class Input:
    """One argument of a command as a form field."""

    name: str
    label: Text
    type: str
    default: Any
    minimum: Any
    maximum: Any
    choices: tuple[str, ...]
    required: bool


@dataclass(frozen=True, slots=True)
class CommandForm:
    """A command that the person may send from the page."""

    action: str
    inputs: tuple[Input, ...]


@router.get("/devices/{device_id}", response_class=HTMLResponse)
async def device_page(
    request: Request,
    device_id: str,
    fleet: Fleet,
    person: OnDuty,
    command: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The page; `command` names one whose outcome is watched."""
    answer = views.device_answer(*await fleet.everything_about(device_id))
    kind = await fleet.kind_of(device_id)
    watched = views.command_answer(await fleet.command_row(command, person)) if command else None
    events = [views.event_line(row) for row in await fleet.events(device_id, None, EVENTS_SHOWN, person)]
    link = data_link_answer(await fleet.link_rows(device_id))
    commands = [views.command_answer(row) for row in await fleet.commands_of(device_id, COMMANDS_SHOWN)]
    return await page(
        request,
        "device.html",
        person,
        device=answer,
        kind_title=kind.title,
        identity=await identity_of(request, device_id, person),
        facts=facts_of(kind, answer),
        link=link,
        plots=[
            (name, _label(kind.reading.model_fields[name], name), SHORT_UNITS.get(unit, ""))
            for name, unit in numeric_fields(kind).items()
        ],
        events=[(event, event_facts(kind, event.type, event.body)) for event in events],
        forms=[form for model in kind.commands if (form := form_of(model, person)) is not None],
        commands=commands,
        watched=watched,
    )


@router.post("/devices/{device_id}/commands")
async def send_command(request: Request, device_id: str, fleet: Fleet, person: OnDuty) -> Response:
    """The form behind a command; only fields of that command are taken from it."""
    form = await request.form()
    kind = await fleet.kind_of(device_id)
    body: dict[str, Any] = {"action": str(form.get("action", ""))}
    models = {literal_of(model, "action"): model for model in kind.commands}
    if (model := models.get(body["action"])) is not None:
        for argument in (form_of(model, person) or CommandForm("", ())).inputs:
            text = str(form.get(argument.name, "")).strip()
            if argument.type == "checkbox":
                body[argument.name] = text == "on"
            elif text:
                body[argument.name] = _number(text) if argument.type == "number" else text
    command_id = await fleet.command(device_id, body, person)
    return go_to(f"/devices/{device_id}?command={command_id}&notice=command_sent#commands")


def facts_of(kind: Kind, device: DeviceAnswer) -> list[Fact]:
    """The latest reading with its labels."""
    reading = cast(dict[str, Any], device.state.get("reading") or {})
    told = device.presence.sensors if device.presence else {}
    stale = {
        field
        for sensor in sensors_of(kind.name)
        if sensor.key in told and told[sensor.key].state != "fresh"
        for field in sensor.fields
    }
    facts = [
        replace(_fact(name, info, reading[name]), stale=name in stale)
        for name, info in kind.reading.model_fields.items()
        if name != "at" and name in reading
    ]
    return [fact for fact in facts if fact.stale or fact.value not in (None, "")]


def event_facts(kind: Kind, event_type: str, body: dict[str, Any]) -> list[Fact]:
    """What an event says besides its type, identity and position."""
    try:
        fields = kind.event_type(event_type).model_fields
    except KeyError:
        return []
    hidden = {"type", "event_id", "latitude", "longitude", "accuracy_metres", "command_id"}
    return [
        _fact(name, info, body[name])
        for name, info in fields.items()
        if name not in hidden and body.get(name) not in (None, "", [], {})
    ]


def form_of(model: type[Command], person: Person) -> CommandForm | None:
    """A command's form; None if the person's role may not send it, or it has arguments for programs only."""
    if person.role.value not in model.roles:
        return None
    inputs = []
    for name, info in model.model_fields.items():
        if name == "action":
            continue
        made = _input(name, info)
        if made is None:
            return None
        inputs.append(made)
    return CommandForm(literal_of(model, "action"), tuple(inputs))


def _input(name: str, info: FieldInfo) -> Input | None:
    annotation = info.annotation
    if get_origin(annotation) in {Union, types.UnionType}:
        (annotation,) = [one for one in get_args(annotation) if one is not type(None)][:1]
    choices: tuple[str, ...] = ()
    if get_origin(annotation) is Literal:
        kind, choices = "select", tuple(map(str, get_args(annotation)))
    elif annotation is bool:
        kind = "checkbox"
    elif annotation in {int, float}:
        kind = "number"
    elif annotation is str:
        kind = "text"
    else:
        return None
    limits = {
        attribute: getattr(one, attribute)
        for one in info.metadata
        for attribute in ("ge", "le")
        if hasattr(one, attribute)
    }
    return Input(
        name=name,
        label=_label(info, name),
        type=kind,
        default="" if info.is_required() or info.default is None else info.default,
        minimum=limits.get("ge", ""),
        maximum=limits.get("le", ""),
        choices=choices,
        required=info.is_required(),
    )


def _label(info: FieldInfo, name: str) -> Text:
    plain = name.replace("_", " ")
    return Text(label_of(info, "zh") or plain, label_of(info, "en") or plain)


def _fact(name: str, info: FieldInfo, value: Any) -> Fact:
    label, unit = _label(info, name), unit_of(info)
    if isinstance(value, list):
        (item, *_rest) = get_args(info.annotation) or (None,)
        fields: dict[str, FieldInfo] = getattr(item, "model_fields", {})
        if not fields:
            return Fact(label, len(value))
        rows = (tuple(_fact(key, fields[key], cell) for key, cell in row.items() if key in fields) for row in value)
        return Fact(label, len(value), table=tuple(rows))
    if unit == "fen":
        return Fact(label, f"¥{value / FEN_PER_YUAN:.2f}")
    if isinstance(value, float):
        value = f"{round(value, 5 if unit == 'degrees' else 2):.10g}"
    return Fact(label, value, SHORT_UNITS.get(unit, ""))


def _number(text: str) -> int | float | str:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text  # validation says what is wrong with it
