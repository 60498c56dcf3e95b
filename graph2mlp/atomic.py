"""Files appear whole or not at all: write under a temporary name, flush to disk, rename.

A process that is killed leaves at most one temporary file or folder behind, named `.NAME.part-...`; whoever next holds
the lock of that place removes it (`sweep`, `sweep_beside`; see `graph2mlp.lock`).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = [
    "atomic_folder",
    "atomic_path",
    "is_part",
    "naming",
    "part_prefix",
    "sweep",
    "sweep_beside",
    "write_json",
    "write_text",
]

_PART = ".part-"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """An error of the operating system that names no file, such as a full disk, names `target`."""
    try:
        yield
    except OSError as error:
        # A temporary name means nothing to a user, and is gone by the time it is read.
        if error.filename is None or _PART in str(error.filename):
            error.filename, error.filename2 = str(target), None
        raise


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it replaces `target`, on failure it is removed."""
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=part_prefix(target), suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _flush(temporary)
            temporary.chmod(0o644)  # mkstemp makes files private; a run folder is meant to be shared
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on success it takes the place of `target`.

    On Linux the two are exchanged in one step. Elsewhere a process that is killed between two renames leaves the old
    folder as `.NAME.part-....old`, which `sweep_beside` puts back.
    """
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=part_prefix(target)))
        try:
            yield temporary
            for file in temporary.iterdir():
                _flush(file)
            temporary.chmod(0o755)
            if not target.exists():
                temporary.rename(target)
            elif not _exchange(temporary, target):
                _replace_folder(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Write `text` in one step."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON in one step; NaN is refused because it is not JSON."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False) + "\n")


def is_part(path: Path) -> bool:
    """Whether `path` has the name of an unfinished file or folder."""
    return path.name.startswith(".") and _PART in path.name


def sweep(folder: Path) -> None:
    """Remove what killed processes left unfinished in `folder`; only for whoever holds its lock."""
    for path in folder.iterdir():
        if is_part(path):
            _remove(path)


def sweep_beside(target: Path) -> None:
    """Remove what killed processes left unfinished of `target`, or put the old folder back if it is the only one."""
    for path in sorted(target.parent.iterdir()):
        if not path.name.startswith(part_prefix(target)):
            continue
        if path.name.endswith(".old") and not target.exists():
            path.rename(target)
        else:
            _remove(path)


def part_prefix(target: Path) -> str:
    """How the names of unfinished forms of `target` begin."""
    return f".{target.name}{_PART}"


def _flush(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; False where the system or its file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:  # an old C library
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if (code := ctypes.get_errno()) in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _replace_folder(new: Path, target: Path) -> None:
    """Two renames; if the second fails, the old folder comes back."""
    old = new.with_name(new.name + ".old")
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        with suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old)
