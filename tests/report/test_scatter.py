"""Accuracy over latency: every point can be told, wherever the points lie."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import numpy as np
import pytest

from graph2mlp.report.bars import Cost
from graph2mlp.report.scatter import trade_chart
from graph2mlp.report.svg import WIDTH

Box = tuple[float, float, float, float]
BOTTOM = 190.0
"""Where the axis is."""


def cost(us: float, accuracy: float, role: str = "student", file: str = "") -> Cost:
    return Cost(role, f"{role}, {us:g}", {50: us}, accuracy=accuracy, file=file)


def drawn(costs: list[Cost]) -> tuple[list[tuple[str, Box]], list[tuple[str, Box]]]:
    """Marks with what they tell, numbers with what they say; each with the room it takes."""
    root = ElementTree.fromstring(trade_chart("trade", "Accuracy", costs))
    marks: list[tuple[str, Box]] = []
    numbers: list[tuple[str, Box]] = []
    for one in root.iter():
        kind, at = one.tag.rpartition("}")[2], one.attrib
        told = one[0].text or "" if len(one) else ""
        if kind == "circle":
            x, y, r = float(at["cx"]), float(at["cy"]), float(at["r"])
            marks.append((told, (x - r, y - r, x + r, y + r)))
        elif kind == "rect":
            x, y, side = float(at["x"]), float(at["y"]), float(at["width"])
            marks.append((told, (x, y, x + side, y + side)))
        elif kind == "polygon":
            corners = np.array([[float(part) for part in pair.split(",")] for pair in at["points"].split()])
            marks.append((told, (*corners.min(0), *corners.max(0))))
        elif kind == "text" and float(at["y"]) <= BOTTOM and at.get("class") != "tick":
            words, x, y = one.text or "", float(at["x"]), float(at["y"])
            half = 6.5 * len(words) / 2
            numbers.append((words, (x - half, y - 9, x + half, y)))
    return marks, numbers


def counted(words: str) -> list[int]:
    """`1, 4–6` in full."""
    found = []
    for part in words.split(", "):
        low, _, high = part.partition("–")
        found += range(int(low), int(high or low) + 1)
    return found


def apart(one: Box, other: Box) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize("seed", range(12))
def test_nothing_hides_anything(seed: int) -> None:
    """Marks and numbers lie beside each other, inside the plot, and every point has its number once."""
    rng = np.random.default_rng(seed)
    count, width = int(rng.integers(2, 40)), rng.choice([0.0, 0.01, 0.3])
    costs = [
        cost(float(10 ** rng.uniform(0, 4)), float(0.8 + width * rng.uniform(-1, 0.6)), str(role), f"{seed % 2}.json")
        for role in rng.choice(["teacher", "student", "mlp"], count)
    ]
    marks, numbers = drawn(costs)
    boxes = [box for _, box in (*marks, *numbers)]
    assert all(apart(one, other) for one, other in combinations(boxes, 2))
    assert all(box[0] >= 0 and box[1] >= 0 and box[2] <= WIDTH and box[3] <= BOTTOM + 6 for box in boxes)
    assert sorted(number for words, _ in numbers for number in counted(words)) == list(range(1, count + 1))
    told = " ".join(words for words, _ in marks)
    assert all(one.full in told for one in costs)


def test_points_that_are_apart_keep_their_places() -> None:
    """Only what cannot be told apart shares a mark: a chart of one mark would be easy and say nothing."""
    _, numbers = drawn([cost(5, 0.8), cost(30, 0.8), cost(5, 0.85), cost(2000, 0.83, "teacher")])
    assert sorted(words for words, _ in numbers) == ["1", "2", "3", "4"]


def test_equal_points_share_a_mark_with_all_their_numbers() -> None:
    """Two files of one bundle lie on one another; a teacher among them keeps a mark of its own colour."""
    same = [cost(5, 0.8, file="a"), cost(5.1, 0.8, file="a"), cost(5, 0.8, file="b"), cost(5, 0.8, "teacher", "b")]
    marks, numbers = drawn([*same, cost(900, 0.7, file="b")])
    assert [words for words, _ in numbers] == ["5", "1–4"]
    assert sorted(told.count("80.0") for told, _ in marks) == [0, 1, 3]


def test_the_list_below_names_points_by_file() -> None:
    """The same name in two files is two things."""
    text = trade_chart("trade", "Accuracy", [cost(5, 0.8, file="a.json"), cost(5, 0.7, file="b.json")])
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    listed = shown[shown.index("a.json") :]
    assert [one.split("  ")[0] for one in listed if "%" not in one and "µs" not in one] == [
        "a.json",
        "1",
        "b.json",
        "2",
    ]
