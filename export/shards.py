"""`predict_shards`: a folder of request files in, a folder of answer files out, by many processes. No torch.

Each shard becomes one file of the same name, which appears whole, under its name, when all of it is answered. After
that the shard is noted in `_answered.jsonl`; a command that was killed is given again and passes over what is noted. A
shard that was answered but not yet noted is answered again into the same file, so no row is ever lost or doubled.
"""

from __future__ import annotations

import glob
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from graph2mlp.atomic import naming, sweep, write_text
from graph2mlp.errors import RequestError
from graph2mlp.export.answers import check_output
from graph2mlp.export.bundle import open_bundle
from graph2mlp.export.inputs import FORMATS, unread_note
from graph2mlp.export.predict import check_apart
from graph2mlp.export.shard_ray import answer_in_ray
from graph2mlp.export.shard_workers import answer_in_workers
from graph2mlp.lock import LOCK, hold

__all__ = ["JOURNAL", "ShardSummary", "find_shards", "predict_shards"]

JOURNAL = "_answered.jsonl"


@dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """What one command answered, and what was there before it."""

    out: Path
    shards: int
    requests: int
    """Answered by this command."""
    passed: int
    """Shards that an earlier command has answered."""
    seconds: float

    def summary(self) -> str:
        before = f", {self.passed} shards were answered before" if self.passed else ""
        rate = f"{self.requests / self.seconds:,.0f} requests/s" if self.requests else "nothing left to do"
        return f"{self.out}: {self.requests} requests of {self.shards - self.passed} shards answered ({rate}){before}"


def find_shards(source: Path, *, beside: Path | None = None) -> list[Path] | None:
    """The files of a folder or of a pattern such as `in/part-*.parquet`, by name; None for a single file.

    `beside`: the folder of answers, which is no shard.

    Raises:
        RequestError: there are none, two have one name, or one is a folder, a link to nothing, or of another kind.
    """
    if source.is_dir():
        answers = beside if beside is not None and beside.is_dir() else None
        found = sorted(path for path in source.iterdir() if path.name[0] not in "._")
        found = [path for path in found if answers is None or not path.is_dir() or not path.samefile(answers)]
    elif not source.exists() and glob.has_magic(str(source)):
        found = sorted(Path(name) for name in glob.glob(str(source)))  # noqa: PTH207  (the pattern may be absolute)
    else:
        return None
    if not found:
        raise RequestError(
            f"No files of requests at {source}. Give a folder or a pattern of {', '.join(FORMATS)} files."
        )
    names: set[str] = set()
    for path in found:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "no plain file"
            raise RequestError(f"{path} is {what}, and would not be answered. Take it out, or begin its name with '_'.")
        if path.suffix.lower() not in FORMATS:
            raise RequestError(f"{path}: requests are read from {', '.join(FORMATS)} files, got '{path.suffix}'.")
        if path.name in names:
            raise RequestError(f"Two files are called {path.name}, and so would be their answers. Rename one.")
        names.add(path.name)
    return found


def predict_shards(
    bundle: Path,
    source: Path,
    out: Path,
    *,
    workers: int = 1,
    ray: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> ShardSummary:
    """Answer every shard of `source` that is not answered yet into a file of its name in the folder `out`.

    Each of `workers` processes opens the bundle and runs on one thread; with `ray` the processes of a Ray cluster do
    (see `answer_in_ray`). `say` hears a line per shard.

    Raises:
        BundleError: the bundle is missing or damaged.
        RequestError: a shard cannot be answered (those before it stay), or `out` holds something else.
        RunError: another process writes to `out`.
        MissingExtraError: `ray`, and Ray is not installed; or a parquet file, and pyarrow is not.
    """
    shards = find_shards(source, beside=out)
    if shards is None:
        raise RequestError(f"{source} is a single file. Give a folder of files, or use predict_file.")
    check_apart(bundle, source, out)
    for path in shards:
        check_output(path)
        check_apart(bundle, path, out / path.name)
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file; the answers to a folder are a folder. Choose another --out.")
    manifest = open_bundle(bundle, verify="fast").manifest
    fingerprint = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    started, answered = time.perf_counter(), 0
    with hold(out / LOCK, str(out)):
        journal = _Journal(out, fingerprint, shards)
        sweep(out)
        todo = [path for path in shards if not journal.has(path)]
        before = {path: _identity(path) for path in todo}
        if todo and (note := unread_note(todo[0], manifest.feature_names)):
            say(note)
        try:
            by_workers = partial(answer_in_workers, workers=workers)
            for path, rows in (answer_in_ray if ray else by_workers)(bundle, todo, out):
                journal.note(path, rows, before[path])
                answered += rows
                say(f"{out / path.name}: {rows} requests")
        finally:
            sweep(out)  # of workers that were stopped
    seconds = time.perf_counter() - started
    return ShardSummary(out=out, shards=len(shards), requests=answered, passed=len(shards) - len(todo), seconds=seconds)


class _Journal:
    """Which shards are answered, by which bundle: a line each, after their file has its name."""

    def __init__(self, out: Path, bundle: str, shards: list[Path]) -> None:
        self.out, self.path = out, out / JOURNAL
        lines = [json.dumps({"schema": 1, "bundle": bundle})]
        self._done: dict[str, list[int]] = {}
        if self.path.exists():
            lines = self._read(bundle)
        elif taken := [path.name for path in shards if (out / path.name).exists()]:
            raise RequestError(f"{out} holds {taken[0]} already, from elsewhere. Choose another --out.")
        write_text(self.path, "".join(line + "\n" for line in lines))  # a line that was cut off is gone

    def _read(self, bundle: str) -> list[str]:
        kept = []
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines or [""]):
            try:
                record = json.loads(line)
                if number == 0 and record["bundle"] != bundle:
                    raise RequestError(f"{self.out} holds answers of another bundle. Choose another --out.")
                if number:
                    self._done[record["shard"]] = record["source"]
            except (ValueError, KeyError, TypeError):
                if number == 0:
                    raise RequestError(f"{self.path} is damaged. Choose another --out.") from None
                continue
            kept.append(line)
        return kept

    def has(self, shard: Path) -> bool:
        """Whether the answers are there, to the shard as it is now."""
        return self._done.get(shard.name) == _identity(shard) and (self.out / shard.name).exists()

    def note(self, shard: Path, rows: int, source: list[int]) -> None:
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"shard": shard.name, "rows": rows, "source": source}) + "\n")


def _identity(path: Path) -> list[int]:
    """Size and time of change: a shard that was written anew is answered anew."""
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]
