"""`graph2mlp predict`: answers from a bundle."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from graph2mlp.commands.common import one_line_errors, say, terminated_like_interrupted

__all__ = ["predict"]


def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle, folder or .zip.")],
    requests: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="Requests: .csv, .npz or .parquet; or a folder of such files, or a quoted pattern."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Answers: .csv, .npz or .parquet, of a folder a folder. Default: csv to the terminal."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each on one thread, for a folder of files.")] = 1,
    ray: Annotated[
        bool,
        typer.Option("--ray", help="Spread a folder over a Ray cluster (RAY_ADDRESS, else this machine)."),
    ] = False,
) -> None:
    """Answer requests: id, label and probability for each. Needs no torch. A folder goes on where it stopped."""
    with one_line_errors(), terminated_like_interrupted():
        from graph2mlp.export.answers import write_csv
        from graph2mlp.export.predict import check_order, predict_file
        from graph2mlp.export.shards import find_shards, predict_shards

        check_order(bundle, requests)
        if find_shards(requests, beside=out) is not None:
            if out is None:
                raise typer.BadParameter("a folder of requests needs --out FOLDER")
            if ray and workers > 1:
                raise typer.BadParameter("give --workers or --ray: a cluster knows its processors")
            with one_line_errors(again=f" What is in {out} stays; the same command goes on."):
                typer.echo(predict_shards(bundle, requests, out, workers=workers, ray=ray, say=say).summary())
            return
        if ray:
            raise typer.BadParameter("--ray is for a folder of requests")
        answered = predict_file(bundle, requests, out=out)
        if answered.note:
            say(answered.note)
        if answered.columns is not None:
            text = io.StringIO()
            write_csv(text, answered.columns)
            typer.echo(text.getvalue().encode(), nl=False)  # as it would be in a file, whatever the terminal's letters
        else:
            typer.echo(answered.summary())
