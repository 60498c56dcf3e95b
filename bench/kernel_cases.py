"""What `bench.kernels` measures: losses, their data, the least arithmetic they need, and who else computes them."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.kernels import NeighbourIndex, functional, use
from graph2mlp.kernels.gsp import reference as gsp_reference
from graph2mlp.kernels.info_nce import reference as info_nce_reference
from graph2mlp.kernels.rsd import reference as rsd_reference

__all__ = ["LOSSES", "Case", "Loss", "Peer", "Step", "exact"]

Step = Callable[[Tensor, Tensor], Tensor]
DEGREE = 12  # edges per node of the made-up graph, beside one hub with a third of the nodes


@dataclass(frozen=True)
class Case:
    """One measurement: `n` rows of `d` numbers. `aligned` rows are a good student's, `random` ones a bad one's."""

    loss: str
    n: int
    d: int
    dtype: torch.dtype
    data: str
    device: str

    def sides(self, seed: int) -> tuple[Tensor, Tensor]:
        """Student and teacher, fresh for every seed."""
        generator = torch.Generator().manual_seed(seed)
        teacher = torch.randn(self.n, self.d, generator=generator)
        noise = torch.randn(self.n, self.d, generator=generator)
        student = teacher + 0.35 * noise if self.data == "aligned" else noise
        return student.to(self.device, self.dtype), teacher.to(self.device, self.dtype)

    @functools.cached_property
    def graph(self) -> NeighbourIndex:
        """Random edges, and one node that a third of the others point to."""
        generator = torch.Generator().manual_seed(0)
        edges = torch.randint(self.n, (2, DEGREE * self.n), generator=generator)
        edges[1, : 3 * self.n // 10] = 0
        return NeighbourIndex.from_edge_index(edges, self.n).to(self.device)


@dataclass(frozen=True)
class Peer:
    """Someone who computes the same loss: `make(case)` gives the step, `needs` says what must be there."""

    name: str
    make: Callable[[Case], Step]
    package: str | None = None
    gpu: bool = False
    frozen: bool = False
    """Gives the student's gradient only."""
    most: int | None = None
    """Rows beyond which it would not fit or not end."""

    def skipped(self, case: Case) -> str | None:
        """Why it cannot take part here, None if it can."""
        if self.package and importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        if self.gpu and case.device != "cuda":
            return "needs a GPU"
        if self.most and case.n > self.most and case.device == "cpu":
            return f"more than {self.most} rows take too much memory or time here"
        return None


@dataclass(frozen=True)
class Loss:
    """A loss: ours, its peers, and the floor of value and both gradients."""

    ours: Callable[[Case], Step]
    peers: tuple[Peer, ...]
    flops: Callable[[Case], float]
    moved: Callable[[Case], float]
    """Numbers read and written at least once."""
    width: int | None = None
    """Of its rows, where they are classes and not features."""


def _compiled(make: Callable[[Case], Step]) -> Callable[[Case], Step]:
    return lambda case: torch.compile(make(case), dynamic=False)


def _bfloat16(case: Case) -> Step:
    return functools.partial(functional.info_nce, compute_dtype=torch.bfloat16)


def _scaled(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    return F.normalize(student, dim=-1) / 0.075, F.normalize(teacher, dim=-1)


def _sdpa(case: Case) -> Step:
    """The gradient of the student is `mean(attention(S, T, T)) - T`; a loss with that gradient, without the value."""

    def step(student: Tensor, teacher: Tensor) -> Tensor:
        s, t = _scaled(student, teacher.detach())
        mean = F.scaled_dot_product_attention(s.detach()[None, None], t[None, None], t[None, None], scale=1.0)[0, 0]
        return (s * (mean - t)).sum() / case.n

    return step


def _linear_cross_entropy(case: Case) -> Step:
    target = torch.arange(case.n, device=case.device)
    options = torch.nn.LinearCrossEntropyOptions()

    def step(student: Tensor, teacher: Tensor) -> Tensor:
        return F.linear_cross_entropy(*_scaled(student, teacher), target, options=options)

    return step


def _flex(case: Case) -> Step:
    from torch.nn.attention.flex_attention import flex_attention

    attention = torch.compile(flex_attention)

    def step(student: Tensor, teacher: Tensor) -> Tensor:
        s, t = _scaled(student, teacher)
        narrow = torch.zeros(1, 1, case.n, 16, dtype=s.dtype, device=s.device)
        _, lse = attention(s[None, None], t[None, None], narrow, scale=1.0, return_lse=True)
        return (lse[0, 0] - (s * t).sum(-1)).mean()

    return step


def _cut_cross_entropy(case: Case, impl: str) -> Step:
    from cut_cross_entropy import linear_cross_entropy

    target = torch.arange(case.n, device=case.device)
    return lambda student, teacher: linear_cross_entropy(*_scaled(student, teacher), target, impl=impl)


def _liger(case: Case) -> Step:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    target = torch.arange(case.n, device=case.device)
    return lambda student, teacher: liger_fused_linear_cross_entropy(*_scaled(student, teacher), target)


def _inf_cl(case: Case) -> Step:
    from inf_cl import cal_flash_loss

    def step(student: Tensor, teacher: Tensor) -> Tensor:
        s, t = F.normalize(student.float(), dim=-1), F.normalize(teacher.float(), dim=-1)
        value: Tensor = cal_flash_loss(s, t, scale=torch.tensor(1 / 0.075, device=s.device), head_dim=case.d)
        return value

    return step


def _keops_rbf(case: Case) -> Step:
    from pykeops.torch import LazyTensor

    def kernel(rows: Tensor) -> Any:
        return (-0.01 * ((LazyTensor(rows[:, None]) - LazyTensor(rows[None, :])) ** 2).sum(-1)).exp()

    return lambda student, teacher: ((kernel(student) - kernel(teacher)) ** 2).sum(1).sum() / case.n**2


def _rbf_products(case: Case) -> Step:
    """Distances from inner products, as one would write it who knows that N x N x d does not fit."""

    def kernel(rows: Tensor) -> Tensor:
        squares = rows.square().sum(-1)
        return torch.exp(-0.01 * (squares[:, None] + squares[None, :] - 2 * rows @ rows.T).clamp(min=0))

    return lambda student, teacher: (kernel(student) - kernel(teacher)).square().mean()


def _lsp_gather(case: Case) -> Step:
    """As it is usually written: both ends of every edge gathered, softmax by torch-geometric."""
    from torch_geometric.utils import softmax

    source, target = case.graph.source.long(), case.graph.target.long()

    def log_share(rows: Tensor) -> Tensor:
        return torch.log(softmax(F.cosine_similarity(rows[source], rows[target]), target, num_nodes=case.n) + 1e-16)

    def step(student: Tensor, teacher: Tensor) -> Tensor:
        t, s = log_share(teacher), log_share(student)
        return (t.exp() * (t - s)).sum() / target.unique().numel()

    return step


def _kl_div(case: Case) -> Step:
    return lambda student, teacher: F.kl_div(
        F.log_softmax(student, -1), F.log_softmax(teacher, -1), reduction="batchmean", log_target=True
    )


def _dense(step: Callable[[Case], Step], most: int) -> tuple[Peer, ...]:
    return Peer("eager", step, most=most), Peer("torch.compile", _compiled(step), most=most)


def _info_nce(symmetric: bool) -> Loss:
    settings = {"symmetric": symmetric}
    peers = _dense(lambda case: functools.partial(info_nce_reference, **settings), 20_000)
    if not symmetric:
        peers += (
            Peer("ours, bfloat16 products", _bfloat16),
            Peer("torch linear_cross_entropy", _linear_cross_entropy, most=20_000),
            Peer("SDPA identity", _sdpa, frozen=True, most=20_000),
            Peer("flex_attention", _flex, gpu=True),
            Peer("cut-cross-entropy", functools.partial(_cut_cross_entropy, impl="cce"), "cut_cross_entropy", gpu=True),
            Peer(
                "cut-cross-entropy, exact",
                functools.partial(_cut_cross_entropy, impl="cce_exact"),
                "cut_cross_entropy",
                gpu=True,
            ),
            Peer("Liger", _liger, "liger_kernel", gpu=True),
            Peer("Inf-CL", _inf_cl, "inf_cl", gpu=True),
        )
    products = 8 if symmetric else 6
    return Loss(
        lambda case: functools.partial(functional.info_nce, **settings),
        peers,
        lambda case: products * case.n**2 * case.d,
        lambda case: 4 * case.n * case.d,
    )


def _gsp(settings: dict[str, Any], *peers: Peer) -> Loss:
    return Loss(
        lambda case: functools.partial(functional.gsp, **settings),
        peers,
        lambda case: 8 * case.n**2 * case.d,
        lambda case: 4 * case.n * case.d,
    )


def _lsp(case: Case) -> Step:
    return lambda student, teacher: functional.lsp(student, teacher, case.graph, kernel="cosine")


_COSINE_KL = {"kernel": "cosine", "divergence": "kl", "tau": 0.1}
_RBF_MSE = {"kernel": "rbf", "divergence": "mse", "gamma": 0.01}

LOSSES: dict[str, Loss] = {
    "rsd": Loss(
        lambda case: functional.rsd,
        _dense(lambda case: rsd_reference, 20_000),
        lambda case: 14 * case.n * case.d**2,
        lambda case: 5 * case.n * case.d,
    ),
    "info_nce": _info_nce(symmetric=False),
    "info_nce, symmetric": _info_nce(symmetric=True),
    "gsp, cosine kl": _gsp(_COSINE_KL, *_dense(lambda case: functools.partial(gsp_reference, **_COSINE_KL), 12_000)),
    "gsp, rbf mse": _gsp(
        _RBF_MSE,
        Peer("eager, as published", lambda case: functools.partial(gsp_reference, **_RBF_MSE), most=2048),
        Peer("eager, by products", _rbf_products, most=12_000),
        Peer("torch.compile of it", _compiled(_rbf_products), most=12_000),
        Peer("KeOps", _keops_rbf, "pykeops"),
    ),
    "lsp": Loss(
        _lsp,
        (Peer("gather (torch-geometric)", _lsp_gather), Peer("torch.compile of it", _compiled(_lsp_gather))),
        lambda case: 12.0 * case.graph.source.numel() * case.d,
        lambda case: 4.0 * case.n * case.d + 4 * case.graph.source.numel(),
    ),
    "soft_label_kd": Loss(
        lambda case: functional.soft_label_kd,
        (Peer("eager", _kl_div), Peer("torch.compile", _compiled(_kl_div))),
        lambda case: 20.0 * case.n * case.d,
        lambda case: 3.0 * case.n * case.d,
        width=40,
    ),
}


def exact(loss: Loss, case: Case) -> Step:
    """The loss in float64, by the chunked form, which the tests hold against the published formula."""

    def step(student: Tensor, teacher: Tensor) -> Tensor:
        with use("chunked"):
            return loss.ours(case)(student, teacher)

    return step
