"""A run made ready for export, and the file of one preset: built, checked and judged, but not yet written."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from graph2mlp import __version__
from graph2mlp.data.graph import GraphData
from graph2mlp.export.bundle import MODEL, NODES, SAMPLE, Bundle, BundleManifest, StructureInfo, StudentInfo
from graph2mlp.export.calibrate import activation_ranges
from graph2mlp.export.evidence import (
    calibration_requests,
    check_gate,
    measure_gate,
    names_file,
    sample_file,
    sample_nodes,
)
from graph2mlp.export.graph_requests import node_requests
from graph2mlp.export.manifest import QuantizedTensor
from graph2mlp.export.ort_format import to_ort
from graph2mlp.export.parity import ROUNDED, compare_answers
from graph2mlp.export.presets import Preset
from graph2mlp.export.quantize import Ranges, load_model, quantize
from graph2mlp.export.requests import Floats, Requests
from graph2mlp.export.runtime import Predictor
from graph2mlp.export.to_onnx import EXTERNAL_DATA_FROM, ONE_FILE_LIMIT, OnnxModel, store_model, to_onnx
from graph2mlp.export.verify import Parity, check_parity, output_unit, student_logits, student_undecided
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student

__all__ = [
    "Candidate",
    "FeatureForm",
    "ModelFormat",
    "Prepared",
    "RunConfigLike",
    "RunLike",
    "build_candidate",
    "prepare",
]

FeatureForm = Literal["auto", "dense", "sparse"]
ModelFormat = Literal["onnx", "ort"]


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


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """A run, its network as a float32 file that was held against torch, and the requests of the sample."""

    run: RunLike
    graph: GraphData
    student: Student
    table: StructureTable | None
    model: OnnxModel
    parity: Parity
    sample_ids: Tensor
    sample: Requests
    network: Floats
    """Torch's answers to the sample, logits `[B, C]`."""
    scratch: Path
    model_format: ModelFormat
    external_from: int
    """Bytes of weights from which they go beside the model."""

    def inputs(self, requests: Requests) -> dict[str, np.ndarray]:
        """Requests as the model's inputs."""
        names = [spec.name for spec in self.model.inputs]
        found: dict[str, np.ndarray] = {}
        if "indices" in names:
            found["indices"], found["values"] = requests.sparse()
        else:
            found["x"] = requests.dense(self.graph.num_features)
        if "neighbors" in names:
            assert requests.neighbors is not None
            found["neighbors"] = requests.neighbors
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidate:
    """The files of one preset and what is known of them; `manifest` lacks the test metrics and the checksums."""

    preset: Preset
    manifest: BundleManifest
    files: dict[str, bytes | Path]
    operators: int
    predictor: Predictor


def prepare(
    run: RunLike, features: FeatureForm, scratch: Path, *, model_format: ModelFormat = "onnx", one_file: bool = False
) -> Prepared:
    """Export the float32 file and hold it against torch; every preset starts from it.

    `one_file`: a zip, which is opened in memory, so that nothing is gained by weights beside the model.

    Raises:
        ParityError: the file disagrees with the network.
    """
    graph, student, table = run.graph(), run.student().eval(), run.structure()
    if not student.spec.structure:
        table = None  # a run may keep a table its student does not read
    sparse = graph.is_sparse if features == "auto" else features == "sparse"
    external_from = ONE_FILE_LIMIT if one_file or model_format == "ort" else EXTERNAL_DATA_FROM
    model = to_onnx(student, table, sparse=sparse, scratch=scratch, external_from=external_from)
    ids = sample_nodes(graph)
    sample = node_requests(graph, ids, structure=table is not None)
    # Requests on which two correct machines may differ prove nothing, here or on the device.
    decided = np.flatnonzero(~student_undecided(student, table, sample))
    ids, sample = ids[torch.from_numpy(decided)], sample.take(decided)
    # A model with weights beside it is only found by its path; any other is handed over as it will be written.
    parity = check_parity(student, table, model.files[MODEL], sample)
    return Prepared(
        run=run,
        graph=graph,
        student=student,
        table=table,
        model=model,
        parity=parity,
        sample_ids=ids,
        sample=sample,
        network=student_logits(student, table, sample),
        scratch=scratch,
        model_format=model_format,
        external_from=external_from,
    )


def build_candidate(prepared: Prepared, preset: Preset, max_drop: float, *, where: Path) -> Candidate:
    """The file of a preset, self-checked and judged on the validation nodes. `where` is its name in messages.

    Raises:
        BundleError: it loses more than `max_drop` (a fraction).
    """
    files, operators = dict(prepared.model.files), len(prepared.model.operators)
    quantized: tuple[QuantizedTensor, ...] = ()
    if not preset.exact:
        files, operators, quantized = _quantized(prepared, preset)
    if prepared.model_format == "ort":
        files = to_ort(files, prepared.scratch)
    draft = _manifest(prepared, preset, quantized)
    inputs = prepared.inputs(prepared.sample)
    answers = None
    if not preset.exact:
        answers = Predictor(Bundle(path=where, manifest=draft, contents=files)).predict(Requests(**inputs)).logits
        draft = replace(draft, parity=_parity(prepared, preset, answers, where))
    if prepared.table is not None and prepared.graph.names is not None:
        files[NODES] = names_file(prepared.graph.names)
    unit = output_unit(prepared.student)
    files[SAMPLE] = sample_file(prepared.graph, prepared.sample_ids, inputs, prepared.network, answers, unit)
    predictor = Predictor(Bundle(path=where, manifest=draft, contents=files))
    predictor.self_check()
    gate = measure_gate(predictor, prepared.student, prepared.table, prepared.graph, max_drop)
    check_gate(gate, preset.name)
    manifest = replace(draft, gate=gate)
    return Candidate(preset=preset, manifest=manifest, files=files, operators=operators, predictor=predictor)


def _quantized(prepared: Prepared, preset: Preset) -> tuple[dict[str, bytes | Path], int, tuple[QuantizedTensor, ...]]:
    folder = prepared.scratch / preset.name
    folder.mkdir(exist_ok=True)
    original = load_model(prepared.model.files)

    def ranges(tensors: list[str]) -> Ranges:
        structure = prepared.table is not None
        batches = (prepared.inputs(part) for part in calibration_requests(prepared.graph, structure=structure))
        return activation_ranges(original, tensors, batches, folder)

    model, quantized = quantize(original, preset, ranges)
    return store_model(model, folder, external_from=prepared.external_from), len(model.graph.node), quantized


def _parity(prepared: Prepared, preset: Preset, answers: Floats, where: Path) -> dict[str, float]:
    alike = compare_answers(prepared.network, answers, what=f"{where}: the file", kind=prepared.graph.task)
    found = {"requests": alike.rows, "max_abs": alike.max_abs, "agreement": alike.agreement}
    found["total_variation"] = alike.total_variation
    return found | (ROUNDED if preset.rounds_activations else {})


def _manifest(prepared: Prepared, preset: Preset, quantized: tuple[QuantizedTensor, ...]) -> BundleManifest:
    run, graph, student, table = prepared.run, prepared.graph, prepared.student, prepared.table
    info = None
    if table is not None:
        info = StructureInfo(encoder=table.encoder, nodes=len(table.rows), known=int(table.known.sum()))
    spec = student.spec
    packages = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    result = run.result
    return BundleManifest(
        class_names=graph.class_names,
        task=f"node-{graph.task.name}",
        inputs=prepared.model.inputs,
        outputs=prepared.model.outputs,
        features=graph.num_features,
        feature_names=graph.feature_names or (),
        regime=student.regime,
        preset=preset.name,
        student=StudentInfo(
            layers=spec.layers,
            hidden=spec.hidden,
            parameters=student.num_parameters,
            constants={name: tuple(array.shape) for name, array in student.constants.items()},
        ),
        structure=info,
        source={
            "graph": graph.name,
            "setting": run.config.setting,
            **{key: str(result[key]) for key in ("method", "seed") if key in result},
        },
        parity={"requests": prepared.parity.requests, "max_abs": prepared.parity.max_abs},
        quantized=quantized,
        versions={
            "graph2mlp": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        fingerprints={"run": run.fingerprint, "graph": graph.fingerprint()},
    )
