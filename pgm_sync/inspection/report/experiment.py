"""Counterfactuals: Eq. 5 solved in the page, with a factor weaker, stronger or gone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...graph import FactorGraph
from ...graph.factor_graph import Name
from ..counterfactual import States, changes, drawn_states, strength_range
from ..images import image_shape
from ..joint_model import JointModel, Term
from ..noise_levels import LevelTable, information
from ..recording import Recording
from .data import floats
from .parts import choice, slider

IN_PAGE = 200  # features that a page solves for by itself, in milliseconds
DRAWS = 3
MOST_BASIS = 400_000  # numbers of mode pictures in a page
STRENGTHS = (0.5,)  # computed beforehand where the page cannot; smallest and largest proper ones beside it
MOST_CHANGES = (
    300_000  # numbers of what cutting a factor of a model with loops changes; the strongest are kept
)
BEFOREHAND = 8  # factors, those that move most


def model_data(
    graph: FactorGraph, model: JointModel, recorded: Sequence[tuple[str, States]] = ()
) -> dict[str, Any]:
    """All that the page needs to solve Eq. 5 itself: matrices, states, and what features look like."""
    factors = {factor: k for k, factor in enumerate(graph.factors)}
    nodes = {name: k for k, name in enumerate(graph.variables)}
    prior = torch.linalg.inv(model.prior())
    kept = max(1, MOST_CHANGES // model.size**2)
    packed = sorted(model.terms, key=lambda f: -information(model.terms[f], model.terms[f].seen(prior)))[
        :kept
    ]
    states: list[dict[str, Any]] = []
    for seed in range(DRAWS):
        content, noise = model.draw(torch.Generator().manual_seed(seed))
        states.append(
            {"label": f"draw {seed + 1} of the model", "content": floats(content), "noise": floats(noise)}
        )
    for label, given in recorded:
        entry = {
            "label": label,
            "log_snr": math.log(given.snr),
            "own": floats(given.own),
            "noisy": floats(given.noisy),
        }
        states.append(entry)
    bases, views = _pictures(model)
    return {
        "size": model.size,
        "nodes": [
            {"node": nodes[name], "from": here.start, "to": here.stop, "labels": _labels(model, name),
             "view": views.get(name), "hidden": name not in model.features}
            for name, here in model.slices.items()
        ],
        "own": floats(model.own),
        "own_eta": floats(model.own_eta),
        "constant": floats(model.constant) if bool(model.constant.any()) else None,
        "constant_eta": floats(model.constant_eta),
        "visible": floats(model.visible),
        "excess": floats(model.excess) if model.noise is not None else None,
        "terms": [_term(model, f, term, factors[f], f in packed) for f, term in model.terms.items()],
        "states": states,
        "bases": bases,
        "one_for_all": model.one_for_all,
    }  # fmt: skip


def recorded_states(model: JointModel, recording: Recording) -> list[tuple[str, States]]:
    """Own means and noisy states of the first joint sample at the steps where both were kept of all trajectories."""
    if model.one_for_all or recording.variance is not None:
        return []
    found = []
    for record in recording.records:
        images = [record.images.get(kind, {}) for kind in ("denoised", "noisy")]
        if (
            not all(name in kept for kept in images for name in model.features)
            or not 0 < record.snr < math.inf
        ):
            continue
        parts = []
        for kept in images:
            values = torch.zeros(model.size, dtype=torch.float64)
            for name, feature in model.features.items():
                content = torch.from_numpy(kept[name][:1]).double()
                values[model.slices[name]] = feature.apply(content).flatten()
            parts.append(values)
        states = States(record.snr, parts[0], parts[1] / record.alpha)
        found.append((f"recorded step {record.step + 1} of {recording.num_steps}", states))
    return found


def beforehand(graph: FactorGraph, model: JointModel, levels: LevelTable) -> dict[str, Any]:
    """The strongest factors at a few strengths and noise levels, for models too large to solve in a page."""
    peak = {f: max((row.movement for row in levels.of(f) if not math.isnan(row.movement)), default=0.0)
            for f in model.terms}  # fmt: skip
    strongest = sorted(peak, key=lambda f: -peak[f])[:BEFOREHAND]
    ranges = {factor: strength_range(model, factor) for factor in strongest}
    factors = {factor: k for k, factor in enumerate(graph.factors)}
    nodes = {name: k for k, name in enumerate(graph.variables)}
    rows = []
    for log_snr in levels.log_snr[:: max(1, len(levels.log_snr) // 8)]:
        states = drawn_states(model, math.exp(log_snr))
        for factor in strongest:
            low, high = ranges[factor]
            for strength in sorted({low, high, *(s for s in STRENGTHS if low < s < high)}):
                found = changes(model, states, {factor: strength})
                rows.append({
                    "edge": factors[factor], "strength": strength, "log_snr": log_snr,
                    "change": [float(f"{row.change:.4g}") for row in found],
                    "correction": [float(f"{row.correction:.4g}") for row in found],
                })  # fmt: skip
    return {"nodes": [nodes[name] for name in model.features], "rows": rows}


def experiment(in_page: bool) -> str:
    """The controls and places that the script fills."""
    controls = (
        '<div class="controls">'
        + choice("what-edge", "factor", [])
        + slider("what-strength", "strength", 0, 1, 0.01, 0)
        + slider("what-level", "noise level", 0, 1, 1, 0)
        + (choice("what-state", "states", []) if in_page else "")
        + "</div>"
    )
    return (
        f'<div class="panel">{controls}<p id="what-note" class="note" role="status"></p>'
        '<div id="what-bars"></div><div id="what-modes"></div></div>'
    )


def _term(model: JointModel, factor: Name, term: Term, place: int, packed: bool) -> dict[str, Any]:
    change = model.cut(factor) if term.rule == "interaction" and packed else None
    return {
        "edge": place,
        "index": term.places.tolist(),
        "rows": None if term.rows is None else floats(term.rows),
        "blocks": term.blocks,
        "rule": term.rule,
        "matrix": floats(term.matrix),
        "vector": floats(term.vector),
        "change": None if change is None else floats(change[0]),
        "shift": None if change is None else floats(change[1]),
        "range": list(strength_range(model, factor)) if term.rule != "interaction" or packed else None,
    }


def _labels(model: JointModel, name: Name) -> list[str]:
    if name in model.features and not model.one_for_all:
        return model.features[name].labels()
    here = model.slices[name]
    return ["each element"] if model.one_for_all else [str(k) for k in range(here.stop - here.start)]


def _pictures(model: JointModel) -> tuple[list[dict[str, Any]], dict[Name, int]]:
    """Feature maps as pictures, each once, as far as they are pictures and fit; places by trajectory."""
    bases: list[dict[str, Any]] = []
    kept: list[Tensor] = []
    views: dict[Name, int] = {}
    spent = 0
    for name, feature in model.features.items():
        shape = image_shape(feature.in_shape)
        if model.one_for_all or shape is None or feature.out_size * feature.in_size > MOST_BASIS:
            continue
        rows = feature.dense()
        place = next(
            (k for k, other in enumerate(kept) if other.shape == rows.shape and torch.equal(other, rows)),
            None,
        )
        if place is None:
            if spent + rows.numel() > MOST_BASIS:
                continue
            spent += rows.numel()
            place = len(kept)
            kept.append(rows)
            bases.append({"shape": list(shape), "rows": floats(rows, single=True)})
        views[name] = place
    return bases, views
