"""The noise that stochastic schedulers draw inside `step`, supplied from outside."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import ShapeError

Draw = Callable[[tuple[int, ...]], Tensor]  # shape -> standard normal noise of that shape

_lock = threading.Lock()


@contextmanager
def step_noise(scheduler: Any, draw: Draw) -> Iterator[None]:
    """Within the context, `draw(shape)` supplies every noise that ``scheduler.step`` would draw.

    diffusers schedulers call a function `randn_tensor` of their own module. That name is replaced while the
    context is open, and restored when it closes, exceptions included. Other threads keep drawing their own
    noise. Contexts nest: the innermost wins. Deterministic steps never call `draw`; so do steps that are
    handed their noise (``variance_noise=``). The noise is moved to the device and dtype that the scheduler
    asks for.

    Use it to share noise between trajectories that show the same content, to correlate it (Eq. 5'), or to
    draw each sample's noise from a generator of its own.

    Raises ShapeError if `draw` returns another shape than it was asked for.
    """
    modules: set[Any] = {
        module
        for cls in type(scheduler).__mro__
        if hasattr(module := sys.modules.get(cls.__module__), "randn_tensor")
    }
    thread = threading.get_ident()
    with _lock:
        for module in modules:
            if not isinstance(module.randn_tensor, _Substitute):
                module.randn_tensor = _Substitute(module.randn_tensor)
            module.randn_tensor.draws.setdefault(thread, []).append(draw)
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                substitute = module.randn_tensor
                substitute.draws[thread].pop()
                if not substitute.draws[thread]:
                    del substitute.draws[thread]
                if not substitute.draws:
                    module.randn_tensor = substitute.original


class _Substitute:
    """Stands in for a module's `randn_tensor`, with a stack of draws per thread inside a context."""

    def __init__(self, original: Callable[..., Tensor]):
        self.original = original
        self.draws: dict[int, list[Draw]] = {}

    def __call__(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | list[torch.Generator] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        layout: torch.layout | None = None,
    ) -> Tensor:
        stack = self.draws.get(threading.get_ident())
        if not stack:
            return self.original(shape, generator=generator, device=device, dtype=dtype, layout=layout)
        shape = tuple(shape)
        noise = stack[-1](shape)
        if tuple(noise.shape) != shape:
            raise ShapeError(
                f"the scheduler's step needs noise of shape {shape}, draw returned {tuple(noise.shape)}",
                expected=shape,
                actual=tuple(noise.shape),
            )
        return noise.to(device=device or torch.device("cpu"), dtype=dtype)
