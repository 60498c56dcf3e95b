"""`graph2mlp methods`: the list, and a method's card."""

from __future__ import annotations

from typing import Annotated

import typer

from graph2mlp.commands.common import one_line_errors, show
from graph2mlp.errors import require

__all__ = ["methods"]


def methods(name: Annotated[str | None, typer.Argument(help="Show this method's card.")] = None) -> None:
    """List the methods, or show one method's card: paper, formula, cost at inference, settings."""
    with one_line_errors():
        require("torch", extra="distill", purpose="graph2mlp methods")
        from graph2mlp.cards import all_cards, method_card
        from graph2mlp.console import table

        if name is None:
            rows = [[c.name, "yes" if c.needs_teacher else "no", c.regime, c.summary] for c in all_cards()]
            listing = table("Methods", ["name", "teacher", "regime", "what it does"], rows)
            listing.columns[3].justify, listing.columns[3].no_wrap = "left", False
            show(listing)
            return
        card = method_card(name)
        typer.echo(f"{card.name}: {card.text}\n\nPaper: {card.paper}.\nNeeds at inference: {card.inference}")
        if card.defaults:
            typer.echo(f"Prefers: {', '.join(card.defaults)}")
        if card.settings:
            settings = table("\nSettings (--set)", ["name", "default", "meaning"], card.settings)
            settings.columns[2].justify, settings.columns[2].no_wrap = "left", False
            show(settings)
