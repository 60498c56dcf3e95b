"""File in, file out, in one call."""

from __future__ import annotations

from pathlib import Path

import pytest

from graph2mlp.errors import RequestError
from graph2mlp.export.predict import predict_file
from tests.cli import assert_one_line_error, invoke


def test_file_to_file(bundles, tmp_path: Path) -> None:
    """Ids come back beside the answers, in the order of the requests; nothing else is left in the folder."""
    (tmp_path / "in.csv").write_text("neighbors,id,indices\n3,n3,1 2\n,new,\n")
    found = predict_file(bundles("sparse"), tmp_path / "in.csv", out=tmp_path / "out.csv")
    assert found.requests == 2
    assert "2 requests answered" in found.summary()
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", "n3", "new"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "out.csv"]
    assert predict_file(bundles("sparse"), tmp_path / "in.csv").out is None


def test_nothing_is_written_when_a_request_is_wrong(bundles, tmp_path: Path) -> None:
    """An answer file beside an error would be taken for complete."""
    source = tmp_path / "in.csv"
    source.write_text("indices,neighbors\n1,3\n1,99\n")
    with pytest.raises(RequestError, match="neighbour id 99"):
        predict_file(bundles("sparse"), source, out=tmp_path / "out.csv")
    with pytest.raises(RequestError, match="requests itself"):
        predict_file(bundles("sparse"), source, out=source)
    with pytest.raises(RequestError, match="answers are written as"):
        predict_file(bundles("sparse"), source, out=tmp_path / "out.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


def test_errors_name_the_file(bundles, tmp_path: Path) -> None:
    """Without --out a request is as hard to find as with it."""
    source = tmp_path / "in.csv"
    for text in ("indices,neighbors\n1,99\n", "indices\n1\n", "indices,neighbors\n99,1\n"):
        source.write_text(text)
        for out in ((), ("--out", tmp_path / "out.csv")):
            assert_one_line_error(invoke("predict", bundles("sparse"), source, *out), str(source))


def test_missing_folder(bundles, tmp_path: Path) -> None:
    """It was called a file of the kind ''."""
    assert_one_line_error(invoke("predict", bundles("sparse"), tmp_path / "folder"), "folder does not exist")
