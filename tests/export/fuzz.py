"""Mutations of a small bundle: `python -m tests.export.fuzz [COUNT] [FIRST_SEED]`.

A mutation damages the zip, a file of the folder, or the values of `bundle.json`; or it damages the model or the sample
and signs them again, so that no checksum stands before the reader. Whatever comes out must be answered, or refused
with one line of ours.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from graph2mlp.errors import Graph2MLPError
from graph2mlp.export.bundle import open_bundle, write_bundle
from graph2mlp.export.runtime import Predictor

FILES = ("bundle.json", "model.onnx", "sample.npz")
HOSTILE: list[Any] = [None, True, -1, 0, 2**63, 10**30, 1e308, "", "x", "../x", "é" * 200, [], {}, [[]], "NaN"]


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip, overwrite, cut, repeat, insert or remove bytes."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            break
        start = int(rng.integers(len(data)))
        length = int(rng.integers(1, 1 + min(64, len(data) - start)))
        kind = rng.integers(7)
        if kind == 0:
            data[start] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[start] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == 2:
            data[start : start + length] = rng.bytes(length)
        elif kind == 3:
            del data[start:]
        elif kind == 4:
            data[start:start] = data[start : start + length]
        elif kind == 5:
            data[start:start] = rng.bytes(length)
        else:
            del data[start : start + length]
    return bytes(data)


def damage_values(value: Any, rng: np.random.Generator) -> Any:
    """Replace, remove or add one value somewhere in a tree of JSON."""
    node = value
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return value
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.7:
            node = node[key]
            continue
        kind = rng.integers(4)
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node[str(HOSTILE[int(rng.integers(len(HOSTILE)))])] = node[key]
        else:
            node[key] = HOSTILE[int(rng.integers(len(HOSTILE)))]
        return value


def mutate(source: Path, target: Path, rng: np.random.Generator) -> str:
    """Write a damaged copy of the bundle folder `source`; returns what kind of damage it is."""
    content = {name: (source / name).read_bytes() for name in FILES}
    kind = ("zip", "file", "values", "signed model", "signed sample")[int(rng.integers(5))]
    if kind.startswith("signed"):
        name = "model.onnx" if kind == "signed model" else "sample.npz"
        content[name] = damage(content[name], rng)
        manifest = replace(open_bundle(source).manifest, files={})
        write_bundle(target, manifest, {name: content[name] for name in FILES[1:]})
        return kind
    if kind == "values":
        content["bundle.json"] = json.dumps(damage_values(json.loads(content["bundle.json"]), rng)).encode()
    elif kind == "file":
        name = FILES[int(rng.integers(len(FILES)))]
        content[name] = damage(content[name], rng)
    if kind == "zip" or (kind == "values" and rng.random() < 0.3):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        packed = buffer.getvalue()
        target.write_bytes(damage(packed, rng) if kind == "zip" else packed)
    else:
        target.mkdir()
        for name, data in content.items():
            (target / name).write_bytes(data)
    return kind


def try_bundle(path: Path, engine: str) -> str:
    """Open, self-check and ask it: `answered`, or `refused` with one line. Anything else is a bug and is raised."""
    try:
        predictor = Predictor(path, engine=engine)
        predictor.self_check()
        features = predictor.manifest.features
        if features < 10_000:
            predictor.predict(x=np.ones((2, features)), neighbors=np.array([[0], [1]]))
    except Graph2MLPError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            raise ValueError(f"not one line: {str(error)[:2000]!r}") from error
        return "refused"
    return "answered"


def fuzz(source: Path, scratch: Path, count: int, first: int = 0) -> Counter[str]:
    """`count` mutations from seed `first` on, the engines in turn; counts of kinds and outcomes."""
    outcomes: Counter[str] = Counter()
    for seed in range(first, first + count):
        target = scratch / f"mutation-{seed}"
        kind = mutate(source, target, np.random.default_rng(seed))
        engine = "numpy" if seed % 2 else "onnxruntime"
        try:
            outcomes[f"{kind}: {try_bundle(target, engine)}"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed} ({kind}, {engine}): {error!r}") from error
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()
    return outcomes


def main(arguments: list[str]) -> None:
    """Fuzz a bundle made for the purpose and print what happened."""
    from graph2mlp.export.deploy import export_run
    from tests.export.conftest import random_run

    count = int(arguments[0]) if arguments else 10_000
    first = int(arguments[1]) if len(arguments) > 1 else 0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        export_run(random_run(), out=Path(name) / "bundle")
        outcomes = fuzz(Path(name) / "bundle", Path(name), count, first)
    for what, number in sorted(outcomes.items()):
        print(f"{what}: {number}")
    seconds = time.perf_counter() - start
    print(f"{sum(outcomes.values())} mutations in {seconds:.0f} s, no crash, every refusal one line")


if __name__ == "__main__":
    main(sys.argv[1:])
