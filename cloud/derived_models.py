"""msgspec structs derived from the kinds' pydantic models: the same rules, three to five times cheaper.

pydantic is the contract (decision 14). A property test holds the derived struct equal to its model; a
model that this file cannot translate is simply not derived, and its users fall back to pydantic.
"""

import types
import typing
from typing import Annotated, Any, Final, Literal, Union

import annotated_types
import msgspec
from msgspec import Meta
from pydantic import BaseModel
from pydantic.fields import FieldInfo

PLAIN_TYPES: Final = (bool, int, float, str)


class UntranslatableError(TypeError):
    """This pydantic field has no msgspec equivalent here."""


def struct_of(model: type[BaseModel]) -> type[msgspec.Struct]:
    """The msgspec struct that accepts exactly what the strict pydantic model accepts.

    Raises:
        UntranslatableError: the model has validators, or a field outside the plain vocabulary.
    """
    decorators = model.__pydantic_decorators__
    if (
        decorators.field_validators
        or decorators.model_validators
        or decorators.validators
        or decorators.root_validators
    ):
        raise UntranslatableError(f"{model.__name__} has validators")
    fields: list[Any] = []
    for name, field in model.model_fields.items():
        if field.alias is not None or field.default_factory is not None:
            raise UntranslatableError(f"{model.__name__}.{name} has an alias or a default factory")
        annotation = _translate(field.annotation, _constraints(field))
        fields.append((name, annotation) if field.is_required() else (name, annotation, field.default))
    required_first = sorted(fields, key=len)
    return msgspec.defstruct(model.__name__, required_first, frozen=True, forbid_unknown_fields=True, gc=False)


def _constraints(field: FieldInfo) -> dict[str, Any]:
    constraints: dict[str, Any] = {}
    for item in field.metadata:
        _add_constraint(item, constraints)
    return constraints


def _add_constraint(item: Any, constraints: dict[str, Any]) -> None:
    match item:
        case annotated_types.Ge():
            constraints["ge"] = item.ge
        case annotated_types.Gt():
            constraints["gt"] = item.gt
        case annotated_types.Le():
            constraints["le"] = item.le
        case annotated_types.Lt():
            constraints["lt"] = item.lt
        case annotated_types.MinLen():
            constraints["min_length"] = item.min_length
        case annotated_types.MaxLen():
            constraints["max_length"] = item.max_length
        case FieldInfo():
            for inner in item.metadata:
                _add_constraint(inner, constraints)
        case _:
            general = dict(getattr(item, "__dict__", {}))
            pattern = general.pop("pattern", None)
            if pattern is not None:
                # Python's `$` also matches before a final newline, pydantic's does not.
                constraints["pattern"] = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
            general.pop("allow_inf_nan", None)  # JSON has neither
            if any(value is not None for value in general.values()):
                raise UntranslatableError(f"constraint {item!r}")


def _translate(annotation: Any, constraints: dict[str, Any]) -> Any:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *extras = typing.get_args(annotation)
        merged = dict(constraints)
        for extra in extras:
            _add_constraint(extra, merged)
        return _translate(inner, merged)
    if origin in {Union, types.UnionType}:
        options = typing.get_args(annotation)
        plain = [option for option in options if option is not type(None)]
        if len(plain) != 1 or len(options) != 2:
            raise UntranslatableError(f"union {annotation!r}")
        return Union[_translate(plain[0], constraints), None]  # noqa: UP007  # built at run time
    if origin is Literal and not constraints:
        return annotation
    if origin is tuple:
        item, *rest = typing.get_args(annotation)
        if rest != [Ellipsis]:
            raise UntranslatableError(f"tuple {annotation!r}")
        return _with(tuple[_translate(item, {}), ...], constraints)  # type: ignore[misc]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not constraints:
        return struct_of(annotation)
    if annotation in PLAIN_TYPES:
        return _with(annotation, constraints)
    raise UntranslatableError(f"type {annotation!r}")


def _with(annotation: Any, constraints: dict[str, Any]) -> Any:
    if not constraints:
        return annotation
    if annotation is float:
        constraints = {key: float(value) for key, value in constraints.items()}
    return Annotated[annotation, Meta(**constraints)]
