"""Settings that are valid one by one, but not beside the chosen method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from graph2mlp.methods.base import Method

__all__ = ["at_odds", "unread"]

_OF_THE_TABLE = {"train": ("as_unseen",), "student": ("structure_dropout",)}
"""Settings outside the group `structure` that are about its table."""


def at_odds(cls: type[Method], built: Mapping[str, Any]) -> Iterator[str]:
    """A line for each that cannot be followed; `built` are the groups, None for one that could not be built."""
    loss, train, structure = built["loss"], built["train"], built["structure"]
    if loss is not None and loss.used and not cls.needs_teacher:
        names = ", ".join(f"loss.{name}" for name in loss.used)
        yield (
            f"{names} compares with a teacher, but method '{cls.name()}' learns from none. "
            "Leave it out, or use a method with a teacher, such as glnn."
        )
    if structure is not None and structure.answers and not (cls.needs_teacher and cls.reads_structure):
        yield (
            f"structure.answers puts a teacher's answers into the table, but method '{cls.name()}' has no "
            f"{'table' if cls.needs_teacher else 'teacher'}. Leave it out, or use nosmog or blend."
        )
    if train is not None and train.teach_val == "refit":
        yield from _no_refit(cls)


def _no_refit(cls: type[Method]) -> Iterator[str]:
    why = None
    if cls.first_stage is not Method.first_stage:
        why = "trains in two stages, each with a best epoch of its own"
    elif not cls.soft_labels:
        why = "learns from true labels alone"
    if why:
        yield (
            f"train.teach_val=refit teaches the soft labels of validation nodes in a second training, but method "
            f"'{cls.name()}' {why}. Use train.teach_val=known."
        )


def unread(method: Method, groups: Mapping[str, Any]) -> list[str]:
    """Settings of `groups` that were changed, but are about a teacher or a table that the method does not have."""
    names = []
    if not method.needs_teacher:
        names += _changed(method, groups, "teacher")
    if not method.reads_structure:
        names += [name for name in _changed(method, groups, "structure") if name != "structure.answers"]
        for group, keys in _OF_THE_TABLE.items():
            names += [name for name in _changed(method, groups, group) if name.split(".")[1] in keys]
    return names


def _changed(method: Method, groups: Mapping[str, Any], group: str) -> list[str]:
    """Names of the settings that are neither the package's default nor the method's."""
    held = groups[group]
    usual = type(held)(**method.defaults.get(group, {}))
    return [f"{group}.{one.name}" for one in fields(held) if getattr(held, one.name) != getattr(usual, one.name)]
