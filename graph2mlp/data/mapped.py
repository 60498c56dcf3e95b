"""`.npz` files whose arrays can be mapped instead of read: written with aligned members, opened without a copy.

The arrays of an `.npz` lie in the zip as `.npy` files. numpy stores them as they are, but at odd places, and a float at
an odd address is no float to a vector unit. `write_aligned` pads each member's header so that its data begin at a
multiple of 64 bytes; any reader of `.npz` reads such a file.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from graph2mlp.memory import not_counted

__all__ = ["UNREADABLE", "map_member", "write_aligned"]

UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, MemoryError, OverflowError, RuntimeError,
    NotImplementedError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy raises, without unpickling, on `.npy` and `.npz` files that are damaged or something else."""

_ALIGNED = 64
_FROM = 1 << 24
"""Bytes of a member below which it is read: a file in use should not be kept mapped for nothing."""
_PADDING = 0xD935
"""The field in a zip header that is known to hold padding (as Android's zipalign writes it)."""
_LOCAL = struct.Struct("<4s5H3I2H")


def write_aligned(file: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an uncompressed `.npz` with every array's data at a multiple of 64 bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            # zipfile adds a field of 20 bytes for sizes beyond 4 GB; ours needs 4 bytes of its own.
            header = _LOCAL.size + len(info.filename.encode()) + 20 + 4
            padding = -(file.tell() + header) % _ALIGNED
            info.extra = struct.pack("<HH", _PADDING, padding) + bytes(padding)
            with archive.open(info, "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(array), allow_pickle=False)


def map_member(path: Path, info: zipfile.ZipInfo) -> NDArray[Any] | None:
    """The array of an `.npz` member, mapped copy-on-write: the file is never changed. None when it must be read.

    Read are small members, compressed ones, those at an odd place, and those in Fortran's order or of Python objects.
    """
    if info.compress_type != zipfile.ZIP_STORED or info.file_size < _FROM:
        return None
    with path.open("rb") as file:
        file.seek(info.header_offset)
        parts = _LOCAL.unpack(file.read(_LOCAL.size))
        if parts[0] != b"PK\x03\x04":
            return None
        file.seek(parts[9] + parts[10], 1)
        begin, version = file.tell(), npy.read_magic(file)
        if version != (1, 0):
            return None
        shape, fortran, dtype = npy.read_array_header_1_0(file)
        offset = file.tell()
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if dtype.hasobject or fortran or offset % _ALIGNED or offset - begin + size != info.file_size:
        return None
    if offset + size > path.stat().st_size:
        return None
    not_counted(info.file_size)
    return np.memmap(path, dtype, "c", offset, shape).view(np.ndarray)
