"""Students by kind: what a weights file says it holds, and the class that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from graph2mlp.errors import ConfigError, suggest
from graph2mlp.students.base import Student
from graph2mlp.students.mlp import MLPStudent
from graph2mlp.students.retrieval import RetrievalStudent

__all__ = ["STUDENTS", "build_student"]

STUDENTS: Mapping[str, type[Student]] = MappingProxyType({one.kind: one for one in (MLPStudent, RetrievalStudent)})


def build_student(kind: str, spec: Mapping[str, Any]) -> Student:
    """A fresh student of a kind, from the fields of its spec.

    Raises:
        ConfigError: the kind is unknown, or a value is out of range.
        TypeError: a field is unknown or missing.
    """
    if kind not in STUDENTS:
        raise ConfigError(f"Unknown kind of student '{kind}'. {suggest(kind, STUDENTS)}")
    return STUDENTS[kind](STUDENTS[kind].spec_type(**spec))
