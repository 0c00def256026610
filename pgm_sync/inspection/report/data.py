"""What the page's script works with, as JSON."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import torch
from torch import Tensor

from ...graph import FactorGraph
from ...graph.factor_graph import Name
from ...maps import LinearMap
from ..edges import Edge, edge_name
from ..factors import KINDS, kind
from ..joint_model import JointModel
from ..noise_levels import LevelTable
from ..partial import PartialCorrelationTable
from .modes import map_glyphs


def to_json(data: Any) -> str:
    """JSON that is safe inside a script element; NaN and infinities become null."""
    text = json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def floats(values: Tensor, single: bool = False) -> dict[str, Any]:
    """A tensor as base64 of little-endian float64, or float32, with its shape."""
    array = values.detach().cpu().contiguous().numpy().astype("<f4" if single else "<f8")
    return {
        "f32" if single else "f64": base64.b64encode(array.tobytes()).decode(),
        "shape": list(values.shape),
    }


def short(value: float, digits: int = 5) -> float:
    """A number for the eye: a few significant digits keep the page small."""
    return float(f"{value:.{digits}g}")


class Glyphs:
    """Small pictures of modes, each written once; maps are told apart by what their modes look like."""

    def __init__(self) -> None:
        self.pictures: list[str] = []
        self._places: dict[str, int] = {}

    def of(self, map: LinearMap) -> dict[str, int]:
        """Places in `pictures` by mode label."""
        return {label: self._place(uri) for label, uri in map_glyphs(map).items()}

    def _place(self, uri: str) -> int:
        if uri not in self._places:
            self._places[uri] = len(self.pictures)
            self.pictures.append(uri)
        return self._places[uri]


def graph_data(
    graph: FactorGraph,
    edges: dict[Name, Edge],
    model: JointModel | None,
    levels: LevelTable | None,
    partial: PartialCorrelationTable | None = None,
) -> dict[str, Any]:
    """Nodes, factors with their modes, and curves by noise level."""
    glyphs = Glyphs()
    given = {(row.factor, row.first, row.second, row.mode): row.partial for row in partial or ()}
    return {
        "nodes": [_node(graph, name, model) for name in graph.variables],
        "edges": [_edge(graph, factor, edges.get(factor), given, glyphs) for factor in graph.factors],
        "kinds": KINDS,
        "glyphs": glyphs.pictures,
        "levels": None if levels is None else _levels(graph, levels),
    }


def _node(graph: FactorGraph, name: Name, model: JointModel | None) -> dict[str, Any]:
    features = model.features.get(name) if model is not None and not model.one_for_all else None
    return {
        "name": str(name),
        "kind": {"trajectory": "trajectory", "variable": "hidden variable"}[graph.nodes[name]["kind"]],
        "shape": list(graph.shape(name)),
        "features": None if features is None else f"{type(features).__name__}, {features.out_size} features",
        "factors": [k for k, factor in enumerate(graph.factors) if name in graph.scope(factor)],
    }


def _edge(
    graph: FactorGraph, factor: Name, edge: Edge | None, partial: dict[tuple, float], glyphs: Glyphs
) -> dict[str, Any]:
    potential = graph.potential(factor)
    entry: dict[str, Any] = {
        "name": edge_name(factor),
        "ends": [str(end) for end in graph.scope(factor)],
        "kind": kind(graph, factor),
        "potential": repr(potential) if potential.fitted else "not fitted",
        "sees": [f"{type(m).__name__} {'×'.join(map(str, m.out_shape))}" for m in graph.maps(factor)],
        "modes": [],
    }
    if edge is None:
        return entry
    shown = dict(zip(graph.scope(factor), map(glyphs.of, graph.maps(factor)), strict=True))
    entry["information"] = short(edge.information)
    for row in edge.rows.values():
        own = partial.get((factor, row.first, row.second, row.mode), math.nan)
        entry["modes"].append({
            "label": row.mode, "between": [str(row.first), str(row.second)], "rho": short(row.rho),
            "low": short(getattr(row, "low", math.nan)), "high": short(getattr(row, "high", math.nan)),
            "partial": short(own), "nats": short(row.mutual_information), "glyph": shown[row.first].get(row.mode),
        })  # fmt: skip
    return entry


def _levels(graph: FactorGraph, levels: LevelTable) -> dict[str, Any]:
    curves: list[dict[str, Any] | None] = []
    for factor in graph.factors:
        rows = levels.of(factor) if factor in levels.modes else []
        curves.append({
            "rho": [short(row.rho, 4) for row in rows],
            "information": [short(row.mutual_information, 4) for row in rows],
            "movement": [short(row.movement, 4) for row in rows],
            "modes": [[short(v, 3) for v in values] for values in levels.modes[factor].T.tolist()],
        } if rows else None)  # fmt: skip
    return {"log_snr": [short(v) for v in levels.log_snr], "curves": curves}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, torch.Tensor):
        return _finite(value.tolist())
    return value
