"""The pages in a real browser: light, dark, on a phone; nothing cut, nothing on top of something else."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from graph2mlp.report import write_bench_report
from tests.report.folders import bench, page_of, run_files, write_folder

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

if BROWSER is None and os.environ.get("CI") != "true":
    pytest.skip("no chromium is installed", allow_module_level=True)

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
]
SCHEMES = {"dark": 0, "light": 1}
PHONE, DESK = 380, 1200

# Looks at the page as it is drawn, and tells the page around it.
PROBE = """
addEventListener("load", () => {
  const root = document.documentElement, found = {};
  found.width = innerWidth;
  found.overflow = root.scrollWidth - innerWidth;
  found.paper = getComputedStyle(document.body).backgroundColor;
  found.cut = []; found.overlap = []; found.small = [];
  for (const drawing of document.querySelectorAll("svg")) {
    const boxes = [...drawing.querySelectorAll("text")].map(one => [one.textContent, one.getBoundingClientRect(), one]);
    boxes.forEach(([words, box, one], number) => {
      const frame = drawing.getBoundingClientRect(), scale = frame.width / 360;
      if (box.left < frame.left - 3 || box.right > frame.right + 3) found.cut.push(words);
      if (box.top < frame.top - 3 || box.bottom > frame.bottom + 3) found.cut.push(words);
      if (parseFloat(getComputedStyle(one).fontSize) * scale < 10) found.small.push(words);
      for (const [others, other] of boxes.slice(0, number)) {
        const wide = Math.min(box.right, other.right) - Math.max(box.left, other.left);
        const high = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
        if (wide > 1 && high > 5) found.overlap.push(drawing.parentNode.id + ": " + others + " | " + words);
      }
    });
  }
  parent.postMessage(JSON.stringify(found), "*");
});
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run in the production setting with long names, one with few, and a bench of two bundles."""
    folder = tmp_path_factory.mktemp("pages")
    names = (
        "Reinforcement_Learning",
        "Probabilistic methods of a very long name",
        "机器学习理论与应用研究方法综述大全",
        *"abcdefg",
    )
    teachers = tuple(f"{name}{copy}" for copy in ("", " copy-2") for name in ("appnp", "sage-mean", "sage-gcn"))
    further = ("student, validation nodes taught",)
    page_of(folder / "run", run_files(production=True, names=names, teachers=teachers, further=further))
    page_of(folder / "small", run_files())
    seeds = write_seeds(folder / "seeds")
    files = []
    for name, scale in (("fp32", 1.0), ("int8", 0.6)):
        files.append(folder / f"{name}.json")
        files[-1].write_text(json.dumps(bench(bundle=f"runs/mine/{name}", scale=scale)))
    write_bench_report(folder / "bench.html", files)
    return {
        "run": folder / "run/report.html",
        "small": folder / "small/report.html",
        "seeds": seeds,
        "bench": folder / "bench.html",
    }


def write_seeds(folder: Path) -> Path:
    """A folder of two seeds with its page."""
    from graph2mlp.report import write_report

    runs = []
    for seed in (0, 1):
        files = run_files(production=True)
        files["result"]["seed"] = seed
        files["result"]["student"]["prod"] += 0.01 * seed
        write_folder(folder / f"seed-{seed}", files)
        runs.append(files["result"])
    (folder / "result.json").write_text(json.dumps({"schema": 1, "runs": runs, "mean": {}, "std": {}}))
    return write_report(folder)


def browse(
    page: Path, scheme: str, width: int, *arguments: str, height: int = 4000
) -> subprocess.CompletedProcess[str]:
    """Open a page in a browser that has never run before."""
    assert BROWSER is not None, "CI must have a browser: .ci/run installs one"
    profile = page.parent / f"profile-{page.stem}-{scheme}-{width}"
    settings = [f"--user-data-dir={profile}", f"--window-size={width},{height}"]
    settings.append(f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}")
    try:
        return subprocess.run(
            [BROWSER, *QUIET, *settings, *arguments, page.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    finally:
        shutil.rmtree(profile, ignore_errors=True)


def _framed(page: Path, width: int, height: int = 4000) -> Path:
    """A page around this one: a window cannot be as narrow as a phone, a frame can."""
    frame = page.with_name(f"framed-{width}-{page.name}")
    style = f"border:0;width:{width}px;height:{height}px"
    listen = "addEventListener('message', one => { document.documentElement.dataset.found = one.data })"
    frame.write_text(
        f'<!doctype html><title>frame</title><link rel="icon" href="data:,"><script>{listen}</script>'
        f'<body style="margin:0"><iframe src="{page.name}" style="{style}"></iframe>',
        encoding="utf-8",
    )
    return frame


def look(page: Path, scheme: str, width: int) -> dict[str, Any]:
    """What the probe finds; it runs in a copy of the page whose policy lets it."""
    text = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text(encoding="utf-8"), count=1)
    copy = page.with_name(f"probed-{page.parent.name}-{page.name}")
    copy.write_text(text.replace("</head>", f"<script>{PROBE}</script></head>"), encoding="utf-8")
    dom = browse(_framed(copy, width), scheme, width, "--dump-dom", "--virtual-time-budget=3000").stdout
    match = re.search(r'data-found="([^"]*)"', dom)
    assert match, dom[:500]
    found: dict[str, Any] = json.loads(html.unescape(match[1]))
    return found


@pytest.mark.parametrize("name", ["run", "small", "seeds", "bench"])
@pytest.mark.parametrize(("scheme", "width"), [("light", PHONE), ("dark", DESK)])
def test_everything_fits(name: str, scheme: str, width: int, pages: dict[str, Path]) -> None:
    """The page never scrolls sideways; no word of a chart is cut off, on another, or too small to read."""
    found = look(pages[name], scheme, width)
    assert found["width"] == width
    assert found["overflow"] <= 0
    assert found["cut"] == []
    assert found["overlap"] == []
    assert found["small"] == []
    dark = found["paper"] == "rgb(17, 20, 24)"
    assert dark is (scheme == "dark"), found["paper"]


@pytest.mark.parametrize(
    ("name", "scheme", "width"), [("run", "light", DESK), ("run", "dark", PHONE), ("bench", "light", PHONE)]
)
def test_screenshot(name: str, scheme: str, width: int, pages: dict[str, Path], tmp_path: Path) -> None:
    """The page as it is shipped is drawn, all of it, and the browser has nothing to complain about."""
    picture = tmp_path / "page.png"
    done = browse(_framed(pages[name], width, 3000), scheme, width, f"--screenshot={picture}", height=3000)
    assert "CONSOLE" not in done.stderr, done.stderr
    data = picture.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (width, 3000)
    rows = _rows(data, 3000)
    # Every part of it has something on it: of a blank picture all rows are equal.
    for part in range(0, 3000, 500):
        assert len(set(rows[part : part + 500])) > 50, f"rows {part} to {part + 500} are blank"


def _rows(png: bytes, height: int) -> list[bytes]:
    """The rows of a picture as they are stored: filtered, which keeps equal rows equal and different ones different."""
    stored, place = b"", 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            stored += png[place + 8 : place + 8 + length]
        place += 12 + length
    raw = zlib.decompress(stored)
    size = len(raw) // height
    return [raw[start : start + size] for start in range(0, len(raw), size)]
