"""Training on a device: nothing is left behind on the CPU, and what comes back is what the CPU would have learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graph2mlp.device import CPU, device_name, find_device
from graph2mlp.errors import ConfigError, OutOfMemoryError
from graph2mlp.memory import memory_for
from graph2mlp.methods import METHODS
from graph2mlp.teachers.config import TEACHER_NAMES, TeacherConfig
from graph2mlp.teachers.train import train_teacher
from graph2mlp.training.checkpoint import Checkpoint
from graph2mlp.training.student import train_student
from tests.cli import assert_one_line_error, distill, invoke, result_of
from tests.graphs import community_graph, save_npz, task_graph
from tests.pipeline import make_stage, same_weights, small_config
from tests.simulated import DEVICE, simulated_device

NOISY = ("student.dropout=0.4", "student.input_dropout=0.1", "student.structure_dropout=0.2")
SUMS_OTHERWISE = ("lsp", "alignahead")
"""Methods whose loss adds up neighbours with torch's sparse products on the CPU, and in blocks elsewhere."""


def test_the_simulation_refuses_what_a_gpu_would() -> None:
    """Were it to compute with whatever it gets, no test below could fail."""
    with simulated_device() as device:
        there = torch.ones(3).to(device)
        for meet in (lambda one: there + one, lambda one: torch.cat([there, one]), lambda one: one.add_(there)):
            with pytest.raises(RuntimeError, match="same device"):
                meet(torch.ones(3))
        assert (there * 2 + torch.tensor(1.0)).cpu().tolist() == [3, 3, 3]
        assert (there.device, there.cpu().device) == (device, CPU)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_student(method: str, sparse: bool) -> None:
    """Weights, heads, bank and batches are all on the device, or the simulation refuses."""
    config = small_config(method, overrides=NOISY)
    stage, spec = make_stage(config, community_graph(sparse=sparse, production=True))
    stage = replace(stage, new_nodes=True)
    here, told = train_student(config.hyper, spec, stage)
    with simulated_device() as device:
        back, fitted = train_student(config.hyper, spec, replace(stage, device=device))
    assert {tensor.device for tensor in back.state_dict().values()} == {CPU}
    assert (told.epochs, told.best_epoch, told.val) == (fitted.epochs, fitted.best_epoch, fitted.val)
    if method in SUMS_OTHERWISE:
        torch.testing.assert_close(here.state_dict(), back.state_dict(), rtol=1e-4, atol=1e-5)
    else:
        assert same_weights(here.state_dict(), back.state_dict())


def test_student_of_a_large_graph() -> None:
    """Batches are cut by another thread, and moved by the one that trains."""
    config = small_config("blend", overrides=[*NOISY, "train.epoch_rows=40"])
    stage, spec = make_stage(config, community_graph())
    here, _ = train_student(config.hyper, spec, stage)
    with simulated_device() as device:
        back, _ = train_student(config.hyper, spec, replace(stage, device=device))
    assert same_weights(here.state_dict(), back.state_dict())


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_student_of_another_task(task: str) -> None:
    """Quantities are learned in deviations of the training nodes, which are tensors, too."""
    config = small_config("blend", overrides=NOISY)
    stage, spec = make_stage(config, task_graph(task))
    here, _ = train_student(config.hyper, spec, stage)
    with simulated_device() as device:
        back, _ = train_student(config.hyper, spec, replace(stage, device=device))
    assert same_weights(here.state_dict(), back.state_dict())


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", TEACHER_NAMES)
def test_teacher(name: str, sparse: bool) -> None:
    """Features, edges and labels go along; a teacher that keeps a row for each node finds them there."""
    graph = community_graph(sparse=sparse).observed()
    config = TeacherConfig(name=name, hidden=8, epochs=5, burn_in=1, dropout=0.3, aggregator="mean", se_reg=0.1)
    here, told = train_teacher(graph, config, seed=0)
    with simulated_device() as device:
        back, fitted = train_teacher(graph, config, seed=0, device=device)
    assert {tensor.device for tensor in back.state_dict().values()} == {CPU}
    assert same_weights(here.state_dict(), back.state_dict())
    assert (told.epochs, told.best) == (fitted.epochs, fitted.best)


def test_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command: the CPU's result, with the device named in it; another one cannot go on with it."""
    graph = save_npz(community_graph(), tmp_path / "tiny.npz")
    assert distill(graph, tmp_path / "here", "--setting", "production").exit_code == 0
    with monkeypatch.context() as patch, simulated_device():
        patch.setattr("graph2mlp.device.find_device", lambda _name: DEVICE)
        done = distill(graph, tmp_path / "there", "--setting", "production", "--device", "cuda")
        assert done.exit_code == 0, done.output
        patch.setattr("graph2mlp.distill._structure", _interrupted)
        assert distill(graph, tmp_path / "half", "--device", "cuda").exit_code == 130
    here, there = (result_of(tmp_path / name) for name in ("here", "there"))
    assert (here.pop("device"), there.pop("device")) == ("cpu", str(DEVICE))
    assert not there["teacher"]["cached"], "a teacher of the CPU is another one"
    for same in ("fingerprint", "student", "mlp", "fcr"):
        assert here[same] == there[same], same
    assert_one_line_error(distill(graph, tmp_path / "half", "--resume"), "another device than cpu", "--device")
    told = f"learned on {DEVICE}, not cpu: resume with the --device of then"
    assert_one_line_error(distill(graph, tmp_path / "there", "--setting", "production", "--resume"), told)
    assert distill(graph, tmp_path / "here", "--setting", "production", "--resume").exit_code == 0


def test_seeds_of_two_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean over both would be of neither."""
    graph = save_npz(community_graph(), tmp_path / "tiny.npz")
    with monkeypatch.context() as patch, simulated_device():
        patch.setattr("graph2mlp.device.find_device", lambda _name: DEVICE)
        assert distill(graph, tmp_path / "run", "--seeds", 2, "--device", "cuda").exit_code == 0
    (tmp_path / "run" / "result.json").unlink()
    done = distill(graph, tmp_path / "run", "--seeds", 2, "--resume")
    assert done.exit_code == 1
    assert f"learned on {DEVICE}, not cpu" in done.stderr


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_without_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wish that cannot be granted is refused; auto is no wish."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (find_device("cpu"), find_device("auto"), device_name(CPU)) == (CPU, CPU, "cpu")
    for name in ("cuda", "cuda:0"):
        done = invoke("distill", "digits", "--out", tmp_path / "run", "--device", name)
        assert_one_line_error(done, f"'{name}'", "sees no GPU", "--device cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["tpu", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "auto:1", "", "CUDA"])
def test_unknown_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 2)
    with pytest.raises(ConfigError, match="Unknown device") as refused:
        find_device(name)
    assert f"'{name}'" in str(refused.value)


def test_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 2)
    found = {name: str(find_device(name)) for name in ("cpu", "auto", "cuda", "cuda:0", "cuda:1")}
    assert found == {"cpu": "cpu", "auto": "cuda:0", "cuda": "cuda:0", "cuda:0": "cuda:0", "cuda:1": "cuda:1"}
    with pytest.raises(ConfigError, match=r"no device 'cuda:2'.*cuda:0 to cuda:1"):
        find_device("cuda:2")


def test_each_process_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun numbers the processes of a machine."""
    _gpus(monkeypatch, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [str(find_device(name)) for name in ("cpu", "cuda", "auto")] == ["cpu", "cuda:1", "cuda:1"]
    with pytest.raises(ConfigError, match="2 processes would share device 'cuda:0'"):
        find_device("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="3 processes need a GPU each, but this machine has 2"):
        find_device("cuda")


def test_a_gpu_that_is_too_small() -> None:
    """What CUDA says becomes one line like that of the machine's own memory."""
    said = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
    with pytest.raises(OutOfMemoryError) as refused, memory_for("The teacher", "Take a smaller one."):
        raise torch.OutOfMemoryError(said)
    for library in ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling", "cusparse: CUSPARSE_STATUS_ALLOC_FAILED"):
        with pytest.raises(OutOfMemoryError, match="memory of the GPU"), memory_for("The student", ""):
            raise RuntimeError(library)
    expected = "The teacher needs more than the memory of the GPU (an array of 20 GiB was refused). Take a smaller one."
    assert str(refused.value) == f"{expected} Or use --device cpu."


def _gpus(patch: pytest.MonkeyPatch, count: int) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_on_a_gpu(method: str, tmp_path: Path) -> None:
    """Without noise the CPU's weights up to rounding; with noise, a training that was interrupted goes on as it was."""
    device = find_device("cuda")
    quiet = [f"student.{name}=0" for name in ("dropout", "input_dropout", "structure_dropout")]
    quiet += [f"{method}.dense_dropout=0"] if method.startswith("blend") else []
    config = small_config(method, overrides=[*quiet, "train.burn_in=3"])
    stage, spec = make_stage(config, community_graph())
    here, _ = train_student(config.hyper, spec, stage)
    back, _ = train_student(config.hyper, spec, replace(stage, device=device))
    torch.testing.assert_close(back.state_dict(), here.state_dict(), rtol=1e-2, atol=2e-3)
    noisy = small_config(method, overrides=[*NOISY, "train.epochs=7", "train.epoch_rows=40"])
    stage, spec = make_stage(noisy, community_graph())
    stage = replace(stage, device=device)
    whole, _ = train_student(noisy.hyper, spec, stage)
    file = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_student(noisy.hyper, spec, stage, checkpoint=Checkpoint(file, seconds=0), log=_interrupt_at_4)
    resumed, _ = train_student(noisy.hyper, spec, stage, checkpoint=Checkpoint(file))
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", TEACHER_NAMES)
def test_teacher_on_a_gpu(name: str, sparse: bool) -> None:
    """Sparse products and their gradients are another library's there."""
    graph = community_graph(sparse=sparse).observed()
    quiet: dict[str, Any] = {"dropout": 0.0, "input_dropout": 0.0, "attention_dropout": 0.0, "aggregator": "mean"}
    config = TeacherConfig(name=name, hidden=8, epochs=5, burn_in=4, **quiet)
    here, _ = train_teacher(graph, config, seed=0)
    back, _ = train_teacher(graph, config, seed=0, device=find_device("cuda"))
    torch.testing.assert_close(back.state_dict(), here.state_dict(), rtol=1e-2, atol=2e-3)


def _interrupt_at_4(epoch: int, _figures: Mapping[str, float]) -> None:
    if epoch == 4:
        raise KeyboardInterrupt
