"""No damage to a bundle may crash a device: it is answered, or refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tests.export.fuzz import damage, fuzz

COUNT = int(os.environ.get("GRAPH2MLP_FUZZ", "300"))


def test_mutations_are_answered_or_refused(bundles, tmp_path: Path) -> None:
    """Any exception that is not ours is a traceback on someone's device."""
    outcomes = fuzz(bundles("sparse"), tmp_path, COUNT)
    assert sum(outcomes.values()) == COUNT
    # A fuzzer whose damage is never noticed, or that never gets past the checksums, would pass as well.
    for kind in ("zip", "file", "values", "signed model", "signed sample"):
        assert outcomes[f"{kind}: refused"], outcomes
    assert any(name.endswith("answered") for name in outcomes)


def test_damage_depends_on_the_seed_alone() -> None:
    """A failing seed must fail again when someone looks for the reason."""
    content = bytes(range(256))
    first, again = (damage(content, np.random.default_rng(7)) for _ in range(2))
    assert first == again != content
