"""DiffCollage on any canvas: trajectories count +1, what they share is taken off again (Zhang et al., CVPR 2023)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..errors import ParameterError, ShapeError, UnsupportedError
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from .projection import Projection, Sight, projection
from .run import Run

Separators = Callable[
    [tuple[int, ...]], Denoiser
]  # shape of an overlap -> what is known of contents of that shape
LARGEST = 4096  # overlaps of overlaps; those of windows in a row or on a grid are a few per window


class Overlap(NamedTuple):
    """Elements that several trajectories share."""

    sites: Tensor  # flat elements of the canvas, increasing
    times: int  # how often its score is added; mostly negative
    first: Name  # the first trajectory that shows all of it
    box: tuple[int, ...] | None  # its shape in that trajectory, where it is a box

    @property
    def name(self) -> tuple[str, Name, int, int]:
        """Of the trajectory that stands for it, and that noise is drawn for."""
        return "overlap", self.first, int(self.sites[0]), len(self.sites)


def overlaps(graph: FactorGraph, shared: Projection | None = None) -> list[Overlap]:
    """All regions of the Bethe sum besides the trajectories, with their counting numbers.

    Regions are intersections of trajectories; each counts ``1 - (counts of all regions that contain it)``, so that
    every element counts once in all: -1 for the overlap of neighbours in a row, +1 again where four windows of a grid
    meet (Kikuchi's rule; on trees of windows, Bethe's). Those with count 0 are left out.

    >>> import pgm_sync as ps
    >>> [(len(o.sites), o.times, o.box) for o in overlaps(ps.wide_canvas((1, 1, 8), window=(1, 4), stride=2))]
    [(2, -1, (1, 1, 2)), (2, -1, (1, 1, 2))]

    `shared` is `projection(graph)`, where that is at hand. Raises UnsupportedError for content that is not shared by
    picking elements, or too many overlaps.
    """
    shared = projection(graph) if shared is None else shared
    found: list[Overlap] = []
    for k in range(len(shared.canvases)):
        views: dict[Name, Tensor] = {}
        for name, sights in shared.sights.items():
            for sight in sights:
                if sight.canvas == k:
                    if not isinstance(sight.view, Tensor):
                        raise UnsupportedError(
                            f"{name!r} does not show elements of a canvas, but mixtures of them"
                        )
                    views[name] = sight.view
        found += _regions(graph, views)
    return found


def _regions(graph: FactorGraph, views: dict[Name, Tensor]) -> list[Overlap]:
    tops = {_bits(view): name for name, view in views.items()}  # sets of sites as integers: a bit per site
    if len(tops) < len(views) or any(a & b == a for a in tops for b in tops if a != b):
        raise UnsupportedError(
            "a trajectory shows nothing that another does not; DiffCollage is for windows that overlap in part"
        )
    regions, fresh = set(tops), set(tops)
    while fresh:  # closed under intersection
        fresh = {a & b for a in fresh for b in tops} - regions - {0}
        regions |= fresh
        if len(regions) > LARGEST:
            raise UnsupportedError(
                f"the trajectories overlap in more than {LARGEST} ways; use a larger stride"
            )
    counts: dict[int, int] = {}
    out = []
    for region in sorted(regions, key=lambda r: (-r.bit_count(), r)):
        counts[region] = 1 - sum(times for other, times in counts.items() if region & other == region)
        if region not in tops and counts[region]:
            first = next(name for top, name in tops.items() if region & top == region)
            sites = _sites(region)
            inside = torch.isin(views[first], sites).reshape(graph.shape(first))
            out.append(Overlap(sites, counts[region], first, _box(inside)))
    return out


def _bits(view: Tensor) -> int:
    flags = np.zeros(int(view.max()) + 1, dtype=bool)
    flags[view.numpy()] = True
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


def _sites(bits: int) -> Tensor:
    raw = np.frombuffer(bits.to_bytes((bits.bit_length() + 7) // 8, "little"), dtype=np.uint8)
    return torch.from_numpy(np.flatnonzero(np.unpackbits(raw, bitorder="little")))


def _box(inside: Tensor) -> tuple[int, ...] | None:
    sides = []
    for axis in range(inside.ndim):
        used = inside.movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
        if int(used[-1] - used[0]) + 1 != len(used):
            return None
        sides.append(len(used))
    return tuple(sides) if int(inside.sum()) == torch.Size(sides).numel() else None


def bethe(
    run: Run, shared: Projection, separators: Separators | None = None, draws: int = 1
) -> tuple[Run, Projection]:
    """The run with a denoiser per overlap besides the trajectories, and how their contents add up.

    `separators` gives the denoiser of an overlap by its shape. None: denoisers know windows of their own shape only, so
    each overlap is `draws` windows of its own whose other elements are sampled along: they follow the canvas where the
    overlap is and their own noise elsewhere. Their mean estimates ``E[E(x_s | x_t, rest) | x_s]``, in the place of the
    exact ``E(x_s | x_s at t)``; what it errs by goes into the canvas, so a single draw makes it too varied. An overlap
    has the condition of the first trajectory that shows it.

    Raises ParameterError and ShapeError on a separator that is no denoiser of its shape, ParameterError on `draws`.
    """
    if not isinstance(draws, int) or draws < 1:
        raise ParameterError(f"draws={draws!r} must be a positive integer", draws=draws)
    sights = {
        name: [dataclasses.replace(sight, weight=None) for sight in own]
        for name, own in shared.sights.items()
    }
    denoisers, conditions = dict(run.denoisers), dict(run.conditions)
    known: dict[tuple[int, ...] | None, Denoiser] = {}
    for region in overlaps(run.graph, shared):
        sight = sights[region.first][0]
        assert isinstance(sight.view, Tensor)  # or `overlaps` would have refused
        inside = torch.isin(sight.view, region.sites)
        added: dict[Name, Sight]
        count = torch.full((int(inside.sum()),), float(region.times), dtype=torch.float64)
        if separators is None:
            place = inside.nonzero().flatten()
            added = {
                (*region.name, k): Sight(sight.canvas, place, sight.view[inside], count / draws)
                for k in range(draws)
            }
            own = run.denoisers[region.first]
        else:
            added = {region.name: Sight(sight.canvas, None, sight.view[inside], count)}
            own = known[region.box] = known.get(region.box) or _separator(separators, region)
        for name, seen in added.items():
            sights[name], denoisers[name], conditions[name] = [seen], own, run.conditions[region.first]
    run.names, run.denoisers, run.conditions = list(denoisers), denoisers, conditions
    return run, Projection(shared.canvases, sights)


def _separator(separators: Separators, region: Overlap) -> Denoiser:
    box = region.box
    if box is None:
        raise ParameterError(
            f"an overlap in {region.first!r} is no box, so no shape tells its denoiser; leave separators out",
            name=region.first,
        )
    denoiser: Any = separators(box)
    if not isinstance(denoiser, Denoiser):
        raise ParameterError(f"separators({box}) is a {type(denoiser).__name__}, not a Denoiser")
    if tuple(denoiser.shape) != box:
        raise ShapeError(
            f"separators({box}) works on shape {tuple(denoiser.shape)}",
            expected=box,
            got=tuple(denoiser.shape),
        )
    return denoiser
