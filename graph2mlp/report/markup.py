"""HTML and SVG as text. Every plain string is escaped where it enters, so no name from a file can become a tag."""

from __future__ import annotations

import html
import re

__all__ = ["Markup", "element", "join", "text"]

# Control characters, surrogates and non-characters are not allowed in XML, and the first ones can hide text.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that already is HTML; `element` takes it as it is."""

    __slots__ = ()


def text(value: object) -> Markup:
    """`value` as HTML that shows it: escaped, characters that no page may hold replaced."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_FORBIDDEN.sub("\ufffd", str(value))))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """`<name attributes>children</name>`, well-formed as XML too.

    Children that are None are left out, as are attributes; an underscore in an attribute's name stands for a hyphen,
    one at its end keeps it from being a word of Python (`class_`).
    """
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{text(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    inside = join(*children)
    closed = f">{inside}</{name}>" if inside or name not in _VOID else "/>"
    return Markup(f"<{name}{''.join(parts)}{closed}")


def join(*children: object) -> Markup:
    """The children one after the other, None left out."""
    return Markup("".join(text(child) for child in children if child is not None))


_VOID = {"meta", "link", "br", "line", "circle", "rect", "path", "polyline", "polygon"}


def _plain(value: object) -> str:
    """Numbers short: a page has thousands of coordinates."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
