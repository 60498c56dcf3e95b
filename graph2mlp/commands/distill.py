"""`graph2mlp distill`: from a graph to a student."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graph2mlp.commands.common import one_line_errors, show
from graph2mlp.errors import ConfigError, require
from graph2mlp.memory import limited, parse_size
from graph2mlp.options import DeployGraphs, GraphName, KnowledgeFiles, LabelTask, TeacherModule, TeacherWeights

if TYPE_CHECKING:
    from graph2mlp.config import RunConfig

__all__ = ["distill"]


class Setting(StrEnum):
    transductive = "transductive"
    production = "production"


def distill(
    graph: GraphName,
    method: Annotated[
        str | None, typer.Option(help="blend (default), nosmog, glnn, cold_brew, ...; see 'graph2mlp methods'.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="sage, gcn, gat, appnp or gcn_se; several joined by + are an ensemble. Default: the method's."
        ),
    ] = None,
    setting: Annotated[
        Setting | None, typer.Option(help="production hides 20 % of the test nodes until the end.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Fixes split, weights and order of batches.")] = None,
    seeds: Annotated[int | None, typer.Option(min=2, help="Run seeds 0 to N-1 and report mean and deviation.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/GRAPH-METHOD.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of raw files. Default: $GRAPH2MLP_DATA, else ./data.")
    ] = None,
    undirected: Annotated[
        bool, typer.Option("--undirected", help="Your graph stores each edge once: add the other direction.")
    ] = False,
    task: LabelTask = "auto",
    deploy: DeployGraphs = None,
    knowledge: KnowledgeFiles = None,
    teacher_module: TeacherModule = None,
    teacher_weights: TeacherWeights = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="GROUP.KEY=VALUE", help="Change one setting; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings as TOML, for example a run's config.toml.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="What it may hold at most, such as 4GiB (mapped files not counted)."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where networks learn: cpu, cuda, cuda:N or auto.")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run folder.")] = False,
) -> None:
    """Train a teacher on GRAPH (or take --knowledge), distill it into a student, and report both."""
    with one_line_errors(out):
        require("torch", extra="distill", purpose="graph2mlp distill")
        from graph2mlp.config import resolve_config
        from graph2mlp.device import find_device

        if resume and force:
            raise typer.BadParameter("give --resume or --force, not both")
        if teacher is not None and (teacher_module or teacher_weights):
            raise typer.BadParameter("give --teacher or a teacher of your own, not both")
        if seed is not None and seeds is not None:
            raise typer.BadParameter("give --seed or --seeds, not both")
        settings = resolve_config(
            graph=graph,
            method=method,
            teacher=teacher,
            setting=setting.value if setting else None,
            seed=seed,
            root=str(root) if root else None,
            undirected=undirected or None,
            task=None if task == "auto" else task,
            deploy=deploy,
            teacher_module=teacher_module,
            teacher_weights=str(teacher_weights) if teacher_weights else None,
            file=config,
            overrides=set_ or (),
        )
        out = out or Path("runs") / _run_name(settings.graph, settings.method)
        how: dict[str, Any] = {"knowledge_files": knowledge or (), "force": force, "resume": resume}
        how["device"] = find_device(device)
        with one_line_errors(out), limited(parse_size(memory) if memory else None):
            result = _train(settings, seeds, out, how)
            _report(result, settings, out)


def _train(settings: RunConfig, seeds: int | None, out: Path, how: dict[str, Any]) -> dict[str, Any]:
    """One run, one of several seeds, or this process's part of one; gives the result."""
    from graph2mlp.console import Reporter
    from graph2mlp.distill import distill as run_pipeline
    from graph2mlp.ranks import distill_in_ranks
    from graph2mlp.seeds import distill_seeds
    from graph2mlp.training import parallel

    how["reporter"] = Reporter()
    if not parallel.launched():
        return (
            run_pipeline(settings, out, **how).result if seeds is None else distill_seeds(settings, seeds, out, **how)
        )
    if seeds is not None:
        raise ConfigError("torchrun trains one run; give --seed instead of --seeds.")
    if (run := distill_in_ranks(settings, out, **how)) is None:
        raise typer.Exit
    return run.result


def _report(result: dict[str, Any], settings: RunConfig, out: Path) -> None:
    from graph2mlp.summary import deploy_table, result_table

    show(result_table(result))
    if settings.deploy:
        show(deploy_table(result))
    for line in result.get("advice", ()):
        typer.echo(line)
    typer.echo(f"run: {out}")
    typer.echo(f"report: {out / 'report.html'}")


def _run_name(graph: str, method: str) -> str:
    """`cpf:cora`, `data/mine.npz` and `data/folder` as parts of a folder's name."""
    return f"{Path(graph).stem}-{method}".replace(":", "-")
