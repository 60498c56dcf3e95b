"""Fixtures for every test: tiny made-up graphs, the golden fixture of the method specs, real graphs where they lie."""

from __future__ import annotations

import os

# Triton reads this when it is imported: without a GPU its kernels run in the interpreter.
os.environ.setdefault("TRITON_INTERPRET", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from graph2mlp.data.graph import GraphData
from tests.graphs import F4, community_graph

ROOT = Path(__file__).resolve().parents[1]

# One thread: the order of sums, and so the last bit of a weight, must not depend on the machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the teacher cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPH2MLP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(params=["dense", "sparse"])
def tiny_graph(request: pytest.FixtureRequest) -> GraphData:
    """Three noisy communities of 20 nodes and one isolated node, features dense and as CSR."""
    return community_graph(sparse=request.param == "sparse")


@pytest.fixture
def dense_graph() -> GraphData:
    """The dense variant alone, for tests in which the layout of the features plays no part."""
    return community_graph()


@pytest.fixture
def f4() -> F4:
    """Fixture F4 of the method specs; golden values refer to it."""
    return F4()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real graphs. Tests that need it skip on a laptop without it, and fail on CI."""
    root = Path(os.environ.get("GRAPH2MLP_DATA") or ROOT.parent / "shared" / "data")
    if not (root / "cpf" / "cora.npz").exists():
        message = f"no real graphs in {root}; set GRAPH2MLP_DATA to the folder that holds cpf/cora.npz"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return root
