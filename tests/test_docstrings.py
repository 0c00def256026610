"""The reference: every public name says what it is, takes, returns and raises, and shows it in an example that runs."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pgm_sync
from pgm_sync import errors

EXTENSIONS = Path(__file__).parent.parent / "docs" / "_ext"
sys.path.insert(0, str(EXTENSIONS))
import api_pages  # noqa: E402

sys.path.remove(str(EXTENSIONS))

PAGES = {module.__name__: module for module in api_pages.documented(pgm_sync)}

# Plain records, whose fields are commented one by one: the docstring named beside each makes one and shows it.
RECORDS = {
    "learning.BayesianFit": "learning.fit_bayesian",
    "learning.Calibration": "learning.calibrate",
    "learning.CredibleCorrelation": "learning.fit_bayesian",
    "learning.FeatureScore": "learning.choose_features",
    "learning.GraphLoss": "learning.compare_graphs",
    "learning.GraphScore": "learning.compare_graphs",
    "learning.PredictiveCheck": "learning.fit_bayesian",
    "learning.Tuned": "learning.tune",
}


def collect() -> dict[str, Any]:
    """Classes and functions of the reference by full name, each once: at the first page that lists it."""
    found: dict[int, tuple[str, Any]] = {}
    for page, module in PAGES.items():
        for name in api_pages.public_names(module):
            thing = getattr(module, name)
            if not api_pages.is_constant(thing):
                found.setdefault(id(thing), (f"{page.removeprefix('pgm_sync.')}.{name}", thing))
    return dict(found.values())


NAMES = collect()


def is_record(thing: Any) -> bool:
    return inspect.isclass(thing) and (hasattr(thing, "_fields") or dataclasses.is_dataclass(thing))


def own(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").startswith("pgm_sync")


def methods(thing: type) -> dict[str, Any]:
    """The class's own public functions, with what properties and class methods wrap."""
    found = {}
    data = {name for name, _ in api_pages.fields(thing)} if is_record(thing) else set()
    for name, value in vars(thing).items():
        if name in data:
            continue
        function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        if not name.startswith(("_", "test_")) and inspect.isfunction(function) and own(function):
            found[name] = function
    return found


def constructor(thing: Any) -> Any:
    """What runs when a public name is called: the function itself, or ``__init__`` of a class."""
    return vars(thing).get("__init__") if inspect.isclass(thing) else thing


def parameters(thing: Any) -> list[str]:
    """Names in the signature; of records, the fields that no comment describes."""
    if is_record(thing):
        return [name for name, comment in api_pages.fields(thing) if not comment and not name.startswith("_")]
    function = constructor(thing)
    if function is None or not inspect.isfunction(function):
        return []
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def raises(function: Any) -> set[str]:
    """Named errors that a function's own source raises."""
    if not inspect.isfunction(function) or not own(function):
        return set()
    try:
        source = inspect.getsource(function)
    except OSError:  # made at run time, as the methods of records are
        return set()
    return {name for name in re.findall(r"^\s*raise (\w+)\(", source, flags=re.M) if hasattr(errors, name)}


def named(doc: str, thing: Any) -> set[str]:
    """Errors that a docstring names, itself or by "Raises as `fit`"."""
    found = set(re.findall(r"\w+Error", doc))
    for other in re.findall(r"[Rr]aises\s+as\s+`(\w+)`", doc):
        like = getattr(sys.modules[thing.__module__], other, None) or getattr(pgm_sync, other, None)
        if like is not None and like is not thing:
            found |= named(inspect.getdoc(like) or "", like)
    return found


def shown(thing: Any) -> bool:
    return ">>>" in (inspect.getdoc(thing) or "")


def faults(full_name: str, thing: Any) -> list[str]:
    """What the docstring of a public name lacks."""
    written = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    doc = inspect.cleandoc(written or "")
    generated = is_record(thing) and doc.startswith(f"{thing.__name__}(")  # by NamedTuple and dataclass
    if not doc or generated:
        return ["has no docstring"]
    found = []
    if not shown(thing) and full_name not in RECORDS and not is_error(thing):
        found.append("has no example (>>>)")
    missing = [name for name in parameters(thing) if not re.search(rf"\b{name}\b", doc)]
    if missing:
        found.append(f"does not mention {', '.join(missing)}")
    builders = [constructor(thing), vars(thing).get("__post_init__"), vars(thing).get("__new__")]
    silent = {error for f in builders for error in raises(f)} - named(doc, thing)
    if silent:
        found.append(f"does not say that it raises {', '.join(sorted(silent))}")
    if inspect.isclass(thing):
        for name, method in methods(thing).items():
            said = doc + (inspect.getdoc(getattr(thing, name)) or "")
            if silent := raises(method) - named(said, thing):
                found.append(f"does not say that its {name} raises {', '.join(sorted(silent))}")
            if missing := [p for p in parameters(method) if not re.search(rf"\b{p}\b", said)]:
                found.append(f"does not mention {', '.join(missing)} of its {name}")
            if not (inspect.getdoc(getattr(thing, name)) or ""):
                found.append(f"has a method {name} without a docstring")
    return found


def is_error(thing: Any) -> bool:
    """Errors are shown where they are raised; their root has the example."""
    return (
        inspect.isclass(thing)
        and issubclass(thing, pgm_sync.PgmSyncError)
        and thing is not pgm_sync.PgmSyncError
    )


@pytest.mark.parametrize("full_name", NAMES)
def test_a_public_name_is_documented(full_name):
    found = faults(full_name, NAMES[full_name])
    assert not found, f"the docstring of pgm_sync.{full_name} " + "; ".join(found)


@pytest.mark.parametrize(("name", "shown_by"), RECORDS.items())
def test_a_record_without_an_example_is_commented_and_made_by_a_function_that_has_one(name, shown_by):
    assert is_record(NAMES[name])
    assert [field for field, comment in api_pages.fields(NAMES[name]) if not comment] == []
    assert shown(NAMES[shown_by])


def test_a_constant_says_what_it_is():
    constants = {
        f"{page}.{name}": api_pages.comment(name, getattr(module, name))
        for page, module in PAGES.items()
        for name in api_pages.public_names(module)
        if api_pages.is_constant(getattr(module, name))
    }
    assert "pgm_sync.peers.CASES" in constants
    silent = [name for name, text in constants.items() if not text]
    assert not silent, f"no comment '#: what it is' above {', '.join(silent)}"


def test_every_public_name_has_a_page(tmp_path):
    api_pages.write_pages(SimpleNamespace(srcdir=tmp_path))
    pages = {path.stem: path.read_text() for path in (tmp_path / "generated" / "api").glob("*.rst")}
    listed = {
        f"{page}.{name}"
        for page, text in pages.items()
        for line in re.findall(r"^(?:   :members:|\.\. py:data::) (.*)$", text, flags=re.M)
        for name in line.split(", ")
    }
    wanted = {f"{page}.{name}" for page, module in PAGES.items() for name in api_pages.public_names(module)}
    assert wanted <= listed, f"not in the reference: {sorted(wanted - listed)}"
    top = set(re.findall(r"^   \* - :py:obj:`(\w+) <", pages["index"], flags=re.M))
    assert top == set(pgm_sync.__all__), (
        f"not in the table of the top level: {sorted(set(pgm_sync.__all__) ^ top)}"
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # between Sphinx and its own extensions
def test_the_built_reference_lists_every_public_name(tmp_path):
    sphinx = pytest.importorskip("sphinx.application")
    (tmp_path / "index.rst").write_text("Reference\n=========\n\n.. toctree::\n\n   generated/api/index\n")
    extensions = "['api_pages', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']"
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(EXTENSIONS)!r})\nextensions = {extensions}\ndefault_role = 'code'\n"
    )
    folder = str(tmp_path)
    warnings = io.StringIO()
    app = sphinx.Sphinx(
        folder, folder, f"{folder}/out", f"{folder}/trees", "dummy", status=None, warning=warnings
    )
    app.build()
    built = set(app.env.get_domain("py").objects)
    wanted = {f"{page}.{name}" for page, module in PAGES.items() for name in api_pages.public_names(module)}
    assert wanted <= built, f"not in the built reference: {sorted(wanted - built)}"
    # citations are defined on a page of their own
    told = [line for line in warnings.getvalue().splitlines() if "citation not found" not in line]
    assert not told, "\n".join(told)


@pytest.mark.parametrize("name", pgm_sync.__all__)
def test_examples_of_the_top_level_can_be_pasted(name):
    """They import what they use; the doctests of a module see its own names."""
    lines = inspect.getdoc(getattr(pgm_sync, name)) or ""
    test = doctest.DocTestParser().get_doctest(lines, {"__name__": name}, name, None, 0)
    told: list[str] = []
    failed = doctest.DocTestRunner(verbose=False).run(test, out=told.append).failed
    assert not failed, "".join(told)
