"""What runs the model of a bundle: onnxruntime, or numpy alone. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from graph2mlp.errors import BundleError, ConfigError, MissingExtraError
from graph2mlp.export.bundle import EXTERNAL_DATA, MODEL, Bundle
from graph2mlp.export.requests import Floats

__all__ = ["ENGINES", "Engine", "open_engine"]

ENGINES = ("auto", "onnxruntime", "numpy")
"""`auto` is onnxruntime where it is installed, else numpy."""


class Engine(Protocol):
    """A model that is ready to run. `run` is thread-safe."""

    name: str
    inputs: list[str]
    outputs: list[str]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Floats]:
        """The outputs for checked inputs, in the order of `outputs`."""
        ...

    def bind(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[Floats]) -> Callable[[], object]:
        """A call that answers `feeds` into the arrays `outputs`."""
        ...


def open_engine(bundle: Bundle, *, engine: str = "auto", threads: int = 1) -> Engine:
    """The engine of that name, with the bundle's model loaded.

    Raises:
        ConfigError: no engine has that name.
        MissingExtraError: onnxruntime is asked for and not installed.
        BundleError: the engine refuses the model, or its inputs and outputs are not those of `bundle.json`.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)} (got '{engine}')")
    found = _numpy(bundle) if engine == "numpy" or (engine == "auto" and not _has_onnxruntime()) else None
    found = found or _onnxruntime(bundle, threads)
    names = found.inputs, found.outputs
    wanted = [spec.name for spec in bundle.manifest.inputs], list(bundle.manifest.kind.outputs)
    if names != wanted:
        raise BundleError(f"{bundle.path}: the model has inputs and outputs {names}, bundle.json says {wanted}.")
    return found


def _has_onnxruntime() -> bool:
    try:
        return find_spec("onnxruntime") is not None
    except (ImportError, ValueError):  # an import hook, or a test, that says no
        return False


def _onnxruntime(bundle: Bundle, threads: int) -> Engine:
    try:
        from graph2mlp.export.ort_engine import OnnxruntimeEngine
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] != "onnxruntime" or _has_onnxruntime():
            raise  # it is there, but broken: not a missing package
        raise MissingExtraError(
            "The engine 'onnxruntime' needs the package 'onnxruntime', which is not installed. Install it with: "
            "pip install onnxruntime, or use engine='numpy'"
        ) from None
    return OnnxruntimeEngine(bundle.model(), where=str(bundle.path), threads=threads)


def _numpy(bundle: Bundle) -> Engine:
    from graph2mlp.export.numpy_engine import NumpyEngine

    if MODEL not in bundle.contents:
        raise BundleError(
            f"{bundle.path} holds its model in onnxruntime's own format, which the numpy engine cannot read. Install "
            "onnxruntime, or export the bundle with --onnx."
        )
    data = bundle.contents.get(EXTERNAL_DATA)
    return NumpyEngine(bundle.read(MODEL), where=str(bundle.path), data=data if isinstance(data, Path) else None)
