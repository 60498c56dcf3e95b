"""What is installed is what is in the checkout, although kernels/ and export/ stand beside the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CONFIG = tomllib.loads(PYPROJECT)
PACKAGES: list[str] = CONFIG["tool"]["setuptools"]["packages"]
PLACES = {"graph2mlp": "graph2mlp", "graph2mlp.kernels": "kernels", "graph2mlp.export": "export"}

PROBE = """
import importlib, sys
from collections import Counter
for package in sys.argv[1:]:
    print(importlib.import_module(package).__file__)
files = Counter(getattr(module, "__file__", None) for module in sys.modules.values())
twice = [file for file in files if file and file.startswith(ROOT) and ".venv" not in file and files[file] > 1]
assert not twice, f"loaded under two names: {twice}"
"""


def source_folder(package: str) -> Path:
    """Where the code of `package` stands in the checkout."""
    place = max((name for name in PLACES if f"{package}.".startswith(f"{name}.")), key=len)
    return ROOT / PLACES[place] / package.removeprefix(place).lstrip(".").replace(".", "/")


def test_listed_packages_are_the_folders_with_code() -> None:
    """A new subpackage missing from the list works in the checkout and is absent from the wheel."""
    folders = {file.parent for place in PLACES.values() for file in (ROOT / place).rglob("*.py")}
    assert folders == {source_folder(package) for package in PACKAGES}
    assert len(PACKAGES) == len(set(PACKAGES))
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_package_dir_says_where_the_moved_folders_are() -> None:
    assert CONFIG["tool"]["setuptools"]["package-dir"] == PLACES


def test_every_package_loads_once_from_its_folder(tmp_path: Path) -> None:
    """Two copies of one module mean two registries, and isinstance checks that fail for no visible reason."""
    probe = f"ROOT = {str(ROOT)!r}\n{PROBE}"
    # Another folder than the root, where the current directory would hide a wrong path.
    done = subprocess.run(
        [sys.executable, "-c", probe, *PACKAGES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = [source_folder(package) / "__init__.py" for package in PACKAGES]
    assert [Path(line) for line in done.stdout.splitlines()] == expected


def test_wheel_holds_every_package(tmp_path: Path) -> None:
    """Built from a copy, so that neither stale files in build/ nor the checkout's own take part."""
    pytest.importorskip("setuptools", minversion="77", reason="building the wheel needs it")
    pytest.importorskip("pip", reason="building the wheel needs it")
    source = tmp_path / "source"
    for name in ("graph2mlp", "kernels", "export"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("graph2mlp-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"{package.replace('.', '/')}/__init__.py" for package in PACKAGES} <= names
    assert "graph2mlp/py.typed" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"graph2mlp"}


def test_every_dependency_says_what_it_is_for() -> None:
    """A dependency nobody can justify is one that every device downloads."""
    project = CONFIG["project"]
    requirements = list(chain(project["dependencies"], *project["optional-dependencies"].values()))
    lines = [line.strip() for line in PYPROJECT.splitlines()]
    for requirement in requirements:
        (line,) = (line for line in lines if line.startswith(f'"{requirement}"'))
        assert line.partition("#")[2].strip(), f"{requirement} has no comment in pyproject.toml"


def test_version_is_the_same_everywhere() -> None:
    import graph2mlp

    assert graph2mlp.__version__ == CONFIG["project"]["version"]
