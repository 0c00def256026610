"""Graphs as files: nothing is lost, and a damaged file gets a named error."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file

import pgm_sync as ps
from pgm_sync.errors import SavedFileError
from pgm_sync.graph.serialization import write_atomically
from pgm_sync.spec import same

SUFFIXES = [".json", ".safetensors"]


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def rich_graph() -> ps.FactorGraph:
    """Every kind of name, map and potential."""
    graph = ps.FactorGraph()
    graph.add_variable("canvas", (1, 4, 6))
    graph.add_trajectory(("w", 0), (1, 4, 4))
    graph.add_trajectory(("w", (1, "b")), (1, 4, 4))
    graph.add_trajectory(7, (4,))
    crop = ps.Crop((1, 4, 6), (0, 2), (4, 4))
    turned = ps.Rotate((1, 4, 4)) @ ps.Flip((1, 4, 4)) @ crop
    graph.add_factor("see", [("w", 0), "canvas"], ps.Equality(normal(1, 4, 4).abs()), [None, turned])
    rho = torch.tanh(normal(1, 2))
    graph.add_factor(
        (("w", 0), ("w", (1, "b"))),
        [("w", 0), ("w", (1, "b"))],
        ps.Correlation(rho, variance=(1.5, 0.1 + 0.2), mean=normal(1, 2).float()),
        [ps.DCT((1, 4, 4), 2), ps.DCT((1, 4, 4), 2)],
    )
    basis = ps.Features.orthonormalise(normal(3, 1, 4, 4))
    root = normal(7, 7)
    graph.add_factor(
        2.5,
        [("w", 0), 7],
        ps.JointGaussian(normal(7), root @ root.T + torch.eye(7), log_scale=1 / 3),
        [basis, ps.Permutation((4,), [2, 0, 3, 1])],
    )
    mask = ps.Mask((4,), [True, False, True, True])
    graph.add_factor("seen", [7], ps.Evidence(normal(3), mask=torch.tensor([True, False, True])), [mask])
    blur = ps.SparseMap((4,), (2,), torch.tensor([[0, 1], [0, 3]]), torch.tensor([0.1, 0.7]))
    graph.add_factor("blurred", [7], ps.Evidence(1.0, precision=2.0), [blur])
    graph.graph["fit"] = {"method": "moments", "num_samples": 3, "shrinkage": 0.1}
    return graph


def assert_same(a: ps.FactorGraph, b: ps.FactorGraph) -> None:
    assert list(a.nodes) == list(b.nodes)
    for name in a.variables:
        assert a.nodes[name] == b.nodes[name]
    for factor in a.factors:
        assert a.scope(factor) == b.scope(factor)
        assert same(a.potential(factor), b.potential(factor)), factor
        assert same(tuple(a.maps(factor)), tuple(b.maps(factor))), factor
    assert a.graph == b.graph


@pytest.mark.parametrize("suffix", SUFFIXES)
class TestRoundTrip:
    def test_everything_comes_back_bit_for_bit(self, tmp_path, suffix):
        graph, path = rich_graph(), tmp_path / f"graph{suffix}"
        graph.save(path)
        assert_same(graph, ps.FactorGraph.load(path))
        assert_same(graph, ps.FactorGraph.load(str(path)))

    def test_tuple_names_are_hashable_again(self, tmp_path, suffix):
        path = tmp_path / f"graph{suffix}"
        ps.grid_graph(2, 2, (1,)).save(path)
        loaded = ps.FactorGraph.load(path)
        assert loaded.scope(((0, 0), (0, 1))) == [(0, 0), (0, 1)]

    def test_saving_again_writes_the_same_file(self, tmp_path, suffix):
        first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        rich_graph().save(first)
        ps.FactorGraph.load(first).save(second)
        assert first.read_bytes() == second.read_bytes()

    def test_the_loaded_graph_infers_the_same(self, tmp_path, suffix):
        graph, path = ps.chain_graph(3, (2,), ps.Correlation(0.6)), tmp_path / f"graph{suffix}"
        graph.save(path)
        evidence = {k: (torch.tensor([1.0, -k]).double(), 1.0 + k) for k in range(3)}
        before, after = (ps.infer(g, evidence) for g in (graph, ps.FactorGraph.load(path)))
        assert torch.equal(before.mean[2], after.mean[2])

    def test_missing_folders_are_made_and_no_scratch_file_stays(self, tmp_path, suffix):
        path = tmp_path / "runs" / "1" / f"graph{suffix}"
        rich_graph().save(path)
        rich_graph().save(path)
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_potentials_and_maps_of_ones_own(self, tmp_path, suffix):
        graph = ps.FactorGraph()
        graph.add_trajectory("a", 2)
        graph.add_factor("f", ["a"], Tagged(0.0, tag="mine", tensor=torch.ones(1), tuple=(1, (2, "x"))))
        graph.save(tmp_path / f"graph{suffix}")
        loaded = ps.FactorGraph.load(tmp_path / f"graph{suffix}").potential("f")
        assert type(loaded) is Tagged
        assert same(loaded, graph.potential("f"))


@dataclass(frozen=True, eq=False, repr=False)
class Tagged(ps.Evidence):
    """A user's potential, with fields named as the format names its own entries."""

    tag: str = ""
    tensor: torch.Tensor | None = None
    tuple: tuple | None = None


class TestRefusals:
    def test_a_name_that_json_cannot_hold(self, tmp_path):
        graph = ps.FactorGraph()
        graph.add_trajectory(frozenset([1]), 2)
        with pytest.raises(
            SavedFileError, match=r"cannot save frozenset\(\{1\}\) of type frozenset: names and"
        ):
            graph.save(tmp_path / "graph.json")
        assert list(tmp_path.iterdir()) == []

    def test_an_unknown_suffix(self, tmp_path):
        with pytest.raises(SavedFileError, match=r"cannot save to 'graph.pkl': the suffix must be .json or"):
            rich_graph().save(tmp_path / "graph.pkl")

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_a_missing_file_is_not_found(self, tmp_path, suffix):
        with pytest.raises(FileNotFoundError):
            ps.FactorGraph.load(tmp_path / f"nothing{suffix}")

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("keep", [0, 0.5, 0.95])
    def test_a_truncated_file(self, tmp_path, suffix, keep):
        path = tmp_path / f"graph{suffix}"
        rich_graph().save(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(SavedFileError, match=rf"'graph\{suffix}' is not a readable saved graph"):
            ps.FactorGraph.load(path)

    def change(self, path, edit):
        rich_graph().save(path)
        data = json.loads(path.read_text())
        edit(data)
        path.write_text(json.dumps(data))

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (
                lambda d: d.update(version=99),
                "the graph was saved in format version 99; this package reads version 1",
            ),
            (
                lambda d: d.update(format="networkx"),
                "not a saved graph: format is 'networkx', 'pgm_sync.graph' needed",
            ),
            (lambda d: d.pop("format"), "not a saved graph: format is None"),
            (lambda d: d.pop("nodes"), "'graph.json' is not a readable saved graph: 'nodes'"),
            (lambda d: d["tensors"].pop("t0"), "the saved file lacks tensor 't0'"),
            (
                lambda d: d["nodes"][4]["potential"].update(spec="Bogus"),
                "the saved file uses class 'Bogus', which is not known here; import the module that",
            ),
            (lambda d: d["nodes"][4]["potential"].update(extra=1), "is not a readable saved graph"),
            (lambda d: d["nodes"][4].update(potential={"x": 1}), "has an entry of no known kind, with 'x'"),
            (lambda d: d["tensors"]["t0"].update(shape=[5]), "is not a readable saved graph"),
        ],
    )
    def test_a_changed_file(self, tmp_path, edit, message):
        path = tmp_path / "graph.json"
        self.change(path, edit)
        with pytest.raises(SavedFileError) as caught:
            ps.FactorGraph.load(path)
        assert message in str(caught.value)

    def test_values_that_no_graph_could_have(self, tmp_path):
        path = tmp_path / "graph.json"
        self.change(path, lambda d: d["nodes"][0].update(shape={"tuple": [1, 4, 5]}))
        with pytest.raises(ps.PgmSyncError, match="factor 'see': the map on 'canvas' takes shape"):
            ps.FactorGraph.load(path)

    def test_someone_elses_safetensors(self, tmp_path):
        save_file({"x": torch.zeros(2)}, tmp_path / "weights.safetensors")
        with pytest.raises(SavedFileError, match="not a saved graph: format is None"):
            ps.FactorGraph.load(tmp_path / "weights.safetensors")


def test_an_interrupted_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_map_that_several_factors_share_is_written_once(suffix, tmp_path):
    basis = ps.Features.orthonormalise(torch.rand(2, 1, 4, 4))
    graph = ps.chain_graph(3, (1, 4, 4), features=lambda shape: basis)
    graph.save(tmp_path / f"graph.{suffix}")
    loaded = ps.FactorGraph.load(tmp_path / f"graph.{suffix}")
    for factor in graph.factors:
        for one, other in zip(graph.maps(factor), loaded.maps(factor), strict=True):
            assert torch.equal(one.basis, other.basis)
    assert loaded.maps((0, 1))[0].basis is loaded.maps((1, 2))[1].basis
