"""Files in and out: every format carries the same requests, and a malformed file is refused in one line."""

from __future__ import annotations

import csv
import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph2mlp.errors import RequestError
from graph2mlp.export.answers import answer_columns, write_answers, write_csv
from graph2mlp.export.bundle import open_bundle
from graph2mlp.export.feature_columns import FeatureColumns
from graph2mlp.export.inputs import from_columns, read_requests
from graph2mlp.export.requests import Requests
from graph2mlp.export.runtime import Prediction, Predictor
from graph2mlp.export.stream import request_parts

F = 20


def rows_of(requests: Requests) -> dict[str, list[Any]]:
    """The columns of a table, with real lists."""
    columns: dict[str, list[Any]] = {"id": [f"node {i}" for i in range(len(requests))]}
    if requests.x is not None:
        columns |= {f"x{i}": requests.x[:, i].tolist() for i in range(F)}
    else:
        assert requests.indices is not None
        assert requests.values is not None
        kept = requests.indices >= 0
        columns["indices"] = [row[k].tolist() for row, k in zip(requests.indices, kept, strict=True)]
        columns["values"] = [row[k].tolist() for row, k in zip(requests.values, kept, strict=True)]
    if requests.neighbors is not None:
        columns["neighbors"] = [row[row >= 0].tolist() for row in requests.neighbors]
    return columns


def as_text(value: object) -> str:
    return " ".join(map(repr, value)) if isinstance(value, list) else str(value)


def write_file(path: Path, requests: Requests) -> Path:
    columns = rows_of(requests)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([as_text(cell) for cell in row] for row in zip(*columns.values(), strict=True))
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        parquet.write_table(pyarrow.table(columns), path)
    else:
        parts = {n: a for n in ("x", "indices", "values", "neighbors") if (a := getattr(requests, n)) is not None}
        np.savez(path, ids=np.array(columns["id"]), **parts)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_all_formats_carry_the_same_requests(make_requests, bundles, tmp_path: Path, suffix: str, sparse: bool) -> None:
    requests = make_requests(30, sparse=sparse)
    found = read_requests(write_file(tmp_path / f"in{suffix}", requests), features=F)
    predictor = Predictor(bundles("sparse" if sparse else "dense"))
    np.testing.assert_array_equal(predictor.predict(found).logits, predictor.predict(requests.trim()).logits)
    assert found.ids is not None
    assert found.ids.tolist() == [f"node {i}" for i in range(30)]


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_answers_have_the_format_of_the_question(bundles, make_requests, tmp_path: Path, suffix: str) -> None:
    predictor = Predictor(bundles("dense"))
    prediction = predictor.predict(make_requests(5, sparse=False))
    path = tmp_path / f"out{suffix}"
    ids = np.array(["a,b", 'say "x"', "", "ü", "1"])
    write_answers(path, prediction, predictor.manifest, ids)
    if suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: [row[name] for row in rows] for name in rows[0]}
    elif suffix == ".npz":
        columns = {name: array.tolist() for name, array in np.load(path, allow_pickle=False).items()}
    else:
        import pyarrow.parquet as parquet

        columns = parquet.read_table(path).to_pydict()
    assert columns["id"] == ids.tolist()
    assert columns["label"] == [predictor.class_names[i] for i in prediction.labels]
    np.testing.assert_allclose(np.array(columns["probability"], float), prediction.probabilities.max(1), atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ids", [np.array([20240001.0, 1e-8, -2.5, 1e22]), np.array([16777216, 0.1], np.float32)])
def test_ids_of_floats_are_not_rounded(ids: np.ndarray) -> None:
    """pandas makes floats of ids as soon as one is missing; 2.024e+07 is the id of nobody."""
    want = {4: ["20240001", "1e-08", "-2.5", str(int(1e22))], 2: ["16777216", "0.1"]}[len(ids)]
    number = np.full(len(ids), 0.123456789, np.float32)
    for label, shown in ((np.full(len(ids), "a"), "0.123457"), (number, "0.1234568")):  # a class, or a quantity's name
        file = io.StringIO()
        write_csv(file, {"id": ids, "label": label, "probability": number})
        rows = list(csv.DictReader(file.getvalue().splitlines()))
        assert [row["id"] for row in rows] == want
        assert [row["probability"] for row in rows] == [shown] * len(ids)
        assert [row["label"] for row in rows] == [shown if label is number else "a"] * len(ids)


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_quantities_may_have_any_name(bundles, tmp_path: Path, suffix: str) -> None:
    """`file` and `allow_pickle` are arguments of numpy's own function that writes npz."""
    names = ("file", "allow_pickle", "probability")
    about = replace(open_bundle(bundles("features")).manifest, task="node-regression", class_names=names)
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)
    prediction = Prediction(logits=logits, probabilities=None, labels=logits)
    write_answers(tmp_path / f"a{suffix}", prediction, about)
    if suffix == ".npz":
        with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
            assert {name: found[name].tolist() for name in found.files} == {
                name: column.tolist() for name, column in answer_columns(prediction, about).items()
            }


def test_csr_from_scipy(make_requests, bundles, tmp_path: Path) -> None:
    """Bag-of-words data usually lies about in this form."""
    scipy = pytest.importorskip("scipy.sparse")
    requests = make_requests(12, sparse=False)
    assert requests.neighbors is not None
    scipy.save_npz(tmp_path / "x.npz", scipy.csr_matrix(requests.x))
    arrays = dict(np.load(tmp_path / "x.npz"))
    np.savez(tmp_path / "in.npz", neighbors=requests.neighbors, **arrays)
    found = read_requests(tmp_path / "in.npz", features=F)
    np.testing.assert_array_equal(found.dense(F), requests.x)
    np.savez(tmp_path / "own.npz", neighbors=np.arange(12), **arrays)
    assert read_requests(tmp_path / "own.npz", features=F).neighbors.shape == (12, 1)
    scipy.save_npz(tmp_path / "csc.npz", scipy.csc_matrix(requests.x))
    with pytest.raises(RequestError, match="must be CSR"):
        read_requests(tmp_path / "csc.npz", features=F)


@pytest.mark.parametrize(
    ("ids", "expected"), [("7 8", [7, 8]), ("007 8", ["007", "8"]), ("7 x", ["7", "x"]), ("-1 0", [-1, 0])]
)
def test_ids_come_back_as_they_were(tmp_path: Path, ids: str, expected: list[object]) -> None:
    """'007' read as 7 could not be joined with the caller's own table again."""
    lines = [f"{name},1" for name in ids.split()]
    (tmp_path / "in.csv").write_text("\n".join(["id,indices", *lines]))
    found = read_requests(tmp_path / "in.csv", features=F)
    assert found.ids is not None
    assert found.ids.tolist() == expected


def test_empty_cells_empty_files_and_spreadsheets(tmp_path: Path) -> None:
    """No neighbours is a request like any other; a byte-order mark and blank lines come from spreadsheets."""
    (tmp_path / "in.csv").write_bytes("\ufeffindices,values,neighbors\r\n1 2,0.5 1,\r\n,,3 4\r\n\r\n".encode())
    found = read_requests(tmp_path / "in.csv", features=F)
    assert found.indices.tolist() == [[1, 2], [-1, -1]]
    assert found.neighbors.tolist() == [[-1, -1], [3, 4]]
    (tmp_path / "none.csv").write_text("indices,neighbors\n")
    assert len(read_requests(tmp_path / "none.csv", features=F)) == 0


def test_empty_cells_of_parquet(tmp_path: Path) -> None:
    """A node without edges has no number; the column of the others is one of whole numbers all the same."""
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"indices": [[1], [2]], "neighbors": [3, None]}), tmp_path / "in.parquet")
    found = read_requests(tmp_path / "in.parquet", features=F)
    assert found.neighbors.tolist() == [[3], [-1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no features"),
        ("id\n1\n", "has no features"),
        ("x0,x1\n1,2\n", "has 2 feature columns, x0 to x1; the bundle takes 20"),
        ("x1,x2\n1,2\n", "x1 to x2"),
        ("indices,weights\n1,2\n", "unknown column 'weights'"),
        ("indices,indices\n1,2\n", "comes twice"),
        ("indices,values\n1,2,3\n", "line 2: 3 cells, expected 2"),
        ("indices\n1 two\n", "request 0: 'indices' must be whole numbers .* got '1 two'"),
        ("indices\n1.5\n", "whole numbers"),
        ("indices\n99999999999999999999\n", "whole numbers"),
        ("indices,values\n1 2,1\n", "request 0: 2 indices, but 1 values"),
        (",".join(f"x{i}" for i in range(F)) + "\n" + "1," * 19 + "abc\n", "'x19' must be a number, got 'abc'"),
        (",".join(f"x{i}" for i in range(F)) + "\n" + "1," * 19 + "\n", "'x19' must be a number, got ''"),
        # Python's own grammar of numbers, which no other reader of csv shares.
        (",".join(f"x{i}" for i in range(F)) + "\n" + "1," * 19 + "1_0\n", "'x19' must be a number, got '1_0'"),
        ("indices\n1 1_0\n", "whole numbers .* got '1 1_0'"),
        ("indices,values\n1,1_0\n", "'values' must be numbers .* got '1_0'"),
        ("indices\n18446744073709551615\n", "whole numbers"),
    ],
)
def test_malformed_csv(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(RequestError, match=message) as caught:
        read_requests(tmp_path / "in.csv", features=F)
    assert "\n" not in str(caught.value)


def _damaged(folder: Path) -> list[bytes]:
    """Files whose zip or header nobody can read: encrypted, compressed in an odd way, a header that is no Python."""
    np.savez(folder / "whole.npz", x=np.zeros((1, F)))
    whole = (folder / "whole.npz").read_bytes()
    directory = whole.rindex(b"PK\x01\x02")
    found = []
    for place, value in ((8, 1), (10, 99)):  # flags and method of the directory's entry
        changed = bytearray(whole)
        changed[directory + place] = changed[place - 2] = value
        found.append(bytes(changed))
    return [*found, whole.replace(b"'descr'", b"'desc\x00'"), whole.replace(b"(1, 20)", b"((1, 20")]


def test_malformed_npz(tmp_path: Path) -> None:
    """Nothing is unpickled: an object array may run any code when it is read."""
    path = tmp_path / "in.npz"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"x": np.array([[{}]], dtype=object)}, "without unpickling"),
        ({"y": np.zeros(3)}, "has no features"),
        ({"data": np.ones(2), "indices": np.array([0, 1]), "indptr": np.array([0, 3])}, "ends at 3"),
        ({"data": np.ones(2), "indices": np.array([0, 1]), "indptr": np.array([0, 2, 1])}, "one CSR matrix"),
        ({"data": np.ones(2), "indices": np.array([0]), "indptr": np.array([0, 1])}, "one CSR matrix"),
        ({"indptr": np.array([0, 1])}, "must be CSR"),
        ({"x": np.zeros((2, F)), "ids": np.arange(3)}, "3 of 'ids'"),
        ({"x": np.zeros((1, F)), "indices": np.zeros((1, 1), int)}, "given twice"),
        ({"data": np.ones(2), "indices": np.array([0, -1]), "indptr": np.array([0, 2])}, "one CSR matrix"),
        ({"data": np.ones(1), "indices": np.array([2**64 - 1], np.uint64), "indptr": np.array([0, 1])}, "one CSR"),
        ({"data": np.ones(2), "indices": np.array([0, 1]), "indptr": np.array([0, 3, 2], np.uint64)}, "one CSR"),
        ({"data": np.array(["a"]), "indices": np.array([0]), "indptr": np.array([0, 1])}, "one CSR matrix"),
        ({"data": np.ones(1), "indices": np.array([0]), "indptr": np.array(1)}, "one CSR matrix"),
        ({"data": np.ones(1), "indices": np.zeros(1, int), "indptr": np.arange(2), "format": np.arange(2)}, "be CSR"),
        ({"x": np.zeros((1, F)), "neighbors": np.array([[2**64 - 1]], np.uint64)}, "18446744073709551615"),
        ({"indices": np.array([[2**64 - 1]], np.uint64)}, "'indices' .*18446744073709551615"),
        *(
            ({"x": np.zeros((1, F)), "ids": ids}, "'ids' must hold one number or text for each request")
            for ids in (
                np.array(1),
                np.array([[1, 2]]),
                np.array([1j]),
                np.array([(1, 2)], dtype="i4,i4"),
                np.array([b"a"]),
            )
        ),
    ]
    for arrays, message in cases:
        np.savez(path, **arrays)
        with pytest.raises(RequestError, match=message) as caught:
            read_requests(path, features=F)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    for content in (b"", b"PK\x03\x04 broken", b"\x93NUMPY", *_damaged(tmp_path)):
        path.write_bytes(content)
        with pytest.raises(RequestError, match="npz"):
            read_requests(path, features=F)


def test_unknown_kinds_and_missing_files(tmp_path: Path, bundles, make_requests) -> None:
    (tmp_path / "in.json").touch()
    with pytest.raises(RequestError, match=r"\.csv, \.npz, \.parquet files, got '\.json'"):
        read_requests(tmp_path / "in.json", features=F)
    for missing in ("in.csv", "folder"):
        with pytest.raises(RequestError, match=f"{missing} does not exist"):
            read_requests(tmp_path / missing, features=F)
    (tmp_path / "bad.csv").write_bytes(b"x0\n\xff\xfe\n")
    with pytest.raises(RequestError, match="UTF-8"):
        read_requests(tmp_path / "bad.csv", features=F)
    pytest.importorskip("pyarrow")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(RequestError, match="not a parquet file"):
        read_requests(tmp_path / "bad.parquet", features=F)
    predictor = Predictor(bundles("dense"))
    with pytest.raises(RequestError, match="answers are written as"):
        write_answers(tmp_path / "out.txt", predictor.predict(make_requests(1, sparse=False)), predictor.manifest)


def test_malformed_lists_of_parquet(tmp_path: Path) -> None:
    """A column of lists is one of cells that are arrays, which few functions of numpy expect."""
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    dense = {f"x{i}": [1.0, 2.0] for i in range(F)}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"id": [[1], [2, 3]], "indices": [[1], [2]]}, "'id' must hold one number or text for each request"),
        ({"id": [[1], [2]], "indices": [[1], [2]]}, "'id' must hold one number or text for each request"),
        (dense | {"x3": [[1.0], [2.0]]}, "'x3' must be a number"),
        ({"indices": arrow.array([[2**64 - 1]], arrow.list_(arrow.uint64()))}, "whole numbers"),
        ({"indices": [[1]], "neighbors": arrow.array([2**64 - 1], arrow.uint64())}, "18446744073709551615"),
    ]
    for columns, message in cases:
        parquet.write_table(arrow.table(columns), tmp_path / "in.parquet")
        for read in (lambda path: read_requests(path, features=F), lambda path: list(request_parts(path, features=F))):
            with pytest.raises(RequestError, match=message) as caught:
                read(tmp_path / "in.parquet")
            assert str(tmp_path) in str(caught.value)


def test_cells_of_any_length(tmp_path: Path) -> None:
    """The neighbours of a hub; csv's own limit is 131,072 characters."""
    (tmp_path / "in.csv").write_text("indices,neighbors\n1," + " ".join(map(str, range(40_000))) + "\n")
    assert read_requests(tmp_path / "in.csv", features=F).neighbors.shape == (1, 40_000)


def test_numbers_too_large_are_refused_without_a_warning(bundles, tmp_path: Path) -> None:
    """The warning of numpy came before the line that says what is wrong."""
    predictor, columns = Predictor(bundles("features")), {f"x{i}": ["1e39"] for i in range(F)}
    np.savez(tmp_path / "in.npz", data=np.array([1e39]), indices=np.array([1]), indptr=np.array([0, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for requests in (
            from_columns(columns, tmp_path, FeatureColumns(F), None),
            from_columns({"indices": ["1"], "values": ["1e39"]}, tmp_path, FeatureColumns(F), None),
            read_requests(tmp_path / "in.npz", features=F),
        ):
            with pytest.raises(RequestError, match="must be finite"):
                predictor.predict(requests)
