"""A bound on what a process may allocate, kept by the system, and what a stage says when it does not get along with it.

    with limited(4 * 2**30):
        with memory_for("the structure", "Lower structure.dim."):
            ...

The bound is `RLIMIT_DATA`: private, writable memory. An allocation beyond it fails at once, where the process would
otherwise be killed later or push others out. Files that are mapped are not counted, since the system can take their
pages back at any time.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graph2mlp.errors import ConfigError, OutOfMemoryError

__all__ = ["as_many_as_fit", "limited", "memory_for", "not_counted", "parse_size", "readable_size", "room"]

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_LEAST = 256 * 2**20
"""What must be left when a run begins: less is not even enough for its imports."""
_REFUSED = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "out of memory",
    "alloc_failed",
    "start new thread",
)

_limit: int | None = None
_mapped = 0


def parse_size(text: str) -> int:
    """Bytes of `4GiB`, `512M`, `1.5 GB`; units are powers of 1024.

    Raises:
        ConfigError: it is no size.
    """
    if (found := _SIZE.fullmatch(text.strip())) is None:
        raise ConfigError(f"--memory must be a size such as 4GiB or 512MiB (got '{text}').")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def readable_size(size: float) -> str:
    """`1.5 GiB`, `300 MiB`."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


@contextmanager
def limited(size: int | None) -> Iterator[None]:
    """In here the process may hold at most `size` bytes; no bound when None.

    Raises:
        ConfigError: it holds nearly that much already.
    """
    global _limit, _mapped
    if size is None:
        yield
        return
    held = _held()
    if held is None:
        warnings.warn("--memory is not kept by this system; sizes of blocks follow it all the same.", stacklevel=3)
    elif size < held + _LEAST:
        raise ConfigError(
            f"--memory {readable_size(size)} is too little: Python and torch alone hold {readable_size(held)}. Give at "
            f"least {readable_size(held + _LEAST)}."
        )
    _limit, _mapped = size, 0
    try:
        with _system_limit():
            yield
    finally:
        _limit = None


def room() -> int | None:
    """Bytes that may still be allocated; None without a bound."""
    if _limit is None:
        return None
    return max(0, _limit + _mapped - (_held() or 0))


def as_many_as_fit(most: int, *, bytes_each: float, least: int = 1) -> int:
    """How many things of `bytes_each` there is room for: `most` without a bound, never fewer than `least`."""
    left = room()
    return most if left is None else max(least, min(most, int(left / bytes_each)))


def not_counted(size: int) -> None:
    """Say that a file of `size` bytes is about to be mapped."""
    global _mapped
    if _limit is not None:
        _mapped += size
        _set(_limit + _mapped)


@contextmanager
def memory_for(what: str, remedy: str) -> Iterator[None]:
    """Turn a refused allocation in here into one line that names `what` was going on, and what to do.

    Raises:
        OutOfMemoryError: there was not enough.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not _is_refusal(error):
            raise
        bound = f"--memory {readable_size(_limit)}" if _limit is not None else "the memory of this machine"
        if re.search("cuda|cublas|cusparse", str(error), re.IGNORECASE):  # which also allocates on the machine
            bound = "the memory of the GPU" + (f" or {bound}" if _limit is not None else "")
            remedy = f"{remedy} Or use --device cpu."
        asked = re.search(r"allocate ([\d.]+) ?(?:bytes|([KMG])iB)", str(error))
        wanted = ""
        if asked is not None:
            unit = _UNITS[asked[2] or ""]
            wanted = f" (an array of {readable_size(float(asked[1]) * unit)} was refused)"
        raise OutOfMemoryError(f"{what} needs more than {bound}{wanted}. {remedy}") from None


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    return any(words in str(error).lower() for words in _REFUSED)


def _held() -> int | None:
    """Private writable memory of this process in bytes; None where the system does not say."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData:"))
    except (OSError, StopIteration):
        return None


@contextmanager
def _system_limit() -> Iterator[None]:
    if _held() is None or _limit is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    _set(_limit)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _set(size: int) -> None:
    if _held() is None:
        return
    import resource

    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))
