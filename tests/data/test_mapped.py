"""Large arrays of an `.npz` file are mapped where that is safe, and are the same numbers either way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graph2mlp.data import mapped
from graph2mlp.data.npz import load_arrays, read_graph
from graph2mlp.errors import DataError
from tests.graphs import community_graph


@pytest.fixture(autouse=True)
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "_FROM", 0)


def _is_mapped(array: np.ndarray) -> bool:
    return isinstance(array.base, np.memmap)


def test_a_saved_graph_is_mapped_and_equal(tmp_path: Path) -> None:
    """Data at an odd address would crash a vector unit; a wrong offset would give other numbers."""
    graph = community_graph()
    path = graph.save(tmp_path / "graph.npz")
    arrays = load_arrays(path)
    assert all(_is_mapped(arrays[name]) and arrays[name].ctypes.data % 64 == 0 for name in ("x", "edge_index", "y"))
    with np.load(path) as plain:
        assert all(np.array_equal(plain[name], arrays[name]) for name in plain.files)
    assert read_graph(path, 0).fingerprint() == graph.fingerprint()


def test_what_is_written_into_a_mapped_graph_stays_out_of_the_file(tmp_path: Path) -> None:
    """A user who scales features in place must not find the file changed."""
    path = community_graph().save(tmp_path / "graph.npz")
    before = path.read_bytes()
    read_graph(path, 0).x.mul_(2)
    assert path.read_bytes() == before


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_files_of_numpy_are_read(tmp_path: Path, save: object) -> None:
    """numpy's own files are not aligned, or are compressed; both must still open."""
    x = np.random.default_rng(0).normal(size=(50, 3))
    save(tmp_path / "a.npz", odd=x, columns=np.asfortranarray(x))  # type: ignore[operator]
    found = load_arrays(tmp_path / "a.npz")
    assert np.array_equal(found["odd"], x)
    assert np.array_equal(found["columns"], x)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    """A map beyond the end of a file kills the process on the first read of it."""
    path = community_graph().save(tmp_path / "graph.npz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="not a readable"):
        load_arrays(path)


def test_a_header_that_asks_for_more_than_is_there_is_not_mapped(tmp_path: Path) -> None:
    """A crafted shape must not reach beyond the member."""
    path = community_graph().save(tmp_path / "graph.npz")
    data = path.read_bytes()
    rows = str(tuple(torch.tensor(community_graph().x.shape).tolist())).encode()
    path.write_bytes(data.replace(rows, rows.replace(rows[1:2], b"9", 1), 1))
    with pytest.raises(DataError, match="not a readable"):
        load_arrays(path)
