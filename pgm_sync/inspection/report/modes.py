"""What modes look like: the rows of a feature map as small pictures."""

from __future__ import annotations

import torch

from ...graph import FactorGraph
from ...graph.factor_graph import Name
from ...maps import FeatureMap, LinearMap
from .pictures import data_uri


def glyphs(graph: FactorGraph, factor: Name) -> dict[str, str]:
    """``data:`` addresses by mode label, for factors that see pictures through a feature map; else nothing."""
    return map_glyphs(graph.maps(factor)[0]) if factor in graph else {}


def map_glyphs(map: LinearMap) -> dict[str, str]:
    """The same for one map. Colour modes in colour, one channel or other numbers of channels in grey."""
    if not isinstance(map, FeatureMap) or len(map.in_shape) not in (2, 3):
        return {}
    patterns = map.rows.reshape(map.out_size, -1, *map.in_shape[-2:])  # (modes, C, H, W)
    if patterns.shape[1] != 3:
        patterns = patterns.sum(1, keepdim=True)
    made = {}
    for label, pattern in zip(map.labels(), patterns, strict=True):
        shown = 0.5 + 0.5 * pattern / pattern.abs().max().clamp_min(1e-12)
        made[label] = data_uri(shown.to(torch.float32))
    return made
