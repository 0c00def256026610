"""The scoreboard: what goes in comes out, interrupted or not; sheets and figures."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import pytest
import torch

from pgm_sync.errors import (
    DuplicateNameError,
    NotFiniteError,
    ParameterError,
    SavedFileError,
    ShapeError,
    UnknownNameError,
)
from pgm_sync.evaluation import (
    Cost,
    Estimate,
    Scoreboard,
    draw_ranks,
    elements,
    frechet_distance,
    mean,
    method_sheet,
)
from pgm_sync.inspection.images import PAPER

COST = Cost(150.0, 0.25, 5 * 2**20, 30)


def filled(path=None):
    board = Scoreboard(path)
    hard = torch.linspace(0, 9, 30, dtype=torch.float64)
    wobble = 0.5 * (-1.0) ** torch.arange(30)
    for method, gap in [("averaging", 2 + 0 * wobble), ("tuned", 0.05 + wobble), ("learned", 0 * wobble)]:
        board.add("wide", method, "error", mean(hard + gap), "lower", COST)
        board.add("wide", method, "ratio", Estimate(1 + float(gap[0]), 0.5, 4.0, 30), 1.0)
    board.add("edit", "averaging", "PSNR", mean(hard + 1), "higher", note="of 30")
    board.add("edit", "learned", "PSNR", mean(hard), "higher")
    return board


def test_the_file_holds_every_cell_added_so_far(tmp_path):
    path = tmp_path / "board.json"
    board = Scoreboard(path)
    board.add("wide", "a", "error", mean(torch.ones(3)), "lower", COST)
    again = Scoreboard(path)  # a run that starts anew
    assert ("wide", "a", "error") in again
    assert ("wide", "b", "error") not in again
    again.add("wide", "b", "error", Estimate(0.5, math.nan, math.inf, 2), "lower")
    assert len(Scoreboard.read(path)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["board.json"]


def test_reading_returns_what_was_written(tmp_path, generator):
    board = filled()
    x, y = torch.randn(2, 20, 2, generator=generator)
    board.add("texture", "learned", "FID", frechet_distance(x, y, elements, draws=30), "lower")
    board.add("texture", "few", "FID", Estimate(0.5, math.nan, math.inf, 2), "lower")
    _, _, path = board.write(tmp_path)
    found = Scoreboard.read(path)
    assert list(found.cells) == list(board.cells)
    for one, other in zip(board, found, strict=True):
        assert str(one.estimate) == str(other.estimate)
        assert (one.better, one.cost, one.note) == (other.better, other.cost, other.note)
        for kept in ("values", "draws"):
            a, b = getattr(one.estimate, kept, None), getattr(other.estimate, kept, None)
            assert (a is None) == (b is None)
            assert a is None or torch.allclose(a, b)
    assert found.ranks() == board.ranks()
    assert found.to_markdown() == board.to_markdown()
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_standings_and_ranks():
    board = filled()
    assert {r.method: (r.rank, r.status) for r in board.standings("wide")} == {
        "learned": (1, "best"), "tuned": (1, "tied with best"), "averaging": (3, "worse"),
    }  # fmt: skip
    assert board.ranks() == {
        "wide": {"averaging": 3, "tuned": 1, "learned": 1}, "edit": {"averaging": 1, "learned": 2},
    }  # fmt: skip
    board.main["wide"] = "ratio"
    assert board.metrics("wide") == ["ratio", "error"]
    assert board.standings("wide")[0].method == "learned"


def test_markdown():
    text = filled().to_markdown()
    assert "| method | error ↓ | ratio → 1 | n | evaluations | s / sample | peak MiB |" in text
    row = next(line for line in text.splitlines() if line.startswith("| learned | **"))
    assert row.startswith("| learned | **4.5 [3.5, 5.5]** |")
    assert row.endswith("| 30 | 150 | 0.25 | 5 |")
    assert re.search(r"\| tuned \| ≈ 4\.[56] \[", text)
    ranks = text[text.index("## Ranks") :]
    assert "| averaging | 3 | 1 | 2.00 | 3 |" in ranks
    assert "| tuned | 1 |  | 1.00 | 1 |" in ranks
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_csv():
    rows = list(csv.DictReader(io.StringIO(filled().to_csv())))
    assert len(rows) == 8
    first = rows[0]
    assert (first["task"], first["method"], first["metric"], first["better"]) == (
        "wide",
        "averaging",
        "error",
        "lower",
    )
    assert (first["n"], first["rank"], first["status"]) == ("30", "3", "worse")
    assert float(first["value"]) == pytest.approx(6.5)
    assert (float(first["behind"]), first["pairing"]) == (2, "samples")
    assert (first["evaluations"], first["seconds"], first["peak_memory"]) == ("150.0", "0.25", str(5 * 2**20))
    assert rows[1]["pairing"] == "none"
    assert rows[6]["note"] == "of 30"
    assert float(rows[6]["low"]) < 5.5 < float(rows[6]["high"])


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda b: b.add("wide", "learned", "error", Estimate(1, 0, 2, 3), "lower"), DuplicateNameError, "already"),
    (lambda b: b.add("wide", "new", "error", Estimate(math.nan, 0, 2, 3), "lower"), NotFiniteError, "'new' on 'wide'"),
    (lambda b: b.add("wide", "new", "error", Estimate(1, 0, 2, 3), "higher"), ParameterError,
     "'averaging' has 'lower' there"),
    (lambda b: b.add("wide", "new", "x", Estimate(1, 0, 2, 3), "up"), ParameterError, "better='up'"),
    (lambda b: b.standings("motion"), UnknownNameError, "no task 'motion'; it has 'wide', 'edit'"),
    (lambda b: b.standings("wide", "FID"), UnknownNameError, "no metric 'FID'"),
    (lambda b: b["wide", "learned", "FID"], UnknownNameError, "no cell"),
    (lambda b: Scoreboard(main={"wide": "x"}).metrics("wide"), UnknownNameError, "no task"),
    (lambda b: draw_ranks(Scoreboard()), ShapeError, "without cells"),
    (lambda b: draw_ranks(b, methods=["mine"]), UnknownNameError, "ranks no 'mine'"),
    (lambda b: draw_ranks(b, highlight="mine"), UnknownNameError, "ranks no 'mine'"),
])  # fmt: skip
def test_bad_input(call, error, message):
    board = filled()
    with pytest.raises(error, match=message):
        call(board)
    assert len(board) == 8


def test_boards_of_several_runs_become_one(tmp_path):
    one, whole = Scoreboard(tmp_path / "board.json", main={"wide": "ratio"}), filled()
    whole.main, whole.aims = {"wide": "error", "edit": "PSNR"}, ["real"]
    one.add("wide", "learned", "error", Estimate(1, 0, 2, 3), "lower")
    with pytest.raises(DuplicateNameError, match="both have a cell .*learned"):
        one.update(whole)
    assert len(one) == 1
    one.update(whole, replace=True)
    assert Scoreboard.read(tmp_path / "board.json").to_markdown() == one.to_markdown()
    assert sorted(cell.key for cell in one) == sorted(cell.key for cell in whole)
    assert one["wide", "learned", "error"].estimate.value == whole["wide", "learned", "error"].estimate.value
    assert (one.main, one.aims) == ({"wide": "ratio", "edit": "PSNR"}, ["real"])


def test_a_cell_is_replaced_when_asked():
    board = filled()
    board.add("wide", "learned", "error", Estimate(1, 0, 2, 3), "lower", replace=True)
    assert board["wide", "learned", "error"].estimate.value == 1
    assert len(board) == 8


@pytest.mark.parametrize("text", [
    "",
    "[]",
    '{"format": "other"}',
    '{"format": "pgm_sync.scoreboard", "version": 9}',
    '{"format": "pgm_sync.scoreboard", "version": 1, "main": {}, "cells": [{}]}',
])  # fmt: skip
def test_files_that_are_no_scoreboard(tmp_path, text):
    (tmp_path / "board.json").write_text(text)
    with pytest.raises(SavedFileError, match=r"'board\.json'"):
        Scoreboard(tmp_path / "board.json")


def test_a_sheet_has_a_column_per_method_and_a_row_per_seed():
    pictures = {
        "one": torch.stack([torch.full((1, 8, 30), v) for v in (0.0, 0.2)]),
        "a longer name": torch.stack([torch.full((1, 8, 40), v) for v in (0.4, 1.0)]),
    }
    made = method_sheet(pictures, seeds=[7, 8], scale=2, gap=4)
    colours = [made.getpixel((x, y))[0] for x in range(made.width) for y in range(made.height)]
    for value, size in [(0.0, 16 * 60), (0.2, 16 * 60), (0.4, 16 * 80), (1.0, 16 * 80)]:
        assert colours.count(round(value * 255)) >= size
    left, below = made.crop((0, 40, 14, made.height)), made.crop((14, 0, made.width, 36))
    for part in (left, below):  # seeds and names are written
        assert any(part.getpixel((x, y)) != PAPER for x in range(part.width) for y in range(part.height))


def test_sheets_that_do_not_pair():
    with pytest.raises(ShapeError, match=r"one number of pictures, got \[1, 2\]"):
        method_sheet({"a": torch.zeros(1, 1, 2, 2), "b": torch.zeros(2, 1, 2, 2)})
    with pytest.raises(ShapeError, match="got no method"):
        method_sheet({})
    with pytest.raises(ShapeError, match="3 seeds for 1"):
        method_sheet({"a": torch.zeros(1, 1, 2, 2)}, seeds=[1, 2, 3])
    with pytest.raises(NotFiniteError):
        method_sheet({"a": torch.full((1, 1, 2, 2), math.nan)})


def test_the_figure_of_ranks():
    import matplotlib.pyplot as plt

    ax = draw_ranks(filled(), highlight="learned")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["wide", "edit"]
    rows = [t.get_text() for t in ax.get_yticklabels()]
    assert rows == ["tuned", "averaging", "learned"]  # as shares of better methods are 0, 1/2 and 1/2
    assert [t.get_fontweight() for t in ax.get_yticklabels()] == ["normal", "normal", "bold"]
    shown = {t.get_position()[::-1]: t.get_text() for t in ax.texts}
    ranks = {(rows[y], round(x + 0.25)): text for (y, x), text in shown.items() if text.isdigit()}
    assert ranks == {
        (method, k): str(rank)
        for k, task in enumerate(filled().ranks().values())
        for method, rank in task.items()
    }
    framed = [patch for patch in ax.patches if patch.get_facecolor()[3] == 0]
    assert len(framed) == sum(rank == "1" for rank in ranks.values())
    plt.close(ax.figure)

    fewer = draw_ranks(filled(), methods=["tuned"])
    assert [t.get_text() for t in fewer.get_yticklabels()] == ["tuned"]
    assert {t.get_text() for t in fewer.texts if t.get_text().isdigit()} == {
        str(rank["tuned"]) for rank in filled().ranks().values() if "tuned" in rank
    }
    plt.close(fewer.figure)


def test_aims_are_shown_and_take_no_part(tmp_path):
    board = Scoreboard(tmp_path / "cells.json", aims=["real"])
    values = torch.linspace(0, 1, 30, dtype=torch.float64)
    for method, gap in (("a", 0.1), ("b", 0.2), ("real", 0.0)):
        board.add("wide", method, "error", mean(values + gap), "lower")
    again = Scoreboard(tmp_path / "cells.json")
    assert again.aims == ["real"]
    assert again.ranks() == {"wide": {"a": 1, "b": 2}}
    assert [row.method for row in again.standings("wide")] == ["a", "b"]
    text = again.to_markdown()
    assert "| *real* | .50" in text
    assert text.count("real") == 1
    lines = {line.split(",")[1]: line for line in again.to_csv().splitlines()[1:]}
    assert ",aim," in lines["real"]
    assert ",best," in lines["a"]
