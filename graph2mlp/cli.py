"""The command line: parse, call one function, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from graph2mlp import __version__
from graph2mlp.errors import ConfigError, Graph2MLPError, require
from graph2mlp.export.presets import MAX_DROP, PRESETS
from graph2mlp.options import DeployGraphs, GraphName, KnowledgeFiles, LabelTask, TeacherModule, TeacherWeights

__all__ = ["app"]

app = typer.Typer(
    help="Distill a graph neural network into an MLP that needs no graph, export it, and measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Setting(StrEnum):
    transductive = "transductive"
    production = "production"


class Features(StrEnum):
    auto = "auto"
    dense = "dense"
    sparse = "sparse"


@contextmanager
def _one_line_errors(resume: Path | None = None, *, again: str = "") -> Iterator[None]:
    """Our own errors become one line and exit code 1; an interrupt becomes 130."""
    try:
        yield
    except Graph2MLPError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        raise typer.Exit(0) from None
    except OSError as error:  # disk full, read-only folder, no permission
        where = f": {error.filename}" if error.filename else ""
        kept = resume is not None and (resume / "config.toml").exists()
        hint = f". When that is mended, go on with the same command and --resume (in {resume})." if kept else ""
        typer.echo(f"error: {error.strerror or error}{where}{hint}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        hint = f" Go on with the same command and --resume (in {resume})." if resume else again
        typer.echo(f"interrupted.{hint}", err=True)
        raise typer.Exit(130) from None


def _version(show: bool) -> None:
    if show:
        typer.echo(f"graph2mlp {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Distill a graph neural network into an MLP that needs no graph, export it, and measure it."""


@app.command()
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
    device: Annotated[str, typer.Option(help="auto or cpu; this version trains on the CPU.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run folder.")] = False,
) -> None:
    """Train a teacher on GRAPH (or take --knowledge), distill it into a student, and report both."""
    with _one_line_errors(out):
        require("torch", extra="distill", purpose="graph2mlp distill")
        from graph2mlp.config import resolve_config
        from graph2mlp.console import Reporter
        from graph2mlp.distill import distill as run_pipeline
        from graph2mlp.ranks import distill_in_ranks
        from graph2mlp.seeds import distill_seeds
        from graph2mlp.summary import deploy_table, result_table
        from graph2mlp.training import parallel

        if device not in ("auto", "cpu"):
            raise ConfigError(f"Cannot train on device '{device}': this version trains on the CPU. Use --device cpu.")
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
        how: dict[str, Any] = {"knowledge_files": knowledge or (), "reporter": Reporter()}
        how |= {"force": force, "resume": resume}
        with _one_line_errors(out):
            if parallel.launched():
                if seeds is not None:
                    raise ConfigError("torchrun trains one run; give --seed instead of --seeds.")
                if (run := distill_in_ranks(settings, out, **how)) is None:
                    raise typer.Exit
                result = run.result
            elif seeds is None:
                result = run_pipeline(settings, out, **how).result
            else:
                result = distill_seeds(settings, seeds, out, **how)
        _show(result_table(result))
        if settings.deploy:
            _show(deploy_table(result))
        for line in result["advice"]:
            typer.echo(line)
        typer.echo(f"run: {out}")
        typer.echo(f"report: {out / 'report.html'}")


@app.command()
def methods(name: Annotated[str | None, typer.Argument(help="Show this method's card.")] = None) -> None:
    """List the methods, or show one method's card: paper, formula, cost at inference, settings."""
    with _one_line_errors():
        require("torch", extra="distill", purpose="graph2mlp methods")
        from graph2mlp.cards import all_cards, method_card
        from graph2mlp.console import table

        if name is None:
            rows = [[c.name, "yes" if c.needs_teacher else "no", c.regime, c.summary] for c in all_cards()]
            listing = table("Methods", ["name", "teacher", "regime", "what it does"], rows)
            listing.columns[3].justify, listing.columns[3].no_wrap = "left", False
            _show(listing)
            return
        card = method_card(name)
        typer.echo(f"{card.name}: {card.text}\n\nPaper: {card.paper}.\nNeeds at inference: {card.inference}")
        if card.defaults:
            typer.echo(f"Prefers: {', '.join(card.defaults)}")
        if card.settings:
            settings = table("\nSettings (--set)", ["name", "default", "meaning"], card.settings)
            settings.columns[2].justify, settings.columns[2].no_wrap = "left", False
            _show(settings)


@app.command()
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
        float, typer.Option(help="Points of validation accuracy the file may lose against the network.")
    ] = MAX_DROP,
    batch: Annotated[str, typer.Option(help="Requests per call that --preset auto measures at.")] = "1,64",
    out: Annotated[Path | None, typer.Option(help="Bundle folder, or a .zip file. Default: RUN/bundle.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
) -> None:
    """Write a verified, deployable bundle from a finished run; it runs with numpy and onnxruntime alone."""
    with _one_line_errors():
        if onnx == ort:
            raise typer.BadParameter("name the form to export: --onnx, or --ort")
        require("torch", extra="distill", purpose="graph2mlp export")
        from graph2mlp.export.deploy import export_run
        from graph2mlp.run import open_run
        from graph2mlp.summary import preset_table

        how: dict[str, Any] = {"preset": preset, "features": features.value, "force": force}
        how |= {"max_drop": max_drop, "batches": _sizes(batch), "model_format": "ort" if ort else "onnx"}
        summary = export_run(open_run(run), out=out or run / "bundle", **how)
        if summary.choice is not None:
            _show(preset_table(summary.choice))
        typer.echo(summary.summary())


@app.command()
def bench(
    bundles: Annotated[
        list[Path] | None, typer.Argument(metavar="BUNDLE...", help="One or more bundles, folders or .zip.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Requests per call, separated by commas.")] = "1,64,4096",
    threads: Annotated[int, typer.Option(min=1, help="Threads of every side.")] = 1,
    seconds: Annotated[float, typer.Option(help="Time to measure each row.")] = 2.0,
    against: Annotated[
        Path | None, typer.Option(help="The run the bundles came from: adds its teacher, neighbour fetch included.")
    ] = None,
    teacher_module: TeacherModule = None,
    teacher_weights: TeacherWeights = None,
    scenario: Annotated[
        str,
        typer.Option(
            help="batch (the sizes of --batch), single (one request per call), server (random arrivals: the "
            "highest rate that keeps --slo-p99-us); several separated by commas."
        ),
    ] = "batch",
    slo_p99_us: Annotated[
        float, typer.Option("--slo-p99-us", help="Server scenario: microseconds for 99 of 100 requests.")
    ] = 1000.0,
    cold_starts: Annotated[
        int, typer.Option(min=0, help="Fresh processes to start for cold start and memory; 0: none.")
    ] = 3,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the rows, and what was measured on, as JSON.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the rows as CSV.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Measure nothing; compare two files of --json."),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the rows as a page to look at.")] = None,
) -> None:
    """Measure bundles on this machine: accuracy, percentiles, CPU time, load, memory, size."""
    with _one_line_errors():
        from graph2mlp.latency import bench_bundles
        from graph2mlp.latency_compare import compare_benches
        from graph2mlp.latency_rows import write_bench_csv, write_bench_json
        from graph2mlp.latency_summary import bench_tables, compare_table

        if compare is not None:
            if bundles or against or json or csv or html:
                raise typer.BadParameter("--compare takes two files and nothing else")
            _show(compare_table(compare_benches(*compare)))
            return
        if not bundles:
            raise typer.BadParameter("name a bundle, or two files with --compare")
        batches, serve = _scenarios(scenario, _sizes(batch))
        run: Any = None
        if against is not None:
            require("torch", extra="distill", purpose="graph2mlp bench --against")
            from graph2mlp.run import open_run

            code = teacher_module or (str(teacher_weights.resolve()) if teacher_weights else "")
            run = open_run(against, allowed_code=code)
        how: dict[str, Any] = {"batches": batches, "threads": threads, "seconds": seconds, "cold_starts": cold_starts}
        how["slo_p99_us"] = slo_p99_us if serve else None
        found = bench_bundles(bundles, against=run, **how)
        where = ", ".join(map(str, bundles))
        if json is not None:
            write_bench_json(json, found, bundle=where, settings=how)
        if csv is not None:
            write_bench_csv(csv, found, bundle=where)
        if html is not None:
            from graph2mlp.report import write_bench_report

            with TemporaryDirectory() as folder:  # a page is made from files, so that it can be made again
                write_bench_json(Path(folder) / "bench.json", found, bundle=where, settings=how)
                write_bench_report(html, [Path(folder) / "bench.json"])
        for one in bench_tables(found):
            _show(one)


@app.command()
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
) -> None:
    """Answer requests: id, label and probability for each. Needs no torch. A folder goes on where it stopped."""
    with _one_line_errors():
        from graph2mlp.export.answers import write_csv
        from graph2mlp.export.predict import predict_file
        from graph2mlp.export.shards import find_shards, predict_shards

        if find_shards(requests) is not None:
            if out is None:
                raise typer.BadParameter("a folder of requests needs --out FOLDER")
            with _one_line_errors(again=f" What is in {out} stays; the same command goes on."):
                typer.echo(predict_shards(bundle, requests, out, workers=workers, say=_say).summary())
            return
        answered = predict_file(bundle, requests, out=out)
        if answered.columns is not None:
            write_csv(sys.stdout, answered.columns)
        else:
            typer.echo(answered.summary())


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A graph (name, file or folder), knowledge file, run or bundle.")],
    root: Annotated[Path | None, typer.Option(help="Folder of raw files, for a graph known by name.")] = None,
    task: LabelTask = "auto",
) -> None:
    """Say what a file or folder is, what is in it, and whether it is intact; of a graph also what that means."""
    with _one_line_errors():
        from graph2mlp.inspection import describe

        title, rows = describe(path, root=root, task=task)
        from graph2mlp.console import table

        listing = table(title, ["", ""], rows)
        listing.show_header = False
        listing.columns[1].justify, listing.columns[1].no_wrap = "left", False
        _show(listing)


def _say(line: str) -> None:
    """About work that goes on, so that results on standard output can be piped."""
    typer.echo(line, err=True)


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"expected whole numbers separated by commas, got {text!r}", param_hint="--batch"
        ) from None


def _scenarios(text: str, sizes: list[int]) -> tuple[list[int], bool]:
    """Batch sizes to measure, and whether to play a server."""
    names = text.split(",")
    if unknown := [name for name in names if name not in ("single", "batch", "server")]:
        raise typer.BadParameter(f"expected single, batch or server, got {unknown[0]!r}", param_hint="--scenario")
    wanted = ([1] if "single" in names else []) + (sizes if "batch" in names else [])
    return list(dict.fromkeys(wanted)), "server" in names


def _run_name(graph: str, method: str) -> str:
    """`cpf:cora`, `data/mine.npz` and `data/folder` as parts of a folder's name."""
    return f"{Path(graph).stem}-{method}".replace(":", "-")


def _show(thing: Any) -> None:
    from graph2mlp.console import show

    show(thing)
