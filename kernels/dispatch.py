"""Which implementation of a loss runs: chosen anew at every call, never at import."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from graph2mlp.errors import BackendError, suggest

__all__ = ["TILES_KIB", "Backend", "Status", "available", "backend", "chosen", "select", "use"]

Backend: TypeAlias = Literal["auto", "triton", "chunked", "dense", "interpret"]
"""`dense` is the formula as published; `chunked` plain torch, linear in memory; `triton` the fused kernels on a GPU;
`interpret` the same kernels in Triton's interpreter, for tests; `auto` fused where it can be, else chunked."""

TILES_KIB = 163
"""Shared memory that the kernels over all pairs need at their widest: what the data-centre cards since sm_80 have."""

_chosen: ContextVar[Backend] = ContextVar("graph2mlp_backend", default="auto")


@dataclass(frozen=True)
class Status:
    """Whether a backend works here. It is true or false like a bool."""

    works: bool
    reason: str = ""
    """Why not; empty when it works."""

    def __bool__(self) -> bool:
        return self.works


def available() -> dict[str, Status]:
    """Which backends work on this machine, and why the others do not."""
    found = {"auto": Status(True), "chunked": Status(True), "dense": Status(True)}
    if not _has_triton():
        found["triton"] = found["interpret"] = Status(False, "triton is not installed (it has wheels for Linux only)")
        return found
    fault = _launch_fault() if torch.cuda.is_available() else "torch sees no CUDA device"
    found["triton"] = Status(not fault, fault)
    early = _interpreting()
    found["interpret"] = Status(early, "" if early else "TRITON_INTERPRET=1 was not set before triton was imported")
    return found


@contextmanager
def use(name: Backend) -> Iterator[None]:
    """Run the losses called inside with one backend: `with use("chunked"): ...`.

    With `auto` a case that the fused kernels do not cover falls back to `chunked`, with one warning; with `triton` it
    is an error. The choice holds for this thread, and for the backward pass of what is computed inside.

    Raises:
        BackendError: no such backend, or it does not work on this machine.
    """
    if name not in get_args(Backend):
        raise BackendError(f"There is no backend '{name}'. {suggest(str(name), get_args(Backend))}")
    status = available()[name]
    if not status:
        raise BackendError(f"The backend '{name}' does not work here: {status.reason}. 'chunked' always does.")
    with chosen(name):
        yield


@contextmanager
def chosen(name: Backend) -> Iterator[None]:
    """`use` without the check: for a choice that was made before."""
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def backend() -> Backend:
    """The backend in force. A compiled function keeps what it was traced with; `select` decides at every call."""
    return _chosen.get()


def select(
    loss: str, *tensors: Tensor, unsupported: str | None = None, shared_kib: int = 0
) -> Literal["triton", "chunked"]:
    """Whether the fused kernels take this call. `unsupported` says why they cannot, None when they can.

    `shared_kib` is the shared memory a program of theirs needs, which smaller GPUs may not have.

    Raises:
        BackendError: `triton` or `interpret` is in force and the kernels cannot take the call.
    """
    wanted = backend()
    on_gpu = all(tensor.is_cuda for tensor in tensors)
    if wanted == "chunked" or (wanted == "auto" and not (on_gpu and _has_triton())):
        return "chunked"
    if wanted == "auto" and (fault := _launch_fault()):
        _warn_once(f"{fault}; the slower chunked forms run instead.")
        return "chunked"
    if unsupported is None and on_gpu and shared_kib:
        found = _shared_kib(tensors[0].device)
        if found is not None and found < shared_kib:
            unsupported = f"this GPU gives a program {found} KiB of shared memory ({shared_kib} are needed)"
    if unsupported is not None:
        if wanted == "auto":
            _warn_once(f"{loss}: {unsupported}; the slower chunked form runs instead.")
            return "chunked"
        raise BackendError(f"{loss}: the fused kernel cannot take this call: {unsupported}. Use 'auto' or 'chunked'.")
    if wanted == "triton" and not on_gpu:
        device = next(tensor.device for tensor in tensors if not tensor.is_cuda)
        raise BackendError(
            f"{loss}: the backend 'triton' needs tensors on a GPU, got {device}. Move them, or use 'auto'."
        )
    return "triton"


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=6)


@cache
def _shared_kib(device: torch.device) -> int | None:
    """Shared memory that one program can have; None if torch does not say."""
    if not torch.cuda.is_available():
        return None
    most = getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", None)
    return None if most is None else int(most) // 1024


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@cache
def _launch_fault() -> str:
    """Why Triton cannot start a kernel on the GPU (it compiles its launcher first, which takes a C compiler), or ""."""
    try:
        from triton.runtime import driver

        driver.active.get_current_device()
    except Exception as error:  # whatever its build says
        return f"Triton cannot start kernels here ({(str(error).splitlines() or [type(error).__name__])[0]})"
    return ""


def _interpreting() -> bool:
    """Whether kernels are, or would be, built for the interpreter. Triton reads the variable when it is imported."""
    if "triton" in sys.modules:
        import triton
        import triton.language as tl

        return not isinstance(tl.zeros, triton.JITFunction)
    return os.environ.get("TRITON_INTERPRET") == "1"
