"""`Contender`: one way of answering the same requests; and the ways in which a bundle answers them. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.errors import BundleError, ParityError
from graph2mlp.export.bundle import EXTERNAL_DATA, MODEL, ORT_MODEL
from graph2mlp.export.requests import PAD, Ints, Requests
from graph2mlp.export.runtime import Predictor
from graph2mlp.latency.rows import ANSWER, RUN_ONLY, About
from graph2mlp.measure import Call

__all__ = ["Contender", "bundle_contenders", "sample_requests"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Contender:
    """One way of answering. Requests are named by their position `rows [B]` among the requests of this bench."""

    about: About
    prepare: Callable[[Ints], Call]
    """What is timed for a batch. What a client does before it asks is done here."""
    labels: Callable[[Ints], NDArray[Any]]
    """The answers, in the form of the truth `y`, by the way that is timed."""
    serve: Callable[[Ints], object] | None = None
    """Put a batch together and answer it, as a server would; None: takes no part in the server scenario."""
    any_batch: bool = False
    """Whether it costs the same at any batch size, so that one is enough."""


def bundle_contenders(predictor: Predictor, requests: Requests, label: str) -> list[Contender]:
    """A bundle answering `requests`, with everything ready and with its checks. `label` tells it from other bundles."""
    about = _about(predictor)
    arrays = _columns(requests)
    lengths = {name: _lengths(array) for name, array in arrays.items() if name in ("indices", "neighbors")}

    def ask(rows: Ints) -> dict[str, Any]:
        width = {name: max(1, int(length[rows].max())) for name, length in lengths.items()}
        if "indices" in width:
            width["values"] = width["indices"]
        return {name: array[rows, : width.get(name)] for name, array in arrays.items()}

    def prepare(rows: Ints) -> Call:
        return predictor.prepare(Requests(**ask(rows)))

    def prepared_labels(rows: Ints) -> NDArray[Any]:
        call = predictor.prepare(Requests(**ask(rows)))
        call()
        return predictor.manifest.kind.labels(call.logits)

    return [
        Contender(about=replace(about, what=_named(RUN_ONLY, label)), prepare=prepare, labels=prepared_labels),
        Contender(
            about=replace(about, what=_named(ANSWER, label)),
            prepare=lambda rows: partial(predictor.predict, **ask(rows)),
            labels=lambda rows: predictor.predict(**ask(rows)).labels,
            serve=lambda rows: predictor.predict(**ask(rows)),
        ),
    ]


def sample_requests(predictor: Predictor) -> tuple[Requests, NDArray[Any]]:
    """The requests a bundle carries, and the truth about them (see `Task.known`).

    Raises:
        BundleError: there are none.
    """
    sample = predictor.bundle.sample()
    names = [spec.name for spec in predictor.manifest.inputs]
    missing = [name for name in (*names, "labels", "y") if name not in sample]
    if missing or not len(sample[names[0]]):
        raise BundleError(f"{predictor.bundle.path}: sample.npz holds no requests. Export it again.")
    return Requests(**{name: sample[name] for name in names}), sample["y"]


def _about(predictor: Predictor) -> About:
    """What a bundle is, and what it answers to its own sample on this machine."""
    manifest = predictor.manifest
    requests, y = sample_requests(predictor)
    answered, kind = predictor.predict(requests).labels, manifest.kind
    known = kind.known(y)
    stored = [manifest.files[name] for name in (MODEL, ORT_MODEL, EXTERNAL_DATA) if name in manifest.files]
    accuracy = kind.score(answered, y) if known.any() else None
    status = "ok"
    try:
        predictor.self_check()
    except ParityError as error:
        status = f"answers, but not as exported: {error}"
    return About(
        what="",
        kind="bundle",
        regime=manifest.regime,
        size_kb=sum(entry.bytes for entry in stored) / 1024,
        accuracy=accuracy,
        accuracy_n=int(known.sum()),
        sample_accuracy=accuracy,
        reported_accuracy=manifest.metrics.get("test", manifest.metrics.get("prod")),
        same_labels=kind.agreement(answered, predictor.bundle.sample()["labels"]),
        status=status,
        bundle=str(predictor.bundle.path),
        preset=manifest.preset,
        model_sha256=stored[0].sha256,
        task=kind.name,
    )


def _named(what: str, label: str) -> str:
    return what.replace("bundle", f"bundle {label}") if label else what


def _columns(requests: Requests) -> dict[str, NDArray[Any]]:
    names: Sequence[str] = ("x", "indices", "values", "neighbors")
    return {name: array for name in names if (array := getattr(requests, name)) is not None}


def _lengths(table: Ints) -> Ints:
    """Columns each row needs."""
    return np.asarray(((table != PAD) * np.arange(1, table.shape[1] + 1)).max(1, initial=0))
