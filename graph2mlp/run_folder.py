"""Whose folder a run is, and in which order it is emptied, so that a run killed at any moment can go on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from graph2mlp.atomic import is_part, sweep, write_text
from graph2mlp.config import RunConfig, load_config
from graph2mlp.errors import OutOfMemoryError, RunError
from graph2mlp.lock import LOCK, hold
from graph2mlp.report import PAGE

__all__ = ["check_folder", "claim_folder", "clear_folder", "is_complete", "keep_if_resumable", "locked_folder"]

_SETTINGS, _RESULT, _CHECKPOINTS, _KNOWLEDGE = "config.toml", "result.json", "checkpoint", "knowledge"


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Be the only process that works in `out`; the folder is made, and removed again if it stays empty.

    Raises:
        RunError: another process works there, or `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file, and a run needs a folder. Choose another --out.")
    with hold(out / LOCK, str(out)):
        yield


def check_folder(out: Path, config: RunConfig, *, force: bool, resume: bool, several: bool = False) -> bool:
    """Whether the run of `config` finds something of its own in `out`; nothing is changed.

    Raises:
        RunError: it exists and is neither to be replaced nor continued, or was made with other settings.
    """
    settings = out / _SETTINGS
    if _is_free(out):
        return False
    if resume and settings.exists():
        other_kind = (out / "metrics.jsonl").exists() if several else any(out.glob("seed-*"))
        if load_config(settings) != config or other_kind:
            raise RunError(f"{out} was started with other settings (see {settings}). Resume with the same ones.")
        return True
    if not force:
        raise RunError(f"{out} exists. Choose another --out, replace it with --force, or go on with --resume.")
    if not settings.exists():
        raise RunError(f"{out} exists and is not a run folder, so --force will not delete it. Choose another --out.")
    return True


def claim_folder(out: Path, config: RunConfig, *, force: bool, resume: bool, several: bool = False) -> bool:
    """Make `out` the folder of this run; whether it is new. `several` says that it holds one folder per seed.

    Only for whoever holds its lock.

    Raises:
        RunError: as `check_folder`.
    """
    found = check_folder(out, config, force=force, resume=resume, several=several)
    for folder in (out, out / _KNOWLEDGE):  # an unfinished file there would be read as a teacher's
        if folder.is_dir():
            sweep(folder)
    if found and resume:
        return False
    if found:
        clear_folder(out)
    write_text(out / _SETTINGS, config.to_toml())
    return True


def is_complete(out: Path) -> bool:
    """Whether nothing is left to do in `out`, not even to clean up."""
    return all((out / name).exists() for name in (_RESULT, PAGE)) and not any(
        (out / name).exists() for name in (_CHECKPOINTS, LOCK)
    )


def clear_folder(out: Path) -> None:
    """Empty a run folder in an order that leaves, at any moment, an unfinished run of its own settings.

    The result goes first: without the rest it would be believed. Checkpoints go before the journal they continue, the
    settings last: they say that all of it may be deleted.
    """
    seeds = sorted(out.glob("seed-*"))
    with ExitStack() as held:
        for folder in seeds:  # all of them first: someone may be at work on one
            held.enter_context(hold(folder / LOCK, str(folder)))
        (out / _RESULT).unlink(missing_ok=True)
        for folder in seeds:
            clear_folder(folder)
    shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)
    for path in sorted(out.iterdir()):
        if path.name in (_SETTINGS, LOCK):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (out / _SETTINGS).unlink(missing_ok=True)


@contextmanager
def keep_if_resumable(out: Path, *, new: bool) -> Iterator[None]:
    """Empty a `new` folder if the run fails by a mistake of ours or the user's, for then it would fail again.

    One that was interrupted, or met a full disk or memory, holds work and can go on.
    """
    try:
        yield
    except (OSError, MemoryError, OutOfMemoryError):
        raise
    except Exception:  # an interrupt is no Exception
        if new:
            clear_folder(out)
        raise


def _is_free(out: Path) -> bool:
    """Absent, empty, or with nothing but what a killed process left before it wrote its settings."""
    return not out.exists() or (out.is_dir() and all(p.name == LOCK or is_part(p) for p in out.iterdir()))
