"""The noise that stochastic schedulers draw inside `step`, supplied from outside."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import ShapeError

Draw = Callable[[tuple[int, ...]], Tensor]  # shape -> standard normal noise of that shape
Source = Callable[[tuple[int, ...], Callable[[], Tensor]], Tensor]  # (shape, what would be drawn) -> noise

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

    >>> import torch
    >>> from diffusers import DDPMScheduler
    >>> scheduler, state = DDPMScheduler(clip_sample=False), torch.zeros(2, 1, 4, 4)
    >>> with step_noise(scheduler, lambda shape: torch.ones(shape)):  # the same for both samples
    ...     after = scheduler.step(state, 500, state).prev_sample
    >>> bool((after == after[0, 0, 0, 0]).all()) and after[0, 0, 0, 0].item() > 0
    True
    """
    with _substituted([scheduler], lambda shape, _: draw(shape)):
        yield


@contextmanager
def mapped_noise(objects: Sequence[Any], function: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the context, `function` is applied to all noise that the modules of `objects` draw by `randn_tensor`.

    For pipelines and their schedulers: what they draw, from their own generators, becomes shared or correlated. As
    `step_noise` otherwise.
    """
    with _substituted(objects, lambda _, stock: function(stock())):
        yield


@contextmanager
def _substituted(objects: Sequence[Any], source: Source) -> Iterator[None]:
    modules: set[Any] = {
        module
        for thing in objects
        for cls in type(thing).__mro__
        if hasattr(module := sys.modules.get(cls.__module__), "randn_tensor")
    }
    thread = threading.get_ident()
    with _lock:
        for module in modules:
            if not isinstance(module.randn_tensor, _Substitute):
                module.randn_tensor = _Substitute(module.randn_tensor)
            module.randn_tensor.sources.setdefault(thread, []).append(source)
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                substitute = module.randn_tensor
                substitute.sources[thread].pop()
                if not substitute.sources[thread]:
                    del substitute.sources[thread]
                if not substitute.sources:
                    module.randn_tensor = substitute.original


class _Substitute:
    """Stands in for a module's `randn_tensor`, with a stack of sources per thread inside a context."""

    def __init__(self, original: Callable[..., Tensor]):
        self.original = original
        self.sources: dict[int, list[Source]] = {}

    def __call__(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | list[torch.Generator] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        layout: torch.layout | None = None,
    ) -> Tensor:
        def stock() -> Tensor:
            return self.original(shape, generator=generator, device=device, dtype=dtype, layout=layout)

        stack = self.sources.get(threading.get_ident())
        if not stack:
            return stock()
        shape = tuple(shape)
        noise = stack[-1](shape, stock)
        if tuple(noise.shape) != shape:
            raise ShapeError(
                f"the scheduler's step needs noise of shape {shape}, draw returned {tuple(noise.shape)}",
                expected=shape,
                actual=tuple(noise.shape),
            )
        return noise.to(device=device or torch.device("cpu"), dtype=dtype)
