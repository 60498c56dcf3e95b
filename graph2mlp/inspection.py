"""What a path holds: bundle, run, knowledge file, structure table or graph, and whether it is intact."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from graph2mlp.errors import DataError, one_line, require
from graph2mlp.export.bundle import MODEL, ORT_MODEL, is_bundle, open_bundle
from graph2mlp.tasks import CLASSIFICATION, TASKS

__all__ = ["describe"]

Rows = list[list[str]]


def describe(path: Path, *, root: Path | None = None, task: str = "auto") -> tuple[str, Rows]:
    """A title, and (name, value) rows. Bundles are described without torch.

    `root` holds the raw files of named graphs, `task` says what the labels of a graph are.

    Raises:
        Graph2MLPError: it is damaged, or not one of ours.
    """
    if not path.exists() and str(path) not in _graph_names():
        raise DataError(f"No such file or folder: {path}. Expected a graph, a knowledge file, a run or a bundle.")
    if is_bundle(path) or path.suffix == ".zip":
        return _bundle(path)
    require("torch", extra="distill", purpose="graph2mlp inspect, for anything but a bundle,")
    if (path / "config.toml").exists() or (path / "result.json").exists():
        return _run(path)
    if path.suffix == ".safetensors":
        return _knowledge(path)
    if path.is_dir() and str(path) not in _graph_names():
        from graph2mlp.data.folder import is_graph_folder

        if not is_graph_folder(path):
            raise DataError(
                f"{path} is neither a run (no config.toml), nor a bundle (no bundle.json), nor a graph (no nodes.csv "
                "or nodes.parquet)."
            )
    return _graph(str(path), root, task)


def _graph_names() -> list[str]:
    require("torch", extra="distill", purpose="graph2mlp inspect, for anything but a bundle,")
    from graph2mlp.data.datasets import dataset_names

    return dataset_names()


def _bundle(path: Path) -> tuple[str, Rows]:
    from graph2mlp.export.runtime import Predictor

    bundle = open_bundle(path)
    about = bundle.manifest
    check = Predictor(bundle).self_check()
    inputs = ", ".join(f"{spec.name} [{', '.join(map(str, spec.shape))}] {spec.dtype}" for spec in about.inputs)
    shape = asdict(about.student)
    arrays = shape.pop("constants")
    student = ", ".join(f"{key} {value}" for key, value in shape.items())
    student += "".join(f", {name} {' x '.join(map(str, sizes))}" for name, sizes in arrays.items())
    metrics = ", ".join(f"{name} {100 * value:.2f} %" for name, value in about.metrics.items())
    stored = [
        f"{one.name} [{', '.join(map(str, one.shape))}] as {one.form}, {one.bytes / 1024:.0f} KiB"
        for one in about.quantized
    ]
    return f"Bundle {path}", [
        ["task", f"{about.task}, {len(about.class_names)} {about.kind.units}"],
        ["regime", about.regime],
        ["student", student],
        ["inputs", inputs],
        ["features", f"{about.features}{_called(about.feature_names)}"],
        ["preset", about.preset],
        ["model", f"{ORT_MODEL}, onnxruntime's own format" if ORT_MODEL in bundle.contents else f"{MODEL}, ONNX"],
        ["stored smaller", "; ".join(stored) or "nothing"],
        ["gate", about.gate.summary(about.kind) if about.gate else "not measured"],
        [f"{about.kind.metric} of this file", metrics],
        ["size", f"{bundle.size / 1024:.0f} KiB"],
        ["checksums", "intact"],
        ["self-check", check.summary()],
    ]


def _called(names: tuple[str, ...]) -> str:
    """The first of them: a bag of words has thousands."""
    shown = one_line(", ".join(names[:8]))
    return f", called {shown}{', ...' if len(names) > 8 else ''}" if names else ""


def _run(path: Path) -> tuple[str, Rows]:
    from graph2mlp.run import open_run

    run = open_run(path)
    run.check_files()
    student, result = run.student(), run.result
    parts = [f"{one.name} ({len(one.node_ids)} nodes)" for one in run.knowledge()]
    table = run.structure()
    scores = ", ".join(
        f"{key} {100 * result['student'][key]:.2f} %"
        for key in ("val", "test", "tran", "ind", "prod", "cold")
        if key in result["student"]
    )
    graph, task = result["graph"], TASKS[result.get("task", CLASSIFICATION.name)]
    return f"Run {path}", [
        ["graph", f"{graph['name']}: {graph['nodes']} nodes, {graph['edges']} edges, {graph['classes']} {task.units}"],
        ["task", f"{task.name}, figures are {task.metric}"],
        ["method", f"{result['method']}, {result['setting']}, seed {result['seed']}"],
        ["student", f"{student.regime} regime, {student.num_parameters:,} parameters; {scores}"],
        ["knowledge", ", ".join(parts) or "none"],
        ["structure", f"{table.encoder}, {table.width} wide" if table else "none"],
        ["files", "intact"],
    ]


def _knowledge(path: Path) -> tuple[str, Rows]:
    from graph2mlp.teachers.knowledge import TeacherKnowledge

    one = TeacherKnowledge.load(path)
    hidden = ", ".join(f"{name} {tensor.size(1)} wide" for name, tensor in one.hidden.items())
    return f"Knowledge {path}", [
        ["teacher", one.name],
        ["nodes", str(len(one.node_ids))],
        ["columns", str(one.logits.size(1))],
        ["hidden layers", hidden or "none"],
        ["graph", one.graph],
        ["weights", one.weights],
    ]


def _graph(name: str, root: Path | None, task: str) -> tuple[str, Rows]:
    from graph2mlp.data.datasets import load_graph
    from graph2mlp.graph_facts import advice, fact_rows, graph_facts

    graph = load_graph(name, root=root, task=task)
    facts = graph_facts(graph)
    return f"Graph {name}", [*fact_rows(graph, facts), *(["so", line] for line in advice(graph, facts))]
