"""Harder questions to trained networks: at the easy end they must give the figures of the run itself."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from bench.accuracy import accuracy_rows, jobs_of
from bench.robustness import degree_groups, main, noisy, robustness_file
from tests.graphs import community_graph, save_npz


@pytest.mark.parametrize("setting", ["transductive", "production"])
def test_easy_end_is_the_run_itself(setting: str, tmp_path: Path) -> None:
    """Without noise, over all degrees, with edges and without: the accuracies that the run reports."""
    graph = str(save_npz(community_graph(), tmp_path / "tiny.npz"))
    file = tmp_path / "r.csv"
    changed = ["train.epochs=5", "teacher.epochs=5"]
    arguments = ["--graphs", graph, "--methods", "nosmog", "--settings", setting, "--seeds", "1", "--csv", str(file)]
    arguments += [word for text in changed for word in ("--set", text)]
    assert main(arguments) == 0
    rows = robustness_file(file).read()
    (want,) = accuracy_rows(jobs_of(graph, setting, "nosmog", "", 1, overrides=changed)[0])
    part = "test" if setting == "transductive" else "ind"
    asked = {(row["question"], row["level"]): row for row in rows}
    groups = [row for row in rows if row["question"] == "degree"]
    assert sum(int(row["nodes"]) for row in groups) == int(asked["noise", "0.0"]["nodes"])
    for who in ("student", "teacher", "mlp"):
        exact = want[f"{who}_{part}"]
        assert float(asked["noise", "0.0"][f"{who}_accuracy"]) == exact
        total = sum(float(row[f"{who}_accuracy"]) * int(row["nodes"]) for row in groups)
        assert total / sum(int(row["nodes"]) for row in groups) == pytest.approx(exact, abs=1e-4)
        if setting == "production":
            assert float(asked["edges", "all"][f"{who}_accuracy"]) == exact
            assert float(asked["edges", "none"][f"{who}_accuracy"]) == want[f"{who}_cold"]
    before = file.read_text()
    assert main(arguments) == 0
    assert file.read_text() == before, "what is there is not run again"


@pytest.mark.parametrize("sparse", [False, True])
def test_noise_follows_its_formula(sparse: bool) -> None:
    """`(1 - a) x + a n`, one draw per seed; the layout stays, since teachers scale sparse rows and leave dense ones."""
    graph = community_graph(sparse=sparse)
    half, whole = noisy(graph, 0.5, seed=3), noisy(graph, 1.0, seed=3)
    assert half.is_sparse is sparse
    assert torch.allclose(half.x.to_dense(), (graph.x.to_dense() + whole.x.to_dense()) / 2)
    assert abs(float(whole.x.to_dense().mean())) < 0.15
    assert float(whole.x.to_dense().std()) == pytest.approx(1, abs=0.1)
    assert noisy(graph, 0.0, seed=3) is graph
    assert not torch.equal(noisy(graph, 1.0, seed=4).x.to_dense(), whole.x.to_dense())


def test_quartiles_keep_equal_degrees_together() -> None:
    """A node's group must not depend on its place in the file; the isolated node is among the fewest."""
    graph = community_graph()
    degree = torch.bincount(graph.edge_index[1], minlength=graph.num_nodes)
    groups = list(degree_groups(graph, graph.split.test))
    assert sorted(torch.cat([ids for _, ids, _, _ in groups]).tolist()) == graph.split.test.tolist()
    assert groups[0][2] == 0
    assert all(high < low for (_, _, _, high), (_, _, low, _) in itertools.pairwise(groups))
    for _, ids, low, high in groups:
        assert (int(degree[ids].min()), int(degree[ids].max())) == (low, high)


def test_unseen_nodes_count_observed_neighbours_only() -> None:
    """An edge between two unseen nodes is not there when they are asked."""
    graph = community_graph(production=True)
    unseen = graph.split.unseen
    source, target = graph.edge_index
    observed = ~torch.isin(source, unseen)
    for _, ids, low, high in degree_groups(graph, unseen):
        counts = [int((observed & (target == node)).sum()) for node in ids]
        assert (min(counts), max(counts)) == (low, high)
