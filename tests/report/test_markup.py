"""Text becomes HTML in one place, and never more than text."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from graph2mlp.report.markup import Markup, element, join, text

NASTY = [
    "<script>alert(1)</script>",
    '" onmouseover="x',
    "' x='",
    "&lt;",
    "a\x00b\x1b\x7f",
    "\u202egnp.exe",
    "\ud800",
    "]]>",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_any_text_stays_text(nasty: str) -> None:
    """A class called <script> must be shown, not run; what XML forbids must not break the page."""
    made = element("p", nasty, title=nasty)
    root = ElementTree.fromstring(made.encode("utf-8"))
    assert list(root) == []
    assert list(root.attrib) == ["title"]
    shown = "".join("\ufffd" if one in "\x00\x1b\x7f\u202e\ud800" else one for one in nasty)
    assert root.text == shown == root.attrib["title"]


def test_markup_is_taken_as_it_is() -> None:
    """Escaping twice would show &amp;amp;."""
    assert element("p", Markup("<b>x</b>"), " & ", 3) == "<p><b>x</b> &amp; 3</p>"
    assert text(text("&")) == "&amp;"
    assert join("a", None, "<") == "a&lt;"


def test_attributes() -> None:
    """Names of Python become names of HTML; None leaves one out; numbers are short, for pages have thousands."""
    made = element("circle", cx=1.2345, cy=2.0, class_="student", stroke_width=1, fill=None)
    assert made == '<circle cx="1.23" cy="2" class="student" stroke-width="1"/>'


def test_empty_elements() -> None:
    """<td/> would leave a cell open in HTML, and </line> is not allowed in it."""
    assert element("td") == "<td></td>"
    assert element("line") == "<line/>"
    assert element("circle", element("title", "x")) == "<circle><title>x</title></circle>"
