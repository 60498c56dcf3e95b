"""Batches of training rows, chosen by what the loss terms need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graph2mlp.data.neighbours import Neighbours
from graph2mlp.data.targets import unknown_like
from graph2mlp.kernels import NeighbourIndex
from graph2mlp.losses.base import Batch, Partners, TeacherRows
from graph2mlp.methods.base import Stage
from graph2mlp.students.base import StudentInput

__all__ = [
    "EdgeBatch",
    "EdgeBatches",
    "NodeBatches",
    "RowReader",
    "random_neighbours",
    "student_inputs",
]


def student_inputs(stage: Stage, ids: Tensor) -> StudentInput:
    """Requests for positions `ids [B]` of the observed graph, each node known to the table."""
    structure = None
    if stage.structure is not None:
        structure = stage.structure.for_known(stage.graph.node_ids[ids])
    return StudentInput(stage.graph.features(ids), structure)


class RowReader:
    """Cuts batches out of a stage. Labels off the training set are hidden here, once, for every loss."""

    def __init__(self, stage: Stage, generator: torch.Generator) -> None:
        self.stage, self.generator = stage, generator
        self.labels = unknown_like(stage.graph.y)
        self.labels[stage.graph.split.train] = stage.graph.y[stage.graph.split.train]
        self.taught = torch.ones(stage.graph.num_nodes, dtype=torch.bool)
        self.taught[stage.graph.split.val] = stage.teaches_val
        # The last hidden layer is what methods compare with; some teachers have none.
        self.hidden = [list(teacher.hidden.values())[-1:] for teacher in stage.teachers]
        self.practised = stage.structure if stage.train.as_unseen else None
        self.as_unseen = None
        if self.practised is not None and stage.graph.num_nodes <= stage.train.epoch_rows:
            self.as_unseen = self.practised.neighbour_means(stage.graph)

    def __call__(self, ids: Tensor) -> Batch:
        return Batch(ids, self._inputs(ids), self.labels[ids], self._teachers(ids))

    def partners(self, ids: Tensor) -> Partners:
        """A random neighbour of each node `ids [B]`, described as a known node, with a uniform share."""
        others = random_neighbours(self.stage.graph.in_neighbours, ids, self.generator)
        others = torch.where(self.taught[others], others, ids)  # a soft label in a mixture is taught, too
        share = torch.rand(len(ids), 1, generator=self.generator)
        return Partners(student_inputs(self.stage, others), self._teachers(others), share)

    def _teachers(self, ids: Tensor) -> tuple[TeacherRows, ...]:
        return tuple(
            TeacherRows(teacher.logits[ids], hidden[0][ids] if hidden else None)
            for teacher, hidden in zip(self.stage.teachers, self.hidden, strict=True)
        )

    def _inputs(self, ids: Tensor) -> StudentInput:
        inputs = student_inputs(self.stage, ids)
        if self.practised is None or inputs.structure is None:
            return inputs
        chosen = torch.rand(len(ids), 1, generator=self.generator) < self.stage.train.as_unseen
        if self.as_unseen is not None:
            return StudentInput(inputs.features, torch.where(chosen, self.as_unseen[ids], inputs.structure))
        # Of a large graph the means of all nodes would be a second table.
        rows = chosen.squeeze(1)
        inputs.structure[rows] = self.practised.neighbour_means(self.stage.graph, ids[rows])
        return inputs


class NodeBatches:
    """Nodes in random order, each once per epoch: the labelled ones, or all taught ones when `every` is set.

    An epoch ends after `train.epoch_rows` nodes. What was not reached is not remembered: the next epoch draws anew, so
    that a training goes on from its generator alone.

    With `labelled`, each batch also holds up to a batch of training nodes, drawn anew: they are few, and would
    otherwise be rare in every step.

    With `fanout`, each batch also holds up to so many random in-neighbours of each of its nodes, and the edges to them:
    a node's neighbourhood is drawn once per step, and is the same for student and teacher. With `partners`, it has one
    random neighbour for each node to be mixed with.
    """

    def __init__(
        self,
        stage: Stage,
        generator: torch.Generator,
        *,
        every: bool,
        labelled: bool = False,
        fanout: int = 0,
        partners: bool = False,
    ) -> None:
        self.read, self.generator, self.size = RowReader(stage, generator), generator, stage.train.batch_size
        self.num_nodes = stage.graph.num_nodes
        self.pool = torch.nonzero(self.read.taught).squeeze(1) if every else stage.graph.split.train
        self.rows = stage.train.epoch_rows
        self.labelled, self.fanout, self.partners = labelled, fanout, partners
        self.train = stage.graph.split.train
        if fanout:
            self.neighbours = stage.graph.in_neighbours

    def __call__(self) -> Iterator[Batch]:
        order = self.pool[torch.randperm(len(self.pool), generator=self.generator)[: self.rows]]
        for chosen in _equal_parts(order, self.size):
            ids = chosen
            if self.labelled:
                ids = torch.cat([chosen, _some(self.train, self.size, self.generator)]).unique()
            batch = self._with_neighbours(ids) if self.fanout else self.read(ids)
            yield replace(batch, partners=self.read.partners(ids)) if self.partners else batch

    def _with_neighbours(self, ids: Tensor) -> Batch:
        source, target = self._sampled_edges(ids)
        position = torch.full((self.num_nodes,), -1)
        position[ids] = torch.arange(len(ids))
        others = torch.unique(source[position[source] < 0])
        position[others] = torch.arange(len(ids), len(ids) + len(others))
        edges = NeighbourIndex.from_edge_index(torch.stack([position[source], target]), len(ids) + len(others))
        return replace(self.read(torch.cat([ids, others])), edges=edges, own=len(ids))

    def _sampled_edges(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Up to `fanout` in-edges of each node, drawn without replacement: source node, and place in `ids`."""
        degree = self.neighbours.count[ids]
        target = torch.repeat_interleave(torch.arange(len(ids)), degree)
        rank = torch.arange(len(target)) - torch.repeat_interleave(degree.cumsum(0) - degree, degree)
        source = self.neighbours.ids[self.neighbours.pointer[ids][target] + rank]
        # In random order within each node, the first `fanout` are a random sample.
        key = target + torch.rand(len(target), generator=self.generator, dtype=torch.float64)
        kept = key.argsort()[rank < self.fanout]
        kept = kept[self.read.taught[source[kept]]]  # what a teacher says of the others is not learned in pairs, either
        return source[kept], target[kept]


@dataclass(frozen=True, eq=False)
class EdgeBatch:
    """E edges and as many random nodes, as rows of `nodes`: `source`, `target`, `negative`, each `[E]`.

    A node that occurs more than once is computed once. The sources of the last `labelled` edges are training nodes.
    """

    nodes: Batch
    source: Tensor
    target: Tensor
    negative: Tensor
    labelled: int

    def to(self, device: torch.device) -> EdgeBatch:
        """The same on `device`."""
        source, target, negative = (one.to(device) for one in (self.source, self.target, self.negative))
        return EdgeBatch(self.nodes.to(device), source, target, negative, self.labelled)


class EdgeBatches:
    """Every node once per epoch, in random order, with one random in-neighbour and one random node.

    Of more than `train.epoch_rows` nodes an epoch holds so many at random.

    Each batch also holds up to a batch of training nodes, drawn in the same way: they are few, and would otherwise be
    rare in every step. A node without neighbours is paired with itself.
    """

    def __init__(self, stage: Stage, generator: torch.Generator) -> None:
        self.read, self.generator, self.size = RowReader(stage, generator), generator, stage.train.batch_size
        self.num_nodes, self.train = stage.graph.num_nodes, stage.graph.split.train
        self.rows = stage.train.epoch_rows
        self.neighbours = stage.graph.in_neighbours

    def __call__(self) -> Iterator[EdgeBatch]:
        order = torch.randperm(self.num_nodes, generator=self.generator)[: self.rows]
        for chosen in _equal_parts(order, self.size):
            labelled = _some(self.train, self.size, self.generator)
            source = torch.cat([chosen, labelled])
            negative = torch.randint(self.num_nodes, (len(source),), generator=self.generator)
            neighbour = random_neighbours(self.neighbours, source, self.generator)
            ids, where = torch.unique(torch.cat([source, neighbour, negative]), return_inverse=True)
            parts = where.chunk(3)
            yield EdgeBatch(self.read(ids), parts[0], parts[1], parts[2], labelled=len(labelled))


def random_neighbours(neighbours: Neighbours, ids: Tensor, generator: torch.Generator) -> Tensor:
    """One random in-neighbour of each node `ids [B]`; itself where it has none."""
    return neighbours.sample(ids, torch.rand(len(ids), generator=generator))


def _some(ids: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` of `ids`, in random order."""
    return ids[torch.randperm(len(ids), generator=generator)[:most]]


def _equal_parts(order: Tensor, most: int) -> tuple[Tensor, ...]:
    """As few parts of at most `most` rows as possible, all of about one size.

    A small rest would take a full step of the optimiser in the direction of a few rows: two rows left over from batches
    of 512 cost a student on `digits` five points.
    """
    parts: tuple[Tensor, ...] = order.tensor_split(-(-len(order) // most))
    return parts
