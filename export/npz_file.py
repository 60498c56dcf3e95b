"""Arrays of an uncompressed `.npz` in memory, read with every size checked first. No torch.

`numpy.load` believes the header of an array and allocates what it asks for; one line of a damaged or hostile file is
then enough to take all the memory of a small device. Here no array is larger than the file.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from graph2mlp.errors import one_line

__all__ = ["read_npz"]

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` as `numpy.savez` writes it; never unpickles.

    Raises:
        ValueError: not such a file, compressed, damaged, or an array says it is larger than its bytes.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > len(content):
                raise ValueError("it claims to hold more than its size")
            for member in members:
                name = member.filename.removesuffix(".npy")
                if member.compress_type != zipfile.ZIP_STORED or name == member.filename or name in arrays:
                    raise ValueError(f"member {member.filename[:40]!r} is compressed, no array, or there twice")
                arrays[name] = _array(archive.read(member), name)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error, OSError) as error:
        raise ValueError(one_line(error)) from None
    return arrays


def _array(data: bytes, name: str) -> NDArray[Any]:
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version}")
        shape, fortran, dtype = _HEADERS[version](stream)
    except Exception as error:  # numpy evaluates it as Python's literals, with errors of every kind
        raise ValueError(f"array '{name[:40]}' has no valid header ({one_line(error, 80)})") from None
    body = data[stream.tell() :]
    if dtype.hasobject or dtype.itemsize < 1 or min(shape, default=0) < 0 or len(shape) > 8:
        raise ValueError(f"array '{name[:40]}' is of type {str(dtype)[:40]}, shape {str(shape)[:40]}")
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"array '{name[:40]}' has {len(body)} bytes, its shape {str(shape)[:40]} does not")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C").copy()
