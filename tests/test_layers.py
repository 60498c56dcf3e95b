"""Imports point one way, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_public import ROOT, module_names

# The house of DESIGN.md section 3, lowest first. A module may import from its own row and the rows above it.
LAYERS = [
    {"errors", "atomic", "console", "energy", "lock", "measure", "memory", "options", "tasks", "tensor_files"},
    {"json_file", "latency.bench_file", "latency.compare", "latency.rows", "latency.server", "result_file"},
    {"significance"},
    {"advice"},
    {"kernels", "data", "noise"},
    {"device", "threads"},
    {"structure", "students", "losses", "teachers.knowledge", "teachers.config"},
    {"methods", "methods.base"},
    {"training"},
    {"teachers", "methods.*"},
    {"config_rules", "run_files"},
    {"config", "cards", "deployed", "evaluation", "fcr", "run", "summary", "latency.summary", "breakdown", "report"},
    {"run_folder", "run_inputs"},
    {"results"},
    {"distill", "ranks", "seeds", "export", "graph_facts", "inspection"},
    {"latency.contender", "latency.cold", "latency.teacher"},
    {"latency.bench", "latency.table"},
    {"commands", "report.__main__"},
    {"cli", "demo"},
]


def _layer(module: str) -> int:
    """The number of the row that names the module, or the nearest package above it."""
    short = module.removeprefix("graph2mlp.")
    if short == "graph2mlp":
        return 0
    package = short.split(".")[0]
    for candidate in (short, f"{package}.*" if "." in short else short, package):
        for number, names in enumerate(LAYERS):
            if candidate in names:
                return number
    raise AssertionError(f"{module} has no place in the layers of this test: give it one")


def _file(module: str) -> Path:
    parts = module.split(".")
    if len(parts) > 1 and parts[1] in ("kernels", "export"):
        parts = parts[1:]
    path = ROOT.joinpath(*parts)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(module: str, *, at_load: bool = False) -> Iterator[str]:
    """Absolute names that a module imports: anywhere, or only those that run when it is loaded."""
    known = set(module_names())

    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if at_load and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f"{module}: relative import"
                for alias in child.names:
                    name = f"{child.module}.{alias.name}"
                    yield name if name in known else str(child.module)
            else:
                yield from visit(child)

    yield from visit(ast.parse(_file(module).read_text(encoding="utf-8")))


@pytest.mark.parametrize("module", module_names())
def test_imports_point_one_way(module: str) -> None:
    """kernels <- losses, structure, students <- methods/base <- training <- methods/<paper> <- cli."""
    for name in _imports(module):
        if name.split(".")[0] == "graph2mlp":
            assert _layer(name) <= _layer(module), f"{module} imports {name}, which stands above it"


def test_no_cycles() -> None:
    """Two modules that need each other when they are loaded work in one order of imports and fail in the other."""
    graph = {module: {n for n in _imports(module, at_load=True) if n in module_names()} for module in module_names()}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join([*path, module])}"
        if module not in done:
            for name in graph[module] - {module}:
                walk(name, (*path, module))
            done.add(module)

    for module in graph:
        walk(module, ())


def test_methods_do_not_know_each_other_beyond_shared_terms() -> None:
    """The next method is one file: nothing below `methods/` may name a paper."""
    papers = {f"graph2mlp.methods.{name}" for name in ("glnn", "nosmog", "gsdn")}
    for module in module_names():
        if not module.startswith("graph2mlp.methods"):
            assert not papers & set(_imports(module)), f"{module} knows a paper's method"


def _third_party() -> dict[str, set[str]]:
    """Top-level package -> the modules that import it."""
    found: dict[str, set[str]] = {}
    for module in module_names():
        for name in _imports(module):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "graph2mlp":
                found.setdefault(top, set()).add(module)
    return found


def test_every_imported_package_is_declared() -> None:
    """What happens to be in the developer's environment is missing in a fresh one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {re.split(r"[<>=!;\[ ]", line)[0].lower().replace("-", "_") for line in lines}
    declared |= {"sklearn"} if "scikit_learn" in declared else set()
    missing = {top: sorted(modules) for top, modules in _third_party().items() if top.lower() not in declared}
    assert not missing, f"imported but not declared in pyproject.toml: {missing}"


def _loaded(code: str) -> set[str]:
    """Top-level packages that are loaded after `code`, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint('LOADED', *sorted(m.split('.')[0] for m in sys.modules))"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("LOADED")[1].split())


HEAVY = {"torch", "onnxruntime", "onnx", "scipy", "sklearn", "torch_geometric", "gensim", "triton", "pandas"}


@pytest.mark.parametrize(
    "code",
    [
        "import graph2mlp.cli",
        "import graph2mlp.errors, graph2mlp.measure, graph2mlp.atomic",
        "import graph2mlp.report",
        "import sys; sys.argv = ['graph2mlp', '--help']\n"
        "from graph2mlp.cli import app\n"
        "try:\n    app()\nexcept SystemExit as stop:\n    assert not stop.code",
        "import sys; sys.argv = ['graph2mlp', 'distill', '--help']\n"
        "from graph2mlp.cli import app\n"
        "try:\n    app()\nexcept SystemExit as stop:\n    assert not stop.code",
    ],
    ids=["import", "light modules", "report", "--help", "distill --help"],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    """`--help` in half a second, and a device without torch."""
    assert not HEAVY & _loaded(code)
