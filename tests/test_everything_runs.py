"""Nothing that is there to be run is run by nobody: examples, recipes, subcommands, benchmarks."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from pgm_sync.cli import _parser

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
BENCHMARKS = sorted(p for p in (ROOT / "benchmarks").glob("*.py") if p.name != "run.py" and p.name[0] != "_")


@cache
def calls() -> list[ast.Call]:
    """All calls in all tests."""
    trees = [ast.parse(path.read_text()) for path in sorted((ROOT / "tests").rglob("*.py"))]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def called(name: str) -> list[ast.expr]:
    """The first arguments of all calls of a function, by its last name."""
    found = []
    for call in calls():
        own = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
        if own == name and call.args:
            found.append(call.args[0])
    return found


def text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def run(*command: str | Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_subcommand_is_run_by_a_test():
    (commands,) = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    lists = [first for first in called("main") if isinstance(first, ast.List) and first.elts]
    run_here = {text(first.elts[0]) for first in lists}
    assert set(commands.choices) - run_here == set()


def test_every_recipe_is_run_by_a_test():
    recipes = {path.stem for path in (ROOT / "examples" / "checkpoints").glob("*.py")}
    assert recipes
    assert recipes - set(map(text, called("recipe"))) == set()


def test_the_gallery_goes_through_every_example():
    """In the order of its header, from which sphinx-gallery gets it."""
    spec = importlib.util.spec_from_file_location(
        "teaching_order", ROOT / "docs" / "_ext" / "teaching_order.py"
    )
    order = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(order)
    lessons = order.lessons(ROOT / "examples")
    assert sorted(lessons) == sorted([*(path.stem for path in EXAMPLES), "minisync"])
    shown = sorted((path.name for path in EXAMPLES), key=order.TeachingOrder(ROOT / "examples"))
    assert shown[0] == "plot_first_graph.py"


def test_documentation_runs_every_example():
    """What the gallery does not match is shown and not run."""
    pattern = re.search(r'"filename_pattern": r"(.*)"', (ROOT / "docs" / "conf.py").read_text()).group(1)
    assert [path.name for path in EXAMPLES if not re.search(pattern, str(path))] == []
    assert "sphinx -W" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples(example):
    """As they stand: seconds each."""
    run(example)


def test_every_stored_table_has_its_benchmark():
    stored = {path.stem for path in (ROOT / "docs" / "results").glob("*.txt")}
    assert stored - {path.stem for path in BENCHMARKS} == set()


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmarks_are_called_what_their_tables_are(benchmark):
    """``main(name, build)`` stores a table under the name of the file."""
    found = [n for n in ast.walk(ast.parse(benchmark.read_text())) if isinstance(n, ast.Call)]
    names = [text(call.args[0]) for call in found if getattr(call.func, "id", "") == "main" and call.args]
    assert names == [benchmark.stem]


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmarks(benchmark):
    """With few samples. A table, and under it the versions that it was made with."""
    assert re.search(r"^pgm_sync \d.*; \d+ s", run(benchmark, "--quick"), flags=re.M)
