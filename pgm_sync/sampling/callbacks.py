"""Functions called after every step, for recording and showing what happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import ParameterError

OnStep = Callable[[Any], Any] | Iterable[Callable[[Any], Any]] | None  # one, or several, each called with the state


def as_callbacks(on_step: OnStep) -> tuple[Callable[[Any], Any], ...]:
    """What to call after every step, in order.

    >>> as_callbacks(None), as_callbacks(print) == as_callbacks([print])
    ((), True)

    Raises ParameterError for what cannot be called.
    """
    given = () if on_step is None else (on_step,) if callable(on_step) else on_step
    if not isinstance(given, Iterable):
        raise ParameterError(f"on_step={on_step!r} is no function of a state, nor several of them", option="on_step")
    chosen = tuple(given)
    for callback in chosen:
        if not callable(callback):
            raise ParameterError(f"on_step has {callback!r}, which cannot be called with a state", option="on_step")
    return chosen
