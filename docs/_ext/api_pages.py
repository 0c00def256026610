"""Write one API page per public module, from each module's own ``__all__`` (or its public names)."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the tests read pages without Sphinx
    from sphinx.application import Sphinx

PACKAGE = "pgm_sync"
SKIPPED = {"cli", "make_photographs"}  # commands


def public_names(module: ModuleType) -> list[str]:
    """What ``__all__`` lists; without, the classes and functions of the module or of a package's modules."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = (module.__name__, module.__name__ + ".") if hasattr(module, "__path__") else (module.__name__,)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and (value.__module__ == own[0] or (len(own) > 1 and value.__module__.startswith(own[1])))
    ]


def documented(package: ModuleType) -> Iterator[ModuleType]:
    """The modules that get a page. A package that exports nothing has none; its modules have."""
    children: set[str] = set()
    for folder in map(Path, package.__path__):
        children |= {path.stem for path in folder.glob("*.py")}
        children |= {path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    for name in sorted(children):
        if name.startswith("_") or name in SKIPPED:
            continue
        module = importlib.import_module(f"{package.__name__}.{name}")
        if public_names(module):
            yield module
            # of what a package exports from its modules it is the page; packages inside have their own
            yield from documented_packages(module)
        elif hasattr(module, "__path__"):
            yield from documented(module)


def documented_packages(package: ModuleType) -> Iterator[ModuleType]:
    """Packages inside a package that export what it does not."""
    for folder in map(Path, getattr(package, "__path__", [])):
        for path in sorted(folder.iterdir()):
            if path.is_dir() and (path / "__init__.py").exists():
                inner = importlib.import_module(f"{package.__name__}.{path.name}")
                if not set(public_names(inner)) <= set(getattr(package, "__all__", [])):
                    yield inner


def summary(thing: Any) -> str:
    doc = inspect.getdoc(thing) or ""
    return " ".join(doc.split("\n\n")[0].split())


def write_pages(app: Sphinx) -> None:
    package = importlib.import_module(PACKAGE)
    folder = Path(app.srcdir) / "generated" / "api"
    folder.mkdir(parents=True, exist_ok=True)
    home: dict[str, str] = {}  # where each public object is documented
    pages = []
    for module in documented(package):
        names = public_names(module)
        pages.append((module.__name__, summary(module)))
        for name in names:
            home.setdefault(name, module.__name__)
        title = module.__name__
        _write(
            folder / f"{title}.rst",
            f"{title}\n{'=' * len(title)}\n\n.. automodule:: {title}\n"
            f"   :members: {', '.join(name for name in names if not is_constant(getattr(module, name)))}\n"
            "   :member-order: bysource\n"
            + "".join(data(name, getattr(module, name)) for name in names if is_constant(getattr(module, name))),
        )
    kept = {f"{name}.rst" for name, _ in pages} | {"index.rst"}
    for stale in folder.glob("*.rst"):
        if stale.name not in kept:
            stale.unlink()
    rows = [
        f"   * - :py:obj:`{name} <{home[name]}.{name}>`\n     - {summary(getattr(package, name))}\n"
        for name in getattr(package, "__all__", [])
        if name in home
    ]
    table = ""
    if rows:
        table = (
            "Names of the top level\n----------------------\n\n"
            f"``import {PACKAGE} as ps`` gives:\n\n"
            ".. list-table::\n   :widths: 25 75\n\n" + "".join(rows) + "\n"
        )
    toctree = "".join(f"   {name}\n" for name, _ in pages)
    listing = "".join(f"* :doc:`{name}`: {text}\n" for name, text in pages)
    _write(
        folder / "index.rst",
        "API reference\n=============\n\n"
        f"{table}Modules\n-------\n\n{listing}\n.. toctree::\n   :hidden:\n\n{toctree}",
    )


def is_constant(thing: Any) -> bool:
    return not (inspect.isclass(thing) or inspect.isfunction(thing)) or isinstance(thing, types.GenericAlias)


def comment(name: str, value: Any) -> str:
    """The ``#:`` comment above a constant, in whichever module of the package defines it."""
    for module in [m for n, m in sorted(sys.modules.items()) if n.startswith(PACKAGE)]:
        if getattr(module, name, None) is value and module.__file__:
            source = Path(module.__file__).read_text()
            if found := re.search(rf"^((?:#: .*\n)+){name} = ", source, flags=re.M):
                return re.sub(r"^#: ", "", found[1], flags=re.M).strip()
    return ""


def data(name: str, value: Any) -> str:
    """A constant. Sphinx finds the comments of a module's own ones only, and leaves out what has none."""
    text = comment(name, value).replace("\n", "\n   ")
    return f"\n.. py:data:: {name}\n   :value: {value!r}\n\n   {text}\n"


def _write(path: Path, text: str) -> None:
    # An unchanged page keeps its time stamp, so that Sphinx does not read it again.
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def fields(thing: type) -> list[tuple[str, str]]:
    """Names of the fields of a named tuple or dataclass, with the comments beside them in the source."""
    names = getattr(thing, "_fields", None) or [f.name for f in dataclasses.fields(thing) if f.init]
    source = "".join(inspect.getsource(c) for c in thing.__mro__ if c.__module__.startswith(PACKAGE))
    found = []
    for name in names:
        comment = re.search(rf"^    {name}: .*?  # (.*)$", source, flags=re.M)
        found.append((name, comment[1] if comment else ""))
    return found


def add_fields(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """List the fields of a class under its docstring, where comments say more than the signature."""
    if not inspect.isclass(thing) or not (hasattr(thing, "_fields") or dataclasses.is_dataclass(thing)):
        return
    listed = fields(thing)
    if any(comment for _, comment in listed):
        lines += ["", "Fields:", ""]
        # Comments are plain text, with stars and underscores that mean nothing to docutils.
        for field, comment in listed:
            plain = re.sub(r"([*_`|])", r"\\\1", comment)
            lines.append(f"* ``{field}``" + (f": {plain}" if plain else ""))
        lines.append("")


def end_parameters(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Two empty lines before prose that follows parameters: napoleon takes it for more parameters otherwise."""
    if "----------" not in lines:
        return
    start = lines.index("----------") + 1
    for k in range(start, len(lines) - 1):
        text, following = lines[k + 1], lines[k + 2] if k + 2 < len(lines) else ""
        if not lines[k] and text and not text[0].isspace() and not following.startswith((" ", "---")):
            lines.insert(k, "")
            return


def skip_aliases(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Without the "Alias for field number 0" of named tuples."""
    return True if (inspect.getdoc(thing) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")  # whose events these are
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", end_parameters, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", add_fields)
    app.connect("autodoc-skip-member", skip_aliases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
