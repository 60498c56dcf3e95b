"""`export_run`: from a finished run to a bundle that is verified and measured before anyone sees it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from graph2mlp.atomic import naming, part_prefix, sweep_beside
from graph2mlp.errors import BundleError, ConfigError
from graph2mlp.export.auto import Choice, choose_preset, measure_candidates
from graph2mlp.export.bundle import is_bundle, write_bundle
from graph2mlp.export.candidate import (
    Candidate,
    FeatureForm,
    ModelFormat,
    Prepared,
    RunConfigLike,
    RunLike,
    build_candidate,
    prepare,
)
from graph2mlp.export.evidence import file_accuracy
from graph2mlp.export.manifest import GateInfo, QuantizedTensor
from graph2mlp.export.presets import AUTO, MAX_DROP, PRESETS, find_preset
from graph2mlp.export.verify import Parity
from graph2mlp.lock import LOCK, hold
from graph2mlp.tasks import Task

__all__ = ["ExportSummary", "FeatureForm", "ModelFormat", "RunConfigLike", "RunLike", "export_run"]

QUICK_SECONDS = 0.1
"""Time per file and batch size for the line that says whether rounding pays."""


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What was written, and the evidence that it may be deployed."""

    path: Path
    preset: str
    features: str
    operators: int
    size: int
    """Bytes of all files."""
    task: Task
    metrics: dict[str, float]
    """The task's metric of the file, by part."""
    torch_metrics: dict[str, float]
    """That of the torch student on the same requests."""
    parity: Parity
    """Of the float32 file every preset starts from."""
    gate: GateInfo | None = None
    """What it loses on validation nodes."""
    quantized: tuple[QuantizedTensor, ...] = ()
    speed: dict[int, float] | None = None
    """By batch size, how many times as fast as fp32 it is here; None for fp32 itself."""
    choice: Choice | None = None
    """How `auto` came to this preset."""

    def summary(self) -> str:
        metrics = ", ".join(f"{part} {value:.2%}" for part, value in self.metrics.items()) or "not measured"
        lines = [
            f"{self.path}: {self.preset}, {self.features} features, {self.operators} operators, "
            f"{self.size / 1024:.0f} KB; {self._against_torch()}; {self.task.metric} of the file: {metrics}"
        ]
        if self.speed is not None:
            lines.append(_speed_line(self.preset, self.speed))
        return "\n".join(lines)

    def _against_torch(self) -> str:
        if self.preset != "fp32" and self.gate is not None:
            return f"{len(self.quantized)} tensors stored smaller; {self.gate.summary(self.task)}"
        sizes = ", ".join(map(str, self.parity.batch_sizes))
        return f"agrees with torch to {self.parity.max_abs:.1e} at batch sizes {sizes}"


def export_run(
    run: RunLike,
    *,
    out: Path,
    preset: str = "fp32",
    features: FeatureForm = "auto",
    model_format: ModelFormat = "onnx",
    force: bool = False,
    max_drop: float = MAX_DROP,
    batches: Sequence[int] = (1, 64),
) -> ExportSummary:
    """Export, hold against torch, judge and measure the file, and only then write `out` (folder or `.zip`).

    `features="auto"` takes sparse inputs for a graph with sparse features. `preset="auto"` measures every preset at
    the sizes of `batches` and keeps the fastest. `max_drop`: points of the validation metric the file may lose.
    `model_format="ort"` stores the model in onnxruntime's own format, see `graph2mlp.export.ort_format`.

    Raises:
        ConfigError: unknown preset or form of features, or a number out of range.
        BundleError: `out` exists (and not `force`), or the file loses more than it may.
        ParityError: the file disagrees with the network.
    """
    _check_choices(preset, features, out, force, max_drop, batches)
    with hold(out.parent / f".{out.name}{LOCK}", str(out)), _scratch(out) as scratch:
        _check_choices(preset, features, out, force, max_drop, batches)  # another export may just have ended
        prepared = prepare(run, features, Path(scratch), model_format=model_format, one_file=out.suffix == ".zip")
        choice = speed = None
        if preset == AUTO:
            choice = choose_preset(prepared, max_drop / 100, where=out, batches=batches)
            candidate = choice.winner
        else:
            candidate = build_candidate(prepared, find_preset(preset), max_drop / 100, where=out)
            speed = None if candidate.preset.exact else _speed(prepared, candidate, max_drop / 100, out, batches)
        # Test labels are read from here on: nothing is chosen any more.
        metrics, torch_metrics = file_accuracy(
            candidate.predictor, prepared.student, prepared.table, prepared.graph, run.config.setting
        )
        manifest = write_bundle(out, replace(candidate.manifest, metrics=metrics), candidate.files)
    return ExportSummary(
        path=out,
        preset=candidate.preset.name,
        features="sparse" if manifest.sparse else "dense",
        operators=candidate.operators,
        size=sum(entry.bytes for entry in manifest.files.values()),
        task=prepared.graph.task,
        metrics=metrics,
        torch_metrics=torch_metrics,
        parity=prepared.parity,
        gate=manifest.gate,
        quantized=manifest.quantized,
        speed=speed,
        choice=choice,
    )


@contextmanager
def _scratch(out: Path) -> Iterator[str]:
    """A folder beside `out`, which the next export to `out` removes should this one be killed."""
    with naming(out):
        sweep_beside(out)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=part_prefix(out)) as scratch:
            yield scratch


def _speed(
    prepared: Prepared, candidate: Candidate, max_drop: float, where: Path, batches: Sequence[int]
) -> dict[int, float]:
    """How many times as fast as fp32 the file is on this machine, a quick look."""
    both = {"fp32": build_candidate(prepared, PRESETS["fp32"], max_drop, where=where), "this": candidate}
    found = measure_candidates(both, prepared.sample, batches, seconds=QUICK_SECONDS)
    return {batch: by_name["fp32"].p50_us / by_name["this"].p50_us for batch, by_name in found.items()}


def _speed_line(preset: str, speed: dict[int, float]) -> str:
    parts = ", ".join(f"{ratio:.2f} at batch {batch}" for batch, ratio in speed.items())
    line = f"times as fast as fp32 on this machine: {parts}"
    if preset != "fp16" and max(speed.values()) < 1:
        line += f"; slower everywhere: this student is too small for {preset} to pay, except in size"
    return line


def _check_choices(preset: str, features: str, out: Path, force: bool, max_drop: float, batches: Sequence[int]) -> None:
    if preset != AUTO:
        find_preset(preset)
    if features not in ("auto", "dense", "sparse"):
        raise ConfigError(f"features must be 'auto', 'dense' or 'sparse' (got '{features}')")
    if not (math.isfinite(max_drop) and 0 <= max_drop <= 100):
        raise ConfigError(f"--max-drop is in points of the validation metric, from 0 to 100 (got {max_drop})")
    if not batches or min(batches) < 1:
        raise ConfigError(f"--batch takes sizes of at least 1 (got {list(batches)})")
    if out.exists() and not force:
        raise BundleError(f"{out} exists. Choose another --out, or replace it with --force.")
    if out.exists() and out.is_dir() == (out.suffix == ".zip"):
        raise BundleError(f"{out} exists and is of the other kind: a name in .zip is one file, any other a folder.")
    # Replacing deletes: never what is not a bundle, whatever --force says.
    if out.exists() and not is_bundle(out) and not (out.is_dir() and not any(out.iterdir())):
        what = "folder" if out.is_dir() else "file"
        raise BundleError(f"{out} is a {what}, but not a bundle; it will not be replaced. Choose another --out.")
