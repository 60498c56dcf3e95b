"""Compile for sm_90, without a GPU, every kernel that a loss starts: `python -m tests.kernels.sm90 info_nce`.

`tests/kernels/test_<loss>.py` holds `shipped()`, which calls the fused form once for each configuration it ships. Here
the launcher only records and compiles what it is asked to start, and prints one line of JSON for each kernel. Must run
in a process without TRITON_INTERPRET.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from graph2mlp.kernels import launch

_TYPES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16",
    torch.int64: "i64", torch.int32: "i32", torch.int8: "i8", torch.uint8: "u8", torch.bool: "i1",
}  # fmt: skip
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def _argument(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"*{_TYPES[value.dtype]}"
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([_TOOLS / name, *arguments], capture_output=True, text=True, check=True).stdout


def compiled(kernel: Any, arguments: dict[str, Any], constants: dict[str, Any], tiles: launch.Tiles) -> dict[str, Any]:
    """Registers, spilled bytes, shared memory and instruction counts of one kernel on sm_90."""
    if "UPCAST" in kernel.arg_names:
        constants = {**constants, "UPCAST": False}
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else _argument(arguments[name]) for name in names}
    # What the launcher finds out at run time: torch aligns its memory, so pointers are multiples of 16.
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    done = triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": tiles.warps, "num_stages": tiles.stages},
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(done.asm["cubin"])
        usage = re.search(r"REG:(\d+) STACK:(\d+)", _tool("cuobjdump", "-res-usage", str(file)))
        code = _tool("nvdisasm", "-c", str(file))
    assert usage, "cuobjdump says nothing of registers"
    return {
        "kernel": kernel.fn.__name__,
        "constants": {name: value for name, value in constants.items() if name != "UPCAST"},
        "types": sorted({one for one in signature.values() if one.startswith("*")}),
        "registers": int(usage[1]),
        "stack": int(usage[2]),
        "spills": len(re.findall(r"\b(?:STL|LDL)\b", code)),
        "shared": done.metadata.shared,
        "products": "tl.dot" in kernel.src,
        "wgmma": code.count("HGMMA"),
        "copies": code.count("LDGSTS") + code.count("UTMALDG"),
    }


def main() -> None:
    """Print one line for each distinct kernel that `shipped()` of the named test module starts."""
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # its default changes in triton 3.10
    seen = set()

    def record(
        kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], constants: dict[str, Any], tiles: launch.Tiles
    ) -> None:
        key = (kernel.fn.__name__, str(constants), tiles, str({n: _argument(v) for n, v in arguments.items()}))
        if key not in seen:
            seen.add(key)
            print(json.dumps(compiled(kernel, arguments, constants, tiles)), flush=True)

    launch.run = record
    importlib.import_module(f"tests.kernels.test_{sys.argv[1]}").shipped()


if __name__ == "__main__":
    main()
