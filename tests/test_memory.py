"""`--memory`: the system refuses what goes beyond it, stages make do with less where they can, and one line says it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from graph2mlp import memory
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError, OutOfMemoryError
from graph2mlp.memory import as_many_as_fit, limited, memory_for, not_counted, parse_size, room
from graph2mlp.structure.subspace import leading_eigenvectors
from graph2mlp.teachers import blocks
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.extract import answer_all
from graph2mlp.teachers.models import build_teacher
from tests.cli import assert_one_line_error, distill
from tests.graphs import community_graph

ROOT = Path(__file__).parents[1]
MIB = 2**20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux keeps the bound")


def _held() -> int:
    found = memory._held()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 2**32), ("512M", 512 * MIB), ("1.5 GB", 3 * 2**29), ("2t", 2**41), ("1000", 1000), ("64 kib", 65536)],
)
def test_sizes(text: str, size: int) -> None:
    """As people write them."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "4 PB", "1e9", "G", "4,5G"])
def test_no_sizes(text: str, tmp_path: Path) -> None:
    """Refused before anything is read."""
    with pytest.raises(ConfigError, match="such as 4GiB"):
        parse_size(text)
    assert_one_line_error(distill("digits", tmp_path / "run", f"--memory={text or ' '}"), "such as 4GiB")


@linux
def test_the_system_refuses_more_than_that() -> None:
    """Both allocators; afterwards the bound is gone."""
    with limited(_held() + 400 * MIB):
        left = room()
        assert left is not None
        assert 300 * MIB < left <= 400 * MIB
        wanted = r"The table needs more than --memory .* \(an array of 2 GiB was refused\). Dig"
        with pytest.raises(OutOfMemoryError, match=wanted), memory_for("The table", "Dig."):
            torch.empty(2**31, dtype=torch.uint8)
        with pytest.raises(OutOfMemoryError, match=r"an array of 1 GiB was refused"), memory_for("It", "Dig."):
            np.empty(2**30, dtype=np.uint8)
    assert room() is None
    torch.empty(2**29, dtype=torch.uint8)


@linux
def test_too_little_to_begin_with() -> None:
    """Otherwise an import would fail, somewhere."""
    with pytest.raises(ConfigError, match="is too little: .* Give at least"), limited(_held() + 10 * MIB):
        pass


@linux
def test_mapped_files_are_not_counted(tmp_path: Path) -> None:
    """Copy-on-write mappings are private and writable, so the system would count them."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(2**30)
    with limited(_held() + 300 * MIB):
        with pytest.raises(OSError, match="Cannot allocate"):
            np.memmap(tmp_path / "big", np.uint8, "c")
        not_counted(2**30)
        before = room()
        mapped = np.memmap(tmp_path / "big", np.uint8, "c")
        assert mapped[-1] == 0
        after = room()
        assert before is not None
        assert after is not None
        assert before - after > 2**30 - 64 * MIB
        assert after > 100 * MIB


def test_other_errors_pass() -> None:
    """Only a refused allocation is one."""
    with pytest.raises(RuntimeError, match="shapes"), memory_for("It", "Dig."):
        raise RuntimeError("shapes do not fit")
    with pytest.raises(FileNotFoundError), memory_for("It", "Dig."):
        raise FileNotFoundError(2, "No such file")


def test_stages_make_do_with_less(monkeypatch: pytest.MonkeyPatch, dense_graph: GraphData) -> None:
    """Blocks get smaller, and say the same."""
    torch.manual_seed(0)
    teacher = build_teacher(12, 3, TeacherConfig(name="gcn", hidden=16)).eval()
    whole = answer_all(teacher, dense_graph)
    matrix = torch.randn(200, 200)
    matrix = ((matrix + matrix.T) / 60).to_sparse_csr()
    support = torch.ones(200, dtype=torch.bool)
    vectors = leading_eigenvectors(matrix, 6, support=support, seed=0)
    assert not blocks.needs_blocks(teacher, 61)
    assert as_many_as_fit(64, bytes_each=1000) == 64
    monkeypatch.setattr(memory, "room", lambda: 5000)
    assert blocks.needs_blocks(teacher, 61)
    assert as_many_as_fit(64, bytes_each=1000) == 5
    assert as_many_as_fit(64, bytes_each=1e6, least=2) == 2
    torch.testing.assert_close(answer_all(teacher, dense_graph), whole, rtol=0, atol=1e-5)
    again = leading_eigenvectors(matrix, 6, support=support, seed=0)
    torch.testing.assert_close(again.abs(), vectors.abs(), rtol=0, atol=1e-4)


@linux
def test_refused_run_is_kept_and_goes_on(tmp_path: Path) -> None:
    """A teacher 4,096 wide does not fit; with more memory the same run ends."""
    graph = community_graph()
    many = 60
    big = GraphData.from_arrays(
        graph.x.repeat(many, 1),
        torch.cat([graph.edge_index + 61 * copy for copy in range(many)], 1),
        graph.y.repeat(many),
    )
    file = big.save(tmp_path / "big.npz")
    wide = ["--teacher", "gat", "--method", "glnn", "--set", "teacher.hidden=4096", "--set", "teacher.epochs=1"]
    wide += ["--set", "train.epochs=1", "--out", str(tmp_path / "run")]

    def start(*more: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "graph2mlp", "distill", str(file), *wide, *more]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRAPH2MLP_CACHE": str(tmp_path / "cache")}
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=200)

    refused = start("--memory", "700MiB")
    assert refused.returncode == 1, refused.stderr
    (last,) = [line for line in refused.stderr.splitlines() if line.startswith("error")]
    assert "The teacher needs more than --memory 700 MiB" in last
    assert "--resume" in last
    assert "Traceback" not in refused.stderr
    resumed = start("--resume")
    assert resumed.returncode == 0, resumed.stderr
