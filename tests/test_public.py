"""Public names exist, and are found where they are announced."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def module_names() -> list[str]:
    """Every module of the package, also those that stand beside it in the checkout."""
    files = [*(ROOT / "graph2mlp").rglob("*.py")]
    files += [*(ROOT / "kernels").rglob("*.py"), *(ROOT / "export").rglob("*.py")]
    names = set()
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        parts = parts if parts[0] == "graph2mlp" else ("graph2mlp", *parts)
        names.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names - {"graph2mlp.__main__"})


@pytest.mark.parametrize("name", module_names())
def test_announced_names_exist(name: str) -> None:
    """A name in `__all__` that does not exist breaks `import *` and every reader's trust."""
    module = importlib.import_module(name)
    announced = getattr(module, "__all__", [])
    assert len(set(announced)) == len(announced)
    missing = [one for one in announced if not hasattr(module, one)]
    assert not missing, f"{name}.__all__ announces {missing}"


@pytest.mark.parametrize("name", module_names())
def test_public_things_are_documented(name: str) -> None:
    """Each module says what it is; each announced function and class says what it does."""
    module = importlib.import_module(name)
    if Path(str(module.__file__)).read_text(encoding="utf-8").strip():
        assert module.__doc__, f"{name} has no docstring"
    for one in getattr(module, "__all__", []):
        thing = getattr(module, one)
        if callable(thing) and getattr(thing, "__module__", None) == name:
            assert thing.__doc__, f"{name}.{one} has no docstring"
