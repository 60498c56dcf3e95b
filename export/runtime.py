"""Answers on a device: `Predictor` needs numpy and onnxruntime, nothing else; where that is missing, numpy alone.

`python -m graph2mlp.export.runtime BUNDLE` checks, on the device, that a bundle gives the answers it was made with.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import BundleError, Graph2MLPError, ParityError, RequestError, one_line
from graph2mlp.export.bundle import NODES, Bundle, open_bundle
from graph2mlp.export.calls import CHUNK, PreparedCall, chunks_of
from graph2mlp.export.engines import open_engine
from graph2mlp.export.integrity import Verify
from graph2mlp.export.names import NodeNames
from graph2mlp.export.parity import ATOL, ROUNDED, check_rounded, compare_logits
from graph2mlp.export.requests import PAD, Floats, Ints, Requests, pad_lists, read_lists
from graph2mlp.tasks import CLASSIFICATION

__all__ = ["Prediction", "Predictor", "PreparedCall", "SelfCheck", "main"]

_FEW = 48


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction:
    """Answers to B requests: `logits [B, C]`, `probabilities [B, C]` and `labels`, what they come to.

    Of classes `labels [B]` are positions in the class names; of labels of their own `[B, C]` they are 0 or 1; of
    quantities, which have no probabilities (None), they are the logits.
    """

    logits: Floats
    probabilities: Floats | None
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """A bundle gave the answers it was made with, on this machine."""

    path: str
    requests: int
    max_abs: float
    accuracy: float | None
    """On the sample's requests whose true label is known."""
    network_accuracy: float | None = None
    """Of the network before its numbers were rounded, on the same requests; None when the file is the network."""
    metric: str = CLASSIFICATION.metric

    def summary(self) -> str:
        accuracy = "" if self.accuracy is None else f", {self.metric} on them {self.accuracy:.1%}"
        accuracy += "" if self.network_accuracy is None else f" (network {self.network_accuracy:.1%})"
        return f"{self.path}: ok, {self.requests} requests agree (largest difference {self.max_abs:.1e}){accuracy}"


class Predictor:
    """A bundle, opened and verified, ready to answer. One object may serve many threads.

    `engine`: `onnxruntime`, `numpy`, or `auto` (onnxruntime where it is installed); `engine_name` says which it became.
    `threads` is for onnxruntime: for networks this small more than one costs CPU time and gives no latency.
    `verify="fast"` reads a large file of weights in samples only, so that a table of gigabytes opens in milliseconds
    (see `graph2mlp.export.integrity`); `self_check`, or `verify="full"`, reads it completely.

    Raises:
        BundleError: the bundle is missing, damaged, from another version, or the engine refuses its model.
        ConfigError: `engine` or `verify` has another value.
        MissingExtraError: onnxruntime is asked for and not installed.
        RequestError: `threads` is no whole number, or below 1.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Bundle,
        *,
        threads: int = 1,
        engine: str = "auto",
        verify: Verify = "fast",
    ) -> None:
        if not isinstance(threads, int) or threads < 1:
            raise RequestError(f"threads must be a whole number of at least 1 (got {one_line(repr(threads), 40)})")
        self.bundle = path if isinstance(path, Bundle) else open_bundle(path, verify=verify)
        self.manifest = self.bundle.manifest
        self._engine = open_engine(self.bundle, engine=engine, threads=threads)
        # Looked up once: this is on the way of every request.
        self._sparse, self._width = self.manifest.sparse, self.manifest.features
        self._labels = self.manifest.kind.labels
        self._nodes = self.manifest.structure.nodes if self.manifest.structure is not None else None
        named = NODES in self.bundle.contents
        self._own_ids = " These are positions; Predictor.neighbors(lists) makes them of your own ids." if named else ""

    @property
    def engine_name(self) -> str:
        """What runs the model: `onnxruntime` or `numpy`."""
        return self._engine.name

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.manifest.class_names

    @cached_property
    def node_names(self) -> NodeNames | None:
        """Looks up nodes of the table by the user's ids; None where these are their positions."""
        names = self.bundle.node_names()
        return None if names is None else NodeNames(names)

    def neighbors(self, lists: Iterable[Any]) -> Ints:
        """The `neighbors [B, K]` that `predict` takes, made of a list of the user's own ids for each of B requests.

        Ids are text or numbers; lists may differ in length. A node of the training graph lists itself, any other node
        its neighbours, a node without edges nothing. Text instead of a list is read as a cell of a file would be. For a
        bundle that reads features only every row is empty.

        Raises:
            RequestError: an id is not that of a node, or `lists` does not hold a list per request.
        """
        if isinstance(lists, str) or not isinstance(lists, Iterable):
            raise RequestError(f"Predictor.neighbors takes a list of ids for each request, got {str(lists)[:40]!r}.")
        where = "Predictor.neighbors"
        cells = [list(cell) if isinstance(cell, Iterable) and not isinstance(cell, str) else cell for cell in lists]
        if self._nodes is None:
            return np.full((len(cells), 1), PAD, dtype=np.int64)
        names = self.node_names
        if names is None:
            table: Ints = pad_lists(read_lists("neighbors", cells, np.int64, where), np.int64)
            return self._neighbors(table, self._nodes)
        return pad_lists([names.positions(cell, f"{where}, request {row}") for row, cell in enumerate(cells)], np.int64)

    def predict(
        self,
        requests: Requests | None = None,
        *,
        x: NDArray[Any] | None = None,
        indices: NDArray[Any] | None = None,
        values: NDArray[Any] | None = None,
        neighbors: NDArray[Any] | None = None,
    ) -> Prediction:
        """Answer `requests`, or the arrays they would be made of (shapes: see `Requests`).

        Dense and sparse features both serve every bundle. A bundle that reads features only ignores `neighbors`; any
        other takes positions in its table, which the method `neighbors` makes of the user's own ids.

        Raises:
            RequestError: something is missing, of the wrong width or type, not finite, or an id is out of range; or
                features are so large that the answer is not finite.
        """
        if requests is None:
            requests = Requests(x=x, indices=indices, values=values, neighbors=neighbors)
        feeds = self.feeds(requests)
        if len(requests) <= CHUNK:
            found = self._engine.run(feeds)
        else:
            size = (len(requests), len(self.class_names))
            found = [np.empty(size, np.float32) for _ in self._engine.outputs]
            for rows, part in chunks_of(feeds):
                for whole, answers in zip(found, self._engine.run(part), strict=True):
                    whole[rows] = answers
        logits = found[0]
        if (odd := _first_not_finite(logits)) is not None:
            raise RequestError(
                f"The answer to request {odd[0]} is not finite ({logits[odd]}): its features are too large for the "
                "network. Check their units."
            )
        probabilities = found[1] if len(found) > 1 else None
        return Prediction(logits=logits, probabilities=probabilities, labels=self._labels(logits))

    def prepare(self, requests: Requests) -> PreparedCall:
        """Checked requests bound to the session, for calls that cost what the network costs: answers go unchecked."""
        return PreparedCall(self._engine, self.feeds(requests), len(self.class_names))

    def feeds(self, requests: Requests) -> dict[str, NDArray[Any]]:
        """The checked inputs of the model.

        Raises:
            RequestError: the requests do not fit the bundle.
        """
        feeds: dict[str, NDArray[Any]] = self._features(requests)
        if self._nodes is not None:
            feeds["neighbors"] = self._neighbors(requests.neighbors, self._nodes)
        return feeds

    def self_check(self) -> SelfCheck:
        """Verify what opening has only sampled, answer the sample, and hold the answers against those it was made with.

        Raises:
            BundleError: a file is damaged, or the sample cannot be read.
            ParityError: an answer differs.
        """
        self.bundle.verify()
        sample = self.bundle.sample()
        wanted = {spec.name for spec in self.manifest.inputs} | {"logits", "labels", "y"}
        if missing := sorted(wanted - sample.keys()):
            raise BundleError(f"{self.bundle.path}: sample.npz lacks {', '.join(missing)}. Export it again.")
        inputs = {spec.name: sample[spec.name] for spec in self.manifest.inputs}
        try:
            answer = self.predict(Requests(**inputs))
        except RequestError as error:
            raise BundleError(f"{self.bundle.path}: sample.npz does not fit the model: {error}") from None
        what = f"{self.bundle.path}: the model on this machine"
        given = ("logits", "labels", "y")
        other = sample.get("network_logits", answer.logits).shape != answer.logits.shape
        if other or any(len(sample[name]) != len(answer) for name in given):
            raise BundleError(f"{self.bundle.path}: the arrays of sample.npz differ in length. Export it again.")
        max_abs = self._compare(sample, answer, what)
        kind, known = self.manifest.kind, self.manifest.kind.known(sample["y"]).any()
        # What the network said before rounding; a file that rounds nothing only keeps one set of answers.
        network = kind.labels(sample.get("network_logits", sample["logits"]))
        return SelfCheck(
            path=str(self.bundle.path),
            requests=len(answer),
            max_abs=max_abs,
            accuracy=kind.score(answer.labels, sample["y"]) if known else None,
            network_accuracy=kind.score(network, sample["y"]) if known and "network_logits" in sample else None,
            metric=kind.metric,
        )

    def _compare(self, sample: dict[str, NDArray[Any]], answer: Prediction, what: str) -> float:
        """The largest difference to the expected logits, if it is within what this kind of file may show."""
        tolerance = {name: self.manifest.parity[name] for name in ROUNDED if name in self.manifest.parity}
        if len(tolerance) == len(ROUNDED):
            kind = self.manifest.kind
            return check_rounded(sample["logits"], answer.logits, tolerance, what=what, kind=kind).max_abs
        unit = sample.get("unit")  # of quantities; a bundle of before has none
        if unit is not None and not _are_units(unit, answer.logits.shape[1]):
            raise BundleError(f"{self.bundle.path}: 'unit' of sample.npz must hold a positive number per quantity.")
        difference = compare_logits(sample["logits"], answer.logits, atol=ATOL, what=what, unit=unit)
        if self.manifest.kind is not CLASSIFICATION:
            return difference.max_abs  # what else is answered follows from the logits, number by number
        if (other := int((sample["labels"] != answer.labels).sum())) > difference.ties:
            raise ParityError(f"{what} gives another label for {other} of {len(answer)} sample requests.")
        return difference.max_abs

    def _features(self, requests: Requests) -> dict[str, NDArray[Any]]:
        width = self._width
        if requests.x is not None:
            if requests.x.shape[1] != width:
                raise RequestError(f"The bundle takes {width} features per request, got {requests.x.shape[1]}.")
            _check_finite("x", requests.x)
        else:
            assert requests.indices is not None
            assert requests.values is not None
            _check_ids("feature index", requests.indices, width)
            _check_finite("values", requests.values)
        if self._sparse:
            indices, values = requests.sparse()
            return {"indices": indices, "values": values}
        return {"x": requests.dense(width)}

    def _neighbors(self, neighbors: Ints | None, nodes: int) -> Ints:
        if neighbors is None:
            raise RequestError(
                f"The bundle reads structure, but the requests have no 'neighbors'. {self._wanted(nodes)}"
            )
        if not neighbors.shape[1]:
            return np.full((len(neighbors), 1), PAD, dtype=np.int64)
        _check_ids("neighbour id", neighbors, nodes, hint=self._own_ids)
        return neighbors

    def _wanted(self, nodes: int) -> str:
        """What `neighbors` must hold, in the words of a file, whose cells are what most people fill."""
        if (names := self.node_names) is None:
            return (
                f"Give each node's own id if it is in the table (0 to {nodes - 1}), else its neighbours' ids, "
                f"separated by spaces; {PAD} alone, or an empty cell, for a node without edges."
            )
        return (
            f"Give each node's own id if it was in the graph, else its neighbours' ids ({names.form}); an empty cell "
            "for a node without edges. In Python, Predictor.neighbors(lists) takes these ids."
        )


def main(arguments: list[str]) -> int:
    """Self-check the bundle named on the command line: one line, exit code 0 or 1 (2: no bundle named)."""
    if len(arguments) != 1:
        print("usage: python -m graph2mlp.export.runtime BUNDLE", file=sys.stderr)
        return 2
    try:
        print(Predictor(arguments[0]).self_check().summary())
    except Graph2MLPError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _are_units(unit: NDArray[Any], count: int) -> bool:
    return unit.dtype.kind == "f" and unit.shape == (count,) and bool((np.isfinite(unit) & (unit > 0)).all())


def _check_finite(name: str, values: Floats) -> None:
    if (odd := _first_not_finite(values)) is not None:
        raise RequestError(
            f"'{name}' of request {odd[0]} holds {values[odd]} in column {odd[1]}; numbers must be finite."
        )


def _first_not_finite(values: Floats) -> tuple[int, int] | None:
    # One pass: a sum is finite only if every number is. Of few, Python's own takes half the time, and of float32
    # never overflows; of many, it is one of squares, and only if that is not finite (they may be large) look closer.
    flat = values.reshape(-1)
    total = sum(flat.tolist()) if flat.size <= _FEW else np.vdot(flat, flat)
    if math.isfinite(total) or (finite := np.isfinite(values)).all():
        return None
    row, column = np.argwhere(~finite)[0].tolist()
    return row, column


def _check_ids(what: str, ids: Ints, count: int, *, hint: str = "") -> None:
    if ids.size <= _FEW:  # Python's own comparisons, as long as they take less time than one call of numpy
        listed = ids.ravel().tolist()
        if not listed or (min(listed) >= PAD and max(listed) < count):
            return
    # Read as unsigned, everything below the padding is huge: one comparison checks both ends.
    elif (ids + 1).view(np.uint64).max() <= count:
        return
    row, column = np.argwhere((ids < PAD) | (ids >= count))[0]
    raise RequestError(
        f"Request {row} has the {what} {ids[row, column]}, but they run from 0 to {count - 1} ({PAD} is padding).{hint}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
