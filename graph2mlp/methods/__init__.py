"""Methods by name. One file per paper; one line here makes it known, and loads nothing until it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from graph2mlp.errors import ConfigError, suggest

if TYPE_CHECKING:
    from graph2mlp.methods.base import Method

__all__ = ["METHODS", "method_class"]

METHODS: Mapping[str, str] = MappingProxyType(
    {
        "blend": "graph2mlp.methods.blend:Blend",
        "blend_features": "graph2mlp.methods.blend_features:BlendFeatures",
        "mlp": "graph2mlp.methods.mlp:MLP",
        "glnn": "graph2mlp.methods.glnn:GLNN",
        "nosmog": "graph2mlp.methods.nosmog:NOSMOG",
        "gsdn": "graph2mlp.methods.gsdn:GSDN",
        "lsp": "graph2mlp.methods.lsp:LSP",
        "gsp": "graph2mlp.methods.gsp:GSP",
        "g_crd": "graph2mlp.methods.g_crd:GCRD",
        "cold_brew": "graph2mlp.methods.cold_brew:ColdBrew",
        "alignahead": "graph2mlp.methods.alignahead:Alignahead",
    }
)


def method_class(name: str) -> type[Method]:
    """The class of the method called `name`.

    Raises:
        ConfigError: there is none.
    """
    if name not in METHODS:
        raise ConfigError(f"Unknown method '{name}'. {suggest(name, METHODS)}")
    module, cls = METHODS[name].split(":")
    found: type[Method] = getattr(import_module(module), cls)
    return found
