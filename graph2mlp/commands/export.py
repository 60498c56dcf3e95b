"""`graph2mlp export`: from a finished run to a bundle."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from graph2mlp.commands.common import one_line_errors, say, show, sizes
from graph2mlp.errors import require
from graph2mlp.export.presets import MAX_DROP, PRESETS

__all__ = ["export"]


class Features(StrEnum):
    auto = "auto"
    dense = "dense"
    sparse = "sparse"


def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write an ONNX bundle.")] = False,
    ort: Annotated[
        bool, typer.Option("--ort", help="Write the model in onnxruntime's own format, for its reduced mobile builds.")
    ] = False,
    preset: Annotated[
        str, typer.Option(help=f"How numbers are stored: {', '.join(PRESETS)}; auto keeps the fastest here.")
    ] = "fp32",
    features: Annotated[
        Features, typer.Option(help="Form of the features in a request; auto follows the graph.")
    ] = Features.auto,
    max_drop: Annotated[
        float, typer.Option(help="Points of accuracy (micro-F1, R2) on validation nodes the file may lose.")
    ] = MAX_DROP,
    batch: Annotated[str, typer.Option(help="Requests per call that --preset auto measures at.")] = "1,64",
    out: Annotated[Path | None, typer.Option(help="Bundle folder, or a .zip file. Default: RUN/bundle.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
) -> None:
    """Write a verified, deployable bundle from a finished run; it runs with numpy and onnxruntime alone."""
    with one_line_errors():
        if onnx == ort:
            raise typer.BadParameter("name the form to export: --onnx, or --ort")
        require("torch", extra="distill", purpose="graph2mlp export")
        from graph2mlp.export.deploy import export_run
        from graph2mlp.run import open_run
        from graph2mlp.summary import preset_table

        how: dict[str, Any] = {"preset": preset, "features": features.value, "force": force}
        how |= {"max_drop": max_drop, "batches": sizes(batch), "model_format": "ort" if ort else "onnx"}
        found = open_run(run)
        if found.path != run:
            say(f"{run} holds several seeds; exported is {found.path}, the best on validation nodes.")
        summary = export_run(found, out=out or run / "bundle", **how)
        if summary.choice is not None:
            show(preset_table(summary.choice))
        typer.echo(summary.summary())
