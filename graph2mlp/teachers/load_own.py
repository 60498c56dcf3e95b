"""Find, build and fill a teacher of the user's own. This runs the user's code, and only what the user has named."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from graph2mlp.data.graph import GraphData
from graph2mlp.data.pt import safe_torch_load
from graph2mlp.errors import ConfigError, DataError, KnowledgeError, suggest
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.own import OwnTeacher
from graph2mlp.tensor_files import save_tensors

__all__ = ["load_own_teacher", "save_own_teacher"]

_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_FEATURES = ("in_channels", "in_features", "num_features", "num_node_features", "features", "in_dim", "input_dim")
_CLASSES = ("out_channels", "out_features", "num_classes", "classes", "out_dim", "output_dim", "n_classes")
_HIDDEN = ("hidden_channels", "hidden_dim", "hidden_features", "hidden_size", "hidden")
_LAYERS = ("num_layers", "layers", "n_layers")
_SAVE_WEIGHTS = "Save the weights alone: torch.save(model.state_dict(), FILE)."
_NESTED = ("state_dict", "model_state_dict", "model")


def load_own_teacher(config: TeacherConfig, graph: GraphData, *, weights: Path | None = None) -> OwnTeacher:
    """The teacher of `config.module` with the weights in `weights` (default: `config.weights`), in evaluation mode.

    Raises:
        ConfigError: the code cannot be imported or called.
        KnowledgeError: the weights are missing, damaged, or do not fit.
    """
    file = weights or (Path(config.weights) if config.weights else None)
    if not config.module:
        assert file is not None  # checked by the settings
        teacher = OwnTeacher(_program(file), graph, config, program=True)
    else:
        network = _build(config, graph)
        if file is not None:
            _fill(network, _read_weights(file), file)
        teacher = OwnTeacher(network, graph, config)
    teacher.eval()
    return teacher


def save_own_teacher(teacher: OwnTeacher, path: Path) -> None:
    """The module's own weights, by its own names, as safetensors in one step."""
    state = {name: value for name, value in teacher.network.state_dict().items() if isinstance(value, Tensor)}
    # Cloned, because safetensors refuses weights that two layers share.
    save_tensors(path, {name: value.detach().clone().contiguous() for name, value in state.items()})


def _build(config: TeacherConfig, graph: GraphData) -> nn.Module:
    """Import and call the factory."""
    if not _MODULE.fullmatch(config.module):
        hint = f" For a file {config.module.split(':')[0]} write its module's name." if ".py" in config.module else ""
        raise ConfigError(f"--teacher-module must be MODULE:NAME, for example model:GCN (got '{config.module}').{hint}")
    place, name = config.module.split(":")
    if place.endswith(".py"):
        module = place.removesuffix(".py")
        raise ConfigError(
            f"--teacher-module names a module, not its file: write {module}:{name} (got '{config.module}')"
        )
    with _current_folder(), torch.random.fork_rng(devices=[]):
        try:
            found: Any = importlib.import_module(place)
        except Exception as error:  # the user's code may raise anything
            absent = isinstance(error, ModuleNotFoundError) and error.name == place.split(".")[0]
            hint = " Start in the folder where it lies, or name that in PYTHONPATH." if absent else ""
            raise ConfigError(f"Cannot import '{place}' of --teacher-module: {_reason(error)}{hint}") from None
        for part in name.split("."):
            if not hasattr(found, part):
                public = [one for one in vars(found) if not one.startswith("_")]
                raise ConfigError(f"'{place}' of --teacher-module has no '{name}'. {suggest(part, public)}")
            found = getattr(found, part)
        if isinstance(found, nn.Module):
            return found
        if not callable(found):
            raise ConfigError(
                f"--teacher-module {config.module} is a {type(found).__name__}, expected something to call."
            )
        arguments = _arguments(found, config, graph)
        try:
            made = found(**arguments)
        except Exception as error:
            called = ", ".join(f"{key}={value}" for key, value in arguments.items())
            raise ConfigError(
                f"--teacher-module {config.module} failed, called as {name}({called}): {_reason(error)}"
            ) from None
    if not isinstance(made, nn.Module):
        raise ConfigError(f"--teacher-module {config.module} gave a {type(made).__name__}, expected a torch.nn.Module.")
    return made


def _arguments(factory: Any, config: TeacherConfig, graph: GraphData) -> dict[str, int]:
    """What the factory asks for by name, of what we know: sizes of the graph, and our settings where it has no own."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return {}
    sizes = {**dict.fromkeys(_FEATURES, graph.num_features), **dict.fromkeys(_CLASSES, graph.num_classes)}
    settings = {**dict.fromkeys(_HIDDEN, config.hidden), **dict.fromkeys(_LAYERS, config.layers)}
    arguments = {}
    for one in parameters:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        needed = one.default is one.empty
        if one.name in sizes:
            arguments[one.name] = sizes[one.name]
        elif needed and one.name in settings:
            arguments[one.name] = settings[one.name]
        elif needed:
            raise ConfigError(
                f"--teacher-module {config.module} needs '{one.name}', which graph2mlp cannot know. Name a function "
                "without arguments that builds the module."
            )
    return arguments


def _program(file: Path) -> nn.Module:
    if not file.is_file():
        raise KnowledgeError(f"No such file of weights: {file}.")
    try:
        return torch.export.load(file).module()
    except Exception as error:  # a damaged archive fails wherever its bytes lead
        raise KnowledgeError(f"{file} is not a program of torch.export.save ({_reason(error)})") from None


def _read_weights(file: Path) -> dict[str, Tensor]:
    """A state dict: safetensors, or `torch.save` of one, alone or inside a checkpoint."""
    if not file.is_file():
        raise KnowledgeError(f"No such file of weights: {file}.")
    if file.suffix == ".safetensors":
        try:
            return dict(load_file(file))
        except (SafetensorError, OSError, ValueError) as error:
            raise KnowledgeError(f"{file} is not a readable safetensors file ({error}). Save it again.") from None
    try:
        held = safe_torch_load(file, remedy=_SAVE_WEIGHTS)
    except DataError as error:
        raise KnowledgeError(str(error)) from None
    while isinstance(held, Mapping) and (inner := [key for key in _NESTED if isinstance(held.get(key), Mapping)]):
        held = held[inner[0]]
    state = {str(key): value for key, value in held.items()} if isinstance(held, Mapping) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise KnowledgeError(f"{file} holds no state dict. {_SAVE_WEIGHTS}")
    return state


def _fill(network: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Put the weights in; a prefix that all their names share (`module.`, `model.`) is taken off."""
    expected = set(network.state_dict())
    for prefix in ("module.", "model."):
        if state and all(name.startswith(prefix) for name in state) and not expected & set(state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    missing, extra = sorted(expected - set(state)), sorted(set(state) - expected)
    if missing or extra:
        found = f"lacks {', '.join(missing[:3]) or 'nothing'} and has {', '.join(extra[:3]) or 'nothing'} beyond them"
        raise KnowledgeError(
            f"{file} does not fit the teacher's {len(expected)} weights: it {found}. Give its own weights."
        )
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        at = reason.find("size mismatch")
        raise KnowledgeError(
            f"{file} does not fit the teacher: {reason[max(at, 0) :][:200]} "
            "Set teacher.hidden and teacher.layers, or name a function that builds it with the right sizes."
        ) from None


@contextmanager
def _current_folder() -> Iterator[None]:
    """Modules in the folder where the command was typed can be imported, as with `python -m`."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _reason(error: BaseException) -> str:
    """Type, message and place of an error in the user's code, in one line."""
    text = (str(error).splitlines() or [""])[0][:200]
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    place = f" ({Path(outside[-1].filename).name}, line {outside[-1].lineno})" if outside else ""
    return f"{type(error).__name__}: {text}{place}."
