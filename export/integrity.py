"""Is a bundle what it was when it was written? Names, sizes and checksums. No torch.

Every file has a sha256 in `bundle.json`. A file above 64 MB (only the weights of a large table are) has one more per
block of 4 MB, so that opening need not read all of it: `fast` verification checks its size and 16 blocks spread over
it, the first and the last among them, and everything else completely. That refuses a file that is cut off, or is
another file, or has a damaged stretch of a sixteenth; a single changed byte is found by `full` verification only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from graph2mlp.errors import BundleError, ConfigError
from graph2mlp.export.manifest import FileEntry

__all__ = ["BLOCK", "LARGE", "NAME", "Verify", "check_listing", "check_verify", "file_entry", "verify_files"]

Verify = Literal["full", "fast"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names are flat, so none can leave the folder."""

LARGE = 64 * 2**20
"""Bytes from which a file is verified by blocks when it is opened `fast`."""

BLOCK = 4 * 2**20

_SAMPLED = 16


def check_verify(verify: str) -> None:
    """Refuse an unknown kind of verification.

    Raises:
        ConfigError: it is neither `full` nor `fast`.
    """
    if verify not in ("full", "fast"):
        raise ConfigError(f"verify must be 'full' or 'fast' (got '{verify}')")


def file_entry(content: bytes | Path) -> FileEntry:
    """Size and checksums of a file, by block too when it is large."""
    if isinstance(content, bytes):
        return FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    size, blocks = content.stat().st_size, []
    whole = hashlib.sha256()
    with content.open("rb") as file:
        while block := file.read(BLOCK):
            whole.update(block)
            if size >= LARGE:
                blocks.append(hashlib.sha256(block).hexdigest())
    return FileEntry(sha256=whole.hexdigest(), bytes=size, blocks=tuple(blocks))


def check_listing(
    path: Path, listed: Mapping[str, FileEntry], found: Mapping[str, bytes | Path], needed: tuple[str, ...]
) -> None:
    """The files that are there are those that `bundle.json` lists, under names that stay in the folder.

    Raises:
        BundleError: a name is not flat, or a file is missing or not listed.
    """
    for name in listed:
        if not NAME.fullmatch(name):
            raise BundleError(f"{path}: bundle.json lists {name[:80]!r}, which is not the name of a plain file.")
        if name not in found:
            raise BundleError(f"{path} lacks '{name}', which bundle.json lists. Copy the whole bundle again.")
    for name in found:
        if name not in listed:
            raise BundleError(f"{path} holds {name[:80]!r}, which bundle.json does not list. Remove it.")
    for name in needed:
        if name not in listed:
            raise BundleError(f"{path} is not complete: bundle.json does not list '{name}'.")


def verify_files(
    path: Path, listed: Mapping[str, FileEntry], found: Mapping[str, bytes | Path], *, verify: Verify = "full"
) -> tuple[str, ...]:
    """Hold every file against its entry; the names of those that were not read completely.

    Raises:
        BundleError: a file is damaged.
        OSError: a file cannot be read.
    """
    sampled = []
    for name, expected in listed.items():
        content = found[name]
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size != expected.bytes:
            raise BundleError(_damaged(path, name, f"{size} bytes, expected {expected.bytes}"))
        if verify == "fast" and isinstance(content, Path) and size >= LARGE and expected.blocks:
            sampled.append(name)
            _verify_blocks(path, name, content, expected)
        elif _sha256(content) != expected.sha256:
            raise BundleError(_damaged(path, name, "same size"))
    return tuple(sampled)


def _verify_blocks(path: Path, name: str, content: Path, expected: FileEntry) -> None:
    count = -(-expected.bytes // BLOCK)
    if len(expected.blocks) != count:
        raise BundleError(f"{path}: bundle.json lists {len(expected.blocks)} blocks of '{name}', expected {count}.")
    steps = min(_SAMPLED, count) - 1
    with content.open("rb") as file:
        for number in sorted({round(i * (count - 1) / steps) for i in range(steps + 1)}):
            file.seek(number * BLOCK)
            if hashlib.sha256(file.read(BLOCK)).hexdigest() != expected.blocks[number]:
                raise BundleError(_damaged(path, name, f"block {number} of {count}"))


def _damaged(path: Path, name: str, how: str) -> str:
    return (
        f"{path}: '{name}' is damaged: its checksum is not the one in bundle.json ({how}). "
        "Copy or export the bundle again."
    )


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
