"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from graph2mlp.atomic import atomic_folder, atomic_path, write_json, write_text


def test_file_appears_when_it_is_done(tmp_path: Path) -> None:
    """Until then the old one stands, and afterwards nothing temporary is left."""
    target = tmp_path / "deep" / "file.txt"
    write_text(target, "old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert temporary.parent == target.parent, "a rename between file systems is a copy"
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    """Also when it is interrupted from the keyboard."""
    target = tmp_path / "file.txt"
    write_text(target, "old")

    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    """No file of the old folder may survive in the new one."""
    target = tmp_path / "bundle"
    for name in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / name).write_text(name)
            assert not (target / name).exists()
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    """An export that fails its check must not take away the bundle that works."""
    target = tmp_path / "bundle"
    with atomic_folder(target) as temporary:
        (temporary / "model").write_text("works")

    def write() -> None:
        with atomic_folder(target) as temporary:
            (temporary / "model").write_text("broken")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert (target / "model").read_text() == "works"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_nan_is_not_json(tmp_path: Path) -> None:
    """Python writes NaN into JSON, and half of all readers then fail."""
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "r.json", {"accuracy": float("nan")})
    assert not list(tmp_path.iterdir())
