"""What a kernel does not see: strides, devices, threads. One table of cases for all losses."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graph2mlp.kernels import NeighbourIndex, functional, use
from graph2mlp.kernels.dispatch import Backend, backend
from tests.kernels.compare import graded, pair, relative

Loss = Callable[..., Tensor]
ROWS = 33
EDGES = torch.randint(ROWS, (2, 200), generator=torch.Generator().manual_seed(0))

PER_ROW: dict[str, Loss] = {
    "info_nce": functional.info_nce,
    "gsp mse": functools.partial(functional.gsp, kernel="rbf"),
    "gsp kl": functools.partial(functional.gsp, divergence="kl"),
    "lsp": lambda s, t, **k: functional.lsp(s, t, NeighbourIndex.from_edge_index(EDGES, ROWS), **k),
    "soft_label_kd": functional.soft_label_kd,
}
PATHS: list[Backend] = ["chunked", "interpret"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", PER_ROW)
def test_the_gradient_of_a_plain_sum(name: str, path: Backend) -> None:
    """It has stride 0, and a kernel that reads it as dense memory reads what lies behind it."""
    student, teacher = pair(ROWS, 12, 12)
    with use(path):
        summed = graded(lambda s, t: PER_ROW[name](s, t, reduction="none").sum(), student, teacher)
        dense = graded(lambda s, t: (PER_ROW[name](s, t, reduction="none") * torch.ones(ROWS)).sum(), student, teacher)
    assert torch.isfinite(summed.d_student).all()
    assert relative(summed.d_student, dense.d_student) < 1e-6
    assert relative(summed.d_teacher, dense.d_teacher) < 1e-6


@pytest.mark.parametrize("path", PATHS)
def test_vectors_cut_out_of_a_matrix(path: Backend) -> None:
    """Weights and indices are columns of a table as often as not."""
    student, teacher = pair(ROWS, 12, 12)
    weights = torch.rand(ROWS, 3, generator=torch.Generator().manual_seed(0))
    index = torch.randint(ROWS, (ROWS, 3), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    losses: list[tuple[Loss, str, Tensor]] = [
        (functional.rsd, "weight", weights[:, 0]),
        (functional.info_nce, "weight", weights[:, 1]),
        (functional.gsp, "weight", weights[:, 1]),
        (functional.info_nce, "positives", index[:, 0]),
        (functional.info_nce, "labels", index[:, 0]),
    ]
    for loss, name, column in losses:
        with use(path):
            cut = graded(functools.partial(loss, **{name: column}), student, teacher)
            whole = graded(functools.partial(loss, **{name: column.contiguous()}), student, teacher)
        assert torch.equal(cut.loss, whole.loss), name
        assert torch.equal(cut.d_student, whole.d_student), name


def test_the_backward_pass_keeps_the_choice() -> None:
    """Autograd computes it in a thread of its own on a GPU, and on a CPU perhaps after the block that chose."""
    student, teacher = pair(ROWS, 12, 12)
    seen: list[str] = []
    student.requires_grad_().register_hook(lambda _: seen.append(backend()))
    with use("interpret"):
        losses = functional.info_nce(student, teacher, reduction="none")
        inside = torch.autograd.grad(losses.square().sum(), student, retain_graph=True)[0]
    outside: list[Tensor] = []
    thread = threading.Thread(
        target=lambda: outside.append(torch.autograd.grad(losses.square().sum(), student, retain_graph=True)[0])
    )
    thread.start()
    thread.join()
    assert torch.equal(inside, outside[0]), "the chunked form differs in the last bits"
    assert set(seen) <= {"interpret", "auto"}


@pytest.mark.parametrize("form", ["info_nce", "info_nce_rows"])
def test_the_compiler_is_told_the_truth_about_column_major_features(form: str) -> None:
    """It plans memory by what the operator promises to return; a gradient with other strides ends in an assertion."""
    functional.info_nce(*pair(2, 2, 2))  # registers the operators
    sides = [torch.randn(12, ROWS, generator=torch.Generator().manual_seed(seed)).T for seed in (0, 1)]
    for symmetric in (False, True):
        arguments = (*sides, torch.ones(ROWS), None, None, symmetric, True, True)
        operator = getattr(torch.ops.graph2mlp, form)
        torch.library.opcheck(operator, arguments, test_utils=("test_faketensor", "test_schema"))


def test_a_temperature_that_changes_is_compiled_once() -> None:
    """After the first change torch treats it as unknown, and the check of its sign must still be traceable."""
    student, teacher = pair(ROWS, 12, 12)
    compiled = torch.compile(functional.info_nce, backend="aot_eager", fullgraph=True)
    for tau in (0.5, 0.4, 0.3):
        assert relative(compiled(student, teacher, tau=tau), functional.info_nce(student, teacher, tau=tau)) < 1e-6


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["info_nce", "gsp mse", "gsp kl", "soft_label_kd"])
def test_no_weight_at_all_is_a_loss_of_0(name: str, path: Backend) -> None:
    """A batch without a usable row must not put NaN into the weights of a network."""
    student, teacher = pair(ROWS, 12, 12)
    with use(path):
        got = graded(functools.partial(PER_ROW[name], weight=torch.zeros(ROWS)), student, teacher)
    assert [float(one.abs().sum()) for one in (got.loss, got.d_student, got.d_teacher)] == [0, 0, 0]


def test_gsp_keeps_the_digits_of_its_closed_form() -> None:
    """Rounding unit rows to float32 first cost four of seven digits at this distance from the teacher."""
    student, teacher = pair(300, 32, 32, noise=1e-4)
    got = graded(functional.gsp, student, teacher)
    want = graded(functional.gsp, student.double(), teacher.double())
    assert relative(got.d_student, want.d_student) < 1e-6
