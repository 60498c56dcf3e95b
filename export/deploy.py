"""`export_run`: from a finished run to a bundle that is verified and measured before anyone sees it."""

from __future__ import annotations

import io
import platform
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from graph2mlp import __version__
from graph2mlp.data.graph import HIDDEN_LABEL, GraphData
from graph2mlp.errors import BundleError, ConfigError, suggest
from graph2mlp.export.bundle import (
    MODEL,
    SAMPLE,
    Bundle,
    BundleManifest,
    StructureInfo,
    StudentInfo,
    write_bundle,
)
from graph2mlp.export.graph_requests import node_requests
from graph2mlp.export.ort_format import to_ort
from graph2mlp.export.presets import PRESETS, Preset
from graph2mlp.export.requests import Requests
from graph2mlp.export.runtime import Predictor
from graph2mlp.export.to_onnx import EXTERNAL_DATA_FROM, ONE_FILE_LIMIT, OnnxModel, to_onnx
from graph2mlp.export.verify import Parity, check_parity, student_logits
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student

__all__ = ["ExportSummary", "FeatureForm", "ModelFormat", "RunConfigLike", "RunLike", "export_run"]

FeatureForm = Literal["auto", "dense", "sparse"]
ModelFormat = Literal["onnx", "ort"]

SAMPLE_SIZE = 500
SAMPLE_SEED = 0


class RunConfigLike(Protocol):
    """The part of a run's settings that export reads."""

    @property
    def setting(self) -> str: ...


class RunLike(Protocol):
    """The part of a finished run that export reads."""

    @property
    def path(self) -> Path: ...
    @property
    def result(self) -> dict[str, Any]: ...
    @property
    def config(self) -> RunConfigLike: ...
    @property
    def fingerprint(self) -> str: ...
    def graph(self) -> GraphData: ...
    def student(self) -> Student: ...
    def structure(self) -> StructureTable | None: ...


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What was written, and the evidence that it may be deployed."""

    path: Path
    preset: str
    features: str
    operators: int
    size: int
    """Bytes of all files."""
    metrics: dict[str, float]
    """Accuracy of the file, by part."""
    torch_metrics: dict[str, float]
    """Accuracy of the torch student on the same requests."""
    parity: Parity

    def summary(self) -> str:
        accuracy = ", ".join(f"{part} {value:.2%}" for part, value in self.metrics.items())
        return (
            f"{self.path}: {self.preset}, {self.features} features, {self.operators} operators, "
            f"{self.size / 1024:.0f} KB; agrees with torch to {self.parity.max_abs:.1e} at batch sizes "
            f"{', '.join(map(str, self.parity.batch_sizes))}; accuracy of the file: {accuracy or 'not measured'}"
        )


def export_run(
    run: RunLike,
    *,
    out: Path,
    preset: str = "fp32",
    features: FeatureForm = "auto",
    model_format: ModelFormat = "onnx",
    force: bool = False,
) -> ExportSummary:
    """Export, hold against torch, measure the accuracy of the file, and only then write `out` (folder or `.zip`).

    `features="auto"` takes sparse inputs for a graph with sparse features. `model_format="ort"` stores the model in
    onnxruntime's own format, see `graph2mlp.export.ort_format`.

    Raises:
        ConfigError: unknown preset or form of features.
        BundleError: `out` exists (and not `force`), or the file loses more accuracy than the preset allows.
        ParityError: the file disagrees with the network.
    """
    chosen = _check_choices(preset, features, out, force)
    graph, student, table = run.graph(), run.student().eval(), run.structure()
    if not student.spec.structure:
        table = None  # a run may keep a table its student does not read
    sparse = graph.is_sparse if features == "auto" else features == "sparse"
    with tempfile.TemporaryDirectory(prefix="graph2mlp-export-") as scratch:
        # A zip is opened in memory, so there is nothing to map: it takes weights beside the model only when it must.
        external_from = ONE_FILE_LIMIT if out.suffix == ".zip" else EXTERNAL_DATA_FROM
        model = to_onnx(student, table, sparse=sparse, scratch=Path(scratch), external_from=external_from)
        sample_ids = _sample_ids(graph)
        requests = node_requests(graph, sample_ids, structure=table is not None)
        # A model with weights beside it is only found by its path; any other is handed over as it will be written.
        parity = check_parity(student, table, model.files[MODEL], requests)
        draft = _manifest(run, graph, student, table, model, chosen, parity)
        stored = to_ort(model.files, Path(scratch)) if model_format == "ort" else model.files
        files = {**stored, SAMPLE: _sample_file(student, table, graph, requests, sample_ids, sparse)}
        predictor = Predictor(Bundle(path=out, manifest=draft, contents=files))
        predictor.self_check()
        metrics, torch_metrics = _accuracy(predictor, student, table, graph, run.config.setting)
        for part, value in metrics.items():
            if value < torch_metrics[part] - chosen.max_drop:
                raise BundleError(
                    f"Preset '{preset}' has {part} accuracy {value:.2%}, the network {torch_metrics[part]:.2%}: "
                    f"more than the allowed loss of {chosen.max_drop:.2%}. Nothing was written; choose another preset."
                )
        manifest = write_bundle(out, replace(draft, metrics=metrics), files)
    return ExportSummary(
        path=out,
        preset=preset,
        features="sparse" if sparse else "dense",
        operators=len(model.operators),
        size=sum(entry.bytes for entry in manifest.files.values()),
        metrics=metrics,
        torch_metrics=torch_metrics,
        parity=parity,
    )


def _check_choices(preset: str, features: str, out: Path, force: bool) -> Preset:
    if preset not in PRESETS:
        raise ConfigError(f"Unknown preset '{preset}'. {suggest(preset, PRESETS)}")
    if features not in ("auto", "dense", "sparse"):
        raise ConfigError(f"features must be 'auto', 'dense' or 'sparse' (got '{features}')")
    if out.exists() and not force:
        raise BundleError(f"{out} exists. Choose another --out, or replace it with --force.")
    if out.exists() and out.is_dir() == (out.suffix == ".zip"):
        raise BundleError(f"{out} exists and is of the other kind: a name in .zip is one file, any other a folder.")
    # Replacing deletes: never a folder that is not a bundle, whatever --force says.
    if out.is_dir() and any(out.iterdir()) and not (out / "bundle.json").is_file():
        raise BundleError(f"{out} is a folder, but not a bundle; it will not be replaced. Choose another --out.")
    return PRESETS[preset]


def _sample_ids(graph: GraphData) -> Tensor:
    """Up to 500 test nodes, unseen ones included, drawn with a fixed seed."""
    pool = torch.cat([graph.split.test, graph.split.unseen])
    if not pool.numel():
        pool = torch.cat([graph.split.val, graph.split.train])
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    return pool[torch.randperm(len(pool), generator=generator)[:SAMPLE_SIZE]].sort().values


def _sample_file(
    student: Student, table: StructureTable | None, graph: GraphData, requests: Requests, ids: Tensor, sparse: bool
) -> bytes:
    """`sample.npz`: the model's inputs, torch's answers, and what is true (`y`, -1 where unknown)."""
    logits = student_logits(student, table, requests)
    arrays: dict[str, np.ndarray] = {
        "ids": ids.numpy(),
        "logits": logits,
        "probabilities": torch.from_numpy(logits).softmax(-1).numpy(),
        "labels": logits.argmax(1),
        "y": graph.y[ids].numpy(),
    }
    if sparse:
        arrays["indices"], arrays["values"] = requests.sparse()
    else:
        arrays["x"] = requests.dense(graph.num_features)
    if requests.neighbors is not None:
        arrays["neighbors"] = requests.neighbors
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _accuracy(
    predictor: Predictor, student: Student, table: StructureTable | None, graph: GraphData, setting: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy of the file and of the torch student, by part, on the same requests."""
    split = graph.split
    parts = {"test": (split.test, False)}
    if setting == "production":
        parts = {"tran": (split.test, False), "ind": (split.unseen, False), "cold": (split.unseen, True)}
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    for part, (ids, cold) in parts.items():
        ids = ids[graph.y[ids] != HIDDEN_LABEL]
        right = np.zeros(2, dtype=np.int64)
        for chunk in torch.split(ids, 4096):
            requests = node_requests(graph, chunk, structure=table is not None, cold=cold)
            y = graph.y[chunk].numpy()
            right += (
                (predictor.predict(requests).labels == y).sum(),
                (student_logits(student, table, requests).argmax(1) == y).sum(),
            )
        if len(ids):
            ours[part], theirs[part] = (float(count) / len(ids) for count in right)
    for metrics in (ours, theirs):
        if "tran" in metrics and "ind" in metrics:
            metrics["prod"] = 0.8 * metrics["tran"] + 0.2 * metrics["ind"]
    return ours, theirs


def _manifest(
    run: RunLike,
    graph: GraphData,
    student: Student,
    table: StructureTable | None,
    model: OnnxModel,
    preset: Preset,
    parity: Parity,
) -> BundleManifest:
    info = None
    if table is not None:
        info = StructureInfo(encoder=table.encoder, nodes=len(table.rows), known=int(table.known.sum()))
    spec = student.spec
    packages = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    result = run.result
    return BundleManifest(
        class_names=graph.class_names,
        inputs=model.inputs,
        outputs=model.outputs,
        features=graph.num_features,
        regime=student.regime,
        preset=preset.name,
        student=StudentInfo(layers=spec.layers, hidden=spec.hidden, parameters=student.num_parameters),
        structure=info,
        source={
            "graph": graph.name,
            "setting": run.config.setting,
            **{key: str(result[key]) for key in ("method", "seed") if key in result},
        },
        parity={"requests": parity.requests, "max_abs": parity.max_abs},
        versions={
            "graph2mlp": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        fingerprints={"run": run.fingerprint, "graph": graph.fingerprint()},
    )
