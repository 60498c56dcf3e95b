"""A device that is not there: its tensors live on the CPU, but refuse to meet the CPU's, as those of a GPU do.

What is computed on it agrees with the CPU in every bit, random numbers included, so a training that forgets to move
something fails, and one that moves everything gives the CPU's result. It goes by the name of `lazy`, a device that
torch knows in name everywhere; nothing of torch's lazy tensors takes part.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["DEVICE", "simulated_device"]

DEVICE = torch.device("lazy", 0)

_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
"""What may read one device and write the other."""


@contextmanager
def simulated_device() -> Iterator[torch.device]:
    """In here tensors can be moved to and made on the device."""
    with pytest.MonkeyPatch.context() as patch, _Simulation():
        # The optimisers' fused form asks by name whether a device has it.
        module = sys.modules["torch.optim.optimizer"]  # torch hides the module behind the class of that name
        patch.setattr(torch, "autocast", _autocast)
        patch.setattr(module, "_get_fused_kernels_supported_devices", lambda: ["cpu", DEVICE.type])
        yield DEVICE


_torch_autocast = torch.autocast


def _autocast(device_type: str, **how: Any) -> torch.autocast:
    """There is none for the device, and it computes as the CPU does."""
    return _torch_autocast("cpu" if device_type == DEVICE.type else device_type, **how)


class _Remote(Tensor):
    """A tensor of the device: shape and layout of a tensor without numbers, its numbers in `local`."""

    local: Tensor

    @staticmethod
    def __new__(cls, local: Tensor) -> _Remote:
        with torch._C._DisableTorchDispatch():
            made: _Remote = torch.Tensor._make_subclass(
                cls, _without_numbers(local), False, dispatch_device=True, device_for_backend_keys=DEVICE
            )
        made.local = local
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


class _Simulation(TorchDispatchMode):
    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


def _run(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation where its tensors are."""
    if op is torch.ops.prim.device.default:
        return args[0].device
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    wanted = kwargs.get("device")
    remote = any(isinstance(one, _Remote) for one in tensors)
    if not remote and (wanted is None or torch.device(wanted) != DEVICE):
        return op(*args, **kwargs)
    # A number without dimensions may come along, as it may with a GPU.
    if remote and op not in _COPIES and any(one.dim() for one in tensors if not isinstance(one, _Remote)):
        raise RuntimeError(f"{op}: expected all tensors to be on the same device, got {DEVICE} and cpu")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = op(*tree_map(_local, args), **tree_map(_local, kwargs))
    if wanted is not None and torch.device(wanted) != DEVICE:
        return out.clone()  # never the memory of the device itself
    given = {id(_local(one)): one for one in tensors}  # what works in place gives back its argument
    return tree_map(lambda one: _remote(one, given) if isinstance(one, Tensor) else one, out)


def _remote(made: Tensor, given: dict[int, Tensor]) -> Tensor:
    return given[id(made)] if id(made) in given else _Remote(made)


def _local(value: Any) -> Any:
    return value.local if isinstance(value, _Remote) else value


def _without_numbers(local: Tensor) -> Tensor:
    if local.layout == torch.strided:
        return torch.empty_strided(local.size(), local.stride(), dtype=local.dtype, device="meta")
    rows = local.layout == torch.sparse_csr
    parts = (local.crow_indices(), local.col_indices()) if rows else (local.ccol_indices(), local.row_indices())
    empty = [one.to("meta") for one in (*parts, local.values())]
    return torch.sparse_compressed_tensor(*empty, local.size(), layout=local.layout, check_invariants=False)
