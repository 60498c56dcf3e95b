"""Cold Brew: a student that guesses its place among the teacher's embeddings and reads its virtual neighbours there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.errors import ConfigError, MethodError
from graph2mlp.losses.base import Batch, LossTerms
from graph2mlp.losses.labels import SoftLabels
from graph2mlp.methods.base import Method, Settings, Stage, Team
from graph2mlp.methods.glnn import label_terms
from graph2mlp.students.base import Student, StudentOutput, StudentSpec
from graph2mlp.students.nearest import nearest
from graph2mlp.students.retrieval import RetrievalSpec, RetrievalStudent
from graph2mlp.tasks import CLASSIFICATION
from graph2mlp.training.batches import NodeBatches, student_inputs
from graph2mlp.training.metrics import Score, score
from graph2mlp.training.objective import DistillObjective, single_player
from graph2mlp.training.players import Player, adam

__all__ = ["ColdBrew", "embedding_bank"]


@dataclass(frozen=True, kw_only=True)
class ColdBrew(Method):
    """An MLP that finds virtual neighbours: known nodes that stand where its features say it would stand itself.

    Stage 1 guesses a node's row of the bank E, every layer of the teacher side by side: `L1 = mean (g(x_i) - E_i)^2`
    over all observed nodes. Stage 2, with g fixed, reads the K rows j that fit the guess best and classifies:

    `z_i = MLP([x_i || a1 sum_j w_ij E_j || a0 g(x_i)])`, `w_ij = softmax_j(|a0| g(x_i) . E_j)`,
    `L = hard * mean_{i in V_L} CE(z_i, y_i) + soft * mean_{i in V_obs} t^2 KL(p^T_i || p_i)`.

    Shapes: `x [B, F]`, `E [N, D_T]`, `z [B, C]`; a0 and a1 are learned from 1e-4 on. The paper has a0 without the bars,
    which turns the nearest rows into the farthest whenever a step leaves it negative, as about half of ours do. A node
    does not find itself while it trains, as a new node will not when it asks; an observed one that asks later may. The
    soft labels are ours, and so is the student's width of 128 (256 in the paper); a request has no edges and no id, so
    `ind` and `cold` are one.

    On Cora (production, three seeds: validation, `tran`, `cold`) soft labels gave 83.8, 81.0 and 71.7 %, without the
    decay of g 84.0, 81.2 and 70.5; the paper's labels (`hard=1, soft=0, guess_decay=0`) 78.6, 75.8 and 66.7, with the
    decay 68.6, 67.9 and 66.4. Validation chose the soft labels; it cannot tell the decays apart: the paper's is kept.
    The plain MLP has 59.7 `cold`, glnn of the same teacher 72.4: soft labels carry most of the gain.
    """

    paper: ClassVar[str] = (
        "Zheng, Huang, Rao, Katariya, Wang, Subbian: Cold Brew: Distilling Graph Node Representations with Incomplete "
        "or Missing Neighborhoods, ICLR 2022"
    )
    inference: ClassVar[str] = (
        "The node's own features. The bank ships inside the bundle, N x D_T numbers (M x D_T with bank=kmeans), and "
        "every request scans it once: O(N D_T)."
    )
    divisible: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = (CLASSIFICATION.name,)
    defaults: ClassVar[Settings] = {"teacher": {"name": "gcn_se"}, "train": {"burn_in": 20}}

    neighbours: int = 2
    """K, rows of the bank that a request reads."""
    guess_hidden: int = 256
    """Width of the hidden layer of g."""
    guess_decay: float = 5e-4
    """L2 penalty of g."""
    hard: float = 0.0
    """Weight of the true labels; 1 in the paper."""
    soft: float = 1.0
    """Weight of the teacher's soft labels; 0 in the paper."""
    temperature: float = 1.0
    """Softens both sides of the soft labels; the loss is scaled by its square."""
    unit_layers: bool = False
    """Scale each layer of a row of the bank to length 1, so that no layer outweighs another."""
    bank: Literal["nodes", "kmeans"] = "nodes"
    """nodes keeps a row for every observed node, kmeans the centres of `prototypes` clusters, for small devices."""
    prototypes: int = 256
    """M, rows of the bank with bank=kmeans."""
    exclude_self: bool = True
    """A node does not find its own row while it trains (bank=nodes only)."""

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.guess_hidden < 1 or self.prototypes < 1:
            raise ConfigError(
                "cold_brew needs neighbours, guess_hidden and prototypes of at least 1 "
                f"(got {self.neighbours}, {self.guess_hidden}, {self.prototypes})"
            )
        if not 0 <= self.guess_decay < math.inf:
            raise ConfigError(f"cold_brew.guess_decay must be at least 0 and finite (got {self.guess_decay})")
        if not (self.hard >= 0 and self.soft >= 0 and 0 < self.hard + self.soft < math.inf):
            raise ConfigError(
                f"cold_brew needs weights of at least 0, not both 0 (got hard={self.hard}, soft={self.soft})"
            )
        if self.bank == "kmeans" and self.neighbours > self.prototypes:
            raise ConfigError(
                f"cold_brew.neighbours must be at most cold_brew.prototypes (got {self.neighbours}, {self.prototypes})"
            )
        SoftLabels(self.temperature)  # refuses an impossible one before anything is trained

    def shape(self, spec: StudentSpec, stage: Stage) -> RetrievalSpec:
        _check_teachers(stage)
        rows, width = stage.graph.num_nodes, embedding_bank(stage).size(1)
        if self.bank == "kmeans":
            if self.prototypes > rows:
                raise MethodError(
                    f"cold_brew.prototypes is {self.prototypes}, but there are only {rows} observed nodes."
                )
            rows = self.prototypes
        most = rows - 1 if self._hides_self else rows
        if self.neighbours > most:
            raise MethodError(f"cold_brew.neighbours is {self.neighbours}, but the bank has only {most} rows to read.")
        return RetrievalSpec(
            **asdict(spec),
            bank_rows=rows,
            bank_width=width,
            neighbours=self.neighbours,
            guess_hidden=self.guess_hidden,
        )

    def student(self, spec: StudentSpec) -> RetrievalStudent:
        assert isinstance(spec, RetrievalSpec)
        return RetrievalStudent(spec)

    def loss_terms(self, spec: StudentSpec, stage: Stage) -> LossTerms:
        return label_terms(self.hard, self.soft, self.temperature, stage.graph.targets)

    def first_stage(self, student: Student, stage: Stage, generator: torch.Generator) -> Team:
        assert isinstance(student, RetrievalStudent)
        bank = embedding_bank(stage, unit_layers=self.unit_layers)
        student.bank.copy_(bank if self.bank == "nodes" else _centres(bank, self.prototypes, stage.seed))
        targets, val = bank.to(stage.device), stage.graph.split.val
        inputs, wanted = student_inputs(stage, val).to(stage.device), bank[val].to(stage.device)
        spread = float((bank - bank.mean(0)).square().mean())

        def objective(batch: Batch) -> Mapping[str, Tensor]:
            return {"embedding": F.mse_loss(student.guess(batch.inputs), targets[batch.ids])}

        def evaluate() -> Score:
            """How much of the variance is explained; among equals, as always, the lower loss."""
            error = float(F.mse_loss(student.guess(inputs), wanted))
            return Score(max(-1.0, 1 - error / max(spread, 1e-12)), -error)

        guess = nn.ModuleDict({"first": student.guess_first, "last": student.guess_last})
        optimizer = adam(guess, lr=stage.train.lr, weight_decay=self.guess_decay)
        player: Player[Batch] = Player("embedding", objective, [optimizer], {"guess": guess})
        return Team([player], NodeBatches(stage, generator, every=True), evaluate)

    def team(self, student: Student, stage: Stage, generator: torch.Generator, terms: LossTerms) -> Team:
        assert isinstance(student, RetrievalStudent)
        team = single_player(student, stage, generator, _Classification(student, terms, stage, self._hides_self))
        # g and the bank stay, so what a validation node finds does too; it may find itself, as it will when it asks.
        val = stage.graph.split.val
        found = _Found(student, stage, val, hide_self=False)
        features, labels = student_inputs(stage, val).features.to(stage.device), stage.graph.y[val].to(stage.device)

        def evaluate() -> Score:
            logits = found.answer(student.mlp.first(features), torch.arange(len(val), device=stage.device)).logits
            return score(logits, labels, stage.graph.targets)

        return Team(team.players, team.batches, evaluate)

    @property
    def _hides_self(self) -> bool:
        return self.exclude_self and self.bank == "nodes"


def embedding_bank(stage: Stage, *, unit_layers: bool = False) -> Tensor:
    """Every layer's output before the activation, the logits last, of all teachers side by side: `[N, D_T]`."""
    layers = [layer for one in stage.teachers for layer in (*one.hidden.values(), one.logits)]
    return torch.cat([F.normalize(layer, dim=1) if unit_layers else layer for layer in layers], 1)


class _Found:
    """What the nodes `ids [n]` of the observed graph guess and find, computed once: both are fixed in stage 2."""

    @torch.no_grad()
    def __init__(self, student: RetrievalStudent, stage: Stage, ids: Tensor, *, hide_self: bool) -> None:
        self.student = student
        was_training = student.training
        student.eval()
        self.guess = student.guess(student_inputs(stage, ids).to(stage.device))
        student.train(was_training)
        hidden = ids.to(stage.device) if hide_self else None
        self.near = nearest(self.guess, student.bank, student.spec.neighbours, exclude=hidden)

    def answer(self, own: Tensor, rows: Tensor) -> StudentOutput:
        """The student's output for rows of `ids`, from their share of the MLP's first layer `own [B, D]`."""
        hidden = self.student.read(own, self.guess[rows], self.near.take(rows))
        return StudentOutput(self.student.classify(hidden[-1]), hidden)


class _Classification(DistillObjective):
    """Stage 2: the usual terms, of what the student makes of rows that were found before it started."""

    def __init__(self, student: RetrievalStudent, terms: LossTerms, stage: Stage, hide_self: bool) -> None:
        super().__init__(student, terms)
        self.retrieval = student
        self.found = _Found(student, stage, torch.arange(stage.graph.num_nodes), hide_self=hide_self)

    def answer(self, batch: Batch) -> tuple[Tensor, StudentOutput]:
        own = self.retrieval.mlp.embed_features(batch.inputs)
        return own, self.found.answer(own, batch.ids)


def _check_teachers(stage: Stage) -> None:
    if not stage.teachers:
        raise MethodError("cold_brew learns from a teacher, but there is none. Name one with --teacher.")
    for teacher in stage.teachers:
        if not teacher.hidden:
            raise MethodError(
                f"cold_brew needs the layers of its teacher, but the knowledge of teacher '{teacher.name}' holds "
                "logits only. Extract it again with hidden layers (teacher.layers of at least 2), or use glnn."
            )


def _centres(rows: Tensor, count: int, seed: int) -> Tensor:
    """Centres `[M, D_T]` of a k-means clustering."""
    from sklearn.cluster import KMeans

    found = KMeans(count, n_init=1, random_state=seed).fit(rows.numpy())
    return torch.from_numpy(found.cluster_centers_).to(rows.dtype)
