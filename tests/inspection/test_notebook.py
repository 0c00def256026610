"""What notebooks show: everything has HTML, well formed, small whatever it shows, and true to the numbers."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

import pgm_sync as ps
from pgm_sync.inspection import notebook
from pgm_sync.learning import fit_bayesian

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
VOID = {"img", "br", "circle", "line", "rect", "path", "polyline"}


class Balance(HTMLParser):
    """Raises on tags that do not match."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.counts = [], [], {}

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def read(shown) -> Balance:
    page = Balance()
    page.feed(shown._repr_html_())
    page.close()
    assert page.open == []
    return page


def text(page: Balance) -> str:
    return " ".join(page.text)


def sampled(shape, graph=None, n=3):
    graph = ps.chain_graph(2, shape, ps.Correlation(0.5)) if graph is None else graph
    own = ps.FunctionDenoiser(lambda x, a, s: a * x / (a**2 + s**2), shape)
    return ps.sample(graph, own, DDIMScheduler(clip_sample=False), 2, num_samples=n, progress=False)


def test_a_graph_is_drawn_and_listed():
    page = read(ps.ring_graph(4, (2,), ps.Correlation(-0.3)))
    assert page.counts["svg"] == 1
    assert page.counts["circle"] == 4
    assert page.counts["tr"] == 9
    assert text(page).count("rho=-0.3") == 3 * 4  # every factor: listed, at its edge, at its square


def test_names_are_escaped():
    graph = ps.FactorGraph()
    graph.add_trajectory("<script>alert(1)</script>", (2,))
    assert "<script>" not in graph._repr_html_()


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_graphs_of_any_size(count):
    graph = ps.chain_graph(count, (2,), ps.Correlation(0.5)) if count else ps.FactorGraph()
    page = read(graph)
    assert page.counts.get("svg", 0) == (1 if count == 1 else 0)
    assert len(graph._repr_html_()) < 30_000
    assert ("more" in text(page)) == (count > 100)


def test_correlations_are_those_of_the_table(generator):
    data = {k: torch.randn(60, 2, generator=generator) for k in range(3)}
    table = ps.correlations(ps.fit(ps.chain_graph(3, 2), data))
    page = read(table)
    for row in table:
        assert f"{row.rho:+.3f}" in text(page)
    # the mark of the first stands where its correlation is on a scale of 116 pixels
    (first, *_) = re.findall(r'<circle cx="([\d.]+)"', table._repr_html_())
    assert (float(first) - 60) / 58 == pytest.approx(table[0].rho, abs=1e-3)


def test_long_tables_end(generator):
    wide = {k: torch.randn(300, 80, generator=generator) for k in range(2)}
    page = read(ps.correlations(ps.fit(ps.chain_graph(2, 80), wide, heldout=0)))
    assert page.counts["tr"] == 1 + notebook.MOST_ROWS
    assert "and 40 more correlations" in text(page)


def test_a_fit_tells_its_score(generator):
    first = torch.randn(60, 2, generator=generator)
    record = ps.Fit.of(
        ps.fit(ps.chain_graph(2, 2), {0: first, 1: first + torch.randn(60, 2, generator=generator)})
    )
    page = read(record)
    assert f"{record.heldout:.5g}" in text(page)
    assert f"without edges {record.details['heldout_independent']:.5g}" in text(page)
    assert "ledoit_wolf" in text(page)


def test_a_posterior_spans_its_elements():
    graph = ps.chain_graph(2, (3,), ps.Attraction(1.0))
    posterior = ps.infer(graph, {0: (torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), 1.0), 1: (0.0, 1.0)})
    page = read(posterior)
    mean = posterior.mean[0]
    assert f"{mean.min().item():.3g} to {mean.max().item():.3g}" in text(page)
    assert f"{posterior.variance[1].sqrt()[0].item():.3g}" in text(page)
    assert posterior.info.plan in text(page)


def test_a_posterior_without_variances_still_shows_means():
    graph = ps.ring_graph(4, (2,), ps.Attraction(1.0))
    evidence = dict.fromkeys(range(4), (1.0, 1.0))
    page = read(ps.infer(graph, evidence, method="cg"))
    assert page.counts["tr"] == 5


def test_draws_have_intervals():
    walk = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).cumsum(1)
    data = {k: walk[:, k : k + 1] for k in range(3)}
    posterior = fit_bayesian(ps.chain_graph(3, 1), data, inference="svi", steps=200)
    page = read(posterior)
    for row in posterior.correlations():
        assert f"[{row.low:+.3f}, {row.high:+.3f}]" in text(page)


def images(result) -> list[Image.Image]:
    codes = re.findall(r"base64,([A-Za-z0-9+/=]+)", result._repr_html_())
    return [Image.open(io.BytesIO(base64.b64decode(code))) for code in codes]


@pytest.mark.parametrize("shape", [(1, 8, 6), (3, 8, 6), (8, 6)])
def test_pictures_are_shown_as_pictures(shape):
    result = sampled(shape)
    made = images(result)
    assert len(made) == 6
    assert all(image.size == (6, 8) for image in made)
    one = result.samples[0][0].reshape(-1, 8, 6)[0]
    reach = max(1.0, result.samples[0].abs().max().item()) if result.samples[0].abs().max() > 1.5 else 1.0
    expected = ((one / reach / 2 + 0.5).clamp(0, 1) * 255).round()
    assert torch.equal(torch.from_numpy(np.array(made[0].getchannel(0))), expected.to(torch.uint8))
    assert "DDIMScheduler" in text(read(result))


def test_rows_of_numbers_are_shown_as_curves_and_other_contents_by_their_range():
    page = read(sampled((30,)))
    assert page.counts["polyline"] == 6
    assert " to " in text(read(sampled((2, 3, 4, 5))))
    assert " to " in text(read(sampled((1,))))


@pytest.mark.slow
def test_large_and_many_samples_stay_small():
    result = sampled((3, 600, 400), n=12)
    assert len(images(result)) == 2 * notebook.MOST_PICTURES
    assert all(image.height == 2 * notebook.PIXELS for image in images(result))
    assert len(result._repr_html_()) < 3_000_000
    many = sampled((2,), ps.chain_graph(30, (2,), ps.Correlation(0.5)))
    assert "and 22 more nodes" in text(read(many))


def test_all_that_has_html_comes_from_here():
    for shown in (ps.FactorGraph(), ps.correlations(ps.chain_graph(2, 1, ps.Correlation(0.5)))):
        assert shown._repr_html_().startswith(f"<style>{notebook.CSS}</style>")
