"""Teachers are trained once: weights and knowledge are kept by a fingerprint of everything they depend on.

The members of an ensemble are kept each on its own, so one that was trained alone before is not trained again.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from graph2mlp.atomic import sweep, write_json
from graph2mlp.data.graph import GraphData
from graph2mlp.device import CPU
from graph2mlp.errors import ConfigError, KnowledgeError, RunError
from graph2mlp.lock import LOCK, hold
from graph2mlp.tasks import CLASSIFICATION
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.ensemble import Ensemble
from graph2mlp.teachers.extract import extract_knowledge, weights_fingerprint
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.models import Teacher, build_teacher
from graph2mlp.teachers.train import StageLog, train_teacher
from graph2mlp.tensor_files import save_tensors
from graph2mlp.training.loop import silent
from graph2mlp.training.seed import stage_seed

__all__ = ["TrainedTeacher", "cache_folder", "load_teacher", "obtain_teacher", "save_teacher"]

# Raise when the code of a teacher or its training changes what equal settings give.
_RECIPE = 1


@dataclass(frozen=True, eq=False)
class TrainedTeacher:
    """A teacher, what it said, how it validated, and what it cost when it was trained."""

    model: Teacher
    knowledge: TeacherKnowledge
    val: float
    seconds: float
    cpu_seconds: float | None
    """None for a teacher kept by a version that did not note it."""
    cached: bool
    members: tuple[TrainedTeacher, ...] = ()
    """The teachers of an ensemble; it counts as cached when all of them are."""
    val_as_labelled: float | None = None
    """How it validated before its answers assumed the class frequencies of all observed nodes; None if they do not."""


def cache_folder() -> Path:
    """`GRAPH2MLP_CACHE`, else `~/.cache/graph2mlp`."""
    return Path(os.environ.get("GRAPH2MLP_CACHE") or Path.home() / ".cache" / "graph2mlp")


def obtain_teacher(
    graph: GraphData,
    config: TeacherConfig,
    *,
    seed: int,
    log: StageLog = lambda _: silent,
    checkpoints: Path | None = None,
    device: torch.device = CPU,
) -> TrainedTeacher:
    """The teacher of `graph.observed()` and `seed`: from the cache when nothing it depends on has changed.

    Of an ensemble every member is obtained like that. The first of a name is the teacher of that name and `seed`;
    further ones have seeds of their own. One that must be trained learns on `device`.
    """
    configs = config.members()
    estimated = config.frequencies == "observed" and graph.task is CLASSIFICATION
    if len(configs) == 1 and not estimated:
        return _obtain_single(graph, config, seed, log, checkpoints, device)
    members = []
    for number, one in enumerate(configs):
        copy = configs[: number + 1].count(one)
        if copy == 1:
            members.append(_obtain_single(graph, one, seed, log, checkpoints, device))
            continue
        label = f"copy-{copy}"
        folder = checkpoints / label if checkpoints else None
        members.append(_obtain_single(graph, one, stage_seed(seed, label), _labelled(log, label), folder, device))
    model, val_nodes = Ensemble([one.model for one in members]), graph.split.val
    said = [one.knowledge.logits for one in members]
    if config.calibrate:
        model.calibrate([logits[val_nodes] for logits in said], graph.y[val_nodes])
    before = None
    if estimated:
        joined = model.combine([logits[val_nodes] for logits in said])
        before = graph.targets.score(joined, graph.y[val_nodes])
        model.fit_frequencies(said, graph.y, val_nodes, torch.cat([graph.split.train, val_nodes]))
    knowledge = extract_knowledge(model, graph, name=config.name)
    val = graph.targets.score(knowledge.logits[val_nodes], graph.y[val_nodes])
    known = [one.cpu_seconds for one in members if one.cpu_seconds is not None]
    return TrainedTeacher(
        model,
        knowledge,
        val,
        seconds=sum(one.seconds for one in members),
        cpu_seconds=sum(known) if len(known) == len(members) else None,
        cached=all(one.cached for one in members),
        members=tuple(members),
        val_as_labelled=before,
    )


def _labelled(log: StageLog, label: str) -> StageLog:
    return lambda name: log(f"{name} {label}")


def _obtain_single(
    graph: GraphData,
    config: TeacherConfig,
    seed: int,
    log: StageLog,
    checkpoints: Path | None,
    device: torch.device,
) -> TrainedTeacher:
    identity = [_RECIPE, graph.fingerprint(), config.training_settings(), seed, torch.__version__]
    if device != CPU:  # which draws and sums otherwise
        identity.append(device.type)
    key = hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()
    folder = cache_folder() / "teachers" / key
    if (found := _read(folder, graph)) is not None:
        return found
    model, fitted = train_teacher(graph, config, seed=seed, log=log, checkpoints=checkpoints, device=device)
    knowledge = extract_knowledge(model, graph, name=config.name)
    val, seconds, cpu_seconds = fitted.best.value, fitted.seconds, fitted.cpu_seconds
    try:
        with hold(folder / LOCK, str(folder)):
            sweep(folder)
            save_teacher(model, folder / "weights.safetensors")
            knowledge.save(folder / "knowledge.safetensors")
            # Last: an entry without it is incomplete and will be made again.
            write_json(folder / "entry.json", {"val": val, "seconds": seconds, "cpu_seconds": cpu_seconds})
    except RunError:
        pass  # another process is writing the same teacher at this moment
    except OSError as error:  # the run has its teacher; the next one will train it again
        warnings.warn(f"The teacher was not kept in {folder}: {error}. Set GRAPH2MLP_CACHE.", stacklevel=3)
    return TrainedTeacher(model, knowledge, val, seconds, cpu_seconds, cached=False)


def save_teacher(model: Teacher, path: Path) -> None:
    """Weights, and the settings to rebuild the network (of an ensemble a list), as safetensors in one step."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    # A member's own settings: validation may have chosen other aggregators for two members called sage.
    config = [asdict(one.config) for one in model.teachers()] if isinstance(model, Ensemble) else asdict(model.config)
    save_tensors(path, tensors, {"config": json.dumps(config)})


def load_teacher(path: Path, graph: GraphData) -> Teacher:
    """The built-in teacher in `path`, in evaluation mode.

    Raises:
        KnowledgeError: the file is missing, damaged, or does not fit the graph.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["config"])
        configs = [TeacherConfig(**one) for one in (about if isinstance(about, list) else [about])]
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, only to be replaced
            shape, ids = (graph.num_features, graph.num_classes), graph.observed_ids()
            members = [build_teacher(*shape, config, node_ids=ids, targets=graph.targets) for config in configs]
        model = Ensemble(members) if isinstance(about, list) else members[0]
        state = load_file(path)
        if isinstance(model, Ensemble):  # files made before there were any have neither
            state = {"scale": model.scale, "shift": model.shift} | state
        model.load_state_dict(state)
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise KnowledgeError(
            f"{path} is not a teacher of graph '{graph.name}' ({reason}). Run distill again."
        ) from None
    model.eval()
    return model


def _read(folder: Path, graph: GraphData) -> TrainedTeacher | None:
    try:
        entry = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        val, seconds = float(entry["val"]), float(entry["seconds"])
        cpu_seconds = float(entry["cpu_seconds"]) if "cpu_seconds" in entry else None
        knowledge = TeacherKnowledge.load(folder / "knowledge.safetensors")
        model = load_teacher(folder / "weights.safetensors", graph)
    except (OSError, ValueError, KeyError, TypeError, KnowledgeError):
        return None  # absent or damaged: a cache entry can always be made again
    if knowledge.weights != weights_fingerprint(model) or knowledge.graph != graph.fingerprint():
        return None
    return TrainedTeacher(model, knowledge, val, seconds, cpu_seconds, cached=True)
