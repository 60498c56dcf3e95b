"""JSON that somebody may have edited: read, and held against the types its reader relies on. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from graph2mlp.errors import Graph2MLPError, one_line

__all__ = ["read_json", "unfit"]

_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}
_WHOLE, _FINITE = 2**63, 1e100
"""JSON knows larger numbers, and Python reads NaN: neither can be reckoned with."""


def read_json(file: Path, failure: type[Graph2MLPError], remedy: str) -> Any:
    """What a file holds.

    Raises:
        Graph2MLPError: a `failure`, with the `remedy`, if it cannot be read or is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise failure(f"{file} cannot be read: {error.strerror or error}. {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise failure(f"{file} is not JSON, or damaged ({one_line(error, 80)}). {remedy}") from None


def unfit(value: Any, form: Any, where: str) -> str:
    """What in `value` is not as the type `form` says, in words; nothing if all is.

    `form` is a plain type, `list[...]`, `dict[str, ...]`, a union, a TypedDict, or a dataclass, of which any field may
    be absent or null. Keys that it does not know are ignored, so that a later version may add some.
    """
    if is_typeddict(form) or is_dataclass(form):
        return _unfit_fields(value, form, where)
    origin, inside = get_origin(form), get_args(form)
    if origin is UnionType:
        found = [unfit(value, one, where) for one in inside]
        return "" if "" in found else found[0]
    if origin is list:
        parts = ((f"{where}[{number}]", one) for number, one in enumerate(value)) if isinstance(value, list) else None
        return _unfit_parts(parts, inside[0], value, f"{where} must be a list")
    if origin is dict:
        named = ((f"{where}.{name}", one) for name, one in value.items()) if isinstance(value, dict) else None
        return _unfit_parts(named, inside[1], value, f"{where} must be an object")
    return "" if form is Any or _is(value, form) else f"{where} must be {_WORDS[form]}, got {_shown(value)}"


def _unfit_fields(value: Any, form: Any, where: str) -> str:
    if not isinstance(value, dict):
        return f"{where or 'it'} must be an object, got {_shown(value)}"
    before = f"{where}." if where else ""
    if missing := sorted(getattr(form, "__required_keys__", frozenset()) - value.keys()):
        return f"{before}{missing[0]} is missing"
    for name, kind in get_type_hints(form).items():
        if name not in value or (is_dataclass(form) and value[name] is None):
            continue
        if found := unfit(value[name], kind, f"{before}{name}"):
            return found
    return ""


def _unfit_parts(parts: Iterable[tuple[str, Any]] | None, form: Any, value: Any, wanted: str) -> str:
    if parts is None:
        return f"{wanted}, got {_shown(value)}"
    return next((found for where, one in parts if (found := unfit(one, form, where))), "")


def _is(value: Any, form: Any) -> bool:
    if isinstance(value, bool):
        return form is bool
    if form is int:
        return isinstance(value, int) and abs(value) < _WHOLE
    if form is float:
        return isinstance(value, int | float) and abs(value) < _FINITE
    return isinstance(value, form)


def _shown(value: Any) -> str:
    return one_line(repr(value), 40)
