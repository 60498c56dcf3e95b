"""The student with a bank: its formula, its limits, and what export folds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from graph2mlp.data.features import take_rows
from graph2mlp.errors import ConfigError
from graph2mlp.export.fold import fold_student
from graph2mlp.students import STUDENTS, build_student
from graph2mlp.students.base import StudentInput
from graph2mlp.students.retrieval import RetrievalSpec, RetrievalStudent

SPEC = RetrievalSpec(
    features=6, classes=3, hidden=8, layers=3, dropout=0.3, bank_rows=20, bank_width=5, neighbours=4, guess_hidden=7
)


def make_student(*, a0: float = 0.6, a1: float = -0.3, **changed: Any) -> RetrievalStudent:
    torch.manual_seed(0)
    student = RetrievalStudent(replace(SPEC, **changed)).eval()
    student.bank.normal_()
    with torch.no_grad():
        student.guess_scale.fill_(a0)
        student.context_scale.fill_(a1)
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)
    return student


def _inputs(sparse: bool = False) -> StudentInput:
    x = torch.randn(11, 6, generator=torch.Generator().manual_seed(1)).relu()
    return StudentInput(take_rows(x.to_sparse_csr(), torch.arange(11)) if sparse else x)


def _formula(student: RetrievalStudent, x: Tensor) -> Tensor:
    """`MLP([x || a1 c || a0 g(x)])` as one concatenation."""
    first, last = student.guess_first, student.guess_last
    guess = (x @ first.weight + first.bias).relu() @ last.weight.T + last.bias
    scores, ids = (guess @ student.bank.T).topk(student.spec.neighbours)
    weights = (student.guess_scale.abs() * scores).softmax(1)
    context = torch.stack([weight @ student.bank[rows] for weight, rows in zip(weights, ids, strict=True)])
    whole = torch.cat([x, student.context_scale * context, student.guess_scale * guess], 1)
    mlp = student.mlp
    h = whole @ torch.cat([mlp.first.weight, mlp.structure.weight]) + mlp.first.bias
    for layer in mlp.layers:
        h = layer(h.relu())
    return h


@pytest.mark.parametrize("a0", [0.6, -0.6])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_equals_the_formula(a0: float, sparse: bool) -> None:
    """Also where a0 is negative: the rows it reads are still the nearest ones."""
    student = make_student(a0=a0)
    got = student(_inputs(sparse))
    torch.testing.assert_close(got.logits, _formula(student, _inputs().features), atol=1e-6, rtol=1e-5)
    assert [layer.shape for layer in got.hidden] == [(11, 8)] * 2


def test_scales_of_zero_are_the_plain_mlp() -> None:
    """Training starts next to there; then neither the bank nor the guess can matter."""
    student = make_student(a0=0.0, a1=0.0)
    inputs = _inputs()
    before = student(inputs).logits
    student.bank.normal_()
    torch.nn.init.normal_(student.guess_last.weight)
    assert torch.equal(student(inputs).logits, before)
    plain = student.mlp(StudentInput(inputs.features, torch.zeros(11, 10))).logits
    torch.testing.assert_close(before, plain)


def test_gradients_go_where_the_paper_lets_them() -> None:
    """Through the MLP and both scalars; not to the guess, and the bank is no parameter at all."""
    student = make_student()
    student(_inputs()).logits.square().sum().backward()
    learned = {name for name, parameter in student.named_parameters() if parameter.grad is not None}
    assert {"guess_scale", "context_scale", "mlp.first.weight", "mlp.structure.weight"} <= learned
    assert not any(name.startswith(("guess_first", "guess_last")) for name in learned)
    assert "bank" not in dict(student.named_parameters())


def test_first_layer_is_affine() -> None:
    """The contract of `embed`: sparse requests and export read whole rows of its weight."""
    student, x = make_student(), _inputs().features
    bias = student.embed(StudentInput(torch.zeros(1, 6)))
    torch.testing.assert_close(student.embed(StudentInput(x)), x @ student.feature_weight + bias)


@pytest.mark.parametrize("a0", [0.6, -0.6])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_folding_is_exact(a0: float, norm: str) -> None:
    """Two scalars and every norm disappear; the sign of a0 must end in the weights, not in the scores."""
    student = make_student(a0=a0, norm=norm)
    folded = fold_student(student)
    assert isinstance(folded, RetrievalStudent)
    assert folded.guess_scale is None
    assert student.guess_scale is not None, "the student itself is left alone"
    torch.testing.assert_close(folded(_inputs()).logits, student(_inputs()).logits, atol=1e-5, rtol=1e-5)


def test_folding_keeps_the_rows_of_a_zero_scale() -> None:
    """With a0 = 0 the K nearest rows weigh the same; a query folded to zero would find any K rows."""
    student = make_student(a0=0.0, a1=1.0)
    torch.testing.assert_close(fold_student(student)(_inputs()).logits, student(_inputs()).logits, atol=1e-5, rtol=1e-5)


def test_undecided_requests_are_those_at_a_tie() -> None:
    """Two machines may round to different rows there, so such requests prove nothing about an exported file."""
    student = make_student(neighbours=1)
    inputs = _inputs()
    assert not bool(student.undecided(inputs).any())
    student.bank[7] = student.bank[3]
    found = student.undecided(inputs)
    best = (student.guess(inputs) @ student.bank.T).argmax(1)
    assert torch.equal(found, best == 3)
    assert not bool(make_student(neighbours=20).undecided(inputs).any()), "who reads every row chooses nothing"


@pytest.mark.parametrize("kind", STUDENTS)
def test_kinds_are_built_from_their_fields(kind: str) -> None:
    """What `save_student` writes is enough to make the network again."""
    spec = {"features": 6, "classes": 3, "hidden": 8}
    if kind == "retrieval":
        spec |= {"bank_rows": 20, "bank_width": 5, "neighbours": 4}
    student = build_student(kind, spec)
    assert student.kind == kind
    assert student.regime == "features"
    assert {name: tuple(array.shape) for name, array in student.constants.items()} == (
        {"bank": (20, 5)} if kind == "retrieval" else {}
    )


def test_impossible_specs_are_refused() -> None:
    """A file may say anything; a bank with fewer rows than a request reads cannot work."""
    with pytest.raises(ConfigError, match="21 of 20 rows"):
        replace(SPEC, neighbours=21)
    with pytest.raises(ConfigError, match="Did you mean 'retrieval'?"):
        build_student("retreival", {})
