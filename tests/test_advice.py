"""The closing sentences of a run: they must follow from its figures, and from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graph2mlp.advice import Gap, advise, run_advice, seeds_advice
from tests.cli import distill, result_of
from tests.graphs import community_graph, save_npz

CLEAR = Gap(0.2, sure=True)
LOST = Gap(-0.05, sure=True)
CLOSE = Gap(-0.01, sure=False)


def _part(nodes: int, gained: int, lost: int) -> dict[str, Any]:
    return {"nodes": nodes, "gained": gained, "lost": lost}


def _result(**changed: Any) -> dict[str, Any]:
    return {
        "method": "nosmog",
        "teacher": {"test": 0.80},
        "student": {"test": 0.82},
        "mlp": {"test": 0.60},
        "fcr": {"percent": 40.0, "reason": ""},
    } | changed


@pytest.mark.parametrize(
    ("teacher", "mlp", "decision"),
    [
        ({"test": CLEAR}, {"test": CLEAR}, "Deploy the student: nothing measured here speaks for the GNN"),
        ({"test": CLOSE}, {"test": CLEAR}, "Deploy the student: nothing"),
        ({"tran": CLEAR, "ind": LOST}, {"tran": CLEAR}, "Keep the GNN for new nodes with edges if accuracy"),
        ({"ind": LOST, "cold": LOST}, {"ind": CLEAR}, "new nodes with edges and new nodes without edges"),
        ({}, {"test": CLEAR}, "Deploy the student."),
        ({"test": CLEAR}, {"test": CLOSE}, "Deploy the plain MLP"),
        ({"test": CLEAR}, {"test": Gap(0.2, sure=False)}, "Deploy the plain MLP"),
        ({"test": CLEAR}, {"test": LOST}, "Deploy the plain MLP"),
    ],
)
def test_decision(teacher: dict[str, Gap], mlp: dict[str, Gap], decision: str) -> None:
    """The GNN is kept exactly where the student is clearly worse; the MLP wins where it is not clearly better."""
    assert decision in advise(teacher, mlp, None)[-1]


@pytest.mark.parametrize(
    ("percent", "words"),
    [(0, "edges carry most"), (50, "both matter"), (90, "--method blend_features"), (120, "worse than features alone")],
)
def test_what_features_can_do(percent: float, words: str) -> None:
    """Each range of the ratio has a reading of its own, and a ratio without meaning is not read at all."""
    (line,) = [one for one in advise({}, {"test": CLEAR}, {"percent": percent, "reason": ""}) if "FCR" in one]
    assert f"{percent} %" in line
    assert words in line
    unknown = advise({}, {"test": CLEAR}, {"percent": None, "reason": "label propagation beats the GNN"})
    assert any("cannot be said: label propagation beats the GNN" in one for one in unknown)


@pytest.mark.parametrize(
    ("structure", "mlp", "words"),
    [
        (True, {"test": CLEAR}, "which speaks for edges"),
        (True, {"tran": CLEAR, "ind": CLEAR, "cold": LOST}, "which speaks for edges"),
        (True, {"test": CLOSE}, "nothing here speaks for edges"),
        (True, {"tran": CLEAR, "ind": LOST}, "nothing here speaks for edges"),
        (True, {"ind": LOST, "cold": CLEAR}, "nothing here speaks for edges"),
        (False, {"test": CLEAR}, "a student with structure would show"),
    ],
)
def test_a_weak_teacher_is_no_verdict_on_edges(structure: bool, mlp: dict[str, Gap], words: str) -> None:
    """ "Edges hurt more than they help" stood beside a student that edges had made twenty points better."""
    fcr = {"percent": 130.0, "reason": ""}
    (line,) = [one for one in advise({}, mlp, fcr, structure=structure) if "FCR" in one]
    assert "130 % of what the GNN knows (FCR, validation nodes): this teacher does worse than features alone" in line
    assert words in line
    assert "hurt" not in line


def test_the_regime_of_the_run_decides_what_is_said_of_edges() -> None:
    """For one run and for several alike."""
    weak = {"fcr": {"percent": 130.0, "reason": ""}}
    for regime, words in (("structure", "which speaks for edges"), ("features", "would show (--method blend)")):
        one = _result(**weak, regime=regime)
        assert words in " ".join(run_advice(one, {"test": _part(2000, gained=60, lost=20)}))
        assert words in " ".join(seeds_advice([one] * 3))


def test_nodes_decide_what_may_be_chance() -> None:
    """Two points over a hundred nodes may be chance; the same two points, node by node all one way, are not."""
    chance = run_advice(_result(), {"test": _part(100, gained=10, lost=8)})
    sure = run_advice(_result(), {"test": _part(2000, gained=60, lost=20)})
    assert chance[0] == "Against its teacher, in points: test nodes +2.0 (may be chance)."
    assert sure[0] == "Against its teacher, in points: test nodes +2.0."
    assert sure[1] == "Against a plain MLP, in points: test nodes +22.0."


def test_teacher_without_answers_is_not_compared() -> None:
    """Knowledge from a file says nothing of unseen nodes: no difference may be made up for them."""
    result = _result(teacher={"tran": 0.8}, student={"tran": 0.82, "ind": 0.7}, mlp={"tran": 0.6, "ind": 0.6})
    parts = {"tran": _part(500, 30, 20), "ind": {"nodes": 100}}
    assert "new nodes" not in run_advice(result, parts)[0]
    assert "new nodes with edges +10.0 (may be chance)" in run_advice(result, parts)[1]


def test_seeds_are_compared_one_by_one() -> None:
    """A small gain on every seed is one; a large one on half of them may be chance."""
    steady = [_result(student={"test": 0.80 + gain}) for gain in (0.010, 0.012, 0.011)]
    assert "test nodes +1.1." in seeds_advice(steady)[0]
    mixed = [_result(student={"test": 0.80 + gain}) for gain in (-0.05, 0.09, -0.02)]
    assert "(may be chance)" in seeds_advice(mixed)[0]
    # Two seeds with gains of 1 and 2 points: twice their standard error is 1.0, Student's interval is 6.4 wide.
    two = [_result(student={"test": 0.80 + gain}) for gain in (0.010, 0.020)]
    assert "test nodes +1.5 (may be chance)" in seeds_advice(two)[0]


def test_other_frequencies_are_named_where_they_matter() -> None:
    """Who counts classes alike must learn that answers do not; where little changed there is nothing to say."""
    found = {"class": "Laptops", "labelled": 0.1, "observed": 0.372, "moved": 0.3}
    moved = run_advice(_result(teacher={"test": 0.8, "frequencies": found}), {"test": _part(500, 30, 20)})
    assert "37 % are estimated to be of class 'Laptops', of the labelled ones 10 %" in moved[0]
    assert "teacher.frequencies=labelled" in moved[0]
    several = seeds_advice([_result(teacher={"test": 0.8, "frequencies": found})] * 3)
    assert several[0] == moved[0]
    little = run_advice(
        _result(teacher={"test": 0.8, "frequencies": found | {"moved": 0.04}}), {"test": _part(9, 3, 2)}
    )
    assert "Laptops" not in " ".join(little)


def test_a_run_ends_with_its_advice(tmp_path: Path) -> None:
    """What is printed is what the run folder and the page hold; a plain MLP has nothing to be compared with."""
    file = save_npz(community_graph(), tmp_path / "tiny.npz")
    done = distill(file, tmp_path / "run", "--method", "glnn", "--setting", "production")
    result = result_of(tmp_path / "run")
    assert result["advice"]
    assert set(result["fcr"]) == {"percent", "reason", "gnn", "mlp", "propagation"}
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for line in result["advice"]:
        assert line in done.stdout
        assert line in page
    assert distill(file, tmp_path / "mlp", "--method", "mlp").exit_code == 0
    assert result_of(tmp_path / "mlp")["advice"] == []
    several = distill(file, tmp_path / "seeds", "--method", "gsdn", "--seeds", 2)
    assert all(line in several.stdout for line in result_of(tmp_path / "seeds")["advice"])
    assert result_of(tmp_path / "seeds")["runs"][0]["fcr"] is None, "without a teacher there is nothing to share out"
