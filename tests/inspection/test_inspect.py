"""The front door: what it takes, what it says, what it writes."""

from __future__ import annotations

import json
import math
import re
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync.cli import main
from pgm_sync.denoisers import FunctionDenoiser, GaussianDenoiser
from pgm_sync.errors import MissingPackageError, ParameterError
from pgm_sync.inspection.correlations import interval
from pgm_sync.inspection.difference import difference
from pgm_sync.inspection.joint_model import joint_model
from pgm_sync.inspection.report.experiment import recorded_states
from pgm_sync.potentials import Attraction, Correlation, Evidence, JointGaussian

from .test_report import checked


@pytest.fixture(scope="module")
def fitted() -> ps.FactorGraph:
    generator = torch.Generator().manual_seed(0)
    graph = ps.wide_canvas((1, 4, 13), (4, 4), 3, features=lambda shape: ps.DCT(shape, 2), neighbours="all")
    canvas = torch.randn(200, 1, 4, 13, generator=generator) + torch.randn(200, 1, 1, 1, generator=generator)
    return ps.fit(graph, {"canvas": canvas})


def data_of(page: str) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1)
    )


def test_tables_are_rows_and_frames(fitted):
    seen = ps.inspect(fitted)
    assert list(seen.tables) == ["correlations", "factors", "partial_correlations", "noise_levels"]
    for table in seen.tables.values():
        frame = table.to_frame()
        assert list(frame.columns) == list(table[0]._fields)
        assert len(frame) == len(table)
    assert seen.tables["noise_levels"].to_frame().mutual_information.min() > 0


def test_every_factor_is_said_to_be_learned_given_structural_or_observed(fitted):
    kinds = {row.factor: row.kind for row in ps.inspect(fitted).tables["factors"]}
    for factor in fitted.factors:
        assert kinds[factor] == ("structural" if "canvas" in fitted.scope(factor) else "learned")
    graph = ps.FactorGraph()
    for name in "ab":
        graph.add_trajectory(name, 2)
    graph.add_factor("spring", ["a", "b"], Attraction(1.0))
    graph.add_factor("seen", ["a"], Evidence(0.0))
    graph.add_factor("empty", ["a", "b"], JointGaussian())
    kinds = {row.factor: row.kind for row in ps.inspect(graph).tables["factors"]}
    assert kinds == {"spring": "given", "seen": "observed", "empty": "not fitted"}


def test_results_and_paths_are_inspected_by_their_graph(fitted, tmp_path):
    graph = ps.chain_graph(2, (2,), Correlation(0.5))
    denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    result = ps.sample(graph, denoiser, DDIMScheduler(clip_sample=False), 2, progress=False)
    assert ps.inspect(result).graph is graph
    fitted.save(tmp_path / "graph.safetensors")
    for path in (tmp_path / "graph.safetensors", str(tmp_path)):
        assert str(ps.inspect(path)) == str(ps.inspect(fitted))


def test_other_things_are_refused(fitted):
    with pytest.raises(ParameterError, match="cannot inspect int; give a graph"):
        ps.inspect(3)
    with pytest.raises(ParameterError, match="a Fit is the record that the fitted graph carries"):
        ps.inspect(ps.Fit.of(fitted))


def test_what_cannot_be_computed_is_left_out_and_said():
    graph = ps.chain_graph(2, (1,), Attraction(1.0))
    seen = ps.inspect(graph)
    assert seen.levels is None
    assert "pass posterior_covariance=a number" in seen.notes[0]
    checked(seen.to_html())
    assert ps.inspect(graph, posterior_covariance=1.0).notes == []
    assert "ps.fit(graph, data)" in ps.inspect(ps.chain_graph(2, (1,), JointGaussian())).notes[0]


def test_differences_have_intervals_that_cover_and_edges_of_one_side_are_named():
    """Repeated draws of one model: its two estimates differ by chance, and 95 % of the intervals hold 0."""
    generator = np.random.default_rng(0)
    n, rho, holds = 60, 0.6, 0
    row = ps.correlations(ps.chain_graph(2, (1,), Correlation(rho)))[0]
    for _ in range(400):
        tables = []
        for _ in range(2):
            x, y = generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n).T
            r = float(np.corrcoef(x, y)[0, 1])
            low, high = interval(r, n)
            tables.append([row._replace(rho=r, low=low, high=high)])
        (found,) = difference(*tables)
        assert found.difference == tables[0][0].rho - tables[1][0].rho
        holds += found.low <= 0 <= found.high
    assert 0.92 < holds / 400 < 0.98
    other = row._replace(factor="elsewhere")
    table = difference([row], [other])
    assert (table.only_first, table.only_second) == ([(0, 1)], ["elsewhere"])
    assert all(math.isnan(r.difference) for r in table)


def test_two_graphs_are_compared(fitted):
    other = fitted.copy()
    other.remove_node(("w0", "w3"))
    seen = ps.inspect(fitted, other, names=("all <pairs>", "fewer"))
    table = seen.tables["difference"]
    assert table.only_first == [("w0", "w3")]
    page = seen.to_html()
    checked(page)
    assert "Only in all &lt;pairs&gt;" in page
    assert page.count("<svg") >= 3


def test_the_page_is_written_whole(fitted, tmp_path):
    path = ps.inspect(fitted, title="A title").save(tmp_path / "page.html")
    page = path.read_text()
    checked(page)
    assert "<h1>A title</h1>" in page
    data = data_of(page)
    assert len(data["edges"]) == len(fitted.factors)
    assert len(data["model"]["terms"]) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_notebooks_show_it_in_a_frame(fitted):
    shown = ps.inspect(fitted)._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert shown.endswith("</iframe>")
    assert "<script" not in shown  # escaped


def test_show_opens_a_browser_outside_of_notebooks(fitted, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    ps.inspect(fitted).show()
    assert opened[0].startswith("file:///")


def test_figures_are_those_of_the_tables(fitted):
    plt = pytest.importorskip("matplotlib.pyplot")
    other = fitted.with_potentials({("w0", "w1"): fitted.potential(("w1", "w2"))})
    figures = ps.inspect(fitted, other).figures()
    assert list(figures) == ["graph", "correlations", "noise_levels", "difference"]
    left, right = figures["noise_levels"].axes
    assert len(left.lines) == len(right.lines) == 7  # one per pair of windows, and the axis
    plt.close("all")


def test_figures_need_matplotlib_and_frames_pandas(fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "pandas", None)
    seen = ps.inspect(fitted)
    with pytest.raises(MissingPackageError, match="figures need matplotlib"):
        seen.figures()
    with pytest.raises(MissingPackageError, match="needs pandas"):
        seen.tables["correlations"].to_frame()
    checked(seen.to_html())


def test_the_command_prints_and_writes_beside_the_file(fitted, tmp_path, capsys):
    path = tmp_path / "graph.safetensors"
    fitted.save(path)
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "dct0,0" in said
    assert said.rstrip().endswith(str(tmp_path / "graph.html"))
    assert main(["inspect", str(tmp_path), "--compare", str(path)]) == 0
    assert "+0.000" in capsys.readouterr().out
    page = (tmp_path / "inspection.html").read_text()
    assert "pgm-sync inspect" in page
    assert "Comparison" in page


@pytest.mark.slow
def test_sixty_four_trajectories_of_fifty_recorded_steps_stay_small():
    """Every step kept, with all its pictures: the page takes what fits, and says what it left out."""
    graph = ps.grid_graph(8, 8, (3, 16, 16), JointGaussian(), lambda shape: ps.DCT(shape, 1))
    covariance = torch.kron(torch.tensor([[1.0, 0.2], [0.2, 1.0]]), torch.eye(3)).double()
    graph = graph.with_potentials({f: JointGaussian(covariance=covariance) for f in graph.factors})
    kinds = {"kinds": ("denoised", "joint", "correction"), "steps": 50}
    recorder = ps.Recorder(
        graph, (), images=kinds
    )  # numbers of factors are a small part of the page, and slow to take
    denoiser = FunctionDenoiser(lambda x, level, condition: 0.5 * x, (3, 16, 16))
    ps.sample(graph, denoiser, DDIMScheduler(clip_sample=False), 50, progress=False, on_step=recorder)
    page = ps.inspect(recorder).to_html()
    data = data_of(page)
    assert len(data["model"]["terms"]) == 112
    assert len(data["recording"]["steps"]) == 50
    assert len(data["recording"]["series"]["correction"]["lines"]) == 64
    assert data["recording"]["pictures"]["more"] == 52
    assert 1e6 < len(page.encode()) < 10e6


def test_a_run_is_inspected_by_its_folder(fitted, tmp_path, capsys):
    recorder = ps.Recorder(fitted)
    denoiser = GaussianDenoiser(torch.zeros(1, 4, 4), torch.eye(16))
    ps.sample(fitted, denoiser, DDIMScheduler(clip_sample=False), 3, progress=False, on_step=recorder)
    recorder.recording.save(tmp_path / "run" / "recording")
    seen = ps.inspect(tmp_path / "run")
    assert len(seen.recording) == 3
    assert list(seen.tables)[4:8] == ["steps", "step_trajectories", "step_factors", "step_canvases"]
    assert seen.tables["steps"][0].snr == recorder.recording.records[0].snr
    assert len(seen.tables["step_trajectories"].to_frame()) == 12
    assert ps.inspect(recorder).graph is fitted
    assert main(["inspect", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "inspection.html").read_text()
    assert "Step by step" in page
    assert data_of(page)["recording"]["num_steps"] == 3


def test_recorded_states_are_those_of_the_run(fitted):
    """The joint means that Eq. 5 makes of recorded states are those that the run made of them."""
    kinds = {"kinds": ("noisy", "denoised", "joint"), "steps": 2}
    free = ps.chain_graph(3, (1, 4, 4), JointGaussian(), lambda shape: ps.DCT(shape, 2))
    covariance = torch.kron(torch.tensor([[1.0, 0.4], [0.4, 1.0]]), torch.eye(2)).double()
    free = free.with_potentials({f: JointGaussian(covariance=covariance) for f in free.factors})
    recorder = ps.Recorder(free, images=kinds)
    denoiser = GaussianDenoiser(torch.zeros(1, 4, 4), torch.eye(16))
    ps.sample(
        free,
        denoiser,
        DDIMScheduler(clip_sample=False),
        4,
        progress=False,
        dtype=torch.float64,
        on_step=recorder,
    )
    model = joint_model(free)
    found = recorded_states(model, recorder.recording)
    assert [label for label, _ in found] == ["recorded step 1 of 4", "recorded step 4 of 4"]
    for (_, states), record in zip(found, (recorder.recording.records[k] for k in (0, 3)), strict=True):
        joint = [
            f.apply(torch.from_numpy(record.images["joint"][n][0]).double()).flatten()
            for n, f in model.features.items()
        ]
        torch.testing.assert_close(model.solve(*states), torch.cat(joint), rtol=1e-4, atol=1e-4)
