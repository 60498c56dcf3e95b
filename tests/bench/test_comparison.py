"""Paired differences, checked by hand: the figures behind every claim that one method is better than another."""

from __future__ import annotations

import pytest

from bench.comparison import compare, paired, spread, summary
from graph2mlp.errors import DataError


def _row(method: str, seed: int, student: float, *, teacher: float | str = 0.8, **other: str) -> dict[str, str]:
    row = {
        "graph": "g",
        "setting": "transductive",
        "method": method,
        "teacher": "sage",
        "settings": "",
        "regime": "features",
        "layers": "2",
        "hidden": "128",
        "parameters": "5514",
        "commit": "abc",
        "seed": str(seed),
        "student_test": str(student),
        "teacher_test": str(teacher),
        "mlp_test": "0.6",
    }
    return row | other


def test_interval_is_that_of_student_t() -> None:
    """Differences 1, 2, 3: mean 2, deviation 1, and t(0.975, 2) = 4.302653, from a printed table."""
    found = paired([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert found is not None
    assert (found.n, found.mean, found.wins) == (3, 2.0, 3)
    assert found.half_width == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert str(found) == "+2.00 [-0.48, +4.48], 3/3"


def test_one_seed_has_no_interval_and_a_tie_is_no_win() -> None:
    """One run says nothing about spread; equal is not better."""
    one = paired([1.0], [1.0])
    assert one is not None
    assert one.half_width is None
    assert str(one) == "+0.00, 0/1"
    assert paired([], []) is None


def test_pairs_are_equal_seeds_whatever_their_order() -> None:
    """Rows of an interrupted table are in any order and number; pairing by place would compare other splits."""
    rows = [_row("a", 2, 0.9), _row("a", 0, 0.7), _row("a", 5, 0.1), _row("glnn", 0, 0.6), _row("glnn", 2, 0.7)]
    entries = {entry.method: entry for entry in compare(rows, ("glnn", "sage"))}
    found = entries["a"].baseline
    assert found is not None
    assert (found.n, found.wins) == (2, 2)
    assert found.mean == pytest.approx(15)
    assert entries["glnn"].baseline is None
    plain = entries["a"].plain_mlp
    assert plain is not None
    assert (plain.n, plain.wins) == (3, 2)
    assert plain.mean == pytest.approx((30 + 10 - 50) / 3)
    own = entries["a"].own_teacher
    assert own is not None
    assert (own.n, own.wins) == (3, 1)


def test_only_equal_places_are_compared() -> None:
    """Another graph, another setting, or a baseline with changed settings is no baseline."""
    rows = [
        _row("a", 0, 0.9),
        _row("glnn", 0, 0.1, graph="h"),
        _row("glnn", 0, 0.1, settings="train.lr=1"),
        _row("glnn", 0, 0.1, teacher="0.8") | {"teacher": "gcn"},
    ]
    first = next(entry for entry in compare(rows, ("glnn", "sage")) if entry.method == "a")
    assert first.baseline is None


def test_a_method_without_teacher_is_compared_with_the_baseline_alone() -> None:
    """gsdn learns from nobody, so there is no teacher to beat."""
    rows = [_row("gsdn", 0, 0.9, teacher="") | {"teacher": ""}, _row("glnn", 0, 0.7)]
    entry = next(entry for entry in compare(rows, ("glnn", "sage")) if entry.method == "gsdn")
    assert entry.own_teacher is None
    assert entry.label == "gsdn"
    assert entry.baseline is not None


def test_summary_shows_means_regime_size_and_commits() -> None:
    """A figure without its regime, size and commit cannot be judged. Deviation is that of the population: here 10."""
    rows = [_row("nosmog", 0, 0.9), _row("nosmog", 1, 0.7), _row("glnn", 0, 0.8), _row("new", 0, 0.5, commit="def")]
    assert spread(rows[:2], "student_test") == "80.00 ± 10.00"
    assert spread(rows[:1], "student_test") == "90.00", "one seed has no deviation, rather than none at all"
    lines = summary(rows, ("glnn", "sage")).splitlines()
    assert lines[0].split()[:3] == ["g,", "transductive,", "test"]
    assert [line.split()[0] for line in lines[1:4]] == ["nosmog", "glnn", "new"]
    assert "features  2 x 128, 5k  2      80.00 ± 0.00  60.00 ± 0.00  80.00 ± 10.00  +10.00, 1/1" in lines[1]
    assert lines[-1] == "Commits (rows): abc (3), def (1)"


def test_nothing_to_compare_is_said() -> None:
    """A table whose runs all failed, and one whose file was edited by hand."""
    assert summary([], ("glnn", "sage")) == "There are no rows to compare."
    with pytest.raises(DataError, match="setting 'inductive'. Known: transductive, production"):
        summary([_row("a", 0, 0.9, setting="inductive")], ("glnn", "sage"))
