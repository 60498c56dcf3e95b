"""Millions of requests from parquet, killed on the way and given again: `python -m bench.predict_rows`.

Requests of 16 features and the node's own id, against a table of 100,000 nodes (64 wide) and a student of width 128 and
40 classes. One CSV row per way: one file, shards with one and with two workers, and shards killed by SIGKILL every few
seconds until they are done. `requests_per_s` counts the whole command, the start of its processes too;
`peak_rss_mb` is the most that a process of the command held. Every row was checked: ids complete, each once, and the
answers of the killed command equal to the others.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bench.big_table import make_bundle
from graph2mlp.atomic import atomic_path
from graph2mlp.measure import environment

RESULTS = Path(__file__).parent / "results"
FEATURES, NODES = 16, 100_000


def main() -> None:
    """Make bundle and requests, answer them in four ways, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--csv", type=Path, default=RESULTS / "predict_rows.csv")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(NODES, folder / "bundle", features=FEATURES)
        single = write_shards(folder / "single", given.rows, given.shards, together=True) / "part-00000.parquet"
        shards = write_shards(folder / "shards", given.rows, given.shards, together=False)
        rows = [{"way": "one file", "workers": 1, "kills": 0, **timed(bundle, single, folder / "one.parquet", 1)}]
        for workers in (1, 2):
            out = folder / f"out-{workers}"
            rows.append({"way": "shards", "workers": workers, "kills": 0, **timed(bundle, shards, out, workers)})
        rows.append({"way": "shards, killed", "workers": 2, **killed(bundle, shards, folder / "out-killed")})
        check(given.rows, folder)
    write_rows(given.csv, [{"rows": given.rows, "shards": given.shards, **row} for row in rows])


def write_shards(folder: Path, rows: int, shards: int, *, together: bool) -> Path:
    """Parquet files of `id`, `x0` to `x15` and `neighbors`, one row group each; or `together` as those of one file."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir()
    with ExitStack() as files:
        for number in range(shards):
            first, last, rng = rows * number // shards, rows * (number + 1) // shards, np.random.default_rng(number)
            columns = {"id": np.arange(first, last)}
            columns |= {f"x{i}": rng.standard_normal(last - first, dtype=np.float32) for i in range(FEATURES)}
            table = pyarrow.table(columns | {"neighbors": rng.integers(0, NODES, last - first)})
            if number == 0 or not together:
                path = folder / f"part-{number:05d}.parquet"
                writer = files.enter_context(parquet.ParquetWriter(path, table.schema))
            writer.write_table(table, row_group_size=last - first)
    return folder


def start(bundle: Path, source: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """The command line, in a process of its own."""
    command = [sys.executable, "-m", "graph2mlp", "predict", str(bundle), str(source), "--out", str(out)]
    how = ["--workers", str(workers)]
    return subprocess.Popen(command + how, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def timed(bundle: Path, source: Path, out: Path, workers: int) -> dict[str, float]:
    """Seconds of an uninterrupted command, CPU seconds of all its processes, and the most that one of them held."""
    begun, peak = time.perf_counter(), 0.0
    with start(bundle, source, out, workers) as process:
        while True:
            peak = max(peak, *(high_water_mb(pid) for pid in (process.pid, *children(process.pid))))
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"exit code {process.returncode}"
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_rss_mb": peak}


def children(pid: int) -> list[int]:
    """Processes that `pid` has started and that still run."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def high_water_mb(pid: int) -> float:
    """The most a process has held so far; `ru_maxrss` would also count what this one held when it started it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:  # it has ended
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), default=0.0)


def killed(bundle: Path, source: Path, out: Path) -> dict[str, float]:
    """The same, killed after 1 to 6 seconds of work up to ten times."""
    rng, kills, begun = random.Random(0), 0, time.perf_counter()
    while kills < 10:
        with start(bundle, source, out, 2) as process:
            try:
                process.wait(timeout=1 + 5 * rng.random())
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
    last = timed(bundle, source, out, 2)
    return {"kills": kills, **last, "seconds": time.perf_counter() - begun}


def check(rows: int, folder: Path) -> None:
    """Every row once; shards byte by byte the same on every way, and the one file up to the last bit of a sum."""
    from pyarrow import parquet

    whole = parquet.read_table(folder / "one.parquet")
    assert np.array_equal(whole["id"].to_numpy(), np.arange(rows))
    expected = {path.name: path.read_bytes() for path in (folder / "out-1").glob("*.parquet")}
    for name in ("out-1", "out-2", "out-killed"):
        found = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
        assert found.keys() - expected.keys() == {"_answered.jsonl"}, name
        assert all(found[file] == content for file, content in expected.items()), name
    parts = [parquet.read_table(folder / "out-1" / name) for name in sorted(expected)]
    assert np.array_equal(np.concatenate([part["id"].to_numpy() for part in parts]), np.arange(rows))
    # A product of other rows may differ in its last bit, which decides between labels that are equally likely.
    probabilities = np.concatenate([part["probability"].to_numpy() for part in parts])
    assert np.allclose(probabilities, whole["probability"].to_numpy(), rtol=0, atol=1e-5)
    labels = np.concatenate([part["label"].to_numpy(zero_copy_only=False) for part in parts])
    assert (labels != whole["label"].to_numpy(zero_copy_only=False)).mean() < 1e-4


def write_rows(target: Path, rows: list[dict[str, Any]]) -> None:
    """CSV, and the same on the terminal."""
    for row in rows:
        row["requests_per_s"] = row["rows"] / row["seconds"]
    machine = environment()
    rows = [{k: round(v, 1) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    for row in rows:
        print(row)
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *machine], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | machine for row in rows)


if __name__ == "__main__":
    main()
