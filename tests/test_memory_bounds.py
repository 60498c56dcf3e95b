"""No stage of any method makes an array that grows with the square of the number of nodes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from graph2mlp.config import resolve_config
from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split
from graph2mlp.distill import distill
from graph2mlp.methods import METHODS
from graph2mlp.teachers.knowledge import TeacherKnowledge

NODES, CLASSES = 20_000, 4
MOST = NODES * NODES // 16
"""Numbers in one tensor; the largest that is needed (features and edges) has 200,000, a batch against a bank 10 M."""


class _NoSquare(TorchDispatchMode):
    """Fails on the operation that makes a tensor too large, so that the message says where."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided:
                held = leaf.untyped_storage().nbytes() // leaf.element_size()  # not what is only expanded
                assert held <= MOST, f"{func} made a tensor of {list(leaf.shape)} for {NODES} nodes"
        return out


@contextmanager
def _bounded() -> Iterator[None]:
    """Every tensor is looked at where it is made; of numpy's and scipy's arrays the sum is."""
    tracemalloc.start()
    try:
        with _NoSquare():
            yield
        assert tracemalloc.get_traced_memory()[1] < MOST * 4
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A graph with some nodes of many edges, and knowledge of it."""
    folder = tmp_path_factory.mktemp("graph")
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(NODES) % CLASSES
    x = torch.randn(NODES, 8, generator=generator) + y.unsqueeze(1)
    source = torch.randint(NODES, (3 * NODES,), generator=generator)
    target = (source + CLASSES * torch.randint(500, (3 * NODES,), generator=generator)) % NODES
    target[:2000] = target[0]
    order = torch.randperm(NODES, generator=generator)
    graph = GraphData(
        name="large",
        x=x,
        edge_index=torch.stack([torch.cat([source, target]), torch.cat([target, source])]),
        y=y,
        split=Split(*(part.sort().values for part in order.split([2000, 1000, 17_000]))),
        class_names=tuple("abcd"),
    )
    logits = 2 * torch.nn.functional.one_hot(y, CLASSES) + torch.randn(NODES, CLASSES, generator=generator)
    said = TeacherKnowledge(
        name="given", node_ids=graph.node_ids, logits=logits, hidden={"layer0": logits + 1}, graph="", weights=""
    )
    said.save(folder / "knowledge.safetensors")
    return graph.save(folder / "graph.npz"), folder / "knowledge.safetensors"


@pytest.mark.parametrize("method", sorted(METHODS))
def test_no_stage_is_quadratic(
    method: str, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One similarity matrix of all nodes is 1.6 GB here and 4 TB for a million: it would pass every small test."""
    monkeypatch.setenv("GRAPH2MLP_CACHE", str(tmp_path / "cache"))
    settings = ["structure.dim=4", "train.epochs=1", "train.burn_in=0", "train.batch_size=2048", "student.hidden=8"]
    settings += ["teacher.epochs=1", "teacher.burn_in=0", "teacher.hidden=8", "teacher.force=true"]
    config = resolve_config(graph=str(files[0]), method=method, setting="transductive", overrides=settings)
    given = [files[1]] if config.hyper.needs_teacher and method not in OWN_TEACHER else []
    with _bounded():
        distill(config, tmp_path / "run", knowledge_files=given)


OWN_TEACHER = {"cold_brew"}
"""Methods that train a teacher of their own kind."""


def test_the_guard_sees_a_square() -> None:
    """A guard that looks at nothing would pass everything."""
    with pytest.raises(AssertionError, match="made a tensor"), _NoSquare():
        torch.zeros(NODES, 1, dtype=torch.bool).eq(torch.zeros(1, NODES, dtype=torch.bool))
