"""What a graph of any size costs on one machine: each stage in a process of its own, time and peak memory per stage.

    python -m bench.scale --nodes 100000 1000000 --folder /tmp/scale

The graph is generated (seeded): ten directed edges per node, 128 dense features, 40 planted communities which are the
classes, `_INSIDE` of the edges inside one. The knowledge file holds noisy true labels, so no teacher is trained. One
CSV row per stage and size, with the machine and the commit. Wall time on a shared machine is not the program's: CPU
time stands beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.rows import RowFile
from graph2mlp.data.graph import GraphData
from graph2mlp.data.npz import read_graph
from graph2mlp.data.splits import Split
from graph2mlp.structure import encode_structure
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.extract import extract_knowledge
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.models import build_teacher

__all__ = ["STAGES", "make_graph", "make_knowledge"]

RESULTS = Path(__file__).parent / "results" / "scale.csv"
CLASSES, FEATURES, HIDDEN, DEGREE = 40, 128, 32, 10
_INSIDE = 0.6
_SIGNAL = 0.2
"""Size of a class's mean against noise of deviation 1: features alone are right on about half of the nodes."""
_WRONG = 0.15
"""Share of nodes whose knowledge names a random class."""

FILE = RowFile(
    path=RESULTS,
    columns=("nodes", "stage", "wall_s", "cpu_s", "peak_mb", "test", "mlp", "error", "cpu", "cores", "commit"),
    keys=("nodes", "stage", "commit"),
    numbers=frozenset({"nodes", "wall_s", "cpu_s", "peak_mb", "test", "mlp", "error", "cores"}),
)


def make_graph(nodes: int, seed: int = 0) -> GraphData:
    """The planted graph; 10 % of the nodes train, 5 % validate, the rest tests."""
    rng = np.random.default_rng(seed)
    y = rng.integers(CLASSES, size=nodes)
    by_class, first = np.argsort(y, kind="stable"), np.searchsorted(np.sort(y), np.arange(CLASSES + 1))
    source = rng.integers(nodes, size=nodes * DEGREE // 2)
    own = y[source]
    inside = by_class[first[own] + (rng.random(len(source)) * np.diff(first)[own]).astype(np.int64)]
    target = np.where(rng.random(len(source)) < _INSIDE, inside, rng.integers(nodes, size=len(source)))
    means = _SIGNAL * rng.standard_normal((CLASSES, FEATURES), dtype=np.float32)
    x = rng.standard_normal((nodes, FEATURES), dtype=np.float32)
    x += means[y]
    train, val, test = (torch.from_numpy(np.sort(p)) for p in np.split(rng.permutation(nodes), _cuts(nodes)))
    edges = np.stack([np.concatenate([source, target]), np.concatenate([target, source])])
    return GraphData(
        name=f"planted-{nodes}",
        x=torch.from_numpy(x),
        edge_index=torch.from_numpy(edges),
        y=torch.from_numpy(y),
        split=Split(train, val, test),
        class_names=tuple(map(str, range(CLASSES))),
    )


def _cuts(nodes: int) -> tuple[int, int]:
    return nodes // 10, nodes // 10 + nodes // 20


def make_knowledge(graph: GraphData, seed: int = 0) -> TeacherKnowledge:
    """A teacher that is right on all but `_WRONG` of the nodes, unsure of all, with a hidden layer 32 wide."""
    rng = np.random.default_rng(seed + 1)
    said = np.where(rng.random(graph.num_nodes) < _WRONG, rng.integers(CLASSES, size=graph.num_nodes), graph.y.numpy())
    logits = rng.standard_normal((graph.num_nodes, CLASSES), dtype=np.float32)
    logits[np.arange(graph.num_nodes), said] += 4
    hidden = rng.standard_normal((CLASSES, HIDDEN), dtype=np.float32)[said]
    hidden += 0.3 * rng.standard_normal(hidden.shape, dtype=np.float32)
    return TeacherKnowledge(
        name="given",
        node_ids=graph.node_ids,
        logits=torch.from_numpy(logits),
        hidden={"layer0": torch.from_numpy(hidden)},
        graph="",
        weights="",
    )


def _read(folder: Path) -> GraphData:
    return read_graph(folder / "graph.npz", 0)


def _make(folder: Path, nodes: int) -> dict[str, float]:
    graph = make_graph(nodes)
    graph.save(folder / "graph.npz")
    make_knowledge(graph).save(folder / "knowledge.safetensors")
    return {}


def _encode(encoder: str) -> Callable[[Path, int], dict[str, float]]:
    def stage(folder: Path, nodes: int) -> dict[str, float]:
        encode_structure(_read(folder).observed(), encoder, dim=64, seed=0, num_nodes=nodes)
        return {}

    return stage


def _distill(method: str, *settings: str) -> Callable[[Path, int], dict[str, float]]:
    def stage(folder: Path, nodes: int) -> dict[str, float]:
        from graph2mlp.config import resolve_config
        from graph2mlp.distill import distill

        config = resolve_config(graph=str(folder / "graph.npz"), method=method, overrides=settings)
        out = folder / f"run-{method}"
        run = distill(config, out, knowledge_files=[folder / "knowledge.safetensors"], force=True)
        return {"test": run.result["student"]["test"], "mlp": run.result["mlp"]["test"]}

    return stage


def _export(folder: Path, nodes: int) -> dict[str, float]:
    from graph2mlp.export.deploy import export_run
    from graph2mlp.run import open_run

    export_run(open_run(folder / "run-blend"), folder / "bundle", force=True)
    return {}


def _sage(graph: GraphData) -> Any:
    torch.manual_seed(0)
    config = TeacherConfig(name="sage", aggregator="mean", layers=2, hidden=128)
    return build_teacher(graph.num_features, graph.num_classes, config).eval()


def _teacher(folder: Path, nodes: int) -> dict[str, float]:
    graph = _read(folder).observed()
    said = extract_knowledge(_sage(graph), graph, name="sage")
    np.save(folder / "logits.npy", said.logits.numpy())
    return {}


@torch.no_grad()
def _teacher_whole(folder: Path, nodes: int) -> dict[str, float]:
    """The same in one pass over the graph, and how far the answer in blocks is from it."""
    graph = _read(folder).observed()
    teacher = _sage(graph)
    logits = teacher(graph.x, teacher.adjacency(graph))[0]
    return {"error": float((logits - torch.from_numpy(np.load(folder / "logits.npy"))).abs().max())}


STAGES: Mapping[str, Callable[[Path, int], dict[str, float]]] = {
    "make": _make,
    "laplacian": _encode("laplacian"),
    "smoothed": _encode("smoothed"),
    "blend": _distill("blend"),
    "glnn": _distill("glnn"),
    "export": _export,
    "teacher": _teacher,
    "teacher_whole": _teacher_whole,
}


def run_stage(name: str, folder: Path, nodes: int) -> dict[str, float]:
    """One stage in this process: its figures, wall and CPU seconds, peak memory of the whole process (imports too)."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = STAGES[name](folder, nodes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "peak_mb": peak, **found}


def main() -> None:
    """Every stage for every size, in order; a stage that fails ends the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--folder", type=Path, required=True, help="where graphs and runs are kept")
    parser.add_argument("--csv", type=Path, default=RESULTS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        nodes = given.nodes[0]
        print(json.dumps(run_stage(given.measure, given.folder / str(nodes), nodes)))
        return
    from dataclasses import replace

    from bench.accuracy import commit
    from graph2mlp.measure import environment

    about = {name: environment()[name] for name in ("cpu", "cores")} | {"commit": commit()}
    for nodes in given.nodes:
        (given.folder / str(nodes)).mkdir(parents=True, exist_ok=True)
        for stage in given.stages:
            command = [sys.executable, "-m", "bench.scale", "--folder", str(given.folder)]
            command += ["--nodes", str(nodes), "--measure", stage]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = {name: round(value, 7) for name, value in json.loads(said.splitlines()[-1]).items()}
            print(nodes, stage, found, flush=True)
            row = dict.fromkeys(FILE.columns, "") | {"nodes": nodes, "stage": stage, **found, **about}
            replace(FILE, path=given.csv).append([row])


if __name__ == "__main__":
    main()
