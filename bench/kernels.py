"""Time, memory and error of the losses beside their peers: `python -m bench.kernels --loss info_nce --n 2048,8192`.

One CSV row for each (loss, who, n, d, type, data): value and every gradient the peer gives. All peers of a case run in
turns in one process. Ours is timed only if it agrees with float64; everybody's error stands beside the time.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.accuracy import commit
from bench.kernel_cases import LOSSES, Case, Loss, Peer, Step, exact
from bench.rows import read_rows
from graph2mlp.atomic import atomic_path
from graph2mlp.console import Reporter
from graph2mlp.measure import environment, measure_together, peak_rss_mb

RESULTS = Path(__file__).parent / "results"
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
SETS = 3  # sets of inputs, used in turns


def main() -> None:
    """Measure every combination and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", default=";".join(LOSSES), help="names separated by semicolons")
    parser.add_argument("--who", default="", help="these peers only, separated by semicolons; ours always takes part")
    parser.add_argument("--n", default="2048,8192")
    parser.add_argument("--d", default="128")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--data", default="random,aligned")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each peer of each case")
    parser.add_argument("--append", action="store_true", help="keep the rows that the file holds")
    parser.add_argument("--csv", type=Path, default=RESULTS / "kernels.csv")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    machine = {**environment(), "threads": str(given.threads), "commit": commit(), **ceilings(given.device)}
    rows: list[dict[str, Any]] = read_rows(given.csv) if given.append else []
    axes = given.loss.split(";"), given.dtype.split(","), given.d.split(","), given.n.split(","), given.data.split(",")
    for name, dtype, d, n, data in itertools.product(*axes):
        case = Case(name, int(n), LOSSES[name].width or int(d), TYPES[dtype], data, given.device)
        loss = LOSSES[name]
        if given.who:
            loss = replace(loss, peers=tuple(peer for peer in loss.peers if peer.name in given.who.split(";")))
        for row in measure_case(loss, case, given.seconds, machine):
            rows.append(row)
            Reporter().say("  ".join(f"{key} {row[key]}" for key in list(row)[:14]))
        _write(given.csv, rows)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def measure_case(loss: Loss, case: Case, seconds: float, machine: dict[str, str]) -> Iterator[dict[str, Any]]:
    """One row for ours and for each peer, in the order of the table."""
    peers = (Peer("ours", loss.ours), *loss.peers)
    reasons = {peer.name: peer.skipped(case) for peer in peers}
    steps = {peer.name: peer.make(case) for peer in peers if not reasons[peer.name]}
    want = gradients(exact(loss, case), *(side.double() for side in case.sides(0)))
    errors = {name: _errors(gradients(step, *case.sides(0)), want) for name, step in steps.items()}
    wrong = max(errors["ours"].values())
    if not wrong <= TOLERANCE[case.dtype]:
        raise SystemExit(f"{case}: ours is off by {wrong:.1e}; nothing is timed that is not right")
    memory = {name: peak_mb(partial(gradients, step, *case.sides(0))) for name, step in steps.items()}
    sets = [case.sides(seed) for seed in range(SETS)]
    calls = {name: [partial(gradients, step, *sides) for sides in sets] for name, step in steps.items()}
    times = measure_together(calls, seconds=seconds, warmup=1, min_samples=3, rounds=3)
    floor_ms = floor(loss, case, machine)
    for peer in peers:
        time = times.get(peer.name)
        yield {
            "loss": case.loss,
            "who": peer.name,
            "n": case.n,
            "d": case.d,
            "dtype": str(case.dtype).removeprefix("torch."),
            "data": case.data,
            "gradients": "student" if peer.frozen else "both",
            "p50_ms": f"{time.p50_us / 1e3:.3f}" if time else "",
            "cpu_ms": f"{time.cpu_us / 1e3:.3f}" if time else "",
            "ratio": f"{time.p50_us / times['ours'].p50_us:.2f}" if time else "",
            "peak_mb": f"{memory[peer.name]:.1f}" if time else "",
            "of_floor": f"{floor_ms / (time.p50_us / 1e3):.3f}" if time else "",
            "error_loss": f"{errors[peer.name]['loss']:.1e}" if time and not peer.frozen else "",
            "error_gradient": f"{errors[peer.name]['gradient']:.1e}" if time else "",
            "samples": time.n if time else "",
            "skipped": reasons[peer.name] or "",
            "device": torch.cuda.get_device_name() if case.device == "cuda" else "cpu",
            **machine,
        }


def gradients(step: Step, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Value and gradients, finished when this returns."""
    student, teacher = student.detach().requires_grad_(), teacher.detach().requires_grad_()
    value = step(student, teacher)
    value.backward()  # type: ignore[no-untyped-call]
    if student.is_cuda:
        torch.cuda.synchronize()
    assert student.grad is not None
    return value.detach(), student.grad, teacher.grad


def _errors(got: tuple[Tensor, Tensor, Tensor | None], want: tuple[Tensor, Tensor, Tensor | None]) -> dict[str, float]:
    """Relative errors of the value and of the worse gradient, in norm."""
    pairs = [(a, b) for a, b in zip(got, want, strict=True) if a is not None and b is not None]
    off = [float((a.double() - b).norm() / b.norm()) for a, b in pairs]
    return {"loss": off[0], "gradient": max(off[1:])}


def peak_mb(call: Callable[[], object]) -> float:
    """What one call allocates at its peak beyond what was there before; the second call is the one that counts."""
    call()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from what is held now
    before_mb = peak_rss_mb()
    call()
    after_mb = peak_rss_mb()
    assert before_mb is not None
    assert after_mb is not None
    return after_mb - before_mb


def ceilings(device: str) -> dict[str, str]:
    """What this machine does at best, measured in the same run: one large product, one large copy."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (2048, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    big, out = (torch.randn(2**26, device=device) for _ in range(2))

    def product() -> None:
        a @ b
        _ = torch.cuda.synchronize() if device == "cuda" else None

    def copy() -> None:
        out.copy_(big)
        _ = torch.cuda.synchronize() if device == "cuda" else None

    times = measure_together({"product": product, "copy": copy}, seconds=2, warmup=2, min_samples=5)
    flops = 2 * size**3 / times["product"].p50_us / 1e3
    return {"gflops": f"{flops:.0f}", "gb_per_s": f"{8 * 2**26 / times['copy'].p50_us / 1e3:.1f}"}


def floor(loss: Loss, case: Case, machine: dict[str, str]) -> float:
    """Milliseconds below which value and gradients cannot be had: arithmetic or traffic, whichever is more."""
    moved = loss.moved(case) * torch.finfo(case.dtype).bits / 8
    return max(loss.flops(case) / float(machine["gflops"]), moved / float(machine["gb_per_s"])) / 1e6


if __name__ == "__main__":
    main()
