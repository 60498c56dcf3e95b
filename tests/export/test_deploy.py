"""From a run to a bundle: verified, measured on the file, written whole or not at all."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from graph2mlp.errors import BundleError, ConfigError, ParityError
from graph2mlp.export import candidate
from graph2mlp.export.bundle import open_bundle
from graph2mlp.export.deploy import export_run
from graph2mlp.export.graph_requests import node_requests
from graph2mlp.export.runtime import Predictor
from graph2mlp.students.base import StudentInput


def test_metrics_are_those_of_the_setting(bundles) -> None:
    """Production reports unseen nodes with and without edges; mixing them into one figure would flatter."""
    production = open_bundle(bundles("sparse")).manifest
    assert set(production.metrics) == {"tran", "ind", "cold", "prod"}
    assert production.metrics["prod"] == pytest.approx(
        0.8 * production.metrics["tran"] + 0.2 * production.metrics["ind"]
    )
    assert set(open_bundle(bundles("features")).manifest.metrics) == {"test"}


def test_accuracy_by_hand(make_run, bundles) -> None:
    """The figure in bundle.json is the file's, and it is right."""
    run = make_run(sparse=False, structure=False, setting="transductive")
    graph, student = run.graph(), run.student()
    labels = student(StudentInput(graph.x[graph.split.test])).logits.argmax(1)
    expected = float((labels == graph.y[graph.split.test]).float().mean())
    assert open_bundle(bundles("features")).manifest.metrics["test"] == pytest.approx(expected)


def test_sample_holds_real_requests(bundles, make_run) -> None:
    sample, graph = open_bundle(bundles("sparse")).sample(), make_run().graph()
    assert set(graph.split.unseen.tolist()) <= set(sample["ids"].tolist())
    assert not set(sample["ids"].tolist()) & set(torch.cat([graph.split.train, graph.split.val]).tolist())
    np.testing.assert_array_equal(sample["y"], graph.y[sample["ids"]])
    assert len(sample["ids"]) == 20


def test_requests_are_what_a_device_would_send(make_run) -> None:
    """A known node sends its own id, an unseen one its neighbours, a cold one nothing; sparse rows are padded."""
    graph = make_run().graph()
    requests = node_requests(graph, torch.tensor([10, 25]), structure=True)
    assert requests.neighbors is not None
    assert requests.neighbors[0].tolist() == [10, -1, -1]
    assert sorted(requests.neighbors[1].tolist()) == [24, 26, 28]
    np.testing.assert_array_equal(requests.dense(20), graph.x.to_dense()[[10, 25]].numpy())
    cold = node_requests(graph, torch.tensor([10, 25]), structure=True, cold=True)
    assert cold.neighbors is not None
    assert cold.neighbors.tolist() == [[-1], [-1]]
    assert node_requests(graph, torch.tensor([10]), structure=False).neighbors is None


def test_existing_output_is_kept(make_run, tmp_path: Path) -> None:
    """Nobody loses a bundle, or a folder of holiday pictures, to a repeated command."""
    run = make_run(sparse=False, structure=False)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(BundleError, match="exists"):
        export_run(run, out=tmp_path / "out")
    with pytest.raises(BundleError, match="not a bundle"):
        export_run(run, out=tmp_path / "out", force=True)
    (tmp_path / "odd.zip").mkdir()
    with pytest.raises(BundleError, match="other kind"):
        export_run(run, out=tmp_path / "odd.zip", force=True)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photo.jpg", b"x")
    (tmp_path / "notes").write_text("mine")
    before = (tmp_path / "photos.zip").read_bytes()
    with pytest.raises(BundleError, match=r"photos\.zip is a file, but not a bundle"):
        export_run(run, out=tmp_path / "photos.zip", force=True)
    with pytest.raises(BundleError, match="other kind"):
        export_run(run, out=tmp_path / "notes", force=True)
    assert (tmp_path / "photos.zip").read_bytes() == before
    assert (tmp_path / "notes").read_text() == "mine"
    assert (tmp_path / "out" / "photo.jpg").exists()
    summary = export_run(run, out=tmp_path / "new", features="sparse")
    assert "sparse features" in summary.summary()
    assert export_run(run, out=tmp_path / "new", force=True).features == "dense"
    assert not open_bundle(tmp_path / "new").manifest.sparse
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "notes", "odd.zip", "out", "photos.zip"]


def test_unknown_choices(make_run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unknown preset 'fp23'. Did you mean 'fp32'?"):
        export_run(make_run(), out=tmp_path / "out", preset="fp23")
    with pytest.raises(ConfigError, match="features must be"):
        export_run(make_run(), out=tmp_path / "out", features="wide")


def test_nothing_is_written_when_a_check_fails(make_run, tmp_path: Path, monkeypatch) -> None:
    """A half-verified bundle that lies there will be deployed."""
    run = make_run()
    to_onnx = candidate.to_onnx

    def other_network(student, table, **options):
        return to_onnx(make_run(seed=3).student(), table, **options)

    monkeypatch.setattr(candidate, "to_onnx", other_network)
    with pytest.raises(ParityError):
        export_run(run, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_table_that_the_student_ignores(make_run, tmp_path: Path) -> None:
    """A run may keep a structure table for its losses; the deployed student must not ask for neighbours."""
    run = make_run(structure=False)
    run.structure = make_run().structure
    export_run(run, out=tmp_path / "out")
    assert Predictor(tmp_path / "out").manifest.structure is None
