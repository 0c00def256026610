"""The page: complete, well-formed, self-contained."""

from __future__ import annotations

import base64
import io
import math
import re
import sys
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from pgm_sync.graph import chain_graph
from pgm_sync.inspection.report import Metric, Sheet, report
from pgm_sync.inspection.report.heat import MOST_EDGES
from pgm_sync.inspection.report.numbers import number
from pgm_sync.metrics import Estimate
from pgm_sync.potentials import Correlation

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Checker(HTMLParser):
    """Collects tags and attributes; fails on tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(page: str) -> list[tuple[str, dict]]:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker.tags


@pytest.fixture
def page(canvas, table) -> str:
    methods = {"learned": Estimate(0.4, 0.3, 0.5, 20), "averaging": Estimate(-0.1, -0.2, 0.0, 20)}
    return report(
        "Wide <pictures>",
        "A lead.",
        [Sheet("learned", torch.rand(2, 3, 4, 13), "with potentials", [(0.0, 0.4), (0.3, 0.7)])],
        [
            Metric(
                "far correlation", "of brightness", {**methods, "real": Estimate(0.45, 0.4, 0.5, 50)}, "real"
            )
        ],
        canvas,
        table,
        {"learned": {"denoiser": 2.0, "engine": 1.0}},
        {"Settings": {"width": 13}},
        "pgm-sync demo --seed 0",
    )


def test_the_page_is_well_formed_and_needs_nothing_else(page):
    tags = checked(page)
    assert [attrs for tag, attrs in tags if tag == "script"] == [{"type": "application/json", "id": "data"}, {}]
    addresses = [v for _, attrs in tags for k, v in attrs.items() if k in ("src", "href")]
    assert addresses
    assert all(a.startswith(("data:image/png;base64,", "data:,")) for a in addresses)
    assert "url(" not in page
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\"']*", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_without_a_graph_there_is_no_script():
    assert "script" not in {tag for tag, _ in checked(report("Empty", command="pgm-sync demo"))}


def test_it_is_accessible(page):
    tags = checked(page)
    assert ("html", {"lang": "en"}) in tags
    assert all("alt" in attrs for tag, attrs in tags if tag == "img")
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(attrs["aria-labelledby"] in ids for tag, attrs in tags if tag == "section")
    assert all(attrs.get("scope") for tag, attrs in tags if tag == "th")
    assert "color-scheme: light dark" in page


def test_everything_given_is_shown(page, table):
    for text in ["Wide &lt;pictures&gt;", "A lead.", "with potentials", "far correlation", "0.300 to 0.500"]:
        assert text in page
    for text in ["−0.100", "n = 50", "denoiser 2.00, engine 1.00", "3.00 s", "<dt>width</dt><dd>13</dd>"]:
        assert text in page
    assert page.count('title="dct0,0: 0.800 [0.70, 0.90], 0.511 nats"') == 6
    assert page.count('class="sure"') == 6  # the interval of -.05 contains zero


def test_pictures_are_png_of_their_own_size(page):
    sources = [a["src"] for tag, a in checked(page) if tag == "img" and a["alt"].startswith("learned")]
    assert len(sources) == 2
    image = Image.open(io.BytesIO(base64.b64decode(sources[0].split(",")[1])))
    assert image.size == (13, 4)


def test_parts_not_given_are_left_out():
    tags = checked(report("Empty"))
    assert "section" not in {tag for tag, _ in tags}


def test_unknown_numbers_are_dashes():
    nan = float("nan")
    page = report("x", metrics=[Metric("m", "", {"a": Estimate(nan, nan, nan, 0)}, None)])
    checked(page)
    assert number(math.inf) == "–"
    assert number(-0.0001) == "0.000"
    assert "nan" not in page


def test_large_tables_are_cut_and_say_so(table):
    many = [
        table[0]._replace(factor=(str(k), str(k + 1)), mutual_information=k) for k in range(MOST_EDGES + 30)
    ]
    page = report("x", table=many)
    assert f"The {MOST_EDGES} most informative of {MOST_EDGES + 30} edges are shown." in page
    assert "29 – 30<" not in page
    assert "30 – 31<" in page


def test_large_graphs_are_named_not_drawn():
    page = report("x", graph=chain_graph(300, 1, Correlation(0.5)))
    assert "300 trajectories" in page
    assert "<circle" not in page


def test_it_does_not_need_matplotlib(monkeypatch, canvas, table):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    checked(report("x", graph=canvas, table=table))
