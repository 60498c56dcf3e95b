"""`python -m graph2mlp` is the command line."""

from graph2mlp.cli import app

app()
