"""`metrics.jsonl`: one line per epoch of every stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from graph2mlp.atomic import naming, write_text
from graph2mlp.training.loop import EpochLog, silent

__all__ = ["Journal"]


class Journal:
    """Appends epochs as they end; a stage that starts again, or is resumed, replaces its own later lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stage(self, name: str, also: EpochLog = silent) -> EpochLog:
        """An `EpochLog` for one stage, which passes everything on to `also`."""
        started = False

        def log(epoch: int, figures: Mapping[str, float]) -> None:
            nonlocal started
            if not started:
                self._forget(name, epoch)
                started = True
            with naming(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"stage": name, "epoch": epoch, **figures}) + "\n")
            also(epoch, figures)

        return log

    def _forget(self, name: str, epoch: int) -> None:
        """Drop lines of stage `name` from `epoch` on, and a last line that was cut off."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record["stage"] != name or record["epoch"] < epoch:
                kept.append(line + "\n")
        write_text(self.path, "".join(kept))
