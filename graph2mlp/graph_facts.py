"""What a graph is like, and what that means for distillation, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graph2mlp.data.arrays import DENSE_FROM
from graph2mlp.data.graph import GraphData
from graph2mlp.data.targets import known_rows
from graph2mlp.tasks import CLASSIFICATION, REGRESSION

__all__ = ["GraphFacts", "advice", "fact_rows", "graph_facts"]

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
_LOW_GAIN, _HIGH_GAIN = 0.1, 0.5
"""Homophily above chance, below and above which edges say little or much about the class."""
_MANY_ISOLATED = 0.05
_MOST_NAMED = 3
_OFF_SCALE = 10.0
_NO_ACCIDENT = 5
"""Nodes of each class from which equal numbers are no accident."""


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """Counts and shares. Degrees are in-degrees, repeated and self edges left out, as we learn them."""

    degrees: tuple[int, ...]
    """At the quantiles 0, 25, 50, 75, 95 and 100 %."""
    mean_degree: float
    isolated: int
    """Nodes without any edge, in or out."""
    self_edges: int
    repeated: int
    """Edges stored more than once."""
    one_way: float
    """Share of different edges whose other direction is not stored; NaN without edges."""
    homophily: float
    """Share of edges between labelled nodes that join equal classes; of labels and quantities the correlation of both
    ends, mean over columns. Edges count by their weights. NaN if there is no such edge."""
    chance: float
    """The same for edges drawn at random: the sum of squared class shares; 0 for a correlation."""
    labelled: int
    class_sizes: tuple[int, ...]
    """Nodes of each class, or with each label; empty for quantities."""
    density: float
    """Share of features that are not zero."""
    constant: int
    """Features with one value at every node."""

    @property
    def gain(self) -> float:
        """Homophily above chance, 1 for edges that join equal labels only; NaN if unknown."""
        return (self.homophily - self.chance) / (1 - self.chance) if self.chance < 1 else float("nan")


def graph_facts(graph: GraphData) -> GraphFacts:
    """Read `graph` once; linear in its size."""
    count = graph.num_nodes
    source, target = graph.edge_index
    found = graph.in_neighbours
    degree, neighbours, every = found.count, found.ids, found.targets()
    key, reverse = every * count + neighbours, neighbours * count + every
    own = int((source == target).sum())
    rows = known_rows(graph.y)
    both = rows[every] & rows[neighbours]
    touched = torch.zeros(count, dtype=torch.bool)
    touched[every], touched[neighbours] = True, True
    sizes = _sizes(graph, rows)
    homophily, chance = _homophily(graph, every[both], neighbours[both], found.values()[both].double(), sizes)
    ordered = degree.sort().values
    values = graph.x.values() if graph.is_sparse else graph.x
    return GraphFacts(
        degrees=tuple(int(ordered[round(share * (count - 1))]) for share in _QUANTILES),
        mean_degree=float(degree.float().mean()),
        isolated=int((~touched).sum()),
        self_edges=own,
        repeated=graph.num_edges - own - len(key),
        one_way=float((~torch.isin(reverse, key)).float().mean()),
        homophily=homophily,
        chance=chance,
        labelled=int(rows.sum()),
        class_sizes=tuple(sizes.tolist()),
        density=int((values != 0).sum()) / (count * graph.num_features),
        constant=_constant_features(graph),
    )


def _sizes(graph: GraphData, known: Tensor) -> Tensor:
    if graph.task is REGRESSION:
        return torch.empty(0, dtype=torch.long)
    y = graph.y[known]
    return torch.bincount(y, minlength=graph.num_classes) if graph.task is CLASSIFICATION else y.sum(0)


def _homophily(graph: GraphData, target: Tensor, source: Tensor, weight: Tensor, sizes: Tensor) -> tuple[float, float]:
    """How alike the ends of edges between labelled nodes are, and how alike they would be by chance."""
    share = weight / weight.sum()
    if graph.task is CLASSIFICATION:
        chance = float((sizes / max(1, int(sizes.sum()))).square().sum())
        return float(share @ (graph.y[target] == graph.y[source]).double()) if len(share) else float("nan"), chance
    one, other = graph.y[target].double(), graph.y[source].double()
    one, other = one - share @ one, other - share @ other
    spread = ((share @ one.square()) * (share @ other.square())).sqrt()
    columns = (share @ (one * other))[spread > 0] / spread[spread > 0]
    return float(columns.mean()), 0.0  # of no column NaN, as of no edge


def _constant_features(graph: GraphData) -> int:
    if not graph.is_sparse:
        return int((graph.x == graph.x[:1]).all(0).sum())
    # A sparse feature that is there at every node is rare; one that is there at none is the mistake worth naming.
    used = torch.zeros(graph.num_features, dtype=torch.bool)
    used[graph.x.col_indices()[graph.x.values() != 0]] = True
    return int((~used).sum())


def fact_rows(graph: GraphData, facts: GraphFacts) -> list[list[str]]:
    """(name, value) rows for a person."""
    parts = ", ".join(f"{name} {len(part)}" for name, part in graph.split.parts().items() if len(part))
    edges = "the edges join" if graph.edge_weight is None else "the edges' weight joins"
    known = f"{facts.homophily:.2f} of {edges} equal labels ({facts.chance:.2f} by chance)"
    if graph.task is not CLASSIFICATION:
        known = f"the ends of edges correlate by {facts.homophily:.2f} (mean over {graph.task.units})"
    rows = [
        ["nodes", f"{graph.num_nodes:,}{_called(graph)}"],
        ["edges", _edges(graph, facts)],
        ["degree", _degrees(facts)],
        *([["weights", _weights(graph.edge_weight)]] if graph.edge_weight is not None else []),
        ["features", f"{graph.num_features:,}, {_percent(facts.density)} not zero, {_layout(graph)}"],
        _column_row(graph, facts),
        ["labelled", f"{_percent(facts.labelled / graph.num_nodes)} of the nodes"],
        ["split", f"{parts} ({_percent(len(graph.split.train) / graph.num_nodes)} train)"],
        ["homophily", known if facts.homophily == facts.homophily else "unknown: no edge joins two labelled nodes"],
    ]
    return [*rows, *(["note", note] for note in graph.notes)]


def _column_row(graph: GraphData, facts: GraphFacts) -> list[str]:
    if graph.task is REGRESSION:
        y = graph.y[known_rows(graph.y)]
        listed = [
            f"{name}: {float(column.mean()):.4g} ± {float(column.std(correction=0)):.4g}"
            for name, column in zip(graph.class_names[:_MOST_NAMED], y.T, strict=False)
        ]
        return ["quantities", f"{graph.num_classes} ({', '.join(listed)}; mean and deviation)"]
    sizes = f"{graph.num_classes} of {min(facts.class_sizes):,} to {max(facts.class_sizes):,} nodes"
    return ["classes" if graph.task is CLASSIFICATION else "labels", sizes]


def advice(graph: GraphData, facts: GraphFacts) -> list[str]:
    """What the figures mean for distillation, in plain lines; rules of thumb, no measurement."""
    lines = []
    if not facts.mean_degree:
        lines.append("No edges: a GNN has nothing to add here, so there is nothing to distill. Train --method mlp.")
    elif facts.gain < _LOW_GAIN:
        lines.append(
            f"Edges hardly follow the {graph.task.units}: a plain MLP may beat the GNN, and soft labels then hurt. "
            "Compare with --method mlp, and keep the table of positions only if validation gains by it."
        )
    elif facts.gain > _HIGH_GAIN:
        lines.append(
            f"Edges follow the {graph.task.units}: structure pays. A student with positions (nosmog, blend) should "
            "come near its teacher; one on features alone (glnn) falls behind it at unseen nodes."
        )
    if facts.mean_degree and facts.isolated >= _MANY_ISOLATED * graph.num_nodes:
        lines.append(
            f"{facts.isolated:,} nodes have no edge: they are answered from features alone, as in a cold start. Look "
            "at 'cold' (--setting production), and at --method blend."
        )
    if facts.one_way > 0.5:
        lines.append(
            f"{_percent(facts.one_way)} of the edges are stored in one direction only. If they have none in truth, add "
            "--undirected; else nodes learn from those that point at them."
        )
    if facts.self_edges or facts.repeated:
        repeats = "count a repeat once" if graph.edge_weight is None else "add up the weights of repeats"
        lines.append(
            f"{facts.self_edges:,} self edges and {facts.repeated:,} repeats: teachers, structure and students of ours "
            f"pass over self edges and {repeats}; a teacher of your own sees the edges as stored."
        )
    if graph.edge_weight is not None and len(graph.edge_weight):
        lines += _weight_advice(float(graph.edge_weight.mean()))
    lines += _feature_advice(graph, facts)
    if graph.task is CLASSIFICATION:
        lines += _class_advice(graph, facts)
    if len(graph.split.val) < 100:
        lines.append(f"{len(graph.split.val)} validation nodes select the model: expect luck; report several --seeds.")
    return lines


def _weight_advice(mean: float) -> list[str]:
    if 1 / _OFF_SCALE <= mean <= _OFF_SCALE:
        return []
    drowned = "a node's own row drowns" if mean > 1 else "neighbours drown"
    return [
        f"Edges weigh {mean:.3g} on average, a self-loop of gcn, gat and appnp 1, so {drowned} there. Scale them "
        "to a mean near 1."
    ]


def _feature_advice(graph: GraphData, facts: GraphFacts) -> list[str]:
    lines = []
    if graph.is_sparse:
        lines.append("Features are mostly zeros: they stay sparse, and a bundle asks only for those that are set.")
    elif facts.density < DENSE_FROM:
        lines.append(f"Only {_percent(facts.density)} of the features are set; they are few, so they are kept dense.")
    if facts.constant:
        lines.append(f"{facts.constant:,} features have one value everywhere: they cost time and say nothing.")
    if not graph.is_sparse and float(graph.x.abs().max()) > 100:
        lines.append("Some features are above 100: scale the columns to a like size, or the largest drown the others.")
    return lines


def _class_advice(graph: GraphData, facts: GraphFacts) -> list[str]:
    sizes = torch.bincount(graph.y[graph.split.train], minlength=graph.num_classes)
    lines = []
    if bool((sizes == 0).any()):
        names = [graph.class_names[int(c)] for c in torch.nonzero(sizes == 0)[:3]]
        lines.append(f"Classes without a training node ({', '.join(names)}): they will never be answered.")
    if len(sizes) > 1 and int(sizes.min()) == int(sizes.max()) >= _NO_ACCIDENT:
        lines.append(
            f"Each class has {int(sizes[0])} training nodes: drawn like that, they do not tell how frequent classes "
            "are. blend with a teacher of ours estimates it; others do with --set teacher.frequencies=observed."
        )
    if max(facts.class_sizes) > 0.5 * facts.labelled and graph.num_classes > 2:
        share = _percent(max(facts.class_sizes) / facts.labelled)
        lines.append(f"One class has {share} of the labels: compare accuracies with that figure.")
    return lines


def _called(graph: GraphData) -> str:
    return "" if graph.names is None else f", called '{graph.names[0]}' to '{graph.names[-1]}'"


def _edges(graph: GraphData, facts: GraphFacts) -> str:
    if not graph.num_edges:
        return "none"
    way = "both directions stored" if not facts.one_way else f"{_percent(facts.one_way)} in one direction only"
    extra = f", {facts.self_edges:,} self, {facts.repeated:,} repeated" if facts.self_edges or facts.repeated else ""
    return f"{graph.num_edges:,} directed, {way}{extra}"


def _degrees(facts: GraphFacts) -> str:
    low, first, middle, third, most, high = facts.degrees
    return (
        f"mean {facts.mean_degree:.1f}; least {low}, quarter {first}, half {middle}, three quarters {third}, "
        f"95 % {most}, largest {high:,}; {facts.isolated:,} isolated"
    )


def _weights(weight: Tensor) -> str:
    if not len(weight):
        return "none: there are no edges"
    return f"{float(weight.min()):.3g} to {float(weight.max()):.3g}, mean {float(weight.mean()):.3g}"


def _layout(graph: GraphData) -> str:
    return "sparse" if graph.is_sparse else "dense"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 or not share else f"{100 * share:.2g} %"
