"""Retrieval: golden values, the walk over blocks against the formula, ties, and a node that must not find itself."""

from __future__ import annotations

import pytest
import torch

from graph2mlp.students import nearest as module
from graph2mlp.students.nearest import attend, nearest, nearest_reference
from tests.graphs import F4

QUERY = torch.tensor([[1, 0.5, 0]], dtype=torch.float64)
FORMS = [nearest, nearest_reference]


@pytest.mark.parametrize("find", FORMS)
@pytest.mark.parametrize(
    ("count", "ids", "weights", "context"),
    [
        (1, [2], [1.0], [2, 1, 0]),  # rows 2 and 3 fit equally well: the lower id wins
        (2, [2, 3], [0.5, 0.5], [1.5, 2, 0.5]),
        (3, [2, 3, 0], [0.449816, 0.449816, 0.100368], [1.449816, 1.799265, 0.650551]),
    ],
)
def test_golden_values(find, count: int, ids: list[int], weights: list[float], context: list[float], f4: F4) -> None:
    """The numbers of the method's specification: the wrong side of a product, or weights over all rows, show here."""
    found = find(QUERY, f4.T, count)
    assert found.ids.tolist() == [ids]
    torch.testing.assert_close(found.scores.softmax(1), QUERY.new_tensor([weights]), atol=1e-6, rtol=0)
    torch.testing.assert_close(attend(found, f4.T, 1.0), QUERY.new_tensor([context]), atol=1e-6, rtol=0)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that a small bank does not fit into."""
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_QUERIES", 5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("count", [1, 3, 7, 20, 39])
@pytest.mark.parametrize("exclude", [False, True])
def test_blocks_find_what_the_formula_finds(count: int, exclude: bool) -> None:
    """Whole numbers make many exact ties, within blocks and across them; K is below and above the size of a block."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randint(-2, 3, (23, 4), generator=generator).double()
    bank = torch.randint(-2, 3, (40, 4), generator=generator).double()
    own = torch.randperm(40, generator=generator)[:23] if exclude else None
    found, want = (find(query, bank, count, exclude=own) for find in FORMS)
    assert torch.equal(found.ids, want.ids)
    assert torch.equal(found.scores, want.scores)


@pytest.mark.parametrize("find", FORMS)
def test_excluded_row_is_not_found(find) -> None:
    """A training node whose own row is in the bank would read the answer off it, which no new node can."""
    rows = torch.nn.functional.normalize(torch.randn(30, 6, generator=torch.Generator().manual_seed(1)), dim=1)
    own = torch.arange(30)
    assert torch.equal(find(rows, rows, 1).ids[:, 0], own), "each row fits itself best"
    assert not bool((find(rows, rows, 5, exclude=own).ids == own[:, None]).any())


def test_all_rows_are_softmax_attention() -> None:
    """K = N leaves nothing out."""
    generator = torch.Generator().manual_seed(2)
    query, bank = torch.randn(9, 5, generator=generator), torch.randn(12, 5, generator=generator)
    got = attend(nearest(query, bank, 12), bank, 0.7)
    torch.testing.assert_close(got, (0.7 * query @ bank.T).softmax(1) @ bank)


def test_order_of_the_bank_does_not_matter() -> None:
    """The rows are a set; an id that went with the wrong row would show."""
    generator = torch.Generator().manual_seed(3)
    query, bank = torch.randn(9, 5, generator=generator), torch.randn(40, 5, generator=generator)
    order = torch.randperm(40, generator=generator)
    first, second = nearest(query, bank, 4), nearest(query, bank[order], 4)
    assert torch.equal(first.ids, order[second.ids])
    torch.testing.assert_close(attend(first, bank, 1.0), attend(second, bank[order], 1.0))


def test_no_queries() -> None:
    """A validation set may be empty in a part of a script; the shape says so."""
    found = nearest(torch.empty(0, 3), torch.ones(4, 3), 2)
    assert found.ids.shape == found.scores.shape == (0, 2)


def test_nothing_has_a_gradient() -> None:
    """Retrieval is fixed by the paper: neither the guess nor the bank learns from what it found."""
    query, bank = torch.randn(3, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)
    assert not nearest(query, bank, 2).scores.requires_grad
