"""Teachers are trained once: weights and knowledge are kept by a fingerprint of everything they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from graph2mlp.atomic import atomic_path, write_json
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError, KnowledgeError
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.extract import extract_knowledge, weights_fingerprint
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.models import Teacher, build_teacher
from graph2mlp.teachers.train import StageLog, train_teacher
from graph2mlp.training.loop import silent

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
    cached: bool


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
) -> TrainedTeacher:
    """The teacher of `graph.observed()` and `seed`: from the cache when nothing it depends on has changed."""
    identity = [_RECIPE, graph.fingerprint(), asdict(config), seed, torch.__version__]
    key = hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()
    folder = cache_folder() / "teachers" / key
    if (found := _read(folder, graph)) is not None:
        return found
    model, fitted = train_teacher(graph, config, seed=seed, log=log, checkpoints=checkpoints)
    knowledge = extract_knowledge(model, graph, name=config.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_teacher(model, folder / "weights.safetensors")
        knowledge.save(folder / "knowledge.safetensors")
        # Last: an entry without it is incomplete and will be made again.
        write_json(folder / "entry.json", {"val": fitted.best.accuracy, "seconds": fitted.seconds})
    except OSError as error:  # the run has its teacher; the next one will train it again
        warnings.warn(f"The teacher was not kept in {folder}: {error}. Set GRAPH2MLP_CACHE.", stacklevel=2)
    return TrainedTeacher(model, knowledge, fitted.best.accuracy, fitted.seconds, cached=False)


def save_teacher(model: Teacher, path: Path) -> None:
    """Weights, and the settings to rebuild the network, as safetensors in one step."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"config": json.dumps(asdict(model.config))})


def load_teacher(path: Path, graph: GraphData) -> Teacher:
    """The built-in teacher in `path`, in evaluation mode.

    Raises:
        KnowledgeError: the file is missing, damaged, or does not fit the graph.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config = TeacherConfig(**json.loads((file.metadata() or {})["config"]))
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, only to be replaced
            model = build_teacher(graph.num_features, graph.num_classes, config)
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
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
        knowledge = TeacherKnowledge.load(folder / "knowledge.safetensors")
        model = load_teacher(folder / "weights.safetensors", graph)
    except (OSError, ValueError, KeyError, TypeError, KnowledgeError):
        return None  # absent or damaged: a cache entry can always be made again
    if knowledge.weights != weights_fingerprint(model) or knowledge.graph != graph.fingerprint():
        return None
    return TrainedTeacher(model, knowledge, val, seconds, cached=True)
