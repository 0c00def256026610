"""Textures: whether the views of a surface agree."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError, UnknownNameError, listed
from ..maps import LinearMap
from ..maps.sparse import sparse_entries
from ..metrics import Measurement
from .means import mean


def view_disagreement(
    views: Mapping[Hashable, Tensor],  # (n, *shape of the view)
    maps: Mapping[Hashable, LinearMap],  # from the shared sites to each view
) -> Measurement:
    """Weighted variance, over views, of what they show of one site, averaged over the sites that two or more see.

    View i shows at site s the mean ``y_is`` of its pixels that look at s, by the magnitudes of its map's entries;
    their sum ``w_is`` is its weight. With ``y_s`` the mean of the ``y_is``, the measure is ``sum w_is (y_is - y_s)^2 /
    sum w_is`` over all such sites and views: for two views of one weight a quarter of their squared difference. 0 is
    best, in squared units of the contents; a root of it compares with the contents' deviation. Where entries blend
    sites (bilinear maps) agreeing views of a rough texture stay a little above 0: compare with the value of renders of
    one texture.

    Maps are index and sparse maps (UV look-ups). The interval is over samples.

    Two windows of two numbers that share one, and see it as 1 and as 3:

    >>> from pgm_sync.maps import Crop
    >>> maps = {"left": Crop((3,), start=(0,), size=(2,)), "right": Crop((3,), start=(1,), size=(2,))}
    >>> views = {"left": torch.tensor([[0.0, 1.0]]), "right": torch.tensor([[3.0, 0.0]])}
    >>> view_disagreement(views, maps).value
    1.0

    Raises UnknownNameError, ShapeError, UnsupportedError on other maps, ParameterError where no site is seen twice.
    """
    missing = [name for name in views if name not in maps]
    if missing or len(views) < 2:
        raise UnknownNameError(f"two or more views with a map each needed; without a map: {listed(missing)}")
    shapes = {maps[name].in_shape for name in views}
    counts = {len(picture) for picture in views.values()}
    if len(shapes) > 1 or len(counts) > 1:
        raise ShapeError(f"views of sites of shapes {sorted(shapes)}, with {sorted(counts)} samples")
    sites, n = math.prod(next(iter(shapes))), next(iter(counts))
    weight, first, second = (
        torch.zeros(sites).double(),
        torch.zeros(n, sites).double(),
        torch.zeros(n, sites).double(),
    )
    seen = torch.zeros(sites, dtype=torch.long)
    for name, picture in views.items():
        if tuple(picture.shape[1:]) != maps[name].out_shape:
            got, made = tuple(picture.shape[1:]), maps[name].out_shape
            raise ShapeError(f"view {name!r} has shape {got}, its map makes {made}", got=got)
        rows, columns, entries = (part.cpu() for part in sparse_entries(maps[name]))
        size = entries.abs().double()
        pixels = picture.detach().cpu().double().flatten(1)
        w = torch.zeros(sites).double().index_add(0, columns, size)
        # a negated entry shows the negated site
        shown = (
            torch.zeros(n, sites)
            .double()
            .index_add(1, columns, pixels[:, rows] * entries.sign().double() * size)
        )
        at = w > 0
        y = shown[:, at] / w[at]
        weight[at] += w[at]
        first[:, at] += w[at] * y
        second[:, at] += w[at] * y.square()
        seen += at
    shared = seen > 1
    if not shared.any():
        raise ParameterError("no site is seen by two views; there is nothing to agree on")
    spread = (second - first.square() / weight.clamp_min(1e-300))[:, shared].clamp_min(0)
    return mean(spread.sum(1) / weight[shared].sum(), what="disagreement of views")
