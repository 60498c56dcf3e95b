"""graph2mlp: turn a trained graph neural network into an MLP that answers in microseconds, without the graph."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout `kernels/` and `export/` stand beside this package, not inside it: let `graph2mlp.kernels` and
# `graph2mlp.export` be found there. An installed copy already contains both, and nothing is appended.
_here = Path(__file__).resolve().parent
if not (_here / "kernels").is_dir() and (_here.parent / "kernels" / "__init__.py").is_file():
    __path__.append(str(_here.parent))
