"""Run `mypy --strict` over the package as it looks installed, and make sure that it saw every file.

In the checkout mypy does not find `graph2mlp.kernels` and `graph2mlp.export`, checks the rest and reports
success. So it gets a fresh copy with both folders in place, and must check as many files as were copied.

    python tests/typecheck.py
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOVED = ("kernels", "export")  # beside graph2mlp/ in the checkout, inside it when installed


def copy_package(target: Path) -> int:
    """Copy the package to `target` in its installed layout; return how many modules it has."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "graph2mlp", target, ignore=skip)
    for name in MOVED:
        shutil.copytree(ROOT / name, target / name, ignore=skip)
    return sum(1 for _ in target.rglob("*.py"))


def main() -> int:
    """Print what mypy says, with paths of the checkout; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        expected = copy_package(Path(folder) / "graph2mlp")
        command = [sys.executable, "-m", "mypy", "--strict", "-p", "graph2mlp"]
        command += ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
        mypy = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    print(re.sub(rf"^graph2mlp/({'|'.join(MOVED)})/", r"\1/", mypy.stdout, flags=re.MULTILINE), end="")
    print(mypy.stderr, end="", file=sys.stderr)
    if mypy.returncode:
        return mypy.returncode
    found = re.search(r"no issues found in (\d+) source file", mypy.stdout)
    if not found or int(found[1]) != expected:
        got = found[1] if found else "an unknown number of"
        print(
            f"mypy checked {got} files, but the package has {expected}: "
            "is an __init__.py missing, or a folder excluded?",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
