"""Settings: every source in its order, every problem named, nothing ignored."""

from __future__ import annotations

import tempfile
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph2mlp.config import load_config, resolve_config
from graph2mlp.config_rules import unread
from graph2mlp.errors import ConfigError


def _toml(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text)
    return file


def test_later_sources_win(tmp_path: Path) -> None:
    """Package, method, file, --set, and the named options above all."""
    file = _toml(
        tmp_path,
        'graph = "digits"\nmethod = "glnn"\nseed = 4\n'
        '[train]\nlr = 0.5\nepochs = 7\n[teacher]\nname = "gat"\n[glnn]\ntemperature = 3.0\n',
    )
    config = resolve_config(file=file, seed=5, teacher="gcn", overrides=["train.lr=0.25", "teacher.name=sage"])
    assert (config.graph, config.method, config.seed) == ("digits", "glnn", 5)
    assert (config.train.lr, config.train.epochs, config.teacher.name) == (0.25, 7, "gcn")
    assert config.to_dict()["glnn"]["temperature"] == 3.0


def test_settings_are_frozen() -> None:
    """What is written beside the result is what was used."""
    config = resolve_config(graph="digits")
    with pytest.raises(FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        config.train.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("root", [None, "/some where/ü"])
@pytest.mark.parametrize("setting", ["transductive", "production"])
def test_round_trip(root: str | None, setting: str, tmp_path: Path) -> None:
    """TOML has no null, and paths may hold any character."""
    config = resolve_config(graph="cpf:cora", root=root, setting=setting, overrides=["train.lr=1e-3"])
    assert load_config(_toml(tmp_path, config.to_toml())) == config


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


def test_zero_byte_in_a_name_is_refused() -> None:
    """The operating system would say 'embedded null byte', in the middle of something else."""
    with pytest.raises(ConfigError, match="cannot hold a zero byte"):
        resolve_config(graph="0.\0")


@given(lr=st.floats(1e-12, 10), hidden=st.integers(1, 65_536), graph=NAMES)
@settings(deadline=None, max_examples=30)
def test_round_trip_of_any_value(lr: float, hidden: int, graph: str) -> None:
    """Every float to the last bit, every name with whatever quotes and line breaks."""
    config = resolve_config(graph=graph, overrides=[f"train.lr={lr!r}", f"student.hidden={hidden}"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "c.toml"
        file.write_text(config.to_toml(), encoding="utf-8", newline="")
        assert load_config(file) == config
    assert config.train.lr == lr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lrr=1", r"Unknown setting 'train.lrr'. Did you mean 'lr'\?"),
        ("trian.lr=1", r"Unknown group of settings 'trian' in --set trian.lr=1. Did you mean 'train'\?"),
        ("glnn.soft=1", "Unknown group of settings 'glnn'"),
        ("lr=1", "Expected group.key=value"),
        ("train.lr", "Expected group.key=value"),
        ("train.lr=fast", "train.lr: .*number.*fast"),
        ("train.epochs=1.5", "train.epochs: .*integer.*1.5"),
        ("student.norm=layer", "student.norm: .*'none' or 'batch'.*layer"),
        ("blend.random_start=maybe", "blend.random_start: .*boolean"),
        ("train.lr=[1]", "train.lr"),
    ],
)
def test_wrong_override_is_named(override: str, message: str) -> None:
    """A misspelt setting that is silently ignored gives a wrong row in a table."""
    with pytest.raises(ConfigError, match=message):
        resolve_config(graph="digits", overrides=[override])


@pytest.mark.parametrize(
    "override",
    [
        "train.epochs=0", "train.patience=0", "train.batch_size=0", "train.lr=0", "train.lr=nan", "train.lr=inf",
        "train.weight_decay=-1", "train.weight_decay=nan", "structure.dim=0", "student.layers=0", "student.dropout=1",
        "teacher.layers=0", "teacher.hidden=0", "teacher.dropout=1.5", "teacher.input_dropout=-1", "teacher.epochs=0",
        "teacher.lr=0", "teacher.lr=nan", "teacher.weight_decay=-1", "teacher.patience=0", "teacher.heads=0",
        "teacher.steps=0", "teacher.teleport=2", "teacher.name=sagee", "structure.encoder=deepwlak",
    ],
)  # fmt: skip
def test_value_out_of_range_is_refused_before_anything_runs(override: str) -> None:
    """Otherwise torch complains in its own words, after the teacher has been trained."""
    with pytest.raises(ConfigError, match=override.split("=")[0].split(".")[1]):
        resolve_config(graph="digits", overrides=[override])


def test_all_problems_at_once() -> None:
    """Fixing one to meet the next is tedious."""
    with pytest.raises(ConfigError) as caught:
        resolve_config(graph="digits", overrides=["train.lrr=1", "student.norm=x", "train.epochs=0"])
    assert all(part in str(caught.value) for part in ("train.lrr", "student.norm", "train.epochs"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("graph = ", "not valid TOML"),
        ('graph = "digits"\n[trane]\nlr = 1\n', "Unknown group of settings 'trane'"),
        ('graph = "digits"\ntrain = 3\n', "'train' must be a table"),
        ('graph = "digits"\nsetting = "inductive"\n', "Unknown setting 'inductive'"),
        ('graph = "digits"\nseed = -1\n', "seed must be a whole number"),
        ('graph = "digits"\nseed = 1.5\n', "seed must be a whole number"),
        ('graph = "digits"\nmethod = "nosmig"\n', r"Unknown method 'nosmig'. Did you mean 'nosmog'\?"),
        ('graph = "digits"\nroot = 3\n', "root"),
        ("seed = 1\n", "No graph given"),
    ],
)
def test_wrong_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    """A file may come from another version or another hand."""
    with pytest.raises(ConfigError, match=message):
        resolve_config(file=_toml(tmp_path, text))


def test_missing_file(tmp_path: Path) -> None:
    """Named in full."""
    with pytest.raises(ConfigError, match="No such settings file: .*absent.toml"):
        resolve_config(file=tmp_path / "absent.toml")


@pytest.mark.parametrize(("method", "missing"), [("glnn", "table"), ("mlp", "teacher"), ("gsdn", "teacher")])
def test_answers_need_a_teacher_and_a_table(method: str, missing: str) -> None:
    """They would be asked for and left out."""
    with pytest.raises(ConfigError, match=f"structure.answers .* '{method}' has no {missing}.*nosmog or blend"):
        resolve_config(graph="digits", method=method, overrides=["structure.answers=true"])
    assert resolve_config(graph="digits", method="nosmog", overrides=["structure.answers=true"]).structure.answers


def test_a_run_of_before_there_was_a_setting_keeps_what_it_did(tmp_path: Path) -> None:
    """Resumed, its student would go on with other soft labels; a file of the user's takes today's default."""
    now = resolve_config(graph="digits")
    assert now.teacher.frequencies == "observed"
    assert now.structure.answers
    file = tmp_path / "config.toml"
    lines = now.to_toml().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith(("frequencies", "answers"))))
    assert load_config(file).teacher.frequencies == "labelled"
    assert not load_config(file).structure.answers
    assert resolve_config(file=file).teacher.frequencies == "observed"
    assert resolve_config(file=file).structure.answers
    file.write_text(now.to_toml())
    assert load_config(file) == now


def test_steps_of_a_run_of_before_stay_as_long(tmp_path: Path) -> None:
    """As above, for a setting of one method."""
    now = resolve_config(graph="digits", method="blend_features")
    file = tmp_path / "config.toml"
    lines = now.to_toml().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("dense_pace")))
    assert load_config(file).hyper == replace(now.hyper, dense_pace=1.0)  # type: ignore[call-arg]
    assert resolve_config(file=file).hyper == now.hyper


def test_bare_words_and_toml_values() -> None:
    """A shell eats quotes, so a bare word is text; numbers and booleans are what they look like."""
    config = resolve_config(graph="digits", overrides=["teacher.name=gcn", "blend.cosine=false", " train.lr = 2e-3 "])
    assert (config.teacher.name, config.train.lr) == ("gcn", 0.002)
    assert config.to_dict()["blend"]["cosine"] is False


def test_a_teacher_for_a_method_without() -> None:
    """It was taken without a word, and the run was one of no teacher."""
    with pytest.raises(ConfigError, match="'mlp' learns from no teacher, so --teacher has no use"):
        resolve_config(graph="digits", method="mlp", teacher="gcn")


@pytest.mark.parametrize(
    ("method", "override"),
    [
        ("mlp", "teacher.name=gat"),
        ("alignahead", "teacher.lr=0.5"),
        ("glnn", "structure.dim=32"),
        ("blend_features", "train.as_unseen=0.5"),
        ("lsp", "student.structure_dropout=0.1"),
    ],
)
def test_settings_of_what_a_method_has_not_are_named(method: str, override: str) -> None:
    """Left unread without a word, they would let a user believe that a change changed nothing."""
    config = resolve_config(graph="digits", method=method, overrides=[override])
    assert unread(config.hyper, vars(config)) == [override.split("=")[0]]
    usual = resolve_config(graph="digits", method=method)
    assert unread(usual.hyper, vars(usual)) == []


@pytest.mark.parametrize("method", ["mlp", "gsdn", "cold_brew"])
def test_no_second_training_where_it_has_nothing_to_add(method: str) -> None:
    """`refit` teaches soft labels: without any, it was the same training twice."""
    with pytest.raises(ConfigError, match=rf"teach_val=refit .*'{method}' .*Use train.teach_val=known"):
        resolve_config(graph="digits", method=method, overrides=["train.teach_val=refit"])


@pytest.mark.parametrize(
    "override", ["lsp.temperature=-1", "gsp.temperature=0", "g_crd.temperature=nan", "cold_brew.temperature=0"]
)
def test_temperatures_are_checked_before_a_teacher_is_trained(override: str) -> None:
    """Three methods found out only when their terms were built."""
    with pytest.raises(ConfigError, match="temperature"):
        resolve_config(graph="digits", method=override.split(".")[0], overrides=[override])


def test_a_bank_of_fewer_rows_than_are_read() -> None:
    """Known before the teacher is trained, so said before."""
    with pytest.raises(ConfigError, match=r"neighbours must be at most cold_brew.prototypes \(got 2, 1\)"):
        resolve_config(
            graph="digits", method="cold_brew", overrides=["cold_brew.bank=kmeans", "cold_brew.prototypes=1"]
        )
