"""LSP: how a node's similarity is spread over its neighbours, the same for student and teacher."""

from graph2mlp.kernels.lsp.loss import lsp
from graph2mlp.kernels.lsp.reference import reference

__all__ = ["lsp", "reference"]
