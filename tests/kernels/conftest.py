"""Fixtures for the tests of the losses."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _forget_compiled_code() -> Iterator[None]:
    """torch.compile counts how often it compiled one of its own wrappers, over all tests, and gives up at eight."""
    yield
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
