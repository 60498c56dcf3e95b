"""The adversary: bounded, harmful, and equal to the plain formulation on the concatenated dense input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError, MethodError
from graph2mlp.losses.base import Batch
from graph2mlp.losses.labels import HardLabels, SoftLabels
from graph2mlp.losses.similarity import SimilarityDistillation
from graph2mlp.methods.base import Stage
from graph2mlp.students.base import StudentInput, StudentOutput, StudentSpec
from graph2mlp.students.mlp import MLPStudent
from graph2mlp.training.batches import RowReader
from graph2mlp.training.objective import Adversary, DistillObjective, single_player
from tests.graphs import community_graph
from tests.pipeline import make_stage, small_config


def _setting(graph: GraphData, **changed: Any) -> tuple[MLPStudent, Stage, Batch]:
    """A student without dropout and a batch of 20 nodes, eight of them labelled."""
    stage, spec = make_stage(small_config("nosmog"), graph)
    torch.manual_seed(0)
    student = MLPStudent(replace(spec, dropout=0.0, input_dropout=0.0, structure_dropout=0.0, layers=3, **changed))
    return student, stage, RowReader(stage, torch.Generator())(torch.arange(4, 24))


def _terms() -> dict[str, Any]:
    return {"hard": (0.3, HardLabels()), "soft": (0.7, SoftLabels(2.0))}


def _label_loss(out: StudentOutput, batch: Batch) -> Tensor:
    values = [weight * term(batch, out) for weight, term in _terms().values()]
    return values[0] + values[1]


def _explicit(student: MLPStudent, batch: Batch, adversary: Adversary) -> Tensor:
    """Projected gradient descent on [x || q], dense, as the paper's code does it."""
    assert student.structure is not None
    assert batch.inputs.structure is not None
    features = batch.inputs.features
    dense = features if isinstance(features, Tensor) else _dense(features)
    joined = torch.cat([dense, batch.inputs.structure], 1)

    def forward(x: Tensor) -> StudentOutput:
        width = student.spec.features
        assert student.structure is not None
        return student.head(student.first(x[:, :width]) + x[:, width:] @ student.structure.weight)

    delta = torch.zeros_like(joined)
    for _ in range(adversary.steps):
        delta.requires_grad_()
        (gradient,) = torch.autograd.grad(_label_loss(forward(joined + delta), batch), delta)
        step = adversary.step_size * adversary.eps * gradient.sign()
        delta = (delta.detach() + step).clamp(-adversary.eps, adversary.eps)
    return _label_loss(forward(joined + delta.detach()), batch)


def _dense(features: Any) -> Tensor:
    from graph2mlp.data.features import dense_rows

    return dense_rows(features)


@pytest.mark.parametrize(("steps", "step_size"), [(1, 1.0), (5, 0.25)])
def test_equals_explicit_search_on_the_dense_input(steps: int, step_size: float, tiny_graph: GraphData) -> None:
    """We add noise behind the affine first layer; loss and the gradient of every weight must be the same."""
    student, _, batch = _setting(tiny_graph)
    adversary = Adversary(eps=0.1, steps=steps, step_size=step_size)
    objective = DistillObjective(student, _terms(), adversary=adversary, weight=1.0)
    got, want = objective(batch)["adversarial"], _explicit(student, batch, adversary)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)
    weights = dict(student.named_parameters())
    pairs = zip(*(torch.autograd.grad(loss, list(weights.values())) for loss in (got, want)), strict=True)
    for name, (ours, exact) in zip(weights, pairs, strict=True):
        torch.testing.assert_close(ours, exact, atol=1e-6, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def _visible_noise(adversary: Adversary) -> tuple[Tensor, Tensor, MLPStudent, StudentInput]:
    """With the identity as first layer, what the adversary adds behind it is the noise itself."""
    torch.manual_seed(1)
    student = MLPStudent(StudentSpec(features=6, classes=3, hidden=6, layers=3, dropout=0.0)).eval()
    inputs, labels = StudentInput(torch.randn(40, 6)), torch.arange(40) % 3
    with torch.no_grad():
        student.first.weight.copy_(torch.eye(6))
    batch = Batch(torch.arange(40), inputs, labels)
    noise = adversary.perturb(student, student.embed(inputs), lambda out: HardLabels()(batch, out))  # type: ignore[arg-type]
    return noise.detach(), labels, student, inputs


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize(("steps", "step_size"), [(1, 1.0), (5, 0.25), (3, 4.0)])
def test_noise_stays_in_the_box(steps: int, step_size: float, random_start: bool) -> None:
    """|delta| <= eps in every coordinate, however large the steps."""
    adversary = Adversary(eps=0.05, steps=steps, step_size=step_size, random_start=random_start)
    noise, *_ = _visible_noise(adversary)
    assert 0.04 < float(noise.abs().max()) <= 0.05 + 1e-7


@pytest.mark.parametrize("steps", [1, 5])
def test_noise_does_harm(steps: int) -> None:
    """The loss under the worst noise is above the clean one, and above the one under random noise of the same size."""
    noise, labels, student, inputs = _visible_noise(Adversary(eps=0.05, steps=steps, step_size=1.0 / steps))

    def loss(extra: Tensor) -> float:
        logits = student.head(student.embed(inputs) + extra).logits
        return float(torch.nn.functional.cross_entropy(logits, labels).detach())

    shuffled = noise[:, torch.randperm(6)] * (torch.randint(0, 2, noise.shape) * 2 - 1)
    assert loss(noise) > loss(shuffled)
    assert loss(noise) > loss(torch.zeros_like(noise))


def test_share_of_rows(dense_graph: GraphData) -> None:
    """Only the first rows are attacked, and compared with their own labels and teacher rows."""
    student, stage, batch = _setting(dense_graph)
    adversary = Adversary(eps=0.1, rows=0.25)
    got = DistillObjective(student, _terms(), adversary=adversary, weight=2.0)(batch)["adversarial"]
    part = RowReader(stage, torch.Generator())(batch.ids[:5])
    torch.testing.assert_close(got, 2 * _explicit(student, part, adversary), atol=1e-6, rtol=1e-5)


def test_search_leaves_no_gradient_behind(dense_graph: GraphData) -> None:
    """The reference code fills the weights' gradients while it searches."""
    student, _, batch = _setting(dense_graph)
    DistillObjective(student, _terms(), adversary=Adversary(eps=0.1, steps=3), weight=1.0)(batch)
    assert all(parameter.grad is None for parameter in student.parameters())


def test_search_leaves_batch_norm_alone(dense_graph: GraphData) -> None:
    """Statistics of attacked inputs are not those of the data the student will see."""
    statistics = []
    for adversary in (None, Adversary(eps=0.5, steps=4)):
        student, _, batch = _setting(dense_graph, norm="batch")
        DistillObjective(student, _terms(), adversary=adversary, weight=1.0)(batch)
        statistics.append([norm.running_mean.clone() for norm in student.norms])
    for clean, attacked in zip(*statistics, strict=True):
        torch.testing.assert_close(attacked, clean)


def test_similarity_is_not_attacked(dense_graph: GraphData) -> None:
    """It compares hidden layers, which has no worst case of its own."""
    student, _, batch = _setting(dense_graph)
    terms = {**_terms(), "similarity": (9.0, SimilarityDistillation(student.spec))}
    objective = DistillObjective(student, terms, adversary=Adversary(eps=0.1), weight=1.0)
    plain = DistillObjective(student, _terms(), adversary=Adversary(eps=0.1), weight=1.0)
    torch.testing.assert_close(objective(batch)["adversarial"], plain(batch)["adversarial"])
    assert set(objective(batch)) == {"hard", "soft", "similarity", "adversarial"}


@pytest.mark.parametrize(
    "change", [{"eps": 0.0}, {"eps": -1.0}, {"steps": 0}, {"rows": 0.0}, {"rows": 1.5}, {"step_size": -1.0}]
)
def test_impossible_adversary_is_refused(change: dict[str, Any]) -> None:
    """A negative step searches for the most harmless noise."""
    with pytest.raises(ConfigError, match="adversary"):
        Adversary(**{"eps": 0.1, **change})


def test_nothing_to_learn_from(dense_graph: GraphData) -> None:
    """All weights 0: said before training, not after."""
    with pytest.raises(MethodError, match="nothing to learn from"):
        DistillObjective(_setting(dense_graph)[0], {})


def test_missing_teacher_and_missing_hidden_layers_are_named(dense_graph: GraphData) -> None:
    """The message says which option helps."""
    student, stage, _ = _setting(dense_graph)
    objective = DistillObjective(student, {"similarity": (1.0, SimilarityDistillation(student.spec))})
    with pytest.raises(MethodError, match="--teacher"):
        single_player(student, replace(stage, teachers=()), torch.Generator(), objective)
    logits_only = tuple(replace(teacher, hidden={}) for teacher in stage.teachers)
    with pytest.raises(MethodError, match="teacher 'sage' holds logits only"):
        single_player(student, replace(stage, teachers=logits_only), torch.Generator(), objective)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_last_batch_of_a_single_row(norm: str) -> None:
    """61 nodes in batches of 60 leave one; batch normalisation has no variance there and would stop the run."""
    from tests.pipeline import run_method

    graph = community_graph()
    overrides = ["train.batch_size=60", f"student.norm={norm}", "train.epochs=2"]
    assert run_method("nosmog", graph, overrides=overrides).fitted.epochs == 2
