"""White and correlated noise of a run, reproducible whatever is drawn beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import BatchError, ParameterError, ShapeError, UnknownNameError
from ..graph.factor_graph import Name
from ..score import JointDenoiser

AHEAD = 2**20  # random numbers drawn ahead of their use, at most


class NoiseSource:
    """White or correlated noise for all carriers, each joint sample from a generator of its own."""

    def __init__(self, joint: JointDenoiser, seeds: Sequence[int], device: torch.device, dtype: torch.dtype):
        self.joint, self.device, self.dtype = joint, device, dtype
        # A stream per joint sample and carrier: a trajectory's noise depends on its seed and its name, on nothing else.
        self.generators = [
            [np.random.default_rng([seed, _key(carrier.name)]) for seed in seeds]
            for carrier in joint.carriers.carriers
        ]
        self._ahead: list[list[np.ndarray]] = [[] for _ in self.generators]
        self._drawn: list[list[Tensor]] = []
        self._used: list[int] = []
        self._draws = 0

    def draw(self) -> list[Tensor]:
        """Noise ``(num_samples, *shape)`` per carrier, from float32 on the CPU: the same for any dtype and device."""
        white = [torch.from_numpy(self._next(k)) for k in range(len(self.generators))]
        self._draws += 1
        return self.joint.correlated([w.to(device=self.device, dtype=self.dtype) for w in white])

    def _next(self, k: int) -> np.ndarray:
        """The next numbers of every stream of carrier k; after the first draw, several at a time (the same numbers)."""
        if not self._ahead[k]:
            shape, streams = self.joint.carriers.carriers[k].shape, self.generators[k]
            room = AHEAD // max(1, len(streams) * int(np.prod(shape)))
            count = 1 if self._draws == 0 else min(32, max(1, room))
            drawn = [g.standard_normal((count, *shape), dtype=np.float32) for g in streams]
            self._ahead[k] = list(np.stack(drawn, 1))[::-1]
        return self._ahead[k].pop()

    def given(self, noise: Mapping[Name, Tensor]) -> list[Tensor]:
        """The noise that the user brings, after the checks."""
        out = []
        carriers = self.joint.carriers.carriers
        for name in noise:
            if name not in [c.name for c in carriers]:
                raise UnknownNameError(
                    f"initial_noise for {name!r}, which carries no noise of its own; noise lives on "
                    f"{', '.join(repr(c.name) for c in carriers)}",
                    name=name,
                )
        for carrier in carriers:
            expected = (len(self.generators[0]), *carrier.shape)
            if carrier.name not in noise or tuple(noise[carrier.name].shape) != expected:
                got = tuple(noise[carrier.name].shape) if carrier.name in noise else None
                raise ShapeError(
                    f"initial_noise for {carrier.name!r} must have shape {expected}, not {got}",
                    name=carrier.name,
                )
            out.append(noise[carrier.name].to(device=self.device, dtype=self.dtype))
        return self.joint.correlated(out)

    def next_step(self) -> None:
        """Forget the noise of the last step."""
        self._drawn = []
        self._used = [0] * len(self.joint.carriers.carriers)

    def of(self, carrier: int) -> Callable[[tuple[int, ...]], Tensor]:
        """What `step_noise` asks for one carrier; all carriers of a step get parts of one joint draw."""

        def draw(shape: tuple[int, ...]) -> Tensor:
            k = self._used[carrier]
            self._used[carrier] += 1
            while len(self._drawn) <= k:
                self._drawn.append(self.draw())
            return self._drawn[k][carrier]

        return draw


def _key(name: Name) -> int:
    return int.from_bytes(hashlib.sha256(repr(name).encode()).digest()[:8], "big")


def as_seeds(seed: int | Sequence[int], num_samples: int) -> list[int]:
    """One seed per joint sample. Raises ParameterError, BatchError."""
    if not isinstance(num_samples, int) or num_samples < 1:
        raise ParameterError(
            f"num_samples={num_samples!r} must be a positive integer", num_samples=num_samples
        )
    seeds = list(range(seed, seed + num_samples)) if isinstance(seed, int) else list(seed)
    if any(not isinstance(s, int) or s < 0 for s in seeds):
        raise ParameterError(f"seed={seed!r}: seeds are integers of at least 0", seed=seed)
    if len(seeds) != num_samples:
        raise BatchError(
            f"{len(seeds)} seeds for {num_samples} samples; give one per sample, or a single integer",
            num_samples=num_samples,
        )
    return seeds
