"""The errors a user can meet. Each message says what, got, expected and what to do; the command line exits with 1.

Graph2MLPError
+-- ConfigError       a setting is unknown, of the wrong type or out of range
+-- DataError         a graph or an input file is missing, malformed or inconsistent
+-- KnowledgeError    what a teacher said does not fit the graph
+-- MethodError       a method does not fit the graph, the teachers or the student
+-- RunError          a run folder is missing, occupied, incomplete or from another version
+-- BundleError       a bundle is missing, damaged or from another version
|   +-- ParityError   an exported file disagrees with the network it came from
+-- RequestError      a prediction request does not fit the bundle
+-- KernelError       tensors or settings that a loss of `graph2mlp.kernels` cannot take (also a ValueError)
|   +-- BackendError  the backend asked for cannot run here, or not on these tensors
+-- OutOfMemoryError  a stage needs more memory than it may have
+-- MissingExtraError a command needs packages that the base install does not bring
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

__all__ = [
    "BackendError",
    "BundleError",
    "ConfigError",
    "DataError",
    "Graph2MLPError",
    "KernelError",
    "KnowledgeError",
    "MethodError",
    "MissingExtraError",
    "OutOfMemoryError",
    "ParityError",
    "RequestError",
    "RunError",
    "nearest",
    "one_line",
    "require",
    "suggest",
]


class Graph2MLPError(Exception):
    """Base of every error this package raises on purpose."""

    def __init__(self, message: str) -> None:
        # Names and cells of a file may hold line ends, or codes that a terminal would act on.
        super().__init__("".join(c if c.isprintable() else " " for c in message))


class ConfigError(Graph2MLPError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(Graph2MLPError):
    """A graph or an input file is missing, malformed or inconsistent."""


class KnowledgeError(Graph2MLPError):
    """What a teacher said does not fit the graph."""


class MethodError(Graph2MLPError):
    """A method does not fit the graph, the teachers or the student."""


class RunError(Graph2MLPError):
    """A run folder is missing, occupied, incomplete or from another version."""


class OutOfMemoryError(Graph2MLPError):
    """A stage needs more memory than it may have."""


class BundleError(Graph2MLPError):
    """A bundle is missing, damaged or from another version."""


class ParityError(BundleError):
    """An exported file disagrees with the network it came from."""


class RequestError(Graph2MLPError):
    """A prediction request does not fit the bundle."""


class KernelError(Graph2MLPError, ValueError):
    """Tensors or settings that a loss of `graph2mlp.kernels` cannot take."""


class BackendError(KernelError):
    """The backend asked for cannot run here, or not on these tensors."""


class MissingExtraError(Graph2MLPError):
    """A command needs packages that the base install does not bring."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say which extra to install.

    Raises:
        MissingExtraError: `module` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # A broken install of an existing package must not be reported as a missing one.
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package '{error.name.split('.')[0]}', which is not installed. "
            f"Install it with: pip install 'graph2mlp[{extra}]'"
        ) from None


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an 'unknown name' message: the nearest known name, or all of them."""
    names = sorted(known)
    return nearest(name, names) or f"Known: {', '.join(names)}."


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of such a message where a name is only one of several things that may be meant; empty if none is near."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else ""


def one_line(value: object, limit: int = 120) -> str:
    """Text from elsewhere, a library or a file that may be hostile, fit to be part of an error message."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
