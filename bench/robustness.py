"""What noise, missing edges and few neighbours cost trained networks: `python -m bench.robustness`.

Nothing is trained on the harder data. Three questions to student, teacher and plain MLP of each run:

- `noise`: features `(1 - a) x + a n` with n standard normal, a = 0 to 1, for every node at once, so the teacher fetches
  noisy neighbours. The student's structure table stays the one that training made, as it does on a device. One draw per
  seed, the same for all methods.
- `degree`: the nodes asked, by quartile of their number of neighbours (1 the lowest); groups differ in size, since
  equal degrees stay together.
- `edges`: unseen nodes with their edges to observed nodes (`all`) and with none (`none`), production only.

Asked are the test nodes in the transductive setting, the unseen ones in production. One CSV row per run, question and
level.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.accuracy import RESULTS, Job, add_job_options, commit, jobs_of, run_missing, trained_run
from bench.rows import RowFile
from graph2mlp.console import Reporter
from graph2mlp.data.graph import GraphData
from graph2mlp.data.targets import Classes
from graph2mlp.errors import Graph2MLPError
from graph2mlp.evaluation import teacher_answer
from graph2mlp.run import Run
from graph2mlp.training.student import answer

NOISE = tuple(round(0.1 * step, 1) for step in range(11))
FIGURES = ("student_accuracy", "teacher_accuracy", "mlp_accuracy")
KEYS = ("graph", "setting", "method", "teacher", "seed", "settings", "question", "level")
COLUMNS = (*KEYS, "from_degree", "to_degree", "nodes", *FIGURES, "regime", "layers", "hidden", "parameters", "commit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask the questions that the CSV does not hold the answers of; 1 when a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", default="cpf:cora")
    parser.add_argument("--settings", default="transductive,production")
    add_job_options(parser, methods="blend,nosmog,glnn", seeds=3, csv=RESULTS / "robustness.csv")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        axes = (given.graphs, given.settings, given.methods, given.teachers)
        jobs = jobs_of(*axes, given.seeds, root=given.root, overrides=given.set)
        rows = robustness_file(given.csv)
        return min(1, run_missing(jobs, rows, Reporter(), measure=robustness_rows, first=_FIRST))
    except Graph2MLPError as error:
        Reporter().say(f"Error: {error}")
        return 1


_FIRST = {"question": "noise", "level": "0.0"}
"""The first row of every run: with it a run is done, since the rows of a run are written at once."""


def robustness_file(path: Path) -> RowFile:
    """The table of answers in `path`."""
    numbers = frozenset({"from_degree", "to_degree", "nodes", *FIGURES, "layers", "hidden", "parameters"})
    return RowFile(path=path, columns=COLUMNS, keys=KEYS, numbers=numbers)


def robustness_rows(job: Job) -> list[dict[str, Any]]:
    """Train one run and ask it every question."""
    with trained_run(job.config) as run:
        student = run.result["student"]
        common = {
            **job.names,
            "regime": run.result["regime"],
            **{name: student[name] for name in ("layers", "hidden", "parameters")},
            "commit": commit(),
        }
        return [common | row for question in (_noise, _degree, _edges) for row in question(run)]


def noisy(graph: GraphData, amount: float, seed: int) -> GraphData:
    """The graph with features `(1 - a) x + a n`; a sparse graph stays in its layout, so networks treat it alike."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(graph.x.shape, generator=generator)
    if not amount:
        return graph
    x = (1 - amount) * graph.x.to_dense() + amount * noise
    return replace(graph, x=x.to_sparse_csr() if graph.is_sparse else x)


def degree_groups(graph: GraphData, ids: Tensor) -> Iterator[tuple[str, Tensor, int, int]]:
    """Quartile, its nodes among `ids`, and their lowest and highest number of neighbours; empty quartiles are left out.

    Unseen nodes count their observed neighbours only: no other is there when they are asked.
    """
    hidden = torch.zeros(graph.num_nodes, dtype=torch.bool)
    hidden[graph.split.unseen] = True
    there = graph.with_edges(~hidden[graph.edge_index].all(0))
    degree = there.in_neighbours.count[ids]
    bounds = np.quantile(degree.numpy(), [0.25, 0.5, 0.75])
    quartile = torch.from_numpy(np.searchsorted(bounds, degree.numpy(), side="left"))
    for number in range(4):
        inside = quartile == number
        if bool(inside.any()):
            yield str(number + 1), ids[inside], int(degree[inside].min()), int(degree[inside].max())


def _noise(run: Run) -> Iterator[dict[str, Any]]:
    graph = run.graph()
    for amount in NOISE:
        yield {
            "question": "noise",
            "level": str(amount),
            **_ask(run, noisy(graph, amount, run.config.seed), _asked(graph)),
        }


def _degree(run: Run) -> Iterator[dict[str, Any]]:
    for quartile, ids, low, high in degree_groups(run.graph(), _asked(run.graph())):
        row = {"question": "degree", "level": quartile, "from_degree": low, "to_degree": high}
        yield row | _ask(run, run.graph(), ids)


def _edges(run: Run) -> Iterator[dict[str, Any]]:
    if run.config.setting == "production":
        for level, cold in (("all", False), ("none", True)):
            yield {"question": "edges", "level": level, **_ask(run, run.graph(), _asked(run.graph()), cold=cold)}


def _asked(graph: GraphData) -> Tensor:
    return graph.split.unseen if graph.split.unseen.numel() else graph.split.test


@torch.no_grad()
def _ask(run: Run, graph: GraphData, ids: Tensor, *, cold: bool = False) -> dict[str, Any]:
    """Accuracy of the three on nodes `ids`; empty for a network that the run has not."""
    labels, control = graph.y[ids], run.control()
    found = {"student": answer(run.student(), graph, run.structure(), ids, cold=cold)}
    if run.config.hyper.needs_teacher:
        found["teacher"] = teacher_answer(run.teacher(), graph, cold=cold)[ids]
    if control is not None:
        found["mlp"] = answer(control, graph, None, ids)
    return {
        "nodes": len(ids),
        **{f"{who}_accuracy": round(Classes().score(logits, labels), 5) for who, logits in found.items()},
    }


if __name__ == "__main__":
    raise SystemExit(main())
