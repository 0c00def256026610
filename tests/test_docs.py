"""The documentation: its equations are those that the code cites, and its code runs."""

from __future__ import annotations

import re
import sys
import textwrap
import types
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.rst") if not {"generated", "_build"} & set(p.relative_to(DOCS).parts))
DEFINITION = re.compile(r"^\.\. equation:: (\S+)$", flags=re.M)
NUMBERS = [*map(str, range(1, 20)), "5'"]
CITATION = re.compile(r"Eq\. (\d+(?:'(?!s\b))?)")


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page, those in solutions of exercises included."""
    found = re.findall(r"^( *)\.\. code-block:: python\n\n((?:\1   .*\n|\n)+)", page.read_text(), flags=re.M)
    return [textwrap.dedent(block) for _, block in found]


COURSE = [DOCS / "notation.rst", *sorted(p for p in (DOCS / "theory").glob("*.rst") if p.stem != "index")]
WITH_CODE = [page for page in PAGES if blocks(page)]


def test_every_equation_is_defined_once():
    assert Counter(n for page in PAGES for n in DEFINITION.findall(page.read_text())) == Counter(NUMBERS)


def test_every_equation_cited_in_the_code_is_defined():
    cited = {n: p for p in (ROOT / "pgm_sync").rglob("*.py") for n in CITATION.findall(p.read_text())}
    assert {n: str(p) for n, p in cited.items() if n not in NUMBERS} == {}
    assert "5'" in cited


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' schedulers
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_code_on_a_page_runs(page, monkeypatch):
    module = types.ModuleType(f"docs_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), vars(module))


def test_the_pages_with_code_are_found():
    expected = {"index", "joint_model", "canvas", "own_potential", "diffusers_unet"}
    assert expected <= {p.stem for p in WITH_CODE}


@pytest.mark.parametrize("page", COURSE, ids=lambda page: page.stem)
def test_a_page_of_the_course_has_its_parts(page):
    lesson, _, exercises = page.read_text().partition("\nExercises\n---------\n")
    assert ".. admonition:: The idea\n" in lesson
    assert ".. plot:: figures/" in lesson
    assert exercises.count(".. dropdown:: Solution\n") >= 2
    assert re.search(r"^ {6,}assert ", exercises, flags=re.M), "at least one solution is computed"
    assert re.search(r"^For deeper understanding\n-+\n(.|\n)*\[\w+\d{4}\]_", exercises, flags=re.M)
    assert re.search(rf":doc:`(../)?{page.stem}`", (DOCS / "theory" / "index.rst").read_text())


def test_the_pages_show_every_figure():
    shown = {
        name
        for page in PAGES
        for name in re.findall(r"^\.\. plot:: figures/(\w+)\.py$", page.read_text(), re.M)
    }
    assert shown == {figure.stem for figure in (DOCS / "figures").glob("*.py")}


def test_what_is_cited_is_in_the_bibliography():
    listed = re.findall(r"^\.\. \[(\w+)\]", (DOCS / "bibliography.rst").read_text(), flags=re.M)
    assert len(listed) == len(set(listed))
    cited = {name: page.stem for page in PAGES for name in re.findall(r"\[(\w+\d{4})\]_", page.read_text())}
    assert {name: page for name, page in cited.items() if name not in listed} == {}


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("plot_*.py")), ids=lambda p: p.stem)
def test_examples_assert_what_they_claim(example):
    last = example.read_text().rpartition("# %%")[2]
    assert re.search(r"\bassert", last), "the last part of an example asserts its claim"
