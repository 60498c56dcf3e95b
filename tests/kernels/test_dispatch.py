"""Which implementation runs, and what is said when one cannot."""

from __future__ import annotations

import importlib
import sys
import threading
import warnings
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph2mlp.errors import BackendError
from graph2mlp.kernels import available, use
from graph2mlp.kernels.dispatch import _launch_fault, backend, select
from graph2mlp.kernels.functional import info_nce
from tests.kernels.compare import in_new_process


def _on(device: str) -> Tensor:
    """As much of a tensor as `select` looks at, also on machines without a GPU."""
    return cast(Tensor, SimpleNamespace(is_cuda=device == "cuda", device=device))


@pytest.fixture(autouse=True)
def _compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Triton could start kernels here."""
    monkeypatch.setattr("graph2mlp.kernels.dispatch._launch_fault", lambda: "")


def _without(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every backend pass the check of `use`, so that the choice per call can be tested anywhere."""
    monkeypatch.setattr("graph2mlp.kernels.dispatch.available", lambda: dict.fromkeys(["auto", "triton", status], True))


def test_a_machine_says_what_it_can_do() -> None:
    """A user without a GPU reads the reason here, not in a stack trace."""
    found = available()
    assert found["chunked"]
    assert found["dense"]
    assert bool(found["triton"]) == (torch.cuda.is_available() and sys.platform == "linux")
    assert all(status.works == (status.reason == "") for status in found.values())


def test_unknown_and_missing_backends_are_refused() -> None:
    """A typing error must not mean 'auto'."""
    with pytest.raises(BackendError, match="Did you mean 'triton'"), use(cast(Any, "tritn")):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="torch sees no CUDA device.*'chunked' always does"), use("triton"):
            pass
    assert backend() == "auto"


def test_the_choice_ends_with_the_block_and_stays_in_its_thread() -> None:
    """Also when the block fails; another thread trains on undisturbed."""
    seen: list[str] = []

    def fails() -> None:
        with use("dense"), use("chunked"):
            thread = threading.Thread(target=lambda: seen.append(backend()))
            thread.start()
            thread.join()
            seen.append(backend())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen == ["auto", "chunked"]
    assert backend() == "auto"


def test_auto_takes_the_fused_form_on_a_gpu_only() -> None:
    """And the chunked one for a mixture, which then fails with torch's own message about devices."""
    assert select("loss", _on("cuda"), _on("cuda")) == "triton"
    assert select("loss", _on("cpu")) == "chunked"
    assert select("loss", _on("cuda"), _on("cpu")) == "chunked"
    with use("chunked"):
        assert select("loss", _on("cuda")) == "chunked"


def test_auto_does_without_a_launcher_that_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton compiles it at the first launch; many images have no compiler, and a training must not end there."""
    monkeypatch.undo()
    _launch_fault.cache_clear()
    runtime = importlib.import_module("triton.runtime")

    def refuse() -> None:
        raise RuntimeError("no C compiler\nat all")

    for answer, taken in ((refuse, "chunked"), (lambda: 0, "triton")):
        driver = SimpleNamespace(active=SimpleNamespace(get_current_device=answer))
        monkeypatch.setattr(runtime, "driver", driver)
        _launch_fault.cache_clear()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert select("loss d", _on("cuda")) == taken
            assert select("loss d", _on("cuda")) == taken
        told = "Triton cannot start kernels here (no C compiler); the slower chunked forms run instead."
        assert [str(one.message) for one in said] == ([told] if taken == "chunked" else [])
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        assert available()["triton"].reason == ("" if taken == "triton" else told.partition(";")[0])
    _launch_fault.cache_clear()


def test_an_unsupported_case_falls_back_with_one_warning() -> None:
    """A warning per step would drown a training log; none would leave a user wondering why it is slow."""
    with pytest.warns(UserWarning, match="loss a: 300 wide; the slower chunked form runs instead"):
        assert select("loss a", _on("cuda"), unsupported="300 wide") == "chunked"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select("loss a", _on("cuda"), unsupported="300 wide") == "chunked"
        assert select("loss a", _on("cpu"), unsupported="301 wide") == "chunked"


def test_the_fused_form_on_demand_is_an_error_when_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for it measures it, and must not measure something else."""
    _without("interpret", monkeypatch)
    with use("triton"):
        with pytest.raises(BackendError, match="loss b: the fused kernel cannot take this call: 300 wide"):
            select("loss b", _on("cuda"), unsupported="300 wide")
        with pytest.raises(BackendError, match="loss b: the backend 'triton' needs tensors on a GPU, got cpu"):
            select("loss b", _on("cuda"), _on("cpu"))
    with use("interpret"):
        assert select("loss b", _on("cpu")) == "triton"
        with pytest.raises(BackendError, match="300 wide"):
            select("loss b", _on("cpu"), unsupported="300 wide")


def test_a_small_gpu_runs_what_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles over all pairs do not fit on a desktop card, and would end in an error of Triton's; row kernels do."""
    monkeypatch.setattr("graph2mlp.kernels.dispatch._shared_kib", lambda device: 99)
    with pytest.warns(
        UserWarning, match=r"loss c: this GPU gives a program 99 KiB of shared memory \(163 are needed\)"
    ):
        assert select("loss c", _on("cuda"), shared_kib=163) == "chunked"
    assert select("loss c", _on("cuda")) == "triton"
    monkeypatch.setattr("graph2mlp.kernels.dispatch._shared_kib", lambda device: None)
    assert select("loss c", _on("cuda"), shared_kib=163) == "triton"


def test_float64_never_meets_the_fused_form() -> None:
    """It would be rounded to float32 on the way."""
    rows = torch.eye(4, dtype=torch.float64)
    with use("interpret"), pytest.raises(BackendError, match="float64 rows 4 wide"):
        info_nce(rows, rows)


def test_the_package_works_without_triton() -> None:
    """There are no wheels for macOS and Windows. Importing it must not need one, nor look for a GPU."""
    said = in_new_process(
        "import sys; sys.modules['triton'] = None\n"
        "torch.cuda.is_available = lambda: 1 / 0\n"
        "from graph2mlp import kernels\n"
        "from graph2mlp.kernels.functional import info_nce, rsd\n"
        "rows = torch.eye(4)\n"
        "print(float(info_nce(rows, rows)) + float(rsd(rows, rows)) < 1e-4, kernels.available()['triton'].reason)"
    )
    assert said.strip() == "True triton is not installed (it has wheels for Linux only)"
