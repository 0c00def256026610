"""What a joint sample costs: denoiser evaluations, seconds, memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ..denoisers import DenoisedPosterior, Denoiser
from ..denoisers.predicting import PredictingDenoiser
from ..errors import ParameterError, UnsupportedError
from ..levels import NoiseLevel
from ..maps import LinearMap
from ..sampling.memory import peak_memory

STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Cost:
    """Of a run that made `samples` joint samples; measured by `CostMeter`.

    >>> print(Cost(evaluations=100.0, seconds=0.25, peak_memory=2**20, samples=4))
    100 evaluations, 0.25 s per joint sample, 1 MiB (cpu)
    """

    evaluations: float | None  # rows of all trajectories given to their denoisers, per joint sample
    seconds: float  # wall clock, per joint sample
    peak_memory: int | None  # bytes above those at the start, of the whole run; None where they cannot be known
    samples: int  # joint ones
    device: str = "cpu"  # where the denoisers ran

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    def __str__(self) -> str:
        evaluations = "?" if self.evaluations is None else f"{self.evaluations:g}"
        memory = "?" if self.peak_memory is None else f"{self.peak_memory / 2**20:.0f}"
        return (
            f"{evaluations} evaluations, {self.seconds:.3g} s per joint sample, {memory} MiB ({self.device})"
        )


class CostMeter:
    """Measures the cost of the block under it; `cost` has it afterwards.

    `count` wraps denoisers, a network or a function, so that rows given to it count. A row is one state of one
    trajectory: a denoiser that asks its network twice for guidance counts once if it is wrapped, twice if the network
    is. Passes backwards, for posterior covariances, are not counted.

    Memory is on CUDA (by `device`) that of torch's allocator (`torch.cuda.max_memory_allocated`), else the resident set
    of the process, read every `interval` seconds by a thread, or the peak that `resource` knows where there is no
    /proc.

    >>> from pgm_sync.denoisers import GaussianDenoiser
    >>> with CostMeter(num_samples=4) as meter:
    ...     denoiser = meter.count(GaussianDenoiser(torch.zeros(2), torch.eye(2)))
    ...     for sigma in (0.9, 0.5, 0.1):
    ...         _ = denoiser.denoise(torch.zeros(4, 2), NoiseLevel(alpha=(1 - sigma**2) ** 0.5, sigma=sigma))
    >>> meter.cost.evaluations
    3.0

    Raises ParameterError unless `num_samples` and `interval` are positive, or where `cost` is read too early.
    """

    def __init__(self, num_samples: int, device: torch.device | str = "cpu", interval: float = 0.005):
        if num_samples < 1 or not interval > 0:
            raise ParameterError(f"num_samples={num_samples} and interval={interval} must be positive")
        self.num_samples, self.device, self.interval = num_samples, torch.device(device), interval
        self.rows = 0
        self._counted = False
        self._cost: Cost | None = None
        self._hooks: list[Any] = []

    @property
    def cost(self) -> Cost:
        """Of the block, once it has ended without an error."""
        if self._cost is None:
            raise ParameterError("the cost is known once the block under the meter has ended")
        return self._cost

    def count(self, asked: Any) -> Any:
        """`asked`, with its rows counted: a Denoiser, a mapping of them, a torch module, or a function of a batch.

        A module is returned as it is, with a hook that counts until the block ends; other things come back wrapped.

        Raises UnsupportedError on anything else.
        """
        self._counted = True
        if isinstance(asked, Mapping):
            # one denoiser under two names stays one: the sampler asks it for both at once
            wrapped = {id(one): self.count(one) for one in asked.values()}
            return {name: wrapped[id(one)] for name, one in asked.items()}
        if isinstance(asked, PredictingDenoiser):
            return CountedPredictingDenoiser(asked, self._add)
        if isinstance(asked, Denoiser):
            return CountedDenoiser(asked, self._add)
        if isinstance(asked, nn.Module):
            self._hooks.append(asked.register_forward_pre_hook(self._see, with_kwargs=True))
            return asked
        if callable(asked):
            return self._counted_call(asked)
        raise UnsupportedError(
            f"cannot count evaluations of {asked!r}; give a denoiser, a module or a function"
        )

    def __enter__(self) -> CostMeter:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start_memory: int | None = torch.cuda.memory_allocated(self.device)
        else:
            self._start_memory = self._peak = resident()
            self._ended = threading.Event()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda" and kind is None:
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - self._start
        for hook in self._hooks:
            hook.remove()
        peak: int | None
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device) if kind is None else None
        else:
            self._ended.set()
            self._thread.join()
            self._look()
            peak = self._peak
        if kind is not None:
            return
        memory = None if peak is None or self._start_memory is None else max(0, peak - self._start_memory)
        evaluations = self.rows / self.num_samples if self._counted else None
        self._cost = Cost(evaluations, seconds / self.num_samples, memory, self.num_samples, str(self.device))

    def _watch(self) -> None:
        while not self._ended.wait(self.interval):
            self._look()

    def _look(self) -> None:
        now = resident()
        self._peak = now if self._peak is None or now is None else max(self._peak, now)

    def _add(self, rows: int) -> None:
        self.rows += rows

    def _see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._add(_batch([*args, *kwargs.values()]))

    def _counted_call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._add(_batch([*args, *kwargs.values()]))
            return function(*args, **kwargs)

        return counted


class CountedDenoiser(Denoiser):
    """A denoiser as it was, that reports how many rows it is asked for."""

    def __init__(self, denoiser: Denoiser, add: Callable[[int], None]):
        self.denoiser, self.add = denoiser, add
        self.shape, self.has_covariance = denoiser.shape, denoiser.has_covariance
        self.prediction_type = denoiser.prediction_type

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "denoiser":
            raise AttributeError(name)
        return getattr(self.denoiser, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.denoiser!r})"

    def denoise(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        self._count(noisy)
        return self.denoiser.denoise(noisy, level, condition)

    def predict(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        self._count(noisy)
        return self.denoiser.predict(noisy, level, condition)

    def posterior(
        self, noisy: Tensor, level: NoiseLevel, condition: Any = None, features: LinearMap | None = None
    ) -> DenoisedPosterior:
        self._count(noisy)
        return self.denoiser.posterior(noisy, level, condition, features)

    def _count(self, noisy: Tensor) -> None:
        self.add(int(noisy.shape[: noisy.ndim - len(self.shape)].numel()))


class CountedPredictingDenoiser(CountedDenoiser, PredictingDenoiser):
    """The same, of one that guidance can be put around."""


def resident() -> int | None:
    """Bytes of memory that the process holds now; where there is no /proc, the most it has held; None if unknown."""
    if not STATM.exists():
        return peak_memory()
    import resource

    return int(STATM.read_text().split()[1]) * resource.getpagesize()


def _batch(given: list[Any]) -> int:
    """Rows of the first tensor with a batch dimension."""
    return next((len(x) for x in given if isinstance(x, Tensor) and x.ndim), 0)
