"""Classroom notebooks: solutions run, exercises are the same without answers, files are those of their sources."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "notebooks"

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")


def load():
    spec = importlib.util.spec_from_file_location("build_notebooks", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load()
SOURCES = build.sources()
BY_NAME = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def test_files_are_those_of_their_sources():
    made = build.notebooks()
    assert sorted(FOLDER.glob("*.ipynb")) == sorted(made)
    stale = [path.name for path, text in made.items() if path.read_text() != text]
    assert stale == [], "run python examples/notebooks/build.py"


@BY_NAME
def test_exercises_differ_in_the_answers_only(source):
    text = source.read_text()
    asked, answered = (build.notebook(text, solutions)["cells"] for solutions in (False, True))
    assert len(asked) == len(answered)
    exercises = 0
    for left, right in zip(asked, answered, strict=True):
        if "exercise" not in right["metadata"].get("tags", []):
            assert left == right
            continue
        exercises += left["source"].count(build.TODO)
        assert build.TODO not in right["source"]
        # what comes before and after each answer is kept, word for word
        kept = [re.escape(piece) for piece in re.split(rf" *{re.escape(build.TODO)}\n?", left["source"])]
        assert re.fullmatch(".*".join(kept), right["source"], flags=re.S)
        assert {**left, "source": ""} == {**right, "source": ""}
    numbered = re.findall(r"\*\*Exercise (\d+)\.\*\*", text)
    assert list(map(int, numbered)) == list(range(1, len(numbered) + 1))
    assert exercises >= len(numbered) >= 6


@BY_NAME
def test_exercises_compile(source):
    for cell in build.notebook(source.read_text(), solutions=False)["cells"]:
        if cell["cell_type"] == "code":
            compile(cell["source"], cell["id"], "exec")


@BY_NAME
@pytest.mark.parametrize("solutions", [False, True], ids=["exercises", "solutions"])
def test_notebooks_are_valid(source, solutions):
    nbformat.validate(nbformat.from_dict(build.notebook(source.read_text(), solutions)))


@pytest.fixture
def execute(monkeypatch, tmp_path):
    """Runs cells in a kernel of their own, and returns their outputs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.delenv("MPLBACKEND")  # kernels show figures in the notebook

    def run(data):
        made = nbformat.from_dict(data)
        client = nbclient.NotebookClient(made, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
        done = client.execute()
        return [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]

    return run


@BY_NAME
@pytest.mark.filterwarnings("default")  # of the kernel's transport, which is not ours
def test_solutions_run(source, execute):
    outputs = execute(build.notebook(source.read_text(), solutions=True))
    assert sum("correct" in output.get("text", "") for output in outputs) >= 6
    assert any("image/png" in output.get("data", {}) for output in outputs)


@BY_NAME
@pytest.mark.filterwarnings("default")
def test_an_answer_that_is_missing_is_noticed(source, execute):
    """The first check fails when nothing was filled in."""
    data = build.notebook(source.read_text(), solutions=False)
    first = next(k for k, cell in enumerate(data["cells"]) if "exercise" in cell["metadata"].get("tags", []))
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        execute({**data, "cells": data["cells"][: first + 2]})
