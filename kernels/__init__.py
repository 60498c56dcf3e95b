"""Losses over all pairs of rows, and over all edges: exact, linear in memory. Imported as `graph2mlp.kernels`.

    from graph2mlp.kernels import available, functional, use

    loss = functional.info_nce(student, teacher, tau=0.075)

Each loss has three forms with one signature: the published formula (`dense`), plain torch in bounded memory (`chunked`)
and Triton kernels (`triton`, in tests `interpret`). `use(...)` chooses; by default a GPU gets the kernels.
"""

from graph2mlp.kernels.dispatch import Backend, Status, available, use
from graph2mlp.kernels.modules import GSPLoss, InfoNCELoss, KDLoss, LSPLoss, RSDLoss
from graph2mlp.kernels.neighbours import NeighbourIndex

__all__ = [
    "Backend",
    "GSPLoss",
    "InfoNCELoss",
    "KDLoss",
    "LSPLoss",
    "NeighbourIndex",
    "RSDLoss",
    "Status",
    "available",
    "use",
]
