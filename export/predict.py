"""`predict_file`: a file of requests in, a file of answers out. No torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import RequestError
from graph2mlp.export.answers import answer_columns, check_output, write_answers
from graph2mlp.export.inputs import read_requests
from graph2mlp.export.names import NodeNames
from graph2mlp.export.runtime import Predictor

__all__ = ["PredictSummary", "predict_file"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PredictSummary:
    """What was answered, and where the answers are."""

    out: Path | None
    columns: dict[str, NDArray[Any]]
    """`id`, `label` and `probability`, one entry per request; see `write_csv` to print them."""

    def summary(self) -> str:
        labels, counts = np.unique(self.columns["label"], return_counts=True)
        parts = ", ".join(f"{label} {count}" for label, count in zip(labels, counts, strict=True))
        where = "" if self.out is None else f"{self.out}: "
        return f"{where}{len(self.columns['id'])} requests answered ({parts or 'none'})"


def predict_file(bundle: str | os.PathLike[str], source: Path, *, out: Path | None = None) -> PredictSummary:
    """Answer the requests in `source` (see `graph2mlp.export.inputs`) and write them to `out`, if given.

    Raises:
        BundleError: the bundle is missing or damaged.
        RequestError: the file cannot be read, a request does not fit the bundle, or `out` is of an unknown kind.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    if out is not None:
        check_output(out)
        if Path(bundle).is_dir() and out.resolve().is_relative_to(Path(bundle).resolve()):
            raise RequestError(f"{out} would be inside the bundle, which must stay as it is. Choose another --out.")
        if out.exists() and source.exists() and out.samefile(source):
            raise RequestError(f"{out} is the file of requests itself. Choose another --out.")
    predictor = Predictor(bundle)
    names = predictor.bundle.node_names()
    known = None if names is None else NodeNames(names)
    about = predictor.manifest
    requests = read_requests(source, features=about.features, names=known, structure=about.structure is not None)
    prediction = predictor.predict(requests)
    if out is not None:
        write_answers(out, prediction, predictor.class_names, requests.ids)
    return PredictSummary(out=out, columns=answer_columns(prediction, predictor.class_names, requests.ids))
