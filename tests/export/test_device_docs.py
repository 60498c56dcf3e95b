"""The programs in docs/device.md, run as they stand there where their tools are: a snippet that rots misleads."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from graph2mlp.export.runtime import Predictor

PAGE = Path(__file__).resolve().parents[2] / "docs" / "device.md"
REQUEST = {"indices": np.array([[3, 17]]), "neighbors": np.array([[5]])}


def snippet(language: str) -> str:
    """The one block of that language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


def node(package: str) -> dict[str, str]:
    """The environment in which node finds the package, or a skip."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    environment = dict(os.environ)
    found = subprocess.run(
        ["node", "-e", f"require.resolve('{package}')"], env=environment, capture_output=True, check=False
    )
    if found.returncode:
        pytest.skip(f"node does not find {package}: install it and set NODE_PATH to its node_modules")
    return environment


@pytest.mark.parametrize("package", ["onnxruntime-node", "onnxruntime-web"])
def test_javascript(bundles, tmp_path: Path, package: str) -> None:
    """Another language reads the manifest and the network, and gives the same answer."""
    environment = node(package)
    script = tmp_path / "predict.js"
    script.write_text(snippet("javascript").replace('"onnxruntime-node"', f'"{package}"'))
    command = ["node", str(script)]
    done = subprocess.run(
        [*command, str(bundles("sparse"))], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    predictor = Predictor(bundles("sparse"))
    expected = predictor.predict(**REQUEST)
    np.testing.assert_allclose(answer["probabilities"], expected.probabilities[0], atol=1e-5)
    assert answer["label"] == predictor.class_names[expected.labels[0]]

    damaged = Path(shutil.copytree(bundles("sparse"), tmp_path / "damaged"))
    (damaged / "model.onnx").write_bytes((damaged / "model.onnx").read_bytes()[:-1])
    done = subprocess.run([*command, str(damaged)], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "damaged bundle\n")


def test_cpp(bundles, tmp_path: Path) -> None:
    """Compiled with warnings as errors, because people will paste it."""
    home = os.environ.get("ORT_HOME")
    if home is None or shutil.which("g++") is None:
        pytest.skip("set ORT_HOME to the C++ package of onnxruntime (include/, lib/); g++ is needed too")
    source, program = tmp_path / "predict.cpp", tmp_path / "predict"
    source.write_text(snippet("cpp"))
    warnings = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", f"{home}/include"]
    link = [f"-L{home}/lib", "-lonnxruntime", f"-Wl,-rpath,{home}/lib"]
    subprocess.run(["g++", *warnings, str(source), *link, "-o", str(program)], check=True)
    command = [str(program), str(bundles("sparse") / "model.onnx"), "20"]
    done = subprocess.run([*command, "30"], capture_output=True, text=True, check=True)
    expected = Predictor(bundles("sparse")).predict(**REQUEST)
    np.testing.assert_allclose([float(line) for line in done.stdout.split()], expected.probabilities[0], atol=1e-5)
    refused = subprocess.run([*command, "5"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (1, "error: an id is not in the table\n")


def test_python(bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing anyone copies."""
    shutil.copytree(bundles("sparse"), tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(snippet("python"), names)  # our own page
    np.testing.assert_array_equal(names["answer"].labels, Predictor("bundle").predict(**REQUEST).labels)  # type: ignore[attr-defined]
