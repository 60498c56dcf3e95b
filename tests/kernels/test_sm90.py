"""The kernels compile for sm_90 into what they were written for. No GPU is needed; nothing is run.

A kernel that spills, loses its tensor-core products or its asynchronous copies still gives right numbers, slowly: only
the machine code tells.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.test_public import ROOT

LOSSES = ["gsp", "info_nce", "lsp", "soft_label_kd", "rsd", "pgd_perturb"]  # the longest first

# (kernel, padded width, element type) -> why it may spill.
MAY_SPILL: dict[tuple[str, int, str], str] = {}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton has wheels for Linux only")


@pytest.fixture(scope="module")
def compilations() -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """Every loss in a process of its own, since this one runs the interpreter; two at a time."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}

    def compile_one(loss: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.kernels.sm90", loss]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(2) as pool:
        yield {loss: pool.submit(compile_one, loss) for loss in LOSSES}


@pytest.fixture(scope="module", params=LOSSES)
def kernels(
    request: pytest.FixtureRequest, compilations: dict[str, Future[subprocess.CompletedProcess[str]]]
) -> list[dict[str, Any]]:
    """Every kernel that one loss ships, compiled."""
    done = compilations[request.param].result()
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found, f"{request.param} started no kernel"
    return found


def test_shared_memory_fits(kernels: list[dict[str, Any]]) -> None:
    """An SM of that generation gives one program at most 227 KiB."""
    for one in kernels:
        assert one["shared"] <= 227 * 1024, one


def test_registers_do_not_spill(kernels: list[dict[str, Any]]) -> None:
    """A spilled accumulator goes to memory and back in every step of the loop."""
    for one in kernels:
        width, kind = one["constants"].get("D", 0), one["types"][0]
        assert not one["spills"] or (one["kernel"], width, kind) in MAY_SPILL, one


def test_products_run_on_tensor_cores_with_copies_under_way(kernels: list[dict[str, Any]]) -> None:
    """Warp-group products, fed by asynchronous copies: the loop is pipelined."""
    for one in kernels:
        if one["products"]:
            assert one["wgmma"], one
            assert one["copies"], one
