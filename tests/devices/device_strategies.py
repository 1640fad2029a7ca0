"""Hypothesis strategies made from the pydantic models of the kinds, within their own bounds."""

import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt, MaxLen, MinLen
from hypothesis import assume
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Bounds = dict[str, Any]


_LIMITS: dict[type, dict[str, str]] = {
    Ge: {"ge": "low"},
    Le: {"le": "high"},
    MinLen: {"min_length": "length_min"},
    MaxLen: {"max_length": "length_max"},
    Len: {"min_length": "length_min", "max_length": "length_max"},
}


def bounds_of(metadata: list[Any] | tuple[Any, ...]) -> Bounds:
    """Limits from annotated-types and pydantic metadata, flattened; exclusive limits count for whole numbers."""
    bounds: Bounds = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            bounds |= bounds_of(item.metadata)
        elif isinstance(item, Gt):
            bounds["low"] = item.gt + 1
        elif isinstance(item, Lt):
            bounds["high"] = item.lt - 1
        elif getattr(item, "pattern", None) is not None:
            bounds["pattern"] = item.pattern
        else:
            bounds |= {ours: getattr(item, theirs) for theirs, ours in _LIMITS.get(type(item), {}).items()}
    return bounds


def _text(bounds: Bounds) -> st.SearchStrategy[str]:
    if "pattern" in bounds:
        return st.from_regex(bounds["pattern"], fullmatch=True)
    return st.text(min_size=bounds.get("length_min", 0), max_size=bounds.get("length_max", 20))


_PLAIN: dict[Any, Callable[[Bounds], st.SearchStrategy[Any]]] = {
    type(None): lambda _: st.none(),
    bool: lambda _: st.booleans(),
    int: lambda bounds: st.integers(bounds.get("low"), bounds.get("high")),
    float: lambda bounds: st.floats(bounds.get("low"), bounds.get("high"), allow_nan=False, allow_infinity=False),
    str: _text,
}


def values(annotation: Any, bounds: Bounds) -> st.SearchStrategy[Any]:
    """Values of an annotation within `bounds`."""
    if annotation in _PLAIN:
        return _PLAIN[annotation](bounds)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return instances(annotation)
    return _composed(annotation, bounds)


def _composed(annotation: Any, bounds: Bounds) -> st.SearchStrategy[Any]:
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        return values(arguments[0], bounds | bounds_of(arguments[1:]))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of(*(values(argument, bounds) for argument in arguments))
    if origin in (tuple, list, frozenset, dict):
        return _containers(origin, arguments, bounds)
    return st.from_type(annotation)  # enums


def _containers(origin: Any, arguments: tuple[Any, ...], bounds: Bounds) -> st.SearchStrategy[Any]:
    size = {"min_size": bounds.get("length_min", 0), "max_size": min(bounds.get("length_max") or 4, 6)}
    size["max_size"] = max(size["max_size"], size["min_size"])
    if origin is dict:
        return st.dictionaries(values(arguments[0], {}), values(arguments[1], {}), **size)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return st.tuples(*(values(argument, {}) for argument in arguments))
    items = st.lists(values(arguments[0], {}), **size)
    return items if origin is list else items.map(origin)


def instances(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Valid instances of a model; what its validators refuse is not tried."""
    fields = {name: values(field.annotation, bounds_of(field.metadata)) for name, field in model.model_fields.items()}

    def build(arguments: dict[str, Any]) -> BaseModel | None:
        try:
            return model(**arguments)
        except ValidationError:
            return None

    @st.composite
    def built(draw: st.DrawFn) -> Any:
        instance = build(draw(st.fixed_dictionaries(fields)))
        assume(instance is not None)
        return instance

    return built()
