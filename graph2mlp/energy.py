"""Energy of the processor package, where the system lets us read it (Linux: RAPL); never estimated. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Energy", "find_energy"]

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Energy:
    """Counters of the processor packages: microjoules, starting again from 0 after `ranges`."""

    counters: tuple[Path, ...]
    ranges: tuple[int, ...]

    def read_uj(self) -> tuple[int, ...] | None:
        """What the counters say now; None if one cannot be read any more."""
        try:
            return tuple(int(path.read_text(encoding="utf-8")) for path in self.counters)
        except (OSError, ValueError):
            return None

    def since_uj(self, before: tuple[int, ...]) -> int | None:
        """Microjoules used since `before`, all packages together; at most one wrap of a counter is seen."""
        now = self.read_uj()
        if now is None:
            return None
        return sum((b - a) % size for a, b, size in zip(before, now, self.ranges, strict=True))


def find_energy(root: Path = POWERCAP) -> Energy | None:
    """The counters of this machine, or None: no such counters, or only the administrator may read them."""
    counters, ranges = [], []
    for zone in sorted(root.glob("intel-rapl:*")):
        if zone.name.count(":") > 1:  # a part of a package, counted in it already
            continue
        try:
            ranges.append(int((zone / "max_energy_range_uj").read_text(encoding="utf-8")) + 1)
        except (OSError, ValueError):
            continue
        counters.append(zone / "energy_uj")
    found = Energy(tuple(counters), tuple(ranges))
    return found if counters and found.read_uj() is not None else None
