"""The rule for unseen nodes: one request shape serves training and deployment."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graph2mlp.errors import DataError
from graph2mlp.structure.table import PAD, StructureTable


@pytest.fixture
def table() -> StructureTable:
    """Four nodes; node 2 is not known. The last row is large, so that a leak through index -1 shows."""
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0], [100.0, 100.0]])
    return StructureTable("made up", rows, torch.tensor([True, True, False, True]))


@pytest.mark.parametrize(
    ("request_ids", "answer"),
    [
        ([[1]], [3.0, 4.0]),  # a known node is the neighbour list of itself
        ([[0, 1]], [2.0, 3.0]),  # an unseen node: the mean
        ([[0, PAD, 1, PAD]], [2.0, 3.0]),  # padding anywhere does not count
        ([[0, 2]], [1.0, 2.0]),  # nor does a neighbour the table does not know
        ([[0, 0, 1]], [5 / 3, 8 / 3]),
        ([[2]], [0.0, 0.0]),  # an unknown node
        ([[PAD, PAD]], [0.0, 0.0]),  # no neighbour: the default row
    ],
)
def test_rule(table: StructureTable, request_ids: list[list[int]], answer: list[float]) -> None:
    """Mean of the known rows, zeros when none is known."""
    torch.testing.assert_close(table.for_unseen(torch.tensor(request_ids)), torch.tensor([answer]))


def test_known_nodes_get_the_same_both_ways(table: StructureTable) -> None:
    """Training reads `for_known`, a device asks `[itself]`: a difference would be paid in accuracy."""
    ids = torch.tensor([3, 0, 2, 1])
    assert torch.equal(table.for_known(ids), table.for_unseen(ids.unsqueeze(1)))


def test_no_columns_at_all(table: StructureTable) -> None:
    """K may be 0 when nobody in the batch has a neighbour."""
    assert torch.equal(table.for_unseen(torch.empty(3, 0, dtype=torch.long)), torch.zeros(3, 2))


def test_round_trip(table: StructureTable, tmp_path: Path) -> None:
    """What is on disk is what was trained with."""
    table.save(tmp_path / "t.safetensors")
    loaded = StructureTable.load(tmp_path / "t.safetensors")
    assert loaded.encoder == "made up"
    assert torch.equal(loaded.rows, table.rows)
    assert torch.equal(loaded.known, table.known)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all", b"\x10\0\0\0\0\0\0\0{}"])
def test_missing_or_damaged_file(content: bytes | None, tmp_path: Path) -> None:
    """One line that names the file."""
    file = tmp_path / "t.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match="t.safetensors is not a structure table"):
        StructureTable.load(file)


@pytest.mark.parametrize(
    ("rows", "known"),
    [
        (torch.zeros(3), torch.ones(3).bool()),
        (torch.zeros(3, 2), torch.ones(2).bool()),
        (torch.zeros(3, 2), torch.ones(3)),
        (torch.full((3, 2), float("nan")), torch.ones(3).bool()),
    ],
)
def test_malformed_table_is_refused(rows: torch.Tensor, known: torch.Tensor) -> None:
    """A NaN row would spread to every node that has it as a neighbour."""
    with pytest.raises(DataError):
        StructureTable("made up", rows, known)
