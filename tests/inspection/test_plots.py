"""Figures with matplotlib."""

from __future__ import annotations

import sys

import pytest
import torch

from pgm_sync.errors import MissingPackageError, ShapeError
from pgm_sync.graph import chain_graph
from pgm_sync.inspection.plots import correlation_colours, draw_correlations, draw_graph, draw_images
from pgm_sync.potentials import Correlation


@pytest.fixture
def plt():
    plt = pytest.importorskip("matplotlib.pyplot")
    yield plt
    plt.close("all")


def test_edges_have_the_colour_of_their_correlation(plt, canvas, table):
    from matplotlib.colors import to_rgba

    ax = draw_graph(canvas, table)
    colours = [to_rgba(p.get_edgecolor()) for p in ax.patches]
    assert colours.count(to_rgba(correlation_colours()(0.9))) == 6  # rho = .8 on the scale 0..1
    assert {t.get_text() for t in ax.texts} >= {"w0", "w1", "w2", "w3", "canvas"}
    assert ax.yaxis_inverted()
    ax.figure.draw_without_rendering()


def test_it_draws_into_given_axes(plt):
    figure, ax = plt.subplots()
    assert draw_graph(chain_graph(3, 1, Correlation(0.5)), ax=ax) is ax
    assert len(figure.axes) == 1  # no table, no colour bar


def test_the_heat_map_shows_the_table(plt, table):
    ax = draw_correlations(table)
    values = ax.images[0].get_array()
    assert values.shape == (6, 2)
    assert values[:, 0].tolist() == pytest.approx([0.8] * 6)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["dct0,0", "dct0,1"]
    assert "−0.05" in {t.get_text().replace("-", "−") for t in ax.texts}
    ax.figure.draw_without_rendering()


def test_image_sheets_have_their_names(plt):
    figure = draw_images(
        {"a": torch.zeros(2, 1, 4, 8), "b": torch.ones(2, 1, 4, 8), "c": torch.ones(2, 1, 4, 8)}
    )
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a", "b", "c", ""]


def test_nothing_to_draw_is_refused(plt):
    with pytest.raises(ShapeError, match="no row"):
        draw_correlations([])
    with pytest.raises(ShapeError, match="no picture"):
        draw_images({})


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'pgm_sync\[plots\]'"):
        draw_graph(chain_graph(2, 1, Correlation(0.5)))
