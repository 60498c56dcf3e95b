"""Knowledge is addressed by global node id; the reference code of one paper paired the wrong rows instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import KnowledgeError
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.extract import extract_knowledge, weights_fingerprint
from graph2mlp.teachers.knowledge import TeacherKnowledge
from graph2mlp.teachers.models import build_teacher
from tests.graphs import community_graph


def _knowledge(**changed: object) -> TeacherKnowledge:
    """Three nodes of a larger graph; each row says which node it is about."""
    ids = torch.tensor([4, 10, 30])
    values: dict[str, object] = {
        "name": "made up",
        "node_ids": ids,
        "logits": ids[:, None] * torch.ones(3),
        "hidden": {"a": ids[:, None].float(), "b": -ids[:, None] * torch.ones(2)},
        "graph": "g",
        "weights": "w",
    }
    return TeacherKnowledge(**{**values, **changed})  # type: ignore[arg-type]


def test_rows_by_global_id() -> None:
    """Positions and ids agree in the transductive setting only."""
    knowledge = _knowledge()
    ids = torch.tensor([30, 4, 30, 10])
    assert knowledge.logits[knowledge.rows(ids)][:, 0].tolist() == ids.tolist()


@pytest.mark.parametrize("missing", [0, 5, 31])
def test_unknown_node_is_named(missing: int) -> None:
    """Below, between and above the known ids: a neighbouring row would be a silent mix-up."""
    with pytest.raises(KnowledgeError, match=rf"knows nothing of node {missing} \(1 such nodes\)"):
        _knowledge().rows(torch.tensor([10, missing]))


def test_aligned_with_an_observed_graph() -> None:
    """Row i is about node i of the cut graph, for logits and every hidden layer."""
    graph = community_graph(production=True)
    everyone = torch.arange(graph.num_nodes)
    whole = _knowledge(
        node_ids=everyone,
        logits=everyone[:, None] * torch.ones(3),
        hidden={"a": everyone[:, None].float()},
    )
    observed = graph.observed()
    cut = whole.aligned(observed)
    assert torch.equal(cut.logits[:, 0].long(), observed.node_ids)
    assert torch.equal(cut.hidden["a"][:, 0].long(), observed.node_ids)
    assert torch.equal(cut.rows(observed.node_ids), torch.arange(observed.num_nodes))


def test_other_number_of_classes_is_refused(dense_graph: GraphData) -> None:
    """Soft labels of another problem have the same type and the wrong meaning."""
    everyone = torch.arange(61)
    other = _knowledge(node_ids=everyone, logits=torch.zeros(61, 5), hidden={})
    with pytest.raises(KnowledgeError, match="logits for 5 classes, but graph 'tiny' has 3"):
        other.aligned(dense_graph)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": torch.zeros(2, 3)}, "one row for each of the 3 node ids"),
        ({"logits": torch.zeros(3)}, "logits must have one row"),
        ({"hidden": {"a": torch.zeros(4, 2)}}, "a must have one row"),
        ({"logits": torch.full((3, 3), float("nan"))}, "NaN or infinite"),
        ({"hidden": {"a": torch.full((3, 1), float("inf"))}}, "a holds NaN or infinite"),
        ({"node_ids": torch.tensor([10, 4, 30])}, "ascending"),
        ({"node_ids": torch.tensor([4, 4, 30])}, "ascending"),
    ],
)
def test_inconsistent_knowledge_is_refused(changed: dict[str, object], message: str) -> None:
    """Files may come from elsewhere; unsorted ids would make the search for a row fail for nodes that are there."""
    with pytest.raises(KnowledgeError, match=message):
        _knowledge(**changed)


def test_round_trip_keeps_the_order_of_layers(tmp_path: Path) -> None:
    """Methods take the last hidden layer, so an order by name would pick another one."""
    knowledge = _knowledge(hidden={"z": torch.zeros(3, 2), "a": torch.ones(3, 1)})
    knowledge.save(tmp_path / "k.safetensors")
    loaded = TeacherKnowledge.load(tmp_path / "k.safetensors")
    assert list(loaded.hidden) == ["z", "a"]
    assert (loaded.name, loaded.graph, loaded.weights) == ("made up", "g", "w")
    assert torch.equal(loaded.logits, knowledge.logits)
    assert torch.equal(loaded.node_ids, knowledge.node_ids)
    _knowledge(hidden={}).save(tmp_path / "l.safetensors")
    assert not TeacherKnowledge.load(tmp_path / "l.safetensors").hidden


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "other schema", "no metadata"])
def test_damaged_file(damage: str, tmp_path: Path) -> None:
    """One clear line with the file's name, whatever is wrong with it."""
    from safetensors.torch import save_file

    file = tmp_path / "k.safetensors"
    if damage != "missing":
        _knowledge().save(file)
    if damage in ("empty", "truncated", "text"):
        whole = file.read_bytes()
        file.write_bytes({"empty": b"", "truncated": whole[:-7], "text": b"hello world"}[damage])
    if damage in ("other schema", "no metadata"):
        save_file({"logits": torch.zeros(1)}, file, {"schema": "99"} if damage == "other schema" else None)
    with pytest.raises(KnowledgeError, match="k.safetensors"):
        TeacherKnowledge.load(file)


def test_extraction_is_in_evaluation_mode(tiny_graph: GraphData) -> None:
    """Dropout would make the soft labels noisy, and different each time."""
    teacher = build_teacher(12, 3, TeacherConfig(aggregator="mean", hidden=8, dropout=0.9, input_dropout=0.9)).train()
    first, second = (extract_knowledge(teacher, tiny_graph, name="sage") for _ in range(2))
    assert torch.equal(first.logits, second.logits)
    assert not first.logits.requires_grad
    assert first.graph == tiny_graph.fingerprint()
    assert list(first.hidden) == ["layer0"]


def test_weights_fingerprint_sees_every_bit() -> None:
    """It decides whether cached knowledge belongs to cached weights."""
    teacher = build_teacher(4, 2, TeacherConfig(aggregator="mean", hidden=8))
    before = weights_fingerprint(teacher)
    assert before == weights_fingerprint(teacher)
    with torch.no_grad():
        next(teacher.parameters())[0] += 1e-6
    assert weights_fingerprint(teacher) != before


def test_knowledge_cannot_be_exchanged() -> None:
    """It is read-only: several stages hold the same object."""
    with pytest.raises(AttributeError):
        _knowledge().name = "other"  # type: ignore[misc]
    assert replace(_knowledge(), name="other").name == "other"
