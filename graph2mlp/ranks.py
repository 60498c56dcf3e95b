"""`distill` in several processes: rank 0 is the run, the others help to train its student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from graph2mlp.config import RunConfig
from graph2mlp.device import CPU
from graph2mlp.distill import distill, student_stage
from graph2mlp.errors import ConfigError
from graph2mlp.memory import memory_for
from graph2mlp.run import Run
from graph2mlp.run_inputs import read_inputs
from graph2mlp.structure.table import StructureTable
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.threads import torch_threads
from graph2mlp.training import parallel
from graph2mlp.training.checkpoint import Checkpoint
from graph2mlp.training.student import train_student

__all__ = ["distill_in_ranks"]


def distill_in_ranks(
    config: RunConfig,
    out: Path,
    *,
    knowledge_files: Sequence[Path] = (),
    device: torch.device = CPU,
    **how: Any,
) -> Run | None:
    """Rank 0 does what `distill` does and gives the run; the others read what it wrote, help, and give None.

    Teacher, structure, plain MLP and report are rank 0's. Stages cross through the run folder, so all processes must
    see it; the graph is read by each.

    Raises:
        ConfigError: the method cannot be divided, or normalises over batches.
        Graph2MLPError: as `distill`.
    """
    if not config.hyper.divisible:
        raise ConfigError(f"Method '{config.method}' trains in one process only. Start it without torchrun.")
    if config.student.norm == "batch":
        raise ConfigError(
            "student.norm = 'batch' would normalise each process's share of a batch by itself. Start it without "
            "torchrun, or use student.norm=none."
        )
    with parallel.joined(device) as rank:
        if rank:
            if parallel.wait_for_call():
                with memory_for("The student", "Give it more, or lower train.batch_size or student.hidden."):
                    _help(config, out, knowledge_files, device)
            return None
        run = distill(config, out, knowledge_files=knowledge_files, device=device, **how)
        parallel.dismiss_crew()
        return run


def _help(config: RunConfig, out: Path, knowledge_files: Sequence[Path], device: torch.device) -> None:
    inputs = read_inputs(config, knowledge_files)
    said = [TeacherKnowledge.load(path) for path in sorted((out / "knowledge").glob("*.safetensors"))]
    table = StructureTable.load(out / "structure.safetensors") if config.hyper.reads_structure else None
    aligned = tuple(one.aligned(inputs.observed) for one in said)
    stage, spec = student_stage(config, inputs, aligned, table, device=device)
    # Rank 0 writes the checkpoint; this one only goes on from it.
    checkpoint = Checkpoint(out / "checkpoint" / "student.safetensors", seconds=float("inf"))
    with torch_threads(1), parallel.together():
        train_student(config.hyper, spec, stage, checkpoint=checkpoint)
