"""Our own recipe for requests that carry nothing but features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from graph2mlp.errors import ConfigError
from graph2mlp.methods.base import Settings, Stage
from graph2mlp.methods.blend import Blend

__all__ = ["BlendFeatures"]


@dataclass(frozen=True, kw_only=True)
class BlendFeatures(Blend):
    """`blend` without a table: the student reads its own features `x [B, F]`, and ships no array beside its weights.

    `L = l(f(x), p) + mix * l(f(a x_i + (1 - a) x_j), a p_i + (1 - a) p_j) + adversarial * l(f(x + delta*), p)
    + similarity * L_rsd`, logits `f(x) [B, C]`, as in `blend`, with its teachers and averaged weights. Points between
    neighbours are the nearest thing to new nodes in training. `ind` and `cold` are one. Where a request carries the ids
    of neighbours, `blend` is one to seven points better at new nodes; without them it is 0.2 to 1.2 behind, and at
    known nodes they are level.

    Where new nodes are to be answered (production), the student is trained once more with the validation nodes, for as
    many epochs as were best without them: on a small graph they are a tenth of what there is to learn from. Judged on
    halves of the validation nodes, so with half of the gain (ten seeds): Cora 73.2 -> 73.9 %, CiteSeer 65.7 -> 66.2. At
    unseen nodes it gave 0.8 points on Cora, 0.2 on CiteSeer, and nothing on the Amazon graphs, where validation nodes
    are one in forty. `blend` trains once: on the halves it gained 0.7 on Cora, too, but at the unseen nodes of Cora and
    CiteSeer (-0.1, -0.4) nothing was left of that for twice the time.

    Where features are dense the steps are half as long (`dense_pace`). Judged at a fifth of the observed test nodes,
    hidden from the student, by the probability that the teacher, who knew them, gives to the student's class (no label
    is read): Amazon Computers 81.6 -> 82.1 % (four seeds), Photo 89.1 -> 89.2 (two); bags of words lost by it, 0.1 on
    Cora and 0.3 on CiteSeer (four seeds each).
    """

    inference: ClassVar[str] = "The node's own features. No edges, no stored arrays."
    reads_structure: ClassVar[bool] = False
    defaults: ClassVar[Settings] = {
        "teacher": {"name": "appnp+gcn+sage", "frequencies": "observed"},
        "student": {"input_dropout": 0.2},
        "train": {"burn_in": 20, "average": 8.0, "teach_val": "refit"},
    }

    dense_pace: float = 0.5
    """What `train.lr` is multiplied by where features are dense."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.dense_pace <= 1:
            raise ConfigError(f"{self.name()}.dense_pace must be above 0 and at most 1 (got {self.dense_pace})")

    def prepare(self, stage: Stage) -> Stage:
        if stage.graph.is_sparse:
            return stage
        return replace(stage, train=replace(stage.train, lr=stage.train.lr * self.dense_pace))
