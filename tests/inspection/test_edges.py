"""Tables regrouped by edge."""

from __future__ import annotations

import math

import pytest
import torch

from pgm_sync.inspection.correlations import correlations
from pgm_sync.inspection.edges import by_edge, edge_name, modes, widths
from pgm_sync.learning import fit


def test_every_row_finds_its_edge(canvas, table):
    edges = by_edge(table)
    assert list(edges) == [f for f in canvas.factors if isinstance(f, tuple)]
    assert modes(edges.values()) == ["dct0,0", "dct0,1"]
    assert sum(len(e.rows) for e in edges.values()) == len(table)


def test_information_of_independent_modes_adds_up(table):
    edge = by_edge(table)["w0", "w1"]
    assert edge.leading.mode == "dct0,0"
    assert edge.information == pytest.approx(-0.5 * math.log((1 - 0.8**2) * (1 - 0.05**2)))


def test_rows_of_a_factor_over_three_ends_keep_their_places(table):
    first = table[0]
    edges = by_edge([first, first._replace(second="w2"), first._replace(first="w1", second="w2")])
    assert [r.second for r in edges["w0", "w1"].rows.values()] == ["w1", "w2", "w2"]


def test_information_of_all_modes_together_is_the_tables(canvas, generator):
    data = torch.randn(300, 1, 4, 13, generator=generator)
    table = correlations(fit(canvas, {"canvas": data}))
    for factor, edge in by_edge(table).items():
        assert edge.information == table.mutual_information[factor]


def test_widths_grow_with_information(table):
    edges = by_edge([table[0], table[2]._replace(mutual_information=table[0].mutual_information / 4)])
    assert list(widths(edges, 7.0).values()) == pytest.approx([7.0, 4.0])
    assert widths({}, 7.0) == {}


def test_names_of_pairs_are_joined():
    assert edge_name(("w0", "w1")) == "w0 – w1"
    assert edge_name("seam") == "seam"
