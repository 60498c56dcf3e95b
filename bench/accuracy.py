"""Accuracy of teachers and students over seeds: `python -m bench.accuracy --graphs cpf:cora --methods glnn,nosmog`.

One CSV row per run; rows that are there already are not run again, so an interrupted table goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

from graph2mlp.config import resolve_config
from graph2mlp.console import Reporter
from graph2mlp.distill import distill

RESULTS = Path(__file__).parent / "results"
KEYS = ("graph", "setting", "method", "teacher", "seed")
PARTS = ("test", "tran", "ind", "prod", "cold")
COLUMNS = (
    *KEYS,
    "regime",
    "layers",
    "hidden",
    "parameters",
    "val",
    *(f"{who}_{part}" for who in ("teacher", "mlp", "student") for part in PARTS),
    "agreement",
    "cpu_s_structure",
    "cpu_s_student",
    "settings",
    "commit",
    "torch",
)


def main() -> None:
    """Run every combination that the CSV does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", default="digits,cpf:cora,cpf:citeseer")
    parser.add_argument("--settings", default="transductive,production")
    parser.add_argument("--methods", default="blend,nosmog,glnn,lsp,gsp,g_crd,gsdn")
    parser.add_argument("--teachers", default="", help="each method's own unless named")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], metavar="GROUP.KEY=VALUE")
    parser.add_argument("--root", default=None)
    parser.add_argument("--csv", type=Path, default=RESULTS / "accuracy.csv")
    given = parser.parse_args()
    torch.set_num_threads(1)  # CPU seconds then compare between machines
    axes = [getattr(given, name).split(",") for name in ("graphs", "settings", "methods", "teachers")]
    reporter, changed = Reporter(), " ".join(sorted(given.set))
    done = {_key(row) for row in read_rows(given.csv)}
    for graph, setting, method, teacher in itertools.product(*axes):
        for seed in range(given.seeds):
            name = teacher_of(method, teacher)
            if (graph, setting, method, name, str(seed), changed) in done:
                continue
            row = run_one(graph, setting, method, teacher, seed, given.root, given.set)
            append_row(given.csv, row | {"settings": changed})
            done.add((graph, setting, method, name, str(seed), changed))
            shown = ", ".join(f"{k} {row[k]}" for k in row if k.startswith(("teacher_", "student_")))
            reporter.say(f"{graph} {setting} {method} {name} seed {seed}: {shown}")


def run_one(
    graph: str, setting: str, method: str, teacher: str, seed: int, root: str | None, overrides: list[str]
) -> dict[str, Any]:
    """One run in a folder that is thrown away; its figures as a CSV row."""
    config = resolve_config(
        graph=graph, setting=setting, method=method, teacher=teacher or None, seed=seed, root=root, overrides=overrides
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        result = distill(config, out, reporter=Reporter(quiet=True)).result
    student = result["student"]
    row: dict[str, Any] = {
        "graph": graph,
        "setting": setting,
        "method": method,
        "teacher": result["teacher"]["name"] if result["teacher"] else "",
        "seed": seed,
        "regime": result["regime"],
        "layers": student["layers"],
        "hidden": student["hidden"],
        "parameters": student["parameters"],
        "val": _round(student["val"]),
        "agreement": _round(student["agreement"]),
        "cpu_s_structure": round(result["cpu_seconds"]["structure"], 2),
        "cpu_s_student": round(result["cpu_seconds"]["student"], 2),
        "commit": commit(),
        "torch": result["versions"]["torch"],
    }
    for who in ("teacher", "mlp", "student"):
        row |= {f"{who}_{part}": _round((result[who] or {}).get(part)) for part in PARTS}
    return row


def teacher_of(method: str, named: str) -> str:
    """The teacher such a run will have: the one that is named, the method's own, or none."""
    config = resolve_config(graph="digits", method=method, teacher=named or None)
    return config.teacher.name if config.hyper.needs_teacher else ""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV; none when it does not exist."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row, and the header to a new file."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return (*(row[key] for key in KEYS), row["settings"])


def _round(value: float | None) -> float | str:
    return "" if value is None else round(value, 5)


def commit() -> str:
    """The commit the figures belong to, marked when files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
