"""The error tree, and the two helpers that end most messages."""

from __future__ import annotations

import inspect
import sys

import pytest

from graph2mlp import errors
from graph2mlp.errors import DataError, Graph2MLPError, MissingExtraError, require, suggest


def test_every_error_is_ours_and_drawn_in_the_docstring() -> None:
    """The command line turns this tree into exit code 1; an error outside it would show a traceback."""
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]
    assert len(classes) > 5
    for cls in classes:
        assert issubclass(cls, Graph2MLPError)
        assert cls.__name__ in errors.__all__
        assert errors.__doc__ is not None
        assert cls.__name__ in errors.__doc__
        assert cls.__doc__
    assert issubclass(errors.ParityError, errors.BundleError)


def test_suggest_nearest_or_all() -> None:
    """A typing mistake gets one name; something else gets the list."""
    assert suggest("cpf:coar", ["cpf:cora", "digits"]) == "Did you mean 'cpf:cora'?"
    assert suggest("qqqq", ["b", "a"]) == "Known: a, b."


def test_require_imports_what_is_there() -> None:
    """And returns it."""
    assert require("json", extra="x", purpose="This").dumps([1]) == "[1]"


@pytest.mark.parametrize("name", ["not_a_package_at_all", "not_a_package_at_all.part"])
def test_missing_package_names_the_extra(name: str) -> None:
    """A base install has no torch; the message is the remedy."""
    with pytest.raises(MissingExtraError, match=r"This needs .*not_a_package_at_all.*pip install 'graph2mlp\[some\]'"):
        require(name, extra="some", purpose="This")


def test_broken_package_is_not_reported_as_missing(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing the extra again would not help; the true reason must show."""
    from pathlib import Path

    (Path(str(tmp_path)) / "broken_pkg_for_test.py").write_text("import something_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match="something_that_is_not_there"):
        require("broken_pkg_for_test", extra="x", purpose="This")
    sys.modules.pop("broken_pkg_for_test", None)


def test_messages_are_one_line_and_cannot_steer_a_terminal() -> None:
    """Column names and ids come from files: a line end would break scripts, an escape code could hide the message."""
    assert str(DataError("no node 'a\nb\x1b[2J'")) == "no node 'a b [2J'"
