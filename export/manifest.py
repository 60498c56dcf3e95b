"""`bundle.json`: what a bundle is, what it takes and gives, what it scored, and the checksum of every other file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args, get_origin, get_type_hints

from graph2mlp.errors import BundleError, one_line
from graph2mlp.tasks import CLASSIFICATION, TASKS, Task

__all__ = [
    "SCHEMA",
    "BundleManifest",
    "FileEntry",
    "GateInfo",
    "QuantizedTensor",
    "StructureInfo",
    "StudentInfo",
    "TensorSpec",
]

_NODE = "node-"
"""Before the name of a task: what is answered for is a node."""

SCHEMA = 1
"""Version of the format. A reader refuses any other by name."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the model; a dimension that is a word may have any size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str = ""


@dataclass(frozen=True, kw_only=True)
class StructureInfo:
    """The table inside the model: its encoder, how many ids it takes, how many of them are known, and its rule."""

    encoder: str
    nodes: int
    known: int
    rule: str = (
        "mean over the known nodes of 'neighbors'; a node of the table lists itself, any other node its neighbours; "
        "no known neighbour gives the zero vector"
    )


@dataclass(frozen=True, kw_only=True)
class StudentInfo:
    """Size of the network before export."""

    layers: int
    hidden: int
    parameters: int
    constants: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of the arrays in the model that were not trained, by name."""


@dataclass(frozen=True, kw_only=True)
class QuantizedTensor:
    """A constant of the network that the file stores in fewer bits: its shape in the network, its bytes in the file."""

    name: str
    form: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, kw_only=True)
class GateInfo:
    """What the file loses against the network, on the validation nodes; `max_drop` is what it was allowed to."""

    requests: int
    accuracy: float
    """Of this file; the metric of its task."""
    network: float
    """Accuracy of the network on the same requests."""
    agreement: float
    """How far its answers are the network's: of classes, the share of requests."""
    total_variation: float
    """Half the L1 distance between both probabilities, mean over requests; see `Task.distance`."""
    max_drop: float
    metric: str = CLASSIFICATION.metric

    @property
    def drop(self) -> float:
        """What it loses, as a fraction."""
        return self.network - self.accuracy

    def summary(self, kind: Task) -> str:
        """In the words of its task."""
        return (
            f"validation {kind.metric} {self.accuracy:.2%} (network {self.network:.2%}, {self.requests} requests), "
            f"{kind.same.format('the network')}: {self.agreement:.2%}, {kind.apart.format(self.total_variation)}"
        )


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """What a file of the bundle must be."""

    sha256: str
    bytes: int
    blocks: tuple[str, ...] = ()
    """sha256 of each block of a large file; see `graph2mlp.export.integrity`."""


@dataclass(frozen=True, kw_only=True)
class BundleManifest:
    """Everything `bundle.json` says; `files` is filled in by `write_bundle`."""

    class_names: tuple[str, ...]
    """Names of the classes, labels or quantities: one for each column of an answer."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    features: int
    """F, the width of the features, whether they come dense or sparse."""
    regime: str
    """What a request must carry: `features`, or also `structure`."""
    preset: str
    student: StudentInfo
    structure: StructureInfo | None = None
    task: str = f"{_NODE}{CLASSIFICATION.name}"
    source: dict[str, str] = field(default_factory=dict)
    """Where it comes from: graph, method, setting, seed."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The task metric measured on this very model file, by part (`test`; or `tran`, `ind`, `prod`, `cold`)."""
    parity: dict[str, float] = field(default_factory=dict)
    """How the answers may differ: `requests` compared and the largest difference to the network, `max_abs`.

    A file that rounds activations also says how its own answers may vary between machines: at least `min_agreement`
    equal labels and at most `max_total_variation` on average (see `graph2mlp.export.parity`).
    """
    quantized: tuple[QuantizedTensor, ...] = ()
    """The constants that are not stored in float32."""
    gate: GateInfo | None = None
    """Absent in bundles made before there was a gate."""
    versions: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    feature_names: tuple[str, ...] = ()
    """What the graph calls its features, in their order; empty where they have no names, and then not in the file."""
    schema: int = SCHEMA

    @property
    def sparse(self) -> bool:
        """Whether the model takes `indices` and `values` instead of `x`."""
        return self.inputs[0].name == "indices"

    @property
    def kind(self) -> Task:
        """What the columns of the outputs mean."""
        return TASKS[self.task.removeprefix(_NODE)]

    def to_json(self) -> str:
        value = asdict(self)
        if not self.feature_names:  # a bundle without names is, byte by byte, what it was before there were some
            del value["feature_names"]
        return json.dumps(value, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes, *, where: str) -> BundleManifest:
        """Read what `to_json` wrote; unknown fields are ignored, so that a later version may add some.

        Raises:
            BundleError: not JSON, another schema, or a field that is missing or of the wrong type.
        """
        try:
            value = json.loads(text)
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise BundleError(
                f"{where}: bundle.json is not valid JSON ({one_line(error, 80)}). Export it again."
            ) from None
        if not isinstance(value, dict) or "schema" not in value:
            raise BundleError(f"{where}: bundle.json does not describe a bundle: it has no 'schema'.")
        if value["schema"] != SCHEMA or isinstance(value["schema"], bool):
            raise BundleError(
                f"{where} has bundle schema {one_line(value['schema'], 80)!r}, this version reads {SCHEMA}. "
                "Export it again, or install the version of graph2mlp that wrote it."
            )
        manifest = _build(cls, value, where=f"{where}: bundle.json")
        assert isinstance(manifest, cls)
        problem = manifest._problem()
        if problem:
            raise BundleError(f"{where}: bundle.json contradicts itself: {problem}.")
        return manifest

    def _problem(self) -> str:
        """What is wrong between fields, or nothing."""
        names = tuple(spec.name for spec in self.inputs)
        features = ("indices", "values") if "indices" in names else ("x",)
        regime = "structure" if self.structure else "features"
        if self.regime != regime or names != features + (("neighbors",) if self.structure else ()):
            told = f"inputs {list(names)} {'with' if self.structure else 'without'} a structure table"
            return f"{told} do not go with regime '{one_line(self.regime, 80)}'"
        if self.features < 1 or (self.structure is not None and self.structure.nodes < 1):
            return "a size is below 1"
        if self.feature_names and not self.features == len(self.feature_names) == len(set(self.feature_names)):
            return f"{len(self.feature_names)} names of {self.features} features, or one of them twice"
        if self.task.removeprefix(_NODE) not in TASKS:
            return f"its task '{one_line(self.task, 80)}' is unknown to this version"
        wanted = list(self.kind.outputs)
        if [spec.name for spec in self.outputs] != wanted:
            return f"outputs must be {' and '.join(map(repr, wanted))}"
        if any(spec.shape != ("batch", len(self.class_names)) for spec in self.outputs):
            return f"outputs must be [batch, {len(self.class_names)}], one column per class name"
        return ""


def _build(kind: Any, value: Any, *, where: str) -> Any:
    """`value` from JSON as `kind`, a type annotation; checked all the way down."""
    if hasattr(kind, "__dataclass_fields__"):
        if not isinstance(value, dict):
            raise BundleError(f"{where} must be an object, got {one_line(value, 80)}.")
        hints = get_type_hints(kind)
        known = {f.name: f for f in fields(kind)}
        for name, f in known.items():
            if name not in value and not _has_default(f):
                raise BundleError(f"{where} lacks '{name}'. Export it again.")
        return kind(
            **{name: _build(hints[name], value[name], where=f"{where}: {name}") for name in known if name in value}
        )
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple and isinstance(value, list):
        return tuple(_build(arguments[0], item, where=where) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {key: _build(arguments[1], item, where=f"{where}.{one_line(key, 80)}") for key, item in value.items()}
    if origin not in (None, tuple, dict):  # a union
        for option in arguments:
            if hasattr(option, "__dataclass_fields__") and isinstance(value, dict):
                return _build(option, value, where=where)
            if isinstance(option, type) and isinstance(value, option) and not isinstance(value, bool):
                return value
    elif kind is float:  # Python's reader of JSON takes NaN for a number
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            return float(value)
    elif origin is None and isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise BundleError(f"{where} is of the wrong type: {one_line(value, 80)}.")


def _has_default(f: Any) -> bool:
    from dataclasses import MISSING

    return f.default is not MISSING or f.default_factory is not MISSING
