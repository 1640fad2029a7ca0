"""msgspec structs derived from the kinds' pydantic models: the same rules, three to five times cheaper.

pydantic is the contract (decision 14). A property test holds the derived struct equal to its model; a
model that this file cannot translate is simply not derived, and its users fall back to pydantic.
"""

import types
import typing
from typing import Annotated, Any, Final, Literal, Union

import annotated_types
import msgspec
import pydantic
from msgspec import Meta
from pydantic import BaseModel
from pydantic.fields import FieldInfo

PLAIN_TYPES: Final = (bool, int, float, str)
_STRICT: Final = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
"""What `fleet.messages.Message` sets; a model that sets anything else has rules that a struct would not keep."""
_BOUNDS: Final = {
    annotated_types.Ge: "ge",
    annotated_types.Gt: "gt",
    annotated_types.Le: "le",
    annotated_types.Lt: "lt",
    annotated_types.MinLen: "min_length",
    annotated_types.MaxLen: "max_length",
}
_HARMLESS: Final = frozenset({"frozen", "title", "json_schema_extra", "use_attribute_docstrings"})


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
    config = {name: value for name, value in model.model_config.items() if name not in _HARMLESS}
    if config != _STRICT:
        raise UntranslatableError(f"{model.__name__} is configured as {config}")
    fields: list[Any] = []
    for name, field in model.model_fields.items():
        if field.alias or field.validation_alias or field.default_factory is not None:
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
    name = _BOUNDS.get(type(item))
    if name is not None:
        constraints[name] = getattr(item, name)
    elif isinstance(item, FieldInfo):
        for inner in item.metadata:
            _add_constraint(inner, constraints)
    elif not (isinstance(item, pydantic.AllowInfNan) and not item.allow_inf_nan):  # JSON has neither
        # Pydantic's own holder of what has no class; a validator or any other constraint has no such attributes.
        general = dict(getattr(item, "__dict__", {}))
        pattern = general.pop("pattern", None)
        if pattern is None or any(value is not None for value in general.values()):
            raise UntranslatableError(f"constraint {item!r}")
        constraints["pattern"] = _pattern(pattern)


def _pattern(pattern: str) -> str:
    """The same in Python's dialect, whose `$` also matches before a final newline; pydantic's does not."""
    if "$" in pattern[:-1] or "\\" in pattern:  # classes like `\d` may differ between the dialects
        raise UntranslatableError(f"pattern {pattern!r}")
    return pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern


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
