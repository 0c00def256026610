"""Imports point one way, and importing the package stays light: both read from the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pgm_sync

ROOT = Path(pgm_sync.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# A layer may import the layers before it, and itself. `zoo` comes before `tasks`, which run on its denoisers.
LAYERS = [
    "errors", "extras", "tables", "levels", "spec", "gaussian", "maps", "potentials", "graph", "inference", "denoisers",
    "score", "sampling", "metrics", "learning", "inspection", "evaluation", "peers", "zoo", "tasks", "testing", "cli",
]  # fmt: skip
# Denoisers know one trajectory each: of the layers before them they may use only these.
DENOISERS_MAY_USE = {"errors", "levels", "spec", "gaussian", "maps", "denoisers"}
HEAVY = ["diffusers", "pyro", "sklearn", "matplotlib"]


def layer(parts: tuple[str, ...]) -> str:
    """The layer of a dotted name inside the package; "" for the package itself."""
    return parts[0] if parts else ""


def imported(source: str, package: tuple[str, ...]) -> list[tuple[int, tuple[str, ...]]]:
    """Line and dotted name, inside the package, of all that a module of `package` imports from it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            found += [(node.lineno, name[1:]) for name in names if name[0] == "pgm_sync"]
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - (node.level - 1)] + module
            elif module[:1] == ("pgm_sync",):
                base = module[1:]
            else:
                continue
            # `from .. import zoo` names layers, `from ..zoo import load` is in one
            found += [(node.lineno, base or (alias.name,)) for alias in node.names]
    return found


def test_the_walk_sees_the_imports_it_should():
    source = """
import torch, numpy
import pgm_sync.maps.index
from .. import zoo
from ..graph.factor_graph import Name
from .other import x
def f():
    from pgm_sync.score import y
    from . import z
"""
    found = imported(source, ("tasks",))
    assert [layer(parts) for _, parts in found] == ["maps", "zoo", "graph", "tasks", "score", "tasks"]
    assert [line for line, _ in found] == [3, 4, 5, 6, 8, 9]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    own = layer(path.relative_to(ROOT).with_suffix("").parts)
    if own == "__init__":  # re-exports, nothing else
        return
    own = "cli" if own == "__main__" else own
    assert own in LAYERS, f"{path.relative_to(ROOT)} belongs to no layer; add it to LAYERS"
    allowed = DENOISERS_MAY_USE if own == "denoisers" else set(LAYERS[: LAYERS.index(own) + 1])
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {'.'.join(parts)}"
        for line, parts in imported(path.read_text(), path.relative_to(ROOT).parts[:-1])
        if layer(parts) not in allowed
    ]
    assert not wrong, "imports against the order of the layers:\n" + "\n".join(wrong)


def test_the_package_itself_only_re_exports():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    kinds = {type(node) for node in tree.body}
    # `if TYPE_CHECKING` holds the imports for type checkers; __getattr__ and __dir__ make them when a name is used
    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign, ast.If, ast.FunctionDef}
    exported = set(pgm_sync.__all__)
    assert sorted(exported) == sorted(pgm_sync.__all__), "a name twice in __all__"
    assert all(hasattr(pgm_sync, name) for name in exported)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_is_light():
    loaded = run(f"import sys, pgm_sync; print([m for m in {[*HEAVY, 'pytest']} if m in sys.modules])")
    assert loaded == "[]"


def test_the_conformance_suites_need_no_test_runner():
    code = "import sys, pgm_sync.testing as t; print('pytest' in sys.modules, t.MapTests.__name__)"
    assert run(code) == "False MapTests"
