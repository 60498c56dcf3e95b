"""How the numbers of a network may be stored: one table drives export, bench and documentation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A way to store the numbers of a network, and for whom it is."""

    name: str
    purpose: str
    max_drop: float
    """Largest loss of the task metric against the torch student, as a fraction; more is refused."""


PRESETS = {
    preset.name: preset
    for preset in (Preset(name="fp32", purpose="the network as trained; fastest for small students", max_drop=0.001),)
}
