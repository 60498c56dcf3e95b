"""`graph2mlp bench`: what bundles cost on this machine."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from graph2mlp.commands.common import one_line_errors, show, sizes
from graph2mlp.errors import ConfigError, require
from graph2mlp.options import TeacherModule, TeacherWeights

__all__ = ["bench"]


def bench(
    bundles: Annotated[
        list[Path] | None, typer.Argument(metavar="BUNDLE...", help="One or more bundles, folders or .zip.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Requests per call, separated by commas.")] = "1,64,4096",
    threads: Annotated[int, typer.Option(min=1, help="Threads of every side.")] = 1,
    seconds: Annotated[
        float, typer.Option(help="Time to measure each row; an attempt of a server lasts a quarter of it.")
    ] = 2.0,
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
    with one_line_errors():
        from graph2mlp.latency.bench import bench_bundles
        from graph2mlp.latency.compare import compare_benches
        from graph2mlp.latency.rows import write_bench_csv, write_bench_json
        from graph2mlp.latency.summary import bench_tables, compare_table

        if compare is not None:
            if bundles or against or json or csv or html:
                raise typer.BadParameter("--compare takes two files and nothing else")
            show(compare_table(compare_benches(*compare)))
            return
        if not bundles:
            raise typer.BadParameter("name a bundle, or two files with --compare")
        _check_outputs(bundles, [file for file in (json, csv, html) if file is not None])
        batches, serve = _scenarios(scenario, sizes(batch))
        run = _open(against, teacher_module, teacher_weights)
        how: dict[str, Any] = {"batches": batches, "threads": threads, "seconds": seconds, "cold_starts": cold_starts}
        how["slo_p99_us"] = slo_p99_us if serve else None
        found = bench_bundles(bundles, against=run, **how)
        for one in bench_tables(found):  # before any file: a full disk does not cost the measurement
            show(one)
        where = ", ".join(map(str, bundles))
        if json is not None:
            write_bench_json(json, found, bundle=where, settings=how)
        if csv is not None:
            write_bench_csv(csv, found, bundle=where)
        if html is not None:
            _write_page(html, found, bundle=where, settings=how)


def _check_outputs(bundles: list[Path], files: list[Path]) -> None:
    """Nothing that is written may replace something else of this command, or lie in a bundle, which it would damage."""
    taken = [bundle.resolve() for bundle in bundles]
    for file in files:
        place = file.resolve()
        if one := next((one for one in taken if place == one or one in place.parents), None):
            what = "lies in a bundle" if one != place else "is named twice: as a bundle, --json, --csv or --html"
            raise ConfigError(f"{file} {what}. Give each file a name of its own, outside bundles.")
        taken.append(place)


def _open(run: Path | None, teacher_module: str | None, teacher_weights: Path | None) -> Any:
    """The run of --against; None without one."""
    if run is None:
        return None
    require("torch", extra="distill", purpose="graph2mlp bench --against")
    from graph2mlp.run import open_run

    code = teacher_module or (str(teacher_weights.resolve()) if teacher_weights else "")
    return open_run(run, allowed_code=code)


def _write_page(page: Path, found: Any, **about: Any) -> None:
    from graph2mlp.latency.rows import write_bench_json
    from graph2mlp.report import write_bench_report

    with TemporaryDirectory() as folder:  # a page is made from files, so that it can be made again
        write_bench_json(Path(folder) / "bench.json", found, **about)
        write_bench_report(page, [Path(folder) / "bench.json"])


def _scenarios(text: str, sizes: list[int]) -> tuple[list[int], bool]:
    """Batch sizes to measure, and whether to play a server."""
    names = text.split(",")
    if unknown := [name for name in names if name not in ("single", "batch", "server")]:
        raise typer.BadParameter(f"expected single, batch or server, got {unknown[0]!r}", param_hint="--scenario")
    wanted = ([1] if "single" in names else []) + (sizes if "batch" in names else [])
    return list(dict.fromkeys(wanted)), "server" in names
