"""The shell of a page, and the blocks its sections are made of."""

from __future__ import annotations

from collections.abc import Sequence

from graph2mlp.report.markup import Markup, element
from graph2mlp.report.style import STYLE

__all__ = [
    "absent",
    "beside",
    "charts",
    "columns",
    "details",
    "facts",
    "key_figures",
    "page",
    "paragraph",
    "section",
    "table",
    "tabular",
]


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
    """Running text."""
    return element("p", *words, class_=class_)


def charts(*figures: Markup) -> Markup:
    """Figures side by side where there is room."""
    return element("div", *figures, class_="charts")


def columns(*figures: Markup) -> Markup:
    """Figures of different heights, filling two columns where there is room."""
    return element("div", *figures, class_="columns")


def beside(*blocks: Markup) -> Markup:
    """A figure and its table, or tables; one below the other where there is no room."""
    return element("div", *blocks, class_="beside")


def details(summary: str, *blocks: object) -> Markup:
    """Something to unfold; printed in full."""
    return element("details", element("summary", summary), *blocks)


def key_figures(figures: Sequence[tuple[str, str, Sequence[str]]]) -> Markup:
    """What, its number, and lines of words below."""
    blocks = [
        element(
            "div",
            element("dt", what),
            element("dd", number, class_="figure"),
            *(element("dd", words) for words in more if words),
        )
        for what, number, more in figures
    ]
    return element("dl", *blocks, class_="key")


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str) -> Markup:
    """Names in the first column, numbers aligned right in the others."""
    head = element("thead", element("tr", *(element("th", one, scope="col") for one in heads)))
    body = element(
        "tbody",
        *(
            element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]))
            for row in rows
        ),
    )
    return tabular(element("table", head, body), caption=caption)


def tabular(inside: Markup, *, caption: str) -> Markup:
    """A table below its caption; what is too wide scrolls in a box of its own, which the keyboard reaches."""
    box = element("div", inside, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return element("div", element("p", caption, class_="caption"), box, class_="tabular")


def facts(rows: Sequence[tuple[str, object]]) -> Markup:
    """Names and what is to be said of them."""
    lines = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows]
    return element("table", element("tbody", *lines), class_="facts")


def absent(what: str) -> Markup:
    """In the place of something that runs of an earlier version did not keep."""
    words = f"This run folder does not hold {what}: it was made by an earlier version. Run distill again to have it."
    return paragraph(words, class_="missing")
