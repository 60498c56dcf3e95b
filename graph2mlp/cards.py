"""A method's card: what it is, what it costs at inference, and what can be set; made from the code itself."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from graph2mlp.methods import METHODS, method_class

__all__ = ["Card", "method_card", "setting_docs"]


@dataclass(frozen=True)
class Card:
    """What `graph2mlp methods NAME` shows. `settings` are (name, default, meaning)."""

    name: str
    summary: str
    text: str
    paper: str
    regime: str
    needs_teacher: bool
    inference: str
    settings: tuple[tuple[str, str, str], ...]
    defaults: tuple[str, ...]


def method_card(name: str) -> Card:
    """The card of the method called `name`.

    Raises:
        ConfigError: there is no such method.
    """
    cls = method_class(name)
    text = inspect.cleandoc(cls.__doc__ or "")
    docs = setting_docs(cls)
    return Card(
        name=name,
        summary=text.splitlines()[0],
        text=text,
        paper=cls.paper,
        regime="structure" if cls.reads_structure else "features",
        needs_teacher=cls.needs_teacher,
        inference=cls.inference,
        settings=tuple((f"{name}.{f.name}", _show(f.default), docs.get(f.name, "")) for f in fields(cls)),
        defaults=tuple(
            f"{group}.{key} = {_show(value)}" for group, values in cls.defaults.items() for key, value in values.items()
        ),
    )


def all_cards() -> list[Card]:
    """Every method's card, in the order of the table."""
    return [method_card(name) for name in METHODS]


def setting_docs(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass and of those it extends, which Python itself throws away."""
    docs: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if is_dataclass(one):
            docs |= _own_docs(one)
    return docs


def _own_docs(cls: type) -> dict[str, str]:
    body = ast.parse(inspect.cleandoc(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
