"""`predict_file`: a file of requests in, a file of answers out. No torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.atomic import naming, sweep_beside
from graph2mlp.errors import RequestError
from graph2mlp.export.answers import answer_columns, answer_file, check_output
from graph2mlp.export.bundle import is_bundle
from graph2mlp.export.inputs import FORMATS, read_requests, unread_note
from graph2mlp.export.requests import Requests
from graph2mlp.export.runtime import Prediction, Predictor
from graph2mlp.export.stream import request_parts
from graph2mlp.lock import LOCK, hold
from graph2mlp.tasks import CLASSIFICATION, REGRESSION

__all__ = ["Answerer", "PredictSummary", "check_apart", "check_order", "predict_file"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PredictSummary:
    """What was answered, and where the answers are."""

    out: Path | None
    requests: int
    labels: dict[str, int]
    """How many requests got each label; empty for quantities."""
    columns: dict[str, NDArray[Any]] | None = None
    """The answers, one entry per request (see `answer_columns`); None where they went to a file."""
    note: str = ""
    """What of the file was not read."""

    def summary(self) -> str:
        parts = ", ".join(f"{label} {self.labels[label]}" for label in sorted(self.labels))
        where = "" if self.out is None else f"{self.out}: "
        return f"{where}{self.requests} requests answered" + (f" ({parts})" if parts else "")


class Answerer:
    """A bundle, opened, that answers whole files."""

    def __init__(self, bundle: str | os.PathLike[str]) -> None:
        self.predictor = Predictor(bundle)
        about = self.predictor.manifest
        self._how: dict[str, Any] = {
            "features": about.features,
            "names": self.predictor.node_names,
            "structure": about.structure is not None,
            "feature_names": about.feature_names,
        }

    def to_file(self, source: Path, out: Path, *, between: Callable[[], None] = lambda: None) -> PredictSummary:
        """Answer `source` into `out`, part by part, `between` which a function is called.

        Raises:
            RequestError: the file cannot be read, or a request does not fit the bundle; then nothing is written.
        """
        counts, done = Counter[str](), 0
        whole = source.suffix.lower() == ".csv" and out.suffix.lower() != ".csv"  # the type of ids is that of all ids
        with answer_file(out) as write:
            for requests in [read_requests(source, **self._how)] if whole else request_parts(source, **self._how):
                between()
                prediction = self._answer(requests, f"{source}, counted from request {done}" if done else f"{source}")
                write(answer_columns(prediction, self.predictor.manifest, requests.ids, first=done))
                counts.update(self._counts(prediction))
                done += len(prediction)
        return PredictSummary(out=out, requests=done, labels=dict(counts), note=self._note(source))

    def in_memory(self, source: Path) -> PredictSummary:
        """Answer `source` into columns."""
        requests = read_requests(source, **self._how)
        prediction = self._answer(requests, f"{source}")
        columns = answer_columns(prediction, self.predictor.manifest, requests.ids)
        counts = dict(self._counts(prediction))
        return PredictSummary(
            out=None, requests=len(prediction), labels=counts, columns=columns, note=self._note(source)
        )

    def _answer(self, requests: Requests, where: str) -> Prediction:
        try:
            return self.predictor.predict(requests)
        except RequestError as error:
            raise RequestError(f"{where}: {error}") from None

    def _note(self, source: Path) -> str:
        return unread_note(source, self.predictor.manifest.feature_names)

    def _counts(self, prediction: Prediction) -> Counter[str]:
        kind, names = self.predictor.manifest.kind, self.predictor.class_names
        if kind is REGRESSION:
            return Counter()
        labels = prediction.labels
        found = np.bincount(labels, minlength=len(names)) if kind is CLASSIFICATION else labels.sum(0)
        counts = Counter[str]()
        for name, count in zip(names, found.tolist(), strict=True):  # two classes may have one name
            counts[name] += count
        return +counts  # those that occur


def check_order(bundle: Path, source: Path) -> None:
    """Refuse a bundle and requests that were given the other way round.

    Raises:
        RequestError: they were.
    """
    if is_bundle(bundle) or not (is_bundle(source) or bundle.suffix.lower() in FORMATS):
        return
    first, why = (source, f", but {source} is") if is_bundle(source) else ("BUNDLE", "")
    raise RequestError(
        f"{bundle} is not a bundle{why}. The bundle comes first, then the requests: graph2mlp predict {first} {bundle}"
    )


def check_apart(bundle: Path, source: Path, out: Path) -> None:
    """Refuse answers that would change the bundle or replace the requests.

    Raises:
        RequestError: `out` is inside the bundle, or the same file or folder as `source`.
    """
    if bundle.is_dir() and out.resolve().is_relative_to(bundle.resolve()):
        raise RequestError(f"{out} would be inside the bundle, which must stay as it is. Choose another --out.")
    if out.exists() and source.exists() and out.samefile(source):
        what = "folder" if source.is_dir() else "file"
        raise RequestError(f"{out} is the {what} of requests itself. Choose another --out.")


def predict_file(bundle: str | os.PathLike[str], source: Path, *, out: Path | None = None) -> PredictSummary:
    """Answer the requests in `source` (see `graph2mlp.export.inputs`) and write them to `out`, if given.

    With `out`, parquet (and csv to csv) passes in parts, so that memory does not grow with the file.

    Raises:
        BundleError: the bundle is missing or damaged.
        RequestError: the file cannot be read, a request does not fit the bundle, or `out` is of an unknown kind.
        RunError: another process writes to `out`.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    if out is None:
        return Answerer(bundle).in_memory(source)
    check_output(out)
    check_apart(Path(bundle), source, out)
    answerer = Answerer(bundle)
    with hold(out.parent / f".{out.name}{LOCK}", str(out)), naming(out):
        sweep_beside(out)  # of commands that were killed
        try:
            return answerer.to_file(source, out)
        finally:
            sweep_beside(out)  # a signal may come before there is anyone to remove what was just made
