"""Options of the command line that several commands take, or that need more than a line of help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["DeployGraphs", "GraphName", "KnowledgeFiles", "LabelTask", "TeacherModule", "TeacherWeights"]

GraphName = Annotated[
    str,
    typer.Argument(
        help="digits, cpf:cora, planetoid:Cora, amazon:Photo, ..., or your own: an .npz file, PyG's Data in a .pt "
        "file, a folder with nodes.csv and edges.csv (or .parquet)."
    ),
]
DeployGraphs = Annotated[
    list[str] | None,
    typer.Option(
        "--deploy",
        metavar="GRAPH",
        help="Another graph with the same features and classes, which nothing learns from: reported at the end; "
        "repeat for several.",
    ),
]
LabelTask = Annotated[
    str,
    typer.Option(
        "--task",
        help="What the labels of your graph are: classification (a class each), multilabel (any of several) or "
        "regression (quantities); auto tells the first two apart.",
    ),
]
KnowledgeFiles = Annotated[
    list[Path] | None,
    typer.Option(
        help="What a teacher trained elsewhere says: .safetensors, .npy (row i is node i), or csv/parquet with ids; "
        "repeat for several."
    ),
]
TeacherModule = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:NAME",
        help="Your own teacher: imports MODULE, which runs your code, and calls NAME; a torch module called as "
        "module(x, edge_index).",
    ),
]
TeacherWeights = Annotated[
    Path | None,
    typer.Option(help="Its state dict (.pt or .safetensors), or a torch.export program (.pt2, trusted like code)."),
]
