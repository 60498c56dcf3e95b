"""The pipeline: graph -> teacher -> structure -> student -> run folder. Each stage is kept, so a run can go on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from graph2mlp.atomic import write_json
from graph2mlp.config import RunConfig
from graph2mlp.console import Reporter
from graph2mlp.data.graph import GraphData
from graph2mlp.device import CPU, device_name
from graph2mlp.errors import ConfigError, RunError
from graph2mlp.evaluation import evaluate_knowledge, evaluate_teacher
from graph2mlp.losses.extra import LossConfig
from graph2mlp.memory import memory_for
from graph2mlp.methods.base import Stage
from graph2mlp.methods.mlp import MLP
from graph2mlp.report import PAGE, write_report
from graph2mlp.results import Cost, Finished, run_result
from graph2mlp.run import Run, open_run, save_student
from graph2mlp.run_files import BREAKDOWN, checksums
from graph2mlp.run_folder import check_folder, claim_folder, is_complete, keep_if_resumable, locked_folder
from graph2mlp.run_inputs import Inputs, check_same_inputs, read_inputs
from graph2mlp.structure import encode_structure
from graph2mlp.structure.answers import with_answers
from graph2mlp.structure.table import StructureTable
from graph2mlp.students.base import Student, StudentSpec
from graph2mlp.teachers.cache import TrainedTeacher, obtain_teacher, save_teacher
from graph2mlp.teachers.ensemble import Ensemble
from graph2mlp.teachers.frequencies import largest_change
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.load_own import save_own_teacher
from graph2mlp.teachers.models import Teacher
from graph2mlp.teachers.own import OwnTeacher
from graph2mlp.threads import torch_threads, training_threads
from graph2mlp.training import parallel
from graph2mlp.training.checkpoint import Checkpoint
from graph2mlp.training.journal import Journal
from graph2mlp.training.loop import EpochLog, Fitted
from graph2mlp.training.student import train_student

__all__ = ["Inputs", "distill", "read_inputs", "structure_table", "student_stage"]


@dataclass(frozen=True, eq=False)
class _Work:
    """What every stage of a run works with: its settings and inputs, where it writes and says, where networks learn."""

    config: RunConfig
    inputs: Inputs
    out: Path
    journal: Journal
    reporter: Reporter
    device: torch.device

    def checkpoint(self, name: str) -> Checkpoint:
        """Of the loop `name`."""
        return Checkpoint(self.out / "checkpoint" / f"{name}.safetensors")


@dataclass(frozen=True, eq=False)
class _Teaching:
    """What the student learns from, and how good that is."""

    knowledge: tuple[TeacherKnowledge, ...]
    summary: dict[str, Any] | None
    cost: Cost = field(default_factory=Cost)
    model: Teacher | None = None


def distill(
    config: RunConfig,
    out: Path,
    *,
    knowledge_files: Sequence[Path] = (),
    reporter: Reporter | None = None,
    force: bool = False,
    resume: bool = False,
    device: torch.device = CPU,
) -> Run:
    """Run every stage of `config` into the folder `out`; with `resume`, go on from what is already there.

    Built-in teachers and the student learn on `device`; all else is the CPU's.

    The folder is finished when `result.json` is in it. `report.html` follows; it is made from the files of the folder
    and, should it be missing, made again by `resume`. A new folder of a run that fails by a
    mistake of ours or the user's is removed; one that was interrupted, or met a full disk, stays, to be resumed.

    Raises:
        RunError: the folder is taken, belongs to other settings, was made on another kind of device, or another process
            works in it.
        Graph2MLPError: the inputs cannot be used.
        OSError: the disk is full, or the folder cannot be written to.
    """
    if not config.hyper.needs_teacher and (knowledge_files or config.teacher.own):
        given = "--knowledge" if knowledge_files else "--teacher-module"
        raise ConfigError(f"Method '{config.method}' learns from no teacher, so {given} has no use.")
    if check_folder(out, config, force=force, resume=resume) and resume and is_complete(out):
        return _learned_on(device, open_run(out))  # in a folder that may be read-only by now
    with locked_folder(out):
        with memory_for("Reading the inputs", "A graph written by GraphData.save is mapped, not read."):
            inputs = read_inputs(config, knowledge_files)
        reporter = reporter or Reporter()
        new = claim_folder(out, config, force=force, resume=resume)
        if not (out / "result.json").exists():
            with keep_if_resumable(out, new=new), torch_threads(training_threads(inputs.observed)):
                for note in inputs.graph.notes:
                    reporter.say(f"note: {inputs.graph.name}: {note}")
                _run_stages(_Work(config, inputs, out, Journal(out / "metrics.jsonl"), reporter, device))
        shutil.rmtree(out / "checkpoint", ignore_errors=True)
        if not (out / PAGE).exists():  # after the run is complete: a fault in a picture must not cost the training
            write_report(out)
        return _learned_on(device, open_run(out))


def _learned_on(device: torch.device, run: Run) -> Run:
    """The run, if it was made on a device of that kind; a run from before devices were recorded, on the CPU.

    Raises:
        RunError: it was not.
    """
    then = str(run.result.get("device", CPU))
    if not then.startswith(device.type):
        raise RunError(f"{run.path} learned on {then}, not {device}: resume with the --device of then.")
    return run


def _run_stages(work: _Work) -> None:
    config, out = work.config, work.out
    check_same_inputs(work.inputs, out / "checkpoint" / "inputs.json", work.device.type)
    with memory_for("The teacher", "Give it more, take a smaller one (teacher.hidden), or give --knowledge."):
        teaching = _teach(work)
    with memory_for("The structure table", "Give it more, lower structure.dim, or set structure.encoder=laplacian."):
        table, structure_cost = _structure(work, teaching.knowledge)
    with memory_for("The student", "Give it more, or lower train.batch_size, train.epoch_rows or student.hidden."):
        student, fitted, control = _learn(work, teaching.knowledge, table)
    made = Finished(
        graph=work.inputs.graph,
        knowledge=teaching.knowledge,
        teacher=teaching.summary,
        model=teaching.model,
        table=table,
        student=student,
        fitted=fitted,
        control=control,
        costs={"teacher": teaching.cost, "structure": structure_cost},
        deployed=work.inputs.deployed,
        device=device_name(work.device),
    )
    with memory_for("The report", "Give it more: what was learned is kept."):
        result, details = run_result(config, made)
    if details is not None:
        write_json(out / BREAKDOWN, details)
    write_json(out / "result.json", result | {"files": checksums(out)})


def _learn(
    work: _Work, knowledge: tuple[TeacherKnowledge, ...], table: StructureTable | None
) -> tuple[Student, Fitted, Student]:
    """The student with what its training cost, and the plain MLP."""
    config, journal = work.config, work.journal
    stage, spec = student_stage(config, work.inputs, knowledge, table, device=work.device)
    # A mini-batch is small whatever the graph: threads would meet after each of its operations.
    threads = training_threads(work.inputs.observed) if config.hyper.whole_graph_steps else 1
    with torch_threads(threads), work.reporter.training(f"student ({config.method})", config.train.epochs) as progress:
        logs = {
            "log": journal.stage("student", progress),
            "first_log": journal.stage("student, first stage", progress),
            "refit_log": journal.stage("student, validation nodes taught", progress),
        }
        parallel.call_crew()
        with parallel.together():
            student, fitted = train_student(config.hyper, spec, stage, **logs, checkpoint=work.checkpoint("student"))
    save_student(student, work.out / "student.safetensors")
    control = _control(work, spec, stage)
    save_student(control, work.out / "mlp.safetensors")
    return student, fitted, control


def student_stage(
    config: RunConfig,
    inputs: Inputs,
    knowledge: tuple[TeacherKnowledge, ...],
    table: StructureTable | None,
    *,
    device: torch.device = CPU,
) -> tuple[Stage, StudentSpec]:
    """What the student learns from, and what it is like."""
    stage = Stage(
        graph=inputs.observed,
        teachers=knowledge,
        structure=table,
        train=config.train,
        seed=config.seed,
        loss=config.loss,
        new_nodes=config.setting == "production",
        device=device,
    )
    spec = StudentSpec(
        features=inputs.graph.num_features,
        structure=table.width if table else 0,
        classes=inputs.graph.num_classes,
        task=inputs.graph.task.name,
        **asdict(config.student),
    )
    return stage, spec


def _teach(work: _Work) -> _Teaching:
    config, inputs, out = work.config, work.inputs, work.out
    graph, observed = inputs.graph, inputs.observed
    if inputs.knowledge:
        if inputs.teacher is not None:
            return _taught_by_own(config, inputs, inputs.teacher, out)
        for number, one in enumerate(inputs.knowledge):
            one.save(out / "knowledge" / f"{number}-{one.name}.safetensors")
        aligned = tuple(one.aligned(observed) for one in inputs.knowledge)
        first = aligned[0]
        val = observed.targets.score(first.logits[observed.split.val], observed.y[observed.split.val])
        heard = {"name": first.name, "parameters": None, "val": val, **evaluate_knowledge(first, graph)}
        return _Teaching(aligned, heard)
    if not config.hyper.needs_teacher:
        return _Teaching((), None)
    with ExitStack() as bars:

        def log(name: str) -> EpochLog:
            bars.close()  # the bar of the teacher before
            progress = bars.enter_context(work.reporter.training(f"teacher ({name})", config.teacher.epochs))
            return work.journal.stage(f"teacher {name}", progress)

        trained = obtain_teacher(
            observed,
            config.teacher,
            seed=config.seed,
            log=log,
            checkpoints=out / "checkpoint",
            device=work.device,
        )
    trained.knowledge.save(out / "knowledge" / f"{config.teacher.name}.safetensors")
    save_teacher(trained.model, out / "teacher.safetensors")
    cost = Cost(trained.seconds, trained.cpu_seconds)
    return _Teaching((trained.knowledge.aligned(observed),), _about_trained(trained, graph), cost, trained.model)


def _about_trained(trained: TrainedTeacher, graph: GraphData) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "name": trained.knowledge.name,
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "val": trained.val,
        "cached": trained.cached,
        **evaluate_teacher(trained.model, trained.knowledge, graph),
    }
    if trained.members:
        weights = cast(Ensemble, trained.model).weights.tolist()
        members = zip(trained.members, weights, strict=True)
        summary["members"] = [{"name": one.knowledge.name, "val": one.val, "weight": w} for one, w in members]
    if trained.val_as_labelled is not None:
        labels = graph.y[torch.cat([graph.split.train, graph.split.val])]
        summary["val_as_labelled"] = trained.val_as_labelled
        summary["frequencies"] = largest_change(trained.knowledge.logits, labels, graph.class_names)
    return summary


def _taught_by_own(config: RunConfig, inputs: Inputs, teacher: OwnTeacher, out: Path) -> _Teaching:
    """Unseen nodes are asked about only now, attached by their edges, as a built-in teacher is."""
    said, val = inputs.knowledge[0], inputs.observed.split.val
    said.save(out / "knowledge" / f"{said.name}.safetensors")
    if config.teacher.module:  # a program stays where it is: opening one may run code, so none lies in a run
        save_own_teacher(teacher, out / "teacher.safetensors")
    summary = {
        "name": said.name,
        "parameters": sum(parameter.numel() for parameter in teacher.parameters()),
        "val": inputs.observed.targets.score(said.logits[val], inputs.observed.y[val]),
        "module": config.teacher.code,
        **evaluate_teacher(teacher, said, inputs.graph),
    }
    return _Teaching((said,), summary, model=teacher)


def _structure(work: _Work, knowledge: Sequence[TeacherKnowledge]) -> tuple[StructureTable | None, Cost]:
    config, inputs, out = work.config, work.inputs, work.out
    if not config.hyper.reads_structure:
        return None, Cost()
    table_file, cost_file = out / "structure.safetensors", out / "checkpoint" / "structure.json"
    if cost_file.exists():  # written after the table: a run that goes on has it
        return StructureTable.load(table_file), Cost(**json.loads(cost_file.read_text(encoding="utf-8")))
    started, cpu_started = time.perf_counter(), time.process_time()
    with work.reporter.work(f"structure ({config.structure.encoder})"):
        table = structure_table(config, inputs.observed, knowledge, num_nodes=inputs.graph.num_nodes)
    table.save(table_file)
    cost = Cost(time.perf_counter() - started, time.process_time() - cpu_started)
    write_json(cost_file, asdict(cost))
    return table, cost


def structure_table(
    config: RunConfig, observed: GraphData, knowledge: Sequence[TeacherKnowledge], *, num_nodes: int
) -> StructureTable:
    """The table of the `observed` graph, over all `num_nodes` ids; row i of the `knowledge` is about its node i."""
    encoder, dim, seed = config.structure.encoder, config.structure.dim, config.seed
    table = encode_structure(observed, encoder, dim=dim, seed=seed, num_nodes=num_nodes)
    if not config.structure.answers:
        return table
    return with_answers(table, observed, [one.logits for one in knowledge], most=dim, seed=seed)


def _control(work: _Work, spec: StudentSpec, stage: Stage) -> Student:
    """The plain MLP of the student's shape, on features and labels alone: what distillation is measured against.

    Weight decay and patience are its own, unless this run is the plain MLP and the user may have chosen others; step
    size, batches, burn-in and average are the run's. Its dropout is `student.dropout`, whatever a method makes of it.
    """
    config = work.config
    # It learns from labels alone, so there is no soft label of a validation node to teach.
    train = config.train if config.method == "mlp" else replace(stage.train, **MLP.defaults["train"])
    train = replace(train, teach_val="never")
    plain = replace(stage, teachers=(), structure=None, train=train, loss=LossConfig())
    shape = replace(spec, structure=0, structure_dropout=0.0)
    if config.method != "mlp":
        shape = replace(shape, input_dropout=0.0)
    with torch_threads(1), work.reporter.training("plain MLP", train.epochs) as progress:
        log = work.journal.stage("mlp", progress)
        student, _fitted = train_student(MLP(), shape, plain, log=log, checkpoint=work.checkpoint("mlp"))
    return student
