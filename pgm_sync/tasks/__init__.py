"""Whole jobs: a graph, its potentials, a denoiser and the measures of the result."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from ..errors import ParameterError, UnknownNameError, listed
from .base import Measure, Results, Scene, Task

__all__ = ["Measure", "Results", "Scene", "Task", "load", "names"]

_TASKS = {
    "wide": ("wide", "Wide"),
    "ambiguous": ("ambiguous", "Ambiguous"),
    "mask": ("mask", "Mask"),
    "edit": ("edit", "Edit"),
    "texture": ("texture.task", "Texture"),
    "motion": ("motion", "Motion"),
}


def names() -> list[str]:
    """The tasks that `load` knows.

    >>> names()
    ['wide', 'ambiguous', 'mask', 'edit', 'texture', 'motion']
    """
    return list(_TASKS)


def load(name: str, **settings: Any) -> Task:
    """A task by its name, with other settings than its defaults, which are the fields of its class.

    >>> load("wide", width=120).width
    120

    Raises UnknownNameError, ParameterError on a setting that it does not have, and what the task raises.
    """
    if name not in _TASKS:
        raise UnknownNameError(f"no task is called {name!r}; there are {listed(_TASKS)}", name=name)
    module, class_name = _TASKS[name]
    made: Any = getattr(importlib.import_module(f".{module}", __name__), class_name)
    known = {field.name: field for field in dataclasses.fields(made)}
    for key, value in settings.items():
        if key not in known:
            raise ParameterError(f"the task {name!r} has no setting {key!r}; it has {listed(known, 40)}", setting=key)
        default = known[key].default
        if isinstance(default, int | float | str) and not isinstance(value, _LIKE.get(type(default), type(default))):
            raise ParameterError(
                f"{key}={value!r} of the task {name!r} must be a {type(default).__name__}, as {default!r} is",
                setting=key,
            )
    return made(**settings)


_LIKE: dict[type, Any] = {float: (int, float)}
