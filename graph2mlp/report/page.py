"""The shell of a page, and the blocks its sections are made of."""

from __future__ import annotations

from collections.abc import Sequence

from graph2mlp.report.markup import Markup, element, join
from graph2mlp.report.style import STYLE

__all__ = ["charts", "details", "facts", "key_figures", "page", "paragraph", "section", "table"]


def page(title: str, *blocks: object) -> str:
    """A whole document. Its policy forbids scripts and anything from outside, should one ever slip in."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("style", Markup(STYLE)),
    )
    return f"<!doctype html>\n{element('html', head, element('body', element('main', *blocks)), lang='en')}\n"


def section(title: str, *blocks: object) -> Markup:
    """A part of the page under its heading."""
    return element("section", element("h2", title), *blocks)


def paragraph(*words: object, class_: str | None = None) -> Markup:
    return element("p", *words, class_=class_)


def charts(*figures: Markup) -> Markup:
    """Figures side by side where there is room."""
    return element("div", *figures, class_="charts")


def details(summary: str, *blocks: object) -> Markup:
    """Something to unfold; printed in full."""
    return element("details", element("summary", summary), *blocks)


def key_figures(figures: Sequence[tuple[str, str, str]]) -> Markup:
    """What, its number, and a few words below."""
    blocks = [
        element("div", element("dt", what), element("dd", number, class_="figure"), element("dd", more))
        for what, number, more in figures
    ]
    return element("dl", *blocks, class_="key")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str | None = None) -> Markup:
    """Names in the first column, numbers aligned right in the others; scrolls in a box of its own."""
    head = element("thead", element("tr", *(element("th", column, scope="col") for column in columns)))
    body = element(
        "tbody",
        *(
            element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]))
            for row in rows
        ),
    )
    inside = element("table", element("caption", caption) if caption else None, head, body)
    return element(
        "div", inside, class_="scroll", tabindex="0", role="region", aria_label=caption or columns[0] or "table"
    )


def facts(rows: Sequence[tuple[str, object]]) -> Markup:
    """Names and what is to be said of them."""
    lines = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows]
    return element("table", element("tbody", *lines), class_="facts")


def lines(*texts: object) -> Markup:
    """Texts one below the other."""
    return join(*(element("p", one) for one in texts))
