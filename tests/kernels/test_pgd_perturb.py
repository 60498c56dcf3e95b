"""The search for harmful noise: the published loop step by step, and what it must leave as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graph2mlp.errors import BackendError, KernelError
from graph2mlp.kernels.dispatch import Backend, use
from graph2mlp.kernels.pgd_perturb import pgd_perturb, signed_step

# The interpreter multiplies infinity by 0 where that is meant to give NaN.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

PATHS: list[Backend] = ["chunked", "interpret"]
NAN, INF = float("nan"), float("inf")


def shipped() -> None:
    """One call for every configuration of the fused kernel, for the compile-only check."""
    from graph2mlp.kernels.pgd_perturb.fused import fused

    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        fused(torch.zeros(5000, dtype=dtype), torch.zeros(5000, dtype=dtype), 0.1, 0.2)


class _Network(nn.Module):
    """An MLP with batch normalisation and dropout, of 6 features and 3 classes."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.dropout, self.last = nn.Dropout(dropout), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(F.relu(self.norm(self.first(x)))))


def _setting(dropout: float = 0.0) -> tuple[_Network, Tensor, Callable[[Tensor], Tensor]]:
    torch.manual_seed(0)
    network, x, labels = _Network(dropout), torch.randn(20, 6), torch.arange(20) % 3
    with torch.no_grad():
        network.norm.running_mean.normal_()  # type: ignore[union-attr]
        network.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return network, x, lambda logits: F.cross_entropy(logits, labels)


def _seed(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _state(network: nn.Module) -> list[Any]:
    """Everything that a search may not change."""
    tensors = [tensor.clone() for tensor in network.state_dict().values()]
    flags = [module.training for module in network.modules()] + [p.requires_grad for p in network.parameters()]
    return [tensors, flags, [None if p.grad is None else p.grad.clone() for p in network.parameters()]]


def _same(a: list[Any], b: list[Any]) -> bool:
    pairs = zip(a[0] + a[2], b[0] + b[2], strict=True)
    return a[1] == b[1] and all(x is y or torch.equal(x, y) for x, y in pairs)


def test_value_by_hand() -> None:
    """A linear loss: every number goes to the side of the box that its weight points to; weight 0 does not move."""
    weight = torch.tensor([[2.0, -0.1, 0.0]])
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(weight)
    settings: dict[str, Any] = {"eps": 0.5, "random_start": False}
    delta = pgd_perturb(model, torch.ones(2, 3), lambda out: out.sum(), **settings)
    assert delta.tolist() == [[0.5, -0.5, 0.0]] * 2
    # Three steps of a quarter of the box do not reach the side.
    delta = pgd_perturb(model, torch.ones(2, 3), lambda out: out.sum(), **settings, steps=3)
    assert delta.tolist() == [[0.375, -0.375, 0.0]] * 2
    delta = pgd_perturb(model, torch.ones(2, 3), lambda out: out.sum(), **settings, steps=1, alpha=0.2)
    torch.testing.assert_close(delta, torch.tensor([[0.2, -0.2, 0.0]] * 2))


def _published(network: nn.Module, x: Tensor, loss_fn: Callable[[Tensor], Tensor], delta: Tensor, eps: float) -> Tensor:
    """The loop of the released code: `backward()` through everything, five quarter steps."""
    delta.requires_grad_()
    for _ in range(5):
        loss_fn(network(x + delta)).backward()
        assert delta.grad is not None
        moved = delta.detach() + eps / 4 * torch.sign(delta.grad.detach())
        delta.data = moved.data.clamp_(-eps, eps)
        delta.grad.zero_()
    return delta.detach()


@pytest.mark.parametrize("path", [*PATHS, "dense"])
def test_equals_the_published_loop(path: Backend) -> None:
    """Asking for one gradient instead of all must not change a bit of the noise."""
    network, x, loss_fn = _setting()
    network.eval()
    start = torch.empty(20, 6).uniform_(-0.1, 0.1, generator=_seed())
    want = _published(network, x, loss_fn, start, 0.1)
    with use(path):
        got = pgd_perturb(network, x, loss_fn, eps=0.1, generator=_seed())
    assert torch.equal(got, want)


@pytest.mark.parametrize("path", [*PATHS, "dense"])
@pytest.mark.parametrize(("steps", "alpha"), [(1, None), (5, None), (3, 4.0), (2, 1e-3)])
def test_noise_stays_in_the_box_and_does_harm(steps: int, alpha: float | None, path: Backend) -> None:
    """Never beyond eps, however large the steps; and the loss is above that of the start and of shuffled noise."""
    network, x, loss_fn = _setting()
    network.eval()
    with use(path):
        delta = pgd_perturb(network, x, loss_fn, eps=0.05, steps=steps, alpha=alpha, generator=_seed())
    start = torch.empty(20, 6).uniform_(-0.05, 0.05, generator=_seed())
    assert 0 < delta.abs().max() <= torch.tensor(0.05)
    with torch.no_grad():
        assert loss_fn(network(x + delta)) > loss_fn(network(x + start))
        if alpha is None and steps == 5:
            assert loss_fn(network(x + delta)) > loss_fn(network(x + delta.flip(0)))


@pytest.mark.parametrize("path", [*PATHS, "dense"])
def test_leaves_everything_as_it_was(path: Backend) -> None:
    """The released code fills the weights' gradients and feeds attacked inputs into the running statistics."""
    network, x, loss_fn = _setting(dropout=0.5)
    network.last.weight.requires_grad_(False)
    network.dropout.eval()
    loss_fn(network(x)).backward()  # gradients of an ordinary step lie there already
    x.requires_grad_()
    before, copy = _state(network), x.detach().clone()
    with use(path):
        delta = pgd_perturb(network, x, loss_fn, eps=0.1)
    assert _same(_state(network), before)
    assert x.grad is None
    assert torch.equal(x, copy)
    assert (delta.shape, delta.dtype, delta.requires_grad) == (x.shape, x.dtype, False)


def test_weights_ask_for_nothing_during_the_search() -> None:
    """Otherwise autograd keeps the input of every layer for gradients that nobody wants: a third more memory."""
    network, x, loss_fn = _setting()
    asking: list[bool] = []

    def watched(out: Tensor) -> Tensor:
        asking.extend(parameter.requires_grad for parameter in network.parameters())
        return loss_fn(out)

    pgd_perturb(network, x, watched, eps=0.1)
    assert asking
    assert not any(asking)


@pytest.mark.parametrize("place", ["model", "loss"])
def test_leaves_everything_as_it_was_after_an_exception(place: str) -> None:
    """A caught error (out of memory, say) must not leave a model that no longer learns."""
    network, x, loss_fn = _setting()
    before, calls = _state(network), []

    def fails_late(out: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 2:
            raise OSError("disk")
        return loss_fn(out)

    if place == "model":
        network.dropout.forward = lambda x: x + fails_late(torch.zeros(20, 3))  # type: ignore[method-assign]
    with pytest.raises(OSError, match="disk"):
        pgd_perturb(network, x, loss_fn if place == "model" else fails_late, eps=0.1)
    assert _same(_state(network), before)


def test_noise_of_a_row_does_not_depend_on_the_others() -> None:
    """Batch statistics would tie the rows of a batch together, and differ from those of the deployed model."""
    network, x, _ = _setting()
    network.train()
    labels = torch.arange(20) % 3

    def noise(rows: int) -> Tensor:
        def loss_fn(out: Tensor) -> Tensor:
            return F.cross_entropy(out, labels[:rows], reduction="sum")

        return pgd_perturb(network, x[:rows], loss_fn, eps=0.1, random_start=False)

    assert torch.equal(noise(20)[:5], noise(5))
    network.eval()
    in_evaluation = noise(20)
    network.train()
    assert torch.equal(noise(20), in_evaluation)


def test_dropout_keeps_its_mode() -> None:
    """Live in training, with torch's global generator, as in the released code; none after `eval()`."""
    network, x, loss_fn = _setting(dropout=0.6)

    def noise(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return pgd_perturb(network, x, loss_fn, eps=0.1, random_start=False, steps=1)

    network.train()
    assert torch.equal(noise(0), noise(0))
    assert not torch.equal(noise(0), noise(1))
    network.eval()
    assert torch.equal(noise(0), noise(1))


def test_the_start_is_drawn_with_the_generator() -> None:
    """Randomness has an owner: the global state is neither used nor advanced, and the start fills the box."""
    network, x, loss_fn = _setting()
    state = torch.get_rng_state()
    first = pgd_perturb(network, x, loss_fn, eps=0.1, generator=_seed())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, pgd_perturb(network, x, loss_fn, eps=0.1, generator=_seed()))
    assert not torch.equal(first, pgd_perturb(network, x, loss_fn, eps=0.1, generator=_seed(4)))
    still = nn.Linear(6, 3)
    nn.init.zeros_(still.weight)
    start = pgd_perturb(still, torch.randn(500, 6), lambda out: out.sum(), eps=0.1, generator=_seed())
    assert float(start.min()) < -0.099
    assert float(start.max()) > 0.099
    assert abs(float(start.mean())) < 0.005


def test_no_box_no_noise() -> None:
    """eps = 0 is how a sweep switches the adversary off."""
    network, x, loss_fn = _setting()
    assert float(pgd_perturb(network, x, loss_fn, eps=0.0).abs().sum()) == 0


def test_works_where_gradients_are_off() -> None:
    """Attacks are also run while a model is evaluated, under `no_grad`."""
    network, x, loss_fn = _setting()
    want = pgd_perturb(network, x, loss_fn, eps=0.1, generator=_seed())
    with torch.no_grad():
        assert torch.equal(pgd_perturb(network, x, loss_fn, eps=0.1, generator=_seed()), want)


@pytest.mark.parametrize("shape", [(5,), (1, 6), (2, 3, 4, 4)])
def test_inputs_of_any_shape_and_layout(shape: tuple[int, ...]) -> None:
    """Nothing here knows of rows; delta must be laid out like numbers, not like a view of x."""
    x = torch.randn(*shape, generator=_seed()).to(torch.float64)
    model = nn.Tanh()
    want = 0.3 * torch.ones_like(x)
    for one in (x, x.expand(3, *shape), torch.stack([x, x], -1)[..., 0]):
        delta = pgd_perturb(model, one, lambda out: out.sum(), eps=0.3, random_start=False)
        torch.testing.assert_close(delta, want.expand(one.shape))


@pytest.mark.parametrize("path", [*PATHS, "dense"])
@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_broken_gradient_shows(path: Backend, bad: float) -> None:
    """The sign of NaN is 0 for torch: a broken network would look robust."""
    network, x, _ = _setting()
    factor = torch.ones(20, 1)
    factor[4] = bad
    with use(path):
        delta = pgd_perturb(network, x, lambda out: (out * factor).sum(), eps=0.1)
    assert torch.isnan(delta).any(1).tolist() == [row == 4 for row in range(20)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": -0.1}, "eps must be 0 or more and finite, got -0.1"),
        ({"eps": INF}, "eps must be 0 or more and finite, got inf"),
        ({"eps": NAN}, "eps must be 0 or more and finite, got nan"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"alpha": 0.0}, "alpha must be positive and finite, got 0.0"),
        ({"alpha": -1.0}, "alpha must be positive and finite, got -1.0"),
        ({"x": torch.ones(20, 6, dtype=torch.long)}, "x must be dense and of a floating type"),
        ({"x": torch.eye(6).to_sparse()}, "x must be dense and of a floating type"),
        ({"loss_fn": lambda out: out}, r"loss_fn must return a scalar .* got shape \[20, 3\]"),
        ({"loss_fn": lambda out: out.detach().sum()}, "without a gradient"),
    ],
)
def test_wrong_input_is_refused(change: dict[str, Any], message: str) -> None:
    """A negative step searches for the most harmless noise; a loss that is cut off gives none at all."""
    network, x, loss_fn = _setting()
    before = _state(network)
    with pytest.raises(KernelError, match=message):
        pgd_perturb(**{"model": network, "x": x, "loss_fn": loss_fn, "eps": 0.1, **change})
    assert _same(_state(network), before)


def _expected(delta: Tensor, gradient: Tensor, alpha: float, eps: float) -> Tensor:
    """The formula, in the type of the tensors."""
    return (delta + alpha * gradient.sign()).clamp(-eps, eps)


@settings(max_examples=25, deadline=None)
@given(count=st.sampled_from([1, 2, 2047, 2048, 2049, 65537]), path=st.sampled_from(PATHS), alpha=st.floats(1e-3, 2))
def test_step_is_the_formula_bit_for_bit(count: int, path: Backend, alpha: float) -> None:
    """One less and one more than a block of either form; training must not change with the backend."""
    delta, gradient = (torch.empty(count).uniform_(-1, 1, generator=_seed(seed)) for seed in (0, 1))
    gradient[:: max(2, count // 7)] = 0
    want = _expected(delta, gradient, alpha, 1.0)
    with use(path):
        assert torch.equal(signed_step(delta, gradient, alpha=alpha, eps=1.0), want)
    assert torch.equal(delta, want), "the step is taken in place"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_step_in_other_types(dtype: torch.dtype) -> None:
    """The interpreter cuts bfloat16 off instead of rounding: one unit in its last place."""
    delta, gradient = (torch.empty(40, 50, dtype=dtype).uniform_(-1, 1, generator=_seed(seed)) for seed in (0, 1))
    for path in PATHS:
        if dtype == torch.float64 and path == "interpret":
            continue
        with use(path):
            got = signed_step(delta.clone(), gradient, alpha=0.25, eps=1.0)
        torch.testing.assert_close(got, _expected(delta, gradient, 0.25, 1.0), atol=0, rtol=2**-7)
    with use("interpret"), pytest.raises(BackendError, match="float64"):
        signed_step(delta.double(), gradient.double(), alpha=0.25, eps=1.0)


def test_step_leaves_the_gradient_alone_in_any_layout() -> None:
    """Autograd may hand out a tensor that others hold, or one number seen many times."""
    from graph2mlp.kernels.launch import Tiles
    from graph2mlp.kernels.pgd_perturb.fused import fused

    guarded = torch.full((9, 12), NAN)
    guarded[2:7, 2:10] = torch.randn(5, 8, generator=_seed())
    for path in PATHS:
        for gradient in (guarded[2:7, 2:10], torch.randn(8, 5, generator=_seed()).T, torch.tensor(-2.0).expand(5, 8)):
            copy, delta = gradient.clone(), torch.zeros(5, 8)
            with use(path):
                signed_step(delta, gradient, alpha=0.1, eps=0.3)
            torch.testing.assert_close(delta, 0.1 * copy.sign())
            assert torch.equal(gradient, copy)
    a, b = torch.zeros(100), torch.zeros(100)
    slope = torch.randn(100, generator=_seed())
    assert torch.equal(fused(a, slope, 0.1, 0.3, tiles=Tiles(1, 16, 4, 1)), fused(b, slope, 0.1, 0.3))


@pytest.mark.parametrize(
    ("delta", "gradient", "message"),
    [
        (torch.zeros(3), torch.zeros(4), "must have one shape"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.float64), "one floating type"),
        (torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long), "one floating type"),
        (torch.zeros(3, 2).T, torch.zeros(2, 3), "must be contiguous"),
    ],
)
def test_step_refuses_what_does_not_fit(delta: Tensor, gradient: Tensor, message: str) -> None:
    """Changed in place through a copy, delta would stay as it was."""
    with pytest.raises(KernelError, match=message):
        signed_step(delta, gradient, alpha=0.1, eps=0.1)
