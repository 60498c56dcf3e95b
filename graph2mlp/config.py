"""The settings of a run: frozen, checked once, written beside the result.

Each later source wins: defaults of the package, defaults of the method, a TOML file, `--set group.key=value`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from graph2mlp.config_rules import at_odds
from graph2mlp.data.datasets import dataset_names, is_graph_path
from graph2mlp.data.label_arrays import AUTO, find_task
from graph2mlp.errors import ConfigError, suggest
from graph2mlp.losses.extra import LossConfig
from graph2mlp.methods import METHODS, method_class
from graph2mlp.methods.base import Method, TrainConfig
from graph2mlp.structure import check_encoder
from graph2mlp.students.base import StudentConfig
from graph2mlp.teachers.config import TeacherConfig

__all__ = ["RunConfig", "Setting", "StructureConfig", "load_config", "resolve_config"]

Setting = Literal["transductive", "production"]
Tree = dict[str, dict[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StructureConfig:
    """How the edges become a table of vectors (methods of the regime `structure` only)."""

    encoder: str = "laplacian"
    """laplacian, deepwalk (edges alone), smoothed (edges and features), or several joined as in laplacian+smoothed."""
    dim: int = 64
    """Width of a node's vector, shared by the joined encoders."""
    answers: bool = False
    """Whether the table also holds what the teacher says of a node's surroundings, in as many columns more as there are
    classes, at most `dim` (`graph2mlp.structure.answers`)."""

    def __post_init__(self) -> None:
        check_encoder(self.encoder)
        parts = self.encoder.count("+") + 1
        if self.dim < parts:
            raise ConfigError(f"structure.dim must be at least {parts} with encoder '{self.encoder}' (got {self.dim})")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, one seed."""

    graph: str
    method: str
    setting: Setting
    seed: int
    root: str | None
    teacher: TeacherConfig
    structure: StructureConfig
    student: StudentConfig
    train: TrainConfig
    loss: LossConfig
    undirected: bool = False
    """Whether the missing direction of each edge of the user's file is added."""
    task: str = AUTO
    """What the labels of the user's file are: classification, multilabel, regression; auto tells by their form."""
    deploy: tuple[str, ...] = ()
    """Other graphs of the same features and classes, answered in the final report."""
    hyper: Method
    """The method's own settings; the table named like the method in a file."""

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, in the layout of `config.toml`."""
        top = {key: getattr(self, key) for key in ("graph", "method", "setting", "seed")}
        if self.root is not None:
            top["root"] = self.root
        if self.undirected:
            top["undirected"] = True
        if self.task != AUTO:
            top["task"] = self.task
        if self.deploy:
            top["deploy"] = list(self.deploy)
        groups = {name: asdict(getattr(self, name)) for name in _GROUPS}
        return {**top, **groups, self.method: asdict(self.hyper)}

    def to_toml(self) -> str:
        """`config.toml` as text."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())


_GROUPS: Mapping[str, type] = {
    "teacher": TeacherConfig,
    "structure": StructureConfig,
    "student": StudentConfig,
    "train": TrainConfig,
    "loss": LossConfig,
}
_TOP = ("graph", "method", "setting", "seed", "root", "undirected", "task", "deploy")


def resolve_config(
    *,
    graph: str | None = None,
    method: str | None = None,
    teacher: str | None = None,
    setting: str | None = None,
    seed: int | None = None,
    root: str | None = None,
    undirected: bool | None = None,
    task: str | None = None,
    deploy: Sequence[str] | None = None,
    teacher_module: str | None = None,
    teacher_weights: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    trusted: bool = False,
) -> RunConfig:
    """Settings from all sources; arguments that are not None win over the file.

    A file cannot name code to run (a teacher's module or program) unless it is `trusted` not to be acted upon.

    Raises:
        ConfigError: a name is unknown, or a value is of the wrong type or out of range; all problems in one message.
    """
    given: dict[str, Any] = _read_toml(file) if file else {}
    if trusted:  # the settings of a run are all in its file, but those of a version that had fewer
        given.setdefault("teacher", {}).setdefault("frequencies", "labelled")
        given.setdefault("structure", {}).setdefault("answers", False)
        if given.get("method") == "blend_features":
            given.setdefault("blend_features", {}).setdefault("dense_pace", 1.0)
    arguments: dict[str, Any] = {"graph": graph, "method": method, "setting": setting, "seed": seed, "root": root}
    arguments |= {"undirected": undirected, "task": task, "deploy": deploy or None}
    top: dict[str, Any] = {"method": "blend", "setting": "transductive", "seed": 0, "root": None}
    top |= {"undirected": False, "task": AUTO, "deploy": ()}
    top |= {key: given.pop(key) for key in _TOP if key in given}
    top |= {key: value for key, value in arguments.items() if value is not None}
    _check_top(top)
    cls = method_class(str(top["method"]))
    types = {**_GROUPS, str(top["method"]): cls}
    tree: Tree = {name: dict(cls.defaults.get(name, {})) for name in types}
    for source in (_groups(given, types), _overrides(overrides, types)):
        for name, values in source.items():
            tree[name] |= values
    if teacher is not None and not cls.needs_teacher:
        raise ConfigError(f"Method '{top['method']}' learns from no teacher, so --teacher has no use.")
    if teacher is not None:
        tree["teacher"]["name"] = teacher
    _own_teacher(tree["teacher"], {"module": teacher_module, "weights": teacher_weights}, given, trusted)
    problems: list[str] = []
    built: dict[str, Any] = {name: _build(types[name], name, values, problems) for name, values in tree.items()}
    problems += at_odds(cls, built)
    if problems:
        raise ConfigError(" ".join(problems))
    hyper = built.pop(str(top["method"]))
    return RunConfig(**top, **built, hyper=hyper)


def _check_top(top: dict[str, Any]) -> None:
    """Raise ConfigError unless the settings outside any group are valid; names of files become whole paths."""
    if not isinstance(top.get("graph"), str):
        raise ConfigError("No graph given. Name one, for example: graph2mlp distill digits")
    if "\0" in top["graph"]:
        raise ConfigError(f"A graph's name cannot hold a zero byte (got {top['graph']!r}).")
    if top["setting"] not in ("transductive", "production"):
        raise ConfigError(f"Unknown setting '{top['setting']}'. Known: transductive, production.")
    if not isinstance(top["seed"], int) or not 0 <= top["seed"] < 2**32:
        raise ConfigError(f"seed must be a whole number from 0 to {2**32 - 1} (got {top['seed']!r})")
    if top["root"] is not None and not isinstance(top["root"], str):
        raise ConfigError(f"root must be a folder's name (got {top['root']!r})")
    if not isinstance(top["undirected"], bool):
        raise ConfigError(f"undirected must be true or false (got {top['undirected']!r})")
    if top["undirected"] and not _is_own(top["graph"]):
        raise ConfigError(f"--undirected is for a graph of your own; '{top['graph']}' is undirected as it comes.")
    find_task(str(top["task"]), "task")
    if not isinstance(top["deploy"], list | tuple) or not all(isinstance(name, str) for name in top["deploy"]):
        raise ConfigError(f"deploy must be a list of graphs (got {top['deploy']!r})")
    # As typed they would mean another place when the run is opened from another folder.
    top["graph"] = _place(top["graph"])
    top["deploy"] = tuple(map(_place, top["deploy"]))
    if top["root"] is not None:
        top["root"] = str(Path(top["root"]).resolve())


def _is_own(graph: str) -> bool:
    """Whether a graph is a file or folder of the user's."""
    return graph not in dataset_names() and is_graph_path(graph)


def _place(graph: str) -> str:
    return str(Path(graph).resolve()) if _is_own(graph) else graph


def load_config(path: Path) -> RunConfig:
    """Read the `config.toml` of a run."""
    return resolve_config(file=path, trusted=True)


def _own_teacher(
    teacher: dict[str, Any], named: Mapping[str, str | None], given: Mapping[str, Any], trusted: bool
) -> None:
    """Put the user's own teacher into the settings `teacher`, and make sure that the user has named the code."""
    code = given.get("teacher", {})
    for key, value in named.items():
        if value is not None:
            teacher[key] = value
        elif (
            not trusted
            and code.get(key)
            and teacher.get(key) == code[key]
            and (key == "module" or not code.get("module"))
        ):
            raise ConfigError(
                f"The settings file names code to run (teacher.{key} = '{code[key]}'). Name it yourself to run it: "
                f"--teacher-{key} {code[key]}"
            )
    if isinstance(teacher.get("weights"), str) and teacher["weights"]:
        teacher["weights"] = str(Path(teacher["weights"]).resolve())


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"No such settings file: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _groups(given: Mapping[str, Any], types: Mapping[str, type]) -> Tree:
    for name, values in given.items():
        if name in METHODS and name not in types:
            raise ConfigError(f"These are settings for method '{name}'. Remove [{name}], or use --method {name}.")
        if name not in types:
            raise ConfigError(f"Unknown group of settings '{name}'. {suggest(name, types)}")
        if not isinstance(values, dict):
            raise ConfigError(f"'{name}' must be a table of settings, got {values!r}.")
    return dict(given)


def _overrides(texts: Sequence[str], types: Mapping[str, type]) -> Tree:
    tree: Tree = {}
    for text in texts:
        path, equals, value = text.partition("=")
        group, dot, key = path.strip().partition(".")
        if not (equals and dot and key):
            raise ConfigError(f"Cannot read --set {text}. Expected group.key=value, for example train.lr=0.005")
        if group not in types:
            raise ConfigError(f"Unknown group of settings '{group}' in --set {text}. {suggest(group, types)}")
        tree.setdefault(group, {})[key] = _value(value.strip())
    return tree


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word


def _build(cls: type[T], group: str, values: Mapping[str, Any], problems: list[str]) -> T | None:
    """An instance of the dataclass `cls`; what is wrong with `values` is added to `problems`."""
    from pydantic import TypeAdapter, ValidationError

    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    unknown = [key for key in values if key not in known]
    problems += [f"Unknown setting '{group}.{key}'. {suggest(key, known)}" for key in unknown]
    try:
        return TypeAdapter(cls).validate_python({key: value for key, value in values.items() if key in known})
    except ConfigError as error:
        problems.append(str(error))
    except ValidationError as error:
        for one in error.errors():
            where = ".".join(str(part) for part in one["loc"])
            problems.append(f"{group}.{where}: {one['msg']} (got {one['input']!r}).")
    return None
