"""One process at a time in a folder: a lock that the kernel releases when its holder ends, however it ends.

The lock is `flock` on a small file that says who holds it. The file of a killed process stays, but is not locked, so
the next process takes it over; nobody has to delete anything.

Where it holds: on local file systems of Linux and macOS, and between machines on NFS (version 4, or 3 with its lock
service; Linux sends `flock` to the server) and on Lustre and GPFS mounted with `flock`. An NFS mount with `nolock` or
`local_lock` keeps out processes of the same machine only, and nothing here can see that. Where the system has no such
lock at all (Windows, some network file systems), a warning says so and the work goes on.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from graph2mlp.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "hold"]

LOCK = ".lock"
"""Name of the lock of a folder, inside it."""

_TRIES = 1000
"""A folder is removed between our making it and our opening the file once in some thousand turns; a path that can
never be opened (a link to nowhere) ends in its error after some 10 ms."""

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def hold(file: Path, what: str) -> Iterator[None]:
    """Hold the lock `file` while the block runs; folders that are missing are made, and removed again if left empty.

    Raises:
        RunError: another process holds it; `what` names what it works on.
        OSError: the file cannot be made.
    """
    made = [folder for folder in file.parents if not folder.exists()]
    handle = None
    try:
        handle = _take(file, what)
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                file.unlink(missing_ok=True)  # still locked: whoever waits for this file sees that it is gone
            os.close(handle)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _take(file: Path, what: str) -> int:
    """The open, locked file, with this process written into it."""
    while True:
        handle = _open(file)
        try:
            if not _lock(handle, file):
                raise RunError(f"{what} is in use: {_holder(handle)}. Wait for it, or stop it.")
            if _is_at(handle, file):
                _sign(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder removed it between our opening and our locking


def _open(file: Path) -> int:
    """The file, made with its folders where missing; its last holder may be removing them at this very moment."""
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):
            file.parent.mkdir(parents=True, exist_ok=True)
            return os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))


def _lock(handle: int, file: Path) -> bool:
    """Whether nobody else holds it; True, with a warning, where that cannot be known."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "this system has no flock")
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        warnings.warn(
            f"{file.parent} cannot be locked ({error.strerror}). Make sure that no other process works in it.",
            stacklevel=5,
        )
    return True


def _is_at(handle: int, file: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    me = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    # A disk that is full holds no name; the lock holds all the same.
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(me).encode(), 0)


def _holder(handle: int) -> str:
    try:
        who: dict[str, Any] = json.loads(os.pread(handle, 4096, 0))
        return f"process {int(who['pid'])} on {who['host']} has worked there since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process has just started there"
