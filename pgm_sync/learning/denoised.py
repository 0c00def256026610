"""What frozen denoisers say of noised samples: computed once, in chunks, and kept in memory or on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..denoisers import Denoiser
from ..errors import BatchError, NotFiniteError, UnknownNameError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..graph.serialization import write_atomically
from ..levels import NoiseLevel
from ..score import Carriers, JointDenoiser
from .problem import FEWEST, as_samples, cut_views


class Denoised(NamedTuple):
    """All samples at one noise level; dictionaries by trajectory."""

    level: NoiseLevel
    noisy: dict[Name, Tensor]  # (n, *shape)
    denoised: dict[Name, Tensor]  # (n, *shape)
    covariances: dict[Name, Tensor]  # (n, r, r), of trajectories whose denoiser is asked

    def rows(self, index: Tensor) -> Denoised:
        """Some of the samples."""
        parts = ({k: v[index] for k, v in part.items()} for part in self[1:])
        return Denoised(self.level, *parts)


def carried_contents(graph: FactorGraph, data: Mapping[Name, Any], carriers: Carriers) -> list[Tensor]:
    """Clean contents ``(n, *shape)`` of what carries noise: trajectories, and canvases, also from their views.

    Raises UnknownNameError, ShapeError, BatchError, NotFiniteError.
    """
    given = {name: as_samples(graph, name, value) for name, value in data.items()}
    counts = {name: len(value) for name, value in given.items()}
    if len(set(counts.values())) != 1 or next(iter(counts.values())) < FEWEST:
        raise BatchError(
            f"all nodes need the same number of joint samples, at least {FEWEST}, got {counts}", counts=counts
        )
    shown = cut_views(carriers, given)
    for name in graph.trajectories:
        if name not in shown:
            raise UnknownNameError(f"no data for {name!r}", name=name)
    gathered = carriers.gather({name: shown[name] for name in graph.trajectories})
    return [given.get(c.name, own) for c, own in zip(carriers.carriers, gathered, strict=True)]


def denoiser_of_each(
    denoisers: Mapping[Name, Denoiser] | Denoiser, names: Iterable[Name]
) -> dict[Name, Denoiser]:
    """By trajectory, where one may stand for all. Raises UnknownNameError for a trajectory without one."""
    if not isinstance(denoisers, Mapping):
        return dict.fromkeys(names, denoisers)
    chosen = {}
    for name in names:
        if name not in denoisers:
            raise UnknownNameError(f"no denoiser for {name!r}; denoisers has {list(denoisers)}", name=name)
        chosen[name] = denoisers[name]
    return chosen


@torch.no_grad()
def denoise_all(
    joint: JointDenoiser,
    clean: Sequence[Tensor],  # (n, *shape) per carrier
    denoisers: Mapping[Name, Denoiser] | Denoiser,
    levels: Sequence[NoiseLevel],
    seed: int,
    *,
    key: str = "",
    folder: str | Path | None = None,
    chunk: int = 256,
    progress: bool = False,
) -> list[Denoised]:
    """Noise all of `clean` at every level, as `sample` would, and ask every denoiser for what `joint` needs of it.

    With a `folder`, tensors are files there that are read when used, and a second call with the same `key` finds them
    finished. Raises UnknownNameError, UnsupportedError, NotFiniteError.
    """
    names, count = joint.graph.trajectories, len(clean[0])
    own = denoiser_of_each(denoisers, names)
    asked = dict(own)
    for name in names:
        if name in joint.needs_covariance:
            asked[name] = joint.posterior_covariance.denoiser(own[name])
            if not asked[name].has_covariance:
                raise UnsupportedError(f"{own[name]!r} of {name!r} gives no posterior covariance; use base='jacobian'")
    key = json.dumps([key, seed, [[float(v.alpha), float(v.sigma)] for v in levels], repr(asked)])
    store = _Store(folder, key)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number, level in enumerate(tqdm(levels, desc="denoise", disable=not progress)):
        white = joint.correlated([torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in clean])
        states = [level.alpha * x + level.sigma * e for x, e in zip(clean, white, strict=True)]
        noisy = {name: joint.carriers.view(states, name) for name in names}
        denoised, covariances = {}, {}
        for place, name in enumerate(names):
            x, features = noisy[name], joint.needs_covariance.get(name)
            mean = store.make(f"mean {number} {place}", x.shape, x.dtype)
            if features is not None:
                r = features.out_size
                covariances[name] = store.make(f"covariance {number} {place}", (count, r, r), x.dtype)
            denoised[name] = mean
            if store.finished:
                continue
            for start in range(0, count, chunk):
                rows = slice(start, start + chunk)
                if features is None:
                    mean[rows] = asked[name].denoise(x[rows], level)
                else:
                    mean[rows], covariances[name][rows] = asked[name].posterior(x[rows], level, features=features)
            if not bool(torch.isfinite(mean).all()):
                raise NotFiniteError(
                    f"the denoiser of {name!r} returned NaN or infinite numbers at sigma = {level.sigma}", name=name
                )
        found.append(Denoised(level, noisy, denoised, covariances))
    store.finish()
    return found


class _Store:
    """Tensors in memory, or as files in a folder."""

    def __init__(self, folder: str | Path | None, key: str):
        self.folder, self.key, self.finished = None if folder is None else Path(folder), key, False
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            mark = self.folder / "finished.json"
            self.finished = mark.exists() and mark.read_text() == key
            if not self.finished:
                mark.unlink(missing_ok=True)

    def make(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        if self.folder is None:
            return torch.empty(tuple(shape), dtype=dtype)
        path = self.folder / f"{name.replace(' ', '_')}.npy"
        if self.finished:
            return torch.from_numpy(np.load(path, mmap_mode="c"))
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        return torch.from_numpy(np.lib.format.open_memmap(path, "w+", kind, tuple(shape)))

    def finish(self) -> None:
        if self.folder is not None and not self.finished:
            write_atomically(self.folder / "finished.json", self.key.encode())
