"""Which preset is fastest here: every candidate measured in one interleaved run, the fastest that passes is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graph2mlp.errors import Graph2MLPError
from graph2mlp.export.bundle import EXTERNAL_DATA, MODEL, ORT_MODEL
from graph2mlp.export.candidate import Candidate, Prepared, build_candidate
from graph2mlp.export.presets import PRESETS
from graph2mlp.export.requests import Requests
from graph2mlp.measure import Latency, measure_together

__all__ = ["Choice", "Trial", "choose_preset", "measure_candidates", "model_bytes"]

MARGIN = 1.05
"""How many times faster than fp32 another preset must be: rounding needs a reason, and noise is none."""
_POOL, _POOL_ROWS = 16, 1024


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One preset's row: what became of it, and what it costs by batch size (empty unless it passed)."""

    preset: str
    passed: bool
    status: str
    """`passed`, the preset whose file is the same, or why it was refused."""
    bytes: int | None = None
    accuracy: float | None = None
    agreement: float | None = None
    latency: Mapping[int, Latency]


@dataclass(frozen=True, eq=False, kw_only=True)
class Choice:
    """The preset that was kept, why, and all rows."""

    winner: Candidate
    reason: str
    trials: tuple[Trial, ...]
    seconds: float


def choose_preset(
    prepared: Prepared,
    max_drop: float,
    *,
    where: Path,
    batches: Sequence[int] = (1, 64),
    seconds: float = 0.5,
    measure: Callable[..., dict[int, dict[str, Latency]]] | None = None,
) -> Choice:
    """Build every preset, measure those that pass the gate, keep the fastest over all `batches` (geometric mean).

    A preset that fails is a row with its reason; fp32 must pass. No test label is read.

    Raises:
        BundleError: fp32 itself fails.
    """
    started = time.perf_counter()
    passed: dict[str, Candidate] = {}
    failed: dict[str, str] = {}
    for preset in PRESETS.values():
        try:
            passed[preset.name] = build_candidate(prepared, preset, max_drop, where=where)
        except Exception as error:  # onnxruntime's share no base class, and no row may take the table with it
            if preset.exact:
                raise
            ours = isinstance(error, Graph2MLPError)
            failed[preset.name] = str(error) if ours else f"failed: {' '.join(str(error).split())[:200]}"
    same = {name: twin for name in passed if (twin := _twin(name, passed))}
    found = (measure or measure_candidates)(
        {name: one for name, one in passed.items() if name not in same}, prepared.sample, batches, seconds=seconds
    )
    speed = {name: _times_faster(found, name) for name in passed if name not in same}
    best = max(speed, key=lambda name: speed[name])
    winner = best if speed[best] >= MARGIN else "fp32"
    return Choice(
        winner=passed[winner],
        reason=_reason(winner, best, speed, batches, prepared.graph.task.metric),
        trials=tuple(_trial(name, passed, failed, same, found) for name in PRESETS),
        seconds=time.perf_counter() - started,
    )


def measure_candidates(
    candidates: Mapping[str, Candidate], requests: Requests, batches: Sequence[int], *, seconds: float
) -> dict[int, dict[str, Latency]]:
    """Latency of the network alone, by batch size and preset, all presets answering the same requests in turns."""
    found = {}
    order = np.random.default_rng(0).permutation(len(requests))
    for batch in batches:
        rows = np.resize(order, (max(1, min(_POOL, _POOL_ROWS // batch)), batch))
        parts = [requests.take(one).trim() for one in rows]
        calls = {name: [one.predictor.prepare(part) for part in parts] for name, one in candidates.items()}
        found[batch] = measure_together(calls, seconds=seconds)
    return found


def model_bytes(files: Mapping[str, bytes | Path]) -> int:
    """Size of the model with its weights."""
    parts = [files[name] for name in (MODEL, ORT_MODEL, EXTERNAL_DATA) if name in files]
    return sum(len(part) if isinstance(part, bytes) else part.stat().st_size for part in parts)


def _times_faster(found: Mapping[int, Mapping[str, Latency]], name: str) -> float:
    ratios = [by_name["fp32"].p50_us / by_name[name].p50_us for by_name in found.values()]
    return math.prod(ratios) ** (1 / len(ratios))


def _reason(winner: str, best: str, speed: Mapping[str, float], batches: Sequence[int], metric: str) -> str:
    sizes = " and ".join(map(str, batches))
    if winner != "fp32":
        return f"{winner} is {speed[winner]:.2f} times as fast as fp32 at batch {sizes} and keeps its {metric}"
    if best == "fp32":
        return f"nothing is faster than fp32 at batch {sizes}: the student is too small for rounding to pay"
    return f"{best} is only {speed[best]:.2f} times as fast as fp32 at batch {sizes}: not worth rounding for"


def _twin(name: str, passed: Mapping[str, Candidate]) -> str | None:
    """An earlier preset with the very same file: small students have no layer the presets could differ in."""
    model = _model(passed[name])
    for other, candidate in passed.items():
        if other == name:
            return None
        if isinstance(model, bytes) and _model(candidate) == model:
            return other
    return None


def _model(candidate: Candidate) -> bytes | Path:
    """The model's file, in whichever form it was asked for."""
    return candidate.files[ORT_MODEL if ORT_MODEL in candidate.files else MODEL]


def _trial(
    name: str,
    passed: Mapping[str, Candidate],
    failed: Mapping[str, str],
    same: Mapping[str, str],
    found: Mapping[int, Mapping[str, Latency]],
) -> Trial:
    if name in failed:
        return Trial(preset=name, passed=False, status=failed[name], latency={})
    candidate = passed[name]
    gate = candidate.manifest.gate
    return Trial(
        preset=name,
        passed=True,
        status=f"same as {same[name]}" if name in same else "passed",
        bytes=model_bytes(candidate.files),
        accuracy=None if gate is None else gate.accuracy,
        agreement=None if gate is None else gate.agreement,
        latency={batch: by_name[same.get(name, name)] for batch, by_name in found.items()},
    )
