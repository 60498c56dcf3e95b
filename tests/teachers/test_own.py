"""A teacher of the user's own: code and weights from outside, asked like a built-in one, and only when named."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN, GCNConv

from graph2mlp.config import resolve_config
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import ConfigError, KnowledgeError
from graph2mlp.run import open_run
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.load_own import load_own_teacher
from graph2mlp.teachers.own import OwnTeacher
from tests.cli import assert_one_line_error, distill, invoke, result_of
from tests.graphs import CLASSES, FEATURES, community_graph, save_npz
from tests.report.folders import tree, words

CODE = """
import torch
from torch import nn
from torch_geometric.nn import GCNConv

class Net(nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels, dropout=0.5):
        super().__init__()
        self.conv1 = GCNConv(in_channels, hidden_channels)
        self.conv2 = GCNConv(hidden_channels, out_channels)

    def forward(self, x, edge_index):
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)

class Soft(Net):
    def forward(self, x, edge_index):
        return super().forward(x, edge_index).softmax(1), None

class Opposite(nn.Module):
    # Never right, as an untrained network may be.
    def forward(self, x, edge_index):
        return -torch.nn.functional.one_hot(torch.arange(len(x)) % 3).float()

class Bare(nn.Module):
    def forward(self, x, edge_index):
        return x[:, :3]

def wide(classes):
    return nn.Sequential(nn.Linear(1, classes))

def odd(heads, in_channels):
    return None

def broken():
    raise RuntimeError("no such table")

number = 3
"""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's folder: code, a graph, weights of a GCN trained on it with hidden width 8."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "g2m_mine.py").write_text(CODE)
    graph = community_graph()
    save_npz(graph, folder / "tiny.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = TeacherConfig(module="g2m_mine:Net", hidden=8)
        network = load_own_teacher(config, graph).network
        optimiser = torch.optim.Adam(network.parameters(), 0.05)
        network.train()
        for _ in range(60):
            optimiser.zero_grad()
            train = graph.split.train
            nn.functional.cross_entropy(network(graph.x, graph.edge_index)[train], graph.y[train]).backward()
            optimiser.step()
        torch.save(network.state_dict(), folder / "w.pt")
        torch.save({"epoch": 3, "state_dict": {f"model.{k}": v for k, v in network.state_dict().items()}}, "ckpt.pt")
        yield folder


def _loaded(name: str = "Net", weights: str = "w.pt", graph: GraphData | None = None, **more: object) -> OwnTeacher:
    config = TeacherConfig(module=f"g2m_mine:{name}", weights=weights, hidden=8, **more)  # type: ignore[arg-type]
    return load_own_teacher(config, graph or community_graph())


OWN = ("--teacher-module", "g2m_mine:Net", "--teacher-weights", "w.pt")


@pytest.mark.parametrize("setting", ["transductive", "production"])
def test_run_with_own_teacher(setting: str, tmp_path: Path) -> None:
    """The result reports the module itself, in every setting; the run keeps what is needed to measure it again."""
    out = tmp_path / "run"
    done = distill("tiny.npz", out, "--method", "nosmog", "--setting", setting, *OWN)
    assert done.exit_code == 0, done.output
    teacher = result_of(out)["teacher"]
    assert teacher["name"] == "Net"
    assert teacher["parameters"] == FEATURES * 8 + 8 + 8 * CLASSES + CLASSES
    run = open_run(out, allowed_code="g2m_mine:Net")
    graph, model = run.graph(), _loaded().network
    observed = graph.observed()
    knowledge = run.knowledge()[0]
    with torch.no_grad():
        want = model(observed.x, observed.edge_index)
    assert torch.equal(knowledge.node_ids, observed.node_ids)
    assert torch.allclose(knowledge.logits, want)
    if setting == "production":
        hidden = torch.isin(torch.arange(graph.num_nodes), graph.split.unseen)
        ends = hidden[graph.edge_index]
        with torch.no_grad():
            answers = model(graph.x, graph.edge_index[:, ~ends.all(0)])[graph.split.unseen]
        right = (answers.argmax(1) == graph.y[graph.split.unseen]).float().mean()
        assert teacher["ind"] == pytest.approx(float(right))
        assert {"tran", "prod", "cold"} <= teacher.keys()
    assert invoke("inspect", out).exit_code == 0


def test_bench_serves_the_own_teacher(tmp_path: Path) -> None:
    """Beside the bundle stands the network it replaces; its code runs only when it is named once more."""
    out = tmp_path / "run"
    assert distill("tiny.npz", out, "--method", "glnn", *OWN).exit_code == 0
    assert invoke("export", out, "--onnx").exit_code == 0
    bench = ("bench", out / "bundle", "--batch", "1", "--seconds", "0.02", "--against", out)
    rows = tmp_path / "rows.json"
    assert invoke(*bench, "--json", rows).exit_code == 0
    assert "add --teacher-module g2m_mine:Net" in json.loads(rows.read_text())["failed"][0]["reason"]
    done = invoke(*bench, "--teacher-module", "g2m_mine:Net", "--json", rows)
    assert done.exit_code == 0, done.output
    assert json.loads(rows.read_text())["rows"][0]["what"].startswith("teacher")
    teacher = open_run(out, allowed_code="g2m_mine:Net").teacher()
    assert teacher.hops == 3, "two layers, and one hop more for the degrees in the normalisation"


def test_a_settings_file_names_no_code(tmp_path: Path) -> None:
    """A stranger's config.toml would otherwise choose what is imported and called on this machine."""
    (tmp_path / "c.toml").write_text('[teacher]\nmodule = "os:getcwd"\n')
    with pytest.raises(ConfigError, match="Name it yourself.*--teacher-module os:getcwd"):
        resolve_config(graph="digits", file=tmp_path / "c.toml")
    chosen = resolve_config(graph="digits", file=tmp_path / "c.toml", teacher_module="g2m_mine:Net")
    assert chosen.teacher.module == "g2m_mine:Net"
    (tmp_path / "d.toml").write_text('[teacher]\nweights = "/tmp/x.pt2"\n')
    with pytest.raises(ConfigError, match="--teacher-weights"):
        resolve_config(graph="digits", file=tmp_path / "d.toml")


def test_weights_in_other_wrappings(tmp_path: Path) -> None:
    """Checkpoints nest and prefix their weights; safetensors hold them bare."""
    from safetensors.torch import save_file

    want = _loaded().network.state_dict()
    save_file(dict(want), tmp_path / "w.safetensors")
    for weights in ("ckpt.pt", str(tmp_path / "w.safetensors")):
        got = _loaded(weights=weights).network.state_dict()
        assert all(torch.equal(got[name], want[name]) for name in want)


def test_settings_of_built_in_teachers_are_said_to_have_no_use(tmp_path: Path) -> None:
    """`blend` estimates class frequencies unless told otherwise; of a teacher from outside it does not."""
    quick = ("--set", "train.epochs=2")
    done = distill("tiny.npz", tmp_path / "a", "--method", "blend", *OWN, *quick)
    assert done.exit_code == 0, done.output
    assert "teacher.frequencies=observed is for built-in teachers" in done.output
    done = distill("tiny.npz", tmp_path / "b", *OWN, *quick, "--set", "teacher.frequencies=labelled")
    assert "teacher.frequencies" not in done.output


def test_a_class_of_pyg_needs_no_code() -> None:
    """Sizes come from the graph, width and depth from the settings."""
    config = TeacherConfig(module="torch_geometric.nn:GCN", hidden=16, layers=3)
    network = load_own_teacher(config, community_graph()).network
    assert isinstance(network, GCN)
    assert (network.in_channels, network.hidden_channels, network.num_layers, network.out_channels) == (12, 16, 3, 3)


def test_hidden_layers(tmp_path: Path) -> None:
    """`auto` is the input of the last layer with weights, a name is that layer's output."""
    graph = community_graph()

    def heard(layers: str) -> tuple[Tensor, ...]:
        teacher = _loaded(hidden_layers=layers)
        teacher.examine(graph)
        with torch.no_grad():
            return teacher(graph.x, graph.edge_index)[1]

    network = _loaded().network
    with torch.no_grad():
        first = network.conv1(graph.x, graph.edge_index)  # type: ignore[operator, union-attr]
    assert torch.allclose(heard("auto")[0], first.relu())
    assert torch.allclose(heard("conv1")[0], first)
    assert [layer.size(1) for layer in heard("conv1+conv2")] == [8, 3]
    assert heard("none") == ()
    with pytest.raises(ConfigError, match="no layer 'conv9'.*conv"):
        heard("conv9")
    done = distill("tiny.npz", tmp_path / "r", "--method", "nosmog", *OWN, "--set", "teacher.hidden_layers=none")
    assert_one_line_error(done, "hidden")
    assert not (tmp_path / "r").exists()


def test_probabilities_become_logits(tmp_path: Path) -> None:
    """A softmax of probabilities is nearly uniform: the student would learn nothing, and nobody would see why."""
    soft = ("--teacher-module", "g2m_mine:Soft", "--teacher-weights", "w.pt")
    done = distill("tiny.npz", tmp_path / "r", "--method", "glnn", *soft)
    assert done.exit_code == 0, done.output
    graph = community_graph()
    with torch.no_grad():
        want = _loaded().network(graph.x, graph.edge_index).softmax(1)
    said = open_run(tmp_path / "r").knowledge()[0]
    assert torch.allclose(said.logits.softmax(1), want, atol=1e-5)


def test_probabilities_become_logits_wherever_the_teacher_is_asked(tmp_path: Path) -> None:
    """Unseen nodes, other graphs and the rows of a bench: one network gives one set of figures in either form."""
    save_npz(community_graph(seed=9), tmp_path / "there.npz")
    found, sure, models = {}, {}, {}
    for name in ("Net", "Soft"):
        own = ("--teacher-module", f"g2m_mine:{name}", "--teacher-weights", "w.pt")
        asked = ("--setting", "production", "--deploy", tmp_path / "there.npz")
        done = distill("tiny.npz", tmp_path / name, "--method", "glnn", *own, *asked)
        assert done.exit_code == 0, done.output
        result, details = result_of(tmp_path / name), json.loads((tmp_path / name / "breakdown.json").read_text())
        found[name] = [result["deploy"][0]["teacher"], *(result["teacher"][part] for part in ("tran", "ind", "cold"))]
        bins = [one["calibration"]["teacher"] for one in details["parts"].values()]
        sure[name] = [one["confidence"] for part in bins for one in part]
        models[name] = open_run(tmp_path / name, allowed_code=f"g2m_mine:{name}").teacher()
    assert found["Net"] == found["Soft"]
    assert sure["Net"] == pytest.approx(sure["Soft"])
    graph = community_graph()
    with torch.no_grad():
        raw, soft = (models[name](graph.x, graph.edge_index)[0].softmax(1) for name in ("Net", "Soft"))
    assert torch.allclose(raw, soft, atol=1e-5)


def test_shares_of_several_labels_become_log_odds() -> None:
    """As shares, every label would count as said: a logit above 0 is a yes."""
    graph = community_graph()
    labels = replace(graph, y=nn.functional.one_hot(graph.y, CLASSES))
    network = _loaded().network

    class Shares(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            out: Tensor = network(x, edge_index).sigmoid()
            return out

    teacher = OwnTeacher(Shares(), labels, TeacherConfig(module="m:Shares")).eval()
    teacher.examine(labels)
    with torch.no_grad():
        few = teacher(graph.x[:2], torch.tensor([[0, 1], [1, 0]]))[0]
        assert torch.allclose(few, network(graph.x[:2], torch.tensor([[0, 1], [1, 0]])), atol=1e-3)


def test_exported_program(tmp_path: Path) -> None:
    """A whole network in one file, without its code; it must take any number of nodes and edges."""
    graph, network = community_graph(), _loaded().network.eval()
    nodes, edges = torch.export.Dim("nodes", min=2), torch.export.Dim("edges", min=2)
    shapes = {"x": {0: nodes}, "edge_index": {1: edges}}
    inputs = (graph.x, graph.edge_index)
    torch.export.save(torch.export.export(network, inputs, dynamic_shapes=shapes), tmp_path / "net.pt2")
    given = ("--teacher-weights", tmp_path / "net.pt2")
    done = distill("tiny.npz", tmp_path / "r", "--method", "glnn", "--setting", "production", *given)
    assert done.exit_code == 0, done.output
    observed = open_run(tmp_path / "r").graph().observed()
    with torch.no_grad():
        want = network(observed.x, observed.edge_index)
    assert torch.allclose(open_run(tmp_path / "r").knowledge()[0].logits, want, atol=1e-5)
    torch.export.save(torch.export.export(network, inputs), tmp_path / "fixed.pt2")
    fixed = ("--setting", "production", "--teacher-weights", tmp_path / "fixed.pt2")
    assert_one_line_error(distill("tiny.npz", tmp_path / "s", "--method", "glnn", *fixed), "dynamic numbers of nodes")


def test_the_command_on_the_page_names_the_code(tmp_path: Path) -> None:
    """Without --teacher-module it was refused, and in the run's folder, where it sent the reader, no module lies."""
    out = tmp_path / "run"
    assert distill("tiny.npz", out, "--method", "glnn", *OWN).exit_code == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Where Python can import 'g2m_mine' (in its folder, or with that in PYTHONPATH)" in words(page)
    command = next(one for one in tree(page).iter("code") if (one.text or "").startswith("graph2mlp distill"))
    assert "--teacher-module g2m_mine:Net" in str(command.text)
    again = [one.replace("RUN", str(out)) for one in shlex.split(str(command.text))[1:-1]]
    done = invoke(*again, tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert result_of(tmp_path / "again")["fingerprint"] == result_of(out)["fingerprint"]


def test_untrained_teacher_is_refused_unless_forced(tmp_path: Path) -> None:
    """Forgotten or mixed-up weights cost a whole run, and the student looks bad for it."""
    graph = community_graph()
    wrong = np.eye(3, dtype=np.float32)[(graph.y.numpy() + 1) % 3]
    np.save(tmp_path / "k.npy", wrong)
    given = ("--method", "glnn", "--knowledge", tmp_path / "k.npy")
    refused = distill("tiny.npz", tmp_path / "r", *given)
    assert_one_line_error(refused, "0.0%", "33.3%", "teacher.force=true")
    assert not (tmp_path / "r").exists()
    done = distill("tiny.npz", tmp_path / "r", *given, "--set", "teacher.force=true")
    assert done.exit_code == 0, done.output


BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no colon": (("--teacher-module", "g2m_mine"), ("MODULE:NAME",)),
    "a file": (("--teacher-module", "g2m_mine.py:Net"), ("write g2m_mine:Net",)),
    "no weights": (("--teacher-module", "g2m_mine:Opposite"), ("no --teacher-weights",)),
    "no such module": (("--teacher-module", "g2m_absent:Net"), ("Cannot import 'g2m_absent'", "PYTHONPATH")),
    "no such name": (("--teacher-module", "g2m_mine:Nets"), ("no 'Nets'", "Net")),
    "a number": (("--teacher-module", "g2m_mine:number"), ("int",)),
    "gives nothing": (("--teacher-module", "g2m_mine:odd"), ("needs 'heads'",)),
    "raises": (("--teacher-module", "g2m_mine:broken"), ("no such table", "g2m_mine.py, line")),
    "no module": (("--teacher-module", "builtins:dict"), ("gave a dict",)),
    "other call": (("--teacher-module", "g2m_mine:wide"), ("module(x, edge_index)",)),
    "other width": ((*OWN, "--set", "teacher.hidden=9"), ("size mismatch", "teacher.hidden")),
    "other layers": (("--teacher-module", "torch_geometric.nn:GCN", "--teacher-weights", "w.pt"), ("lacks", "weights")),
    "weights alone": (("--teacher-weights", "w.pt"), ("--teacher-module",)),
    "missing weights": (("--teacher-module", "g2m_mine:Net", "--teacher-weights", "absent.pt"), ("absent.pt",)),
    "missing program": (("--teacher-weights", "absent.pt2"), ("absent.pt2",)),
    "graph as weights": (("--teacher-module", "g2m_mine:Net", "--teacher-weights", "tiny.npz"), ("tiny.npz",)),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_teachers(case: str, tmp_path: Path) -> None:
    """One line that says what to change, and no run folder, whatever the user's code does."""
    given, words = BAD[case]
    assert_one_line_error(distill("tiny.npz", tmp_path / "r", "--method", "glnn", *given), *words)
    assert not (tmp_path / "r").exists()


def test_method_without_teacher_and_double_teachers(tmp_path: Path) -> None:
    """A teacher that nobody listens to is a mistake in the command."""
    assert_one_line_error(distill("tiny.npz", tmp_path / "r", "--method", "mlp", *OWN), "learns from no teacher")
    np.save(tmp_path / "k.npy", np.zeros((61, 3)))
    both = distill("tiny.npz", tmp_path / "r", "--method", "glnn", *OWN, "--knowledge", tmp_path / "k.npy")
    assert_one_line_error(both, "not both")
    assert distill("tiny.npz", tmp_path / "r", *OWN, "--teacher", "gcn").exit_code == 2


def test_a_teacher_that_looks_at_everything_cannot_serve(tmp_path: Path) -> None:
    """Normalising over all nodes makes an answer depend on nodes no fetch brings: no figure would be honest."""
    from graph2mlp.teachers.own import find_hops

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GCNConv(FEATURES, CLASSES)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            out: Tensor = self.conv(x - x.sum(0), edge_index)
            return out

    graph = community_graph()
    with pytest.raises(KnowledgeError, match="teacher.hops"):
        find_hops(OwnTeacher(Whole().eval(), graph, TeacherConfig(module="m:Whole")), graph)
