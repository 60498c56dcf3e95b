"""LSP, GSP and G-CRD: golden values of their specs, and what their terms may and may not touch."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError, MethodError
from graph2mlp.kernels import NeighbourIndex
from graph2mlp.losses.base import Batch, LossTerm, TeacherRows
from graph2mlp.losses.contrast import Contrast
from graph2mlp.methods.base import Method
from graph2mlp.methods.g_crd import GCRD
from graph2mlp.methods.gsp import GSP
from graph2mlp.methods.lsp import LSP
from graph2mlp.students.base import StudentInput, StudentOutput, StudentSpec
from graph2mlp.training.batches import NodeBatches
from graph2mlp.training.student import train_student
from tests.graphs import F4
from tests.pipeline import bare_stage, make_stage, run_method, same_weights, small_config

SPEC = StudentSpec(features=3, classes=3, hidden=3)


def _batch(f4: F4) -> Batch:
    rows = TeacherRows(f4.Zt, f4.T)
    edges = NeighbourIndex.from_edge_index(f4.edges, 4)
    return Batch(torch.arange(4), StudentInput(f4.S), f4.y, (rows,), edges=edges)


def _value(method: Method, name: str, f4: F4) -> float:
    _, term = method.loss_terms(SPEC, bare_stage())[name]
    return float(term(_batch(f4), StudentOutput(f4.Zs, (f4.S,))))


@pytest.mark.parametrize(
    ("kernel", "want"),
    [("cosine", 0.0734939), ("poly", 0.0294957), ("rbf", 0.000938061), ("l2", 0.155570), ("laplace", 4.53978e-05)],
)
def test_golden_values_of_lsp(kernel: str, want: float, f4: F4) -> None:
    """Mean over nodes, teacher first, distances negative."""
    assert _value(LSP(kernel=kernel), "local", f4) == pytest.approx(want, rel=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kernel", "want"), [("cosine", 0.188126), ("poly", 0.0699856), ("l2", 0.454595), ("rbf", 0.00236136)]
)
def test_golden_values_of_gsp(kernel: str, want: float, f4: F4) -> None:
    """Mean over all pairs, diagonal included, no heads."""
    assert _value(GSP(kernel=kernel), "global", f4) == pytest.approx(want, rel=1e-5)  # type: ignore[arg-type]


def test_golden_value_of_g_crd(f4: F4) -> None:
    """Without heads and dropout. ReLU stands before the head: rows are turned into the positive octant together."""
    term = Contrast(SPEC, [3], tau=1.0).eval()
    term.student_head = term.teacher_head = nn.Identity()
    positive = f4.T[[1, 0, 3, 2]]
    want = F.cross_entropy(F.normalize(positive, dim=1) @ F.normalize(f4.T, dim=1).T, torch.arange(4))
    assert float(term(_batch(f4), StudentOutput(f4.Zs, (positive,)))) == pytest.approx(float(want), rel=1e-12)


@pytest.mark.parametrize("method", ["glnn", "lsp", "gsp", "g_crd"])
def test_what_is_said_of_validation_nodes_can_be_left_out(method: str, dense_graph: GraphData) -> None:
    """In pairs of neighbours, too: the epoch is chosen on these nodes."""
    config = small_config(method, overrides=["train.teach_val=never"])
    stage, spec = make_stage(config, dense_graph)
    said = stage.teachers[0]
    hidden = {name: rows.clone() for name, rows in said.hidden.items()}
    noise = replace(said, logits=said.logits.clone(), hidden=hidden)
    for rows in (noise.logits, *hidden.values()):
        rows[stage.graph.split.val] = torch.randn(len(stage.graph.split.val), rows.size(1))
    # Which epoch is kept depends on labels alone, so the weights are equal if nothing was heard.
    first, second = (
        train_student(config.hyper, spec, replace(stage, teachers=(one,)))[0].state_dict() for one in (said, noise)
    )
    assert same_weights(first, second)


@pytest.mark.parametrize(("method", "name"), [(LSP(), "local"), (GSP(), "global"), (GCRD(), "contrast")])
def test_gradient_reaches_student_and_heads_only(method: Method, name: str, f4: F4) -> None:
    """A teacher that moves towards the student would make the loss 0 and teach nothing."""
    term: LossTerm = Contrast(SPEC, [3]) if name == "contrast" else method.loss_terms(SPEC, bare_stage())[name][1]
    teacher, student = f4.T.float().requires_grad_(), f4.S.float().requires_grad_()
    frozen = TeacherRows(f4.Zt, teacher.detach())
    batch = Batch(torch.arange(4), StudentInput(f4.S), f4.y, (frozen,), edges=_batch(f4).edges)
    term(batch, StudentOutput(f4.Zs, (student,))).backward()
    assert student.grad is not None
    assert bool(student.grad.any())
    assert teacher.grad is None
    heads = [parameter for key, parameter in term.named_parameters() if key.endswith("0.weight")]
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in heads)
    assert len(heads) == (2 if name == "contrast" else 0)


@pytest.mark.parametrize("method", ["lsp", "gsp", "g_crd"])
def test_the_term_takes_part(method: str, dense_graph: GraphData) -> None:
    """With a tiny weight the student is glnn's but for that weight; with a large one it is another."""
    weights = [
        run_method(method, dense_graph, overrides=[f"{method}.beta={beta}"]).weights() for beta in (1e-12, 1e-12, 10.0)
    ]
    assert same_weights(weights[0], weights[1])
    assert not all(torch.allclose(weights[0][name], weights[2][name], atol=1e-3) for name in weights[0])


@pytest.mark.parametrize("method", ["lsp", "gsp", "g_crd"])
@pytest.mark.parametrize("setting", ["beta=0", "beta=-1.0", "beta=nan", "hard=-1.0"])
def test_wrong_weights_are_refused(method: str, setting: str) -> None:
    """A method without its own term is glnn, and a table must not call it something else."""
    with pytest.raises(ConfigError, match=f"{method} needs hard and soft"):
        small_config(method, overrides=[f"{method}.{setting}"])


@pytest.mark.parametrize(("width", "message"), [(3, None), (4, "widths are 3, 4. Give teachers of one width")])
def test_teachers_of_two_widths(width: int, message: str | None) -> None:
    """One head reads them all."""
    with pytest.raises(MethodError, match=message) if message else nullcontext():
        Contrast(SPEC, [3, width])


def test_contrast_of_a_single_row(dense_graph: GraphData) -> None:
    """It has nothing to be told from, and its heads no variance: one line instead of torch's own."""
    with pytest.raises(MethodError, match="needs two rows in a batch.*Raise train.batch_size"):
        run_method("g_crd", dense_graph, overrides=["train.batch_size=1"])


def test_neighbours_of_a_batch_carry_their_own_knowledge(dense_graph: GraphData) -> None:
    """Rows that are there only as neighbours must be compared with their own teacher rows, not with the batch's."""
    stage, _ = make_stage(small_config("lsp"), dense_graph)
    for batch in NodeBatches(stage, torch.Generator().manual_seed(0), every=True, fanout=3)():
        hidden: Tensor | None = batch.teachers[0].hidden
        assert hidden is not None
        assert torch.equal(hidden, list(stage.teachers[0].hidden.values())[-1][batch.ids])
