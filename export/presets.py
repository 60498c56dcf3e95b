"""How the numbers of a network may be stored: one table drives export, bench and documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graph2mlp.errors import ConfigError, suggest

__all__ = ["AUTO", "MAX_DROP", "PRESETS", "Preset", "find_preset"]

AUTO = "auto"
"""Not a preset: measure all of them here, keep the fastest that passes the gate."""

MAX_DROP = 0.5
"""Points of validation accuracy (hundredths) that a preset may lose unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A way to store the numbers of a network, and for whom it is."""

    name: str
    purpose: str
    """For whom it is."""
    dense: Literal["float32", "float16", "int8-dynamic", "int8-static", "int8-blocks", "int4-blocks"] = "float32"
    """Layers: how their weights are stored, and with it how they are multiplied."""
    tables: Literal["float32", "float16", "int8-rows"] = "float32"
    """Tables with a row per node or per word."""

    @property
    def exact(self) -> bool:
        """Whether the file must agree with the network to float32's precision."""
        return self.dense == self.tables == "float32"

    @property
    def rounds_activations(self) -> bool:
        """Whether layers multiply integers, so that another processor may round a number the other way."""
        return self.dense not in ("float32", "float16")


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(name="fp32", purpose="the network as trained: fastest for small students, and for whoever asks first"),
        Preset(
            name="int8",
            purpose="wide students (hidden layers of 256 and more): fastest in batches, a quarter of the size",
            dense="int8-dynamic",
            tables="int8-rows",
        ),
        Preset(
            name="int8-static",
            purpose="the same where an answer must not depend on the other requests of its batch",
            dense="int8-static",
            tables="int8-rows",
        ),
        Preset(
            name="int8-weight",
            purpose="wide students asked one request at a time; of the 8-bit presets closest to fp32",
            dense="int8-blocks",
            tables="int8-rows",
        ),
        Preset(
            name="int4-weight",
            purpose="very wide students asked one request at a time, and the smallest layers",
            dense="int4-blocks",
            tables="int8-rows",
        ),
        Preset(
            name="fp16",
            purpose="half the file, nothing else: it is restored to float32 when it is opened",
            dense="float16",
            tables="float16",
        ),
    )
}


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"Unknown preset '{name}'. {suggest(name, (*PRESETS, AUTO))}")
    return PRESETS[name]
