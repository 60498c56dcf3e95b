"""The size of a teacher is that of the network which a run trains."""

from __future__ import annotations

from pathlib import Path

from bench.teacher_sizes import sizes
from graph2mlp.data.datasets import load_graph
from tests.graphs import community_graph, save_npz


def test_sizes(tmp_path: Path) -> None:
    """By hand for 12 features, 128 hidden numbers and 3 classes; SAGE's mean form has weights for the node itself."""
    graph = load_graph(str(save_npz(community_graph(), tmp_path / "tiny.npz")))
    plain = 12 * 128 + 128 + 128 * 3 + 3
    both = plain + 12 * 128 + 128 * 3
    counts = {
        name: [one["parameters"] for one in sizes(graph, name, "glnn")] for name in ("gcn", "sage", "appnp+gcn+sage")
    }
    assert counts == {"gcn": [plain], "sage": [both, plain], "appnp+gcn+sage": [2 * plain + both]}
    assert sizes(graph, "gcn", "glnn") == [{"layers": 2, "hidden": 128, "parameters": plain}]
