"""The deployable bundle, a folder or one `.zip`: written whole or not at all, verified whenever it is opened. No torch.

    bundle.json   what it is (see `BundleManifest`), with the checksum of every other file
    model.onnx    the network with everything a request needs; or model.ort, the same in onnxruntime's own format
    model.onnx.data   only beside a large model in a folder: its weights, which are memory-mapped instead of loaded
    sample.npz    real requests with the expected answers, for a self-check on the device
    nodes.npz     `names [N]`: what the user calls the nodes of the table (only where they are not called 0 to N - 1)

A checksum proves that a bundle is intact, not who made it. Nothing in a bundle is ever executed or unpickled.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from graph2mlp.atomic import atomic_folder, atomic_path
from graph2mlp.errors import BundleError, one_line
from graph2mlp.export.integrity import NAME, Verify, check_listing, check_verify, file_entry, verify_files
from graph2mlp.export.manifest import (
    SCHEMA,
    BundleManifest,
    FileEntry,
    StructureInfo,
    StudentInfo,
    TensorSpec,
)
from graph2mlp.export.npz_file import read_npz
from graph2mlp.export.onnx_file import external_files

__all__ = [
    "EXTERNAL_DATA",
    "MANIFEST",
    "MODEL",
    "NODES",
    "ORT_MODEL",
    "SAMPLE",
    "SCHEMA",
    "Bundle",
    "BundleManifest",
    "FileEntry",
    "StructureInfo",
    "StudentInfo",
    "TensorSpec",
    "is_bundle",
    "open_bundle",
    "write_bundle",
]

MANIFEST, MODEL, EXTERNAL_DATA, SAMPLE = "bundle.json", "model.onnx", "model.onnx.data", "sample.npz"
NODES = "nodes.npz"
ORT_MODEL = "model.ort"

_MANIFEST_LIMIT = 16 * 2**20
_RUN_SETTINGS = "config.toml"
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""Equal content gives an equal zip."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Bundle:
    """An opened, verified bundle. A folder keeps its files on disk, a zip holds them in memory."""

    path: Path
    manifest: BundleManifest
    contents: Mapping[str, bytes | Path]
    sampled: tuple[str, ...] = ()
    """Large files of which opening `fast` has read only some blocks; see `verify`."""

    @property
    def size(self) -> int:
        """Bytes of all files that `bundle.json` lists."""
        return sum(entry.bytes for entry in self.manifest.files.values())

    def read(self, name: str) -> bytes:
        """One file."""
        content = self.contents[name]
        return content.read_bytes() if isinstance(content, Path) else content

    def verify(self) -> None:
        """Read the large files that were only sampled completely.

        Raises:
            BundleError: one is damaged.
        """
        try:
            verify_files(self.path, {name: self.manifest.files[name] for name in self.sampled}, self.contents)
        except OSError as error:
            raise BundleError(f"{self.path} cannot be read: {error.strerror or error}.") from None

    def model(self) -> bytes | str:
        """What onnxruntime opens: the path when weights lie beside the model, so that they are memory-mapped."""
        if ORT_MODEL in self.contents:
            return self.read(ORT_MODEL)
        content = self.contents[MODEL]
        return str(content) if EXTERNAL_DATA in self.contents and isinstance(content, Path) else self.read(MODEL)

    def sample(self) -> dict[str, NDArray[Any]]:
        """The arrays of `sample.npz`."""
        return self._arrays(SAMPLE)

    def node_names(self) -> NDArray[Any] | None:
        """What the user calls the nodes of the structure table, `[N]` int64 or text; None where by their position."""
        if NODES not in self.contents:
            return None
        names = self._arrays(NODES).get("names")
        nodes = self.manifest.structure.nodes if self.manifest.structure is not None else 0
        if names is None or names.shape != (nodes,) or names.dtype.kind not in "iU":
            raise BundleError(f"{self.path}: {NODES} must hold {nodes} names of nodes. Export it again.")
        return names

    def _arrays(self, file: str) -> dict[str, NDArray[Any]]:
        try:
            return read_npz(self.read(file))
        except (ValueError, OSError) as error:
            raise BundleError(f"{self.path}: {file} cannot be read ({one_line(error)}). Export it again.") from None


def write_bundle(target: Path, manifest: BundleManifest, files: Mapping[str, bytes | Path]) -> BundleManifest:
    """Write a folder, or one file when `target` ends in `.zip`; replaces what is there in one step.

    Returns the manifest with checksums filled in.

    Raises:
        BundleError: a file name is not flat, names of features fill more than `bundle.json` may hold, or a zip is asked
            for weights that must be memory-mapped.
    """
    zipped = target.suffix == ".zip"
    for name in files:
        if not NAME.fullmatch(name) or name == MANIFEST:
            raise BundleError(f"A bundle cannot hold a file named '{name}'.")
    if zipped and EXTERNAL_DATA in files:
        raise BundleError(f"The weights are too large for a zip ({target}). Export to a folder instead.")
    manifest = replace(manifest, files={name: file_entry(content) for name, content in files.items()})
    about = manifest.to_json().encode()
    if len(about) > _MANIFEST_LIMIT:
        raise BundleError(
            f"{MANIFEST} would have {len(about)} bytes, and {_MANIFEST_LIMIT} are read. Shorten the names of the "
            "features or classes of the graph; what was trained stays valid."
        )
    everything = {MANIFEST: about, **files}
    if zipped:
        with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, content in everything.items():
                data = content.read_bytes() if isinstance(content, Path) else content
                archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), data)
    else:
        with atomic_folder(target) as folder:
            for name, content in everything.items():
                if isinstance(content, Path):
                    shutil.copyfile(content, folder / name)
                else:
                    (folder / name).write_bytes(content)
    return manifest


def is_bundle(path: Path) -> bool:
    """Whether a folder or zip says that it is a bundle; whether that is true, `open_bundle` finds out."""
    if not path.is_file():
        return (path / MANIFEST).is_file()
    try:
        with zipfile.ZipFile(path) as archive:  # an .npz file is a zip, too
            return MANIFEST in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def open_bundle(path: str | os.PathLike[str], *, verify: Verify = "full") -> Bundle:
    """Open and verify a folder or a zip: schema, file list, names, sizes and every checksum.

    `verify="fast"` does not read a large file of weights completely; see `graph2mlp.export.integrity`.

    Raises:
        BundleError: the bundle is missing, damaged, from another version, or not a bundle.
        ConfigError: `verify` is something else.
    """
    check_verify(verify)
    path = Path(path)
    if not path.exists():
        raise BundleError(f"{path} does not exist. Give the folder or .zip that 'graph2mlp export' wrote.")
    if not path.is_dir() and not path.is_file():  # reading a pipe would wait for ever
        raise BundleError(f"{path} is not a readable zip (not a plain file). Copy or export it again.")
    try:
        contents = _list_folder(path) if path.is_dir() else _read_zip(path)
        if MANIFEST not in contents:
            raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}.")
        content = contents.pop(MANIFEST)
        if isinstance(content, Path) and content.stat().st_size > _MANIFEST_LIMIT:
            raise BundleError(f"{path}: {MANIFEST} is larger than {_MANIFEST_LIMIT} bytes.")
        text = content.read_bytes() if isinstance(content, Path) else content
        manifest = BundleManifest.from_json(text, where=str(path))
        if MODEL in contents and ORT_MODEL in contents:
            raise BundleError(f"{path} holds two models, '{MODEL}' and '{ORT_MODEL}'. Export it again.")
        check_listing(path, manifest.files, contents, (ORT_MODEL if ORT_MODEL in contents else MODEL, SAMPLE))
        sampled = verify_files(path, manifest.files, contents, verify=verify)
        bundle = Bundle(path=path, manifest=manifest, contents=contents, sampled=sampled)
        _check_external_names(bundle)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}.") from None
    return bundle


def _list_folder(folder: Path) -> dict[str, bytes | Path]:
    if not (folder / MANIFEST).exists():
        raise BundleError(f"{folder} {_no_bundle(folder)}")
    found: dict[str, bytes | Path] = {}
    for entry in sorted(folder.iterdir()):
        if not stat.S_ISREG(entry.lstat().st_mode):  # links could lead out of the folder
            raise BundleError(
                f"{folder} holds '{entry.name}', which is not a plain file. A bundle has no folders or links."
            )
        found[entry.name] = entry
    return found


def _no_bundle(folder: Path) -> str:
    """What a folder without a manifest is: mostly the run that a bundle is exported from, and into."""
    if not (folder / _RUN_SETTINGS).is_file():
        return f"is not a bundle: it has no {MANIFEST}."
    inside = sorted(path for path in folder.iterdir() if is_bundle(path))
    if not inside:
        return f"is a run, not a bundle. Export it first: graph2mlp export {folder} --onnx"
    return f"is a run, not a bundle. Give what was exported from it: {', '.join(map(str, inside))}"


def _read_zip(path: Path) -> dict[str, bytes | Path]:
    found: dict[str, bytes | Path] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            limit = path.stat().st_size  # we store without compression: more would be a decompression bomb
            for info in archive.infolist():
                if not NAME.fullmatch(info.filename) or stat.S_ISLNK(info.external_attr >> 16):
                    raise BundleError(f"{path} holds {info.filename[:80]!r}, which is not the name of a plain file.")
                if info.filename in found:
                    raise BundleError(f"{path} holds '{info.filename}' twice.")
                limit -= info.file_size
                if limit < 0:
                    raise BundleError(f"{path} claims to hold more than its size. Bundles are not compressed.")
                found[info.filename] = archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleError(f"{path} is not a readable zip ({one_line(error)}). Copy or export it again.") from None
    return found


def _check_external_names(bundle: Bundle) -> None:
    """A model may name files to read weights from; only those of the bundle are allowed."""
    if MODEL not in bundle.contents:
        return  # the other format has no such names
    beside = {EXTERNAL_DATA} if isinstance(bundle.contents.get(EXTERNAL_DATA), Path) else set()
    if wrong := sorted(external_files(bundle.read(MODEL), where=str(bundle.path)) - beside):
        name = wrong[0][:80]
        raise BundleError(f"{bundle.path}: {MODEL} wants to read the file {name!r}, which is not allowed here.")
