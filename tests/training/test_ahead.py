"""Batches that are cut by another thread are the same batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from graph2mlp.data.graph import GraphData
from graph2mlp.training.ahead import one_ahead
from graph2mlp.training.checkpoint import Checkpoint
from tests.pipeline import run_method, same_weights

LARGE = ("train.epochs=6", "train.epoch_rows=40", "student.dropout=0.3", "student.structure_dropout=0.2")
"""Smaller epochs than the graph: one that is cut ahead."""


def test_order_and_overlap() -> None:
    """The next one is made while this one is held, never more than one."""
    made: list[int] = []
    threads: set[str] = set()

    def batches() -> Iterator[int]:
        for number in range(5):
            threads.add(threading.current_thread().name)
            made.append(number)
            yield number

    seen = []
    for batch in one_ahead(batches()):
        seen.append(batch)
        assert len(made) <= batch + 2
    assert seen == made == [0, 1, 2, 3, 4]
    assert threading.current_thread().name not in threads
    assert list(one_ahead(())) == []


def test_faults_arrive_and_nothing_stays_behind() -> None:
    """A full memory is noticed where batches are cut, and must end the training in one line; so must Ctrl-C."""

    def broken() -> Iterator[int]:
        yield 1
        raise MemoryError("no room")

    running = threading.active_count()
    seen = []
    with pytest.raises(MemoryError, match="no room"):
        seen.extend(one_ahead(broken()))
    halfway = one_ahead(iter(range(1, 100)))
    assert next(halfway) == 1
    halfway.close()  # type: ignore[attr-defined]
    assert threading.active_count() == running


@pytest.mark.parametrize("method", ["blend", "gsdn", "cold_brew", "lsp"])
def test_same_student(method: str, dense_graph: GraphData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, and when it was interrupted, too."""
    ahead = run_method(method, dense_graph, overrides=LARGE)
    with monkeypatch.context() as patch:
        patch.setattr("graph2mlp.training.student.one_ahead", lambda batches: batches)
        alone = run_method(method, dense_graph, overrides=LARGE)
    assert same_weights(ahead.weights(), alone.weights())
    file = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run_method(method, dense_graph, overrides=LARGE, checkpoint=Checkpoint(file, seconds=0), log=_interrupt_at_4)
    resumed = run_method(method, dense_graph, overrides=LARGE, checkpoint=Checkpoint(file))
    assert same_weights(ahead.weights(), resumed.weights())


def _interrupt_at_4(epoch: int, _figures: Mapping[str, float]) -> None:
    if epoch == 4:
        raise KeyboardInterrupt
