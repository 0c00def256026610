"""A recorded run, step by step: what the denoisers said, what joint denoising made of it, and what acted."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import PgmSyncError
from ...graph.factor_graph import Name
from ..edges import edge_name
from ..images import image_shape, picture, png
from ..joint_model import JointModel
from ..recording import Recording
from .parts import slider

MOST_SHOWN = 12  # trajectories with pictures, canvases first
MOST_BYTES = 5_000_000  # of pictures in a page
HEAT = (200, 80, 26)  # colour of heat maps, from transparent to opaque
SERIES = {  # name in the page -> what it is called, and what it means
    "correction": (
        "correction",
        "Joint minus own denoised mean, root mean square over the elements of a trajectory.",
    ),
    "flow": (
        "pull of factors",
        "What a factor moves the means of its ends by, its term of Eq. 6; root mean square.",
    ),
    "strength": (
        "effective strength",
        "How far one end's joint mean follows the other's own mean, in prior spreads.",
    ),
    "variance": (
        "variance left",
        "Posterior variance given all states over that given the own one; mean of features.",
    ),
    "disagreement": (
        "disagreement",
        "Root mean square spread of the views of shared pixels, before joint denoising.",
    ),
    "capped": ("capped", "Share of directions where a posterior was wider than its prior (Eq. 8)."),
    "residual": ("residual", "Of Eq. 6 with the surrogate covariances, relative to the correction."),
    "mahalanobis": (
        "typicality",
        "Squared distance from the prior per number: 1 for contents drawn from it.",
    ),
}
KINDS = ("own mean", "joint mean", "correction", "variance left")


def recording_data(
    recording: Recording, graph_places: Mapping[Name, int], model: JointModel | None
) -> dict[str, Any]:
    """Curves over steps, and pictures at the steps that were kept, for the page's script."""
    records = recording.records
    series = {}
    for key, make in _MAKERS.items():
        lines = [line for line in make(recording, graph_places) if any(map(math.isfinite, line["values"]))]
        if lines and (key != "capped" or any(v > 0 for line in lines for v in line["values"])):
            title, about = SERIES[key]
            series[key] = {"title": title, "about": about, "lines": lines}
    return {
        "steps": [{"step": r.step, "log_snr": math.log(r.snr) if r.snr > 0 else None} for r in records],
        "num_steps": recording.num_steps,
        "series": series,
        "pictures": _pictures(recording, model),
    }


def steps(recording: Recording) -> str:
    """The slider, the places for pictures, and those for curves."""
    last = max(len(recording.records) - 1, 0)
    shown = max(
        range(len(recording.records)), key=lambda k: sum(recording.records[k].correction.values()), default=0
    )
    capped = [r.capped for r in recording.records if r.capped > 0]
    acted = (
        f"Eq. 8 acted at {len(capped)} of {len(recording.records)} steps, on up to {max(capped):.1%} of directions."
        if capped
        else "No posterior was wider than its prior: Eq. 8 never had to act."
    )
    note = f" Kept: {recording.note}." if recording.note else ""
    return (
        f'<div class="panel"><div class="controls">{slider("step", "step", 0, last, 1, shown)}</div>'
        f'<p class="note">{acted}{note}</p><div id="step-pictures"></div></div>'
        '<figure class="panel below"><fieldset class="switch" id="step-switch"><legend>quantity</legend></fieldset>'
        '<div id="step-curves" class="chart"></div><ul id="step-key" class="key"></ul>'
        '<figcaption id="step-about"></figcaption></figure>'
    )


# ---- curves ---------------------------------------------------------------------------------------------


def _line(name: str, values: Sequence[float] | np.ndarray, edge: int | None = None) -> dict[str, Any]:
    return {"name": name, "values": [float(f"{float(v):.4g}") for v in values], "edge": edge}


def _correction(recording: Recording, places: Mapping[Name, int]) -> list[dict[str, Any]]:
    return [_line(str(name), values) for name, values in recording.correction.items()]


def _flow(recording: Recording, places: Mapping[Name, int]) -> list[dict[str, Any]]:
    ends: dict[Name, list[np.ndarray]] = {}
    for (factor, _), values in recording.flow.items():
        ends.setdefault(factor, []).append(values)
    return [
        _line(edge_name(factor), np.sqrt(np.mean(np.square(both), axis=0)), places.get(factor))
        for factor, both in ends.items()
    ]


def _strength(recording: Recording, places: Mapping[Name, int]) -> list[dict[str, Any]]:
    if not recording.flow:  # no potential couples anything
        return []
    try:
        table = recording.coupling()
    except PgmSyncError:  # graphs without a surrogate have no strength by noise level
        return []
    by_factor: dict[Name, dict[float, float]] = {}
    for row in table:
        by_snr = by_factor.setdefault(row.factor, {})
        by_snr[row.snr] = max(by_snr.get(row.snr, -math.inf), row.strength)
    return [
        _line(edge_name(factor), [by_snr.get(r.snr, math.nan) for r in recording.records], places.get(factor))
        for factor, by_snr in by_factor.items()
    ]


def _variance(recording: Recording, places: Mapping[Name, int]) -> list[dict[str, Any]]:
    if not recording.flow:
        return []
    try:
        found = recording.variances()
    except PgmSyncError:
        return []
    return [_line(str(name), found["joint"][name] / own) for name, own in found["own"].items()]


def _disagreement(recording: Recording, places: Mapping[Name, int]) -> list[dict[str, Any]]:
    lines = [
        _line(f"{name or 'shared pixels'}, own means", v) for name, v in recording.disagreement_own.items()
    ]
    lines += [
        _line(f"{name or 'shared pixels'}, joint", v) for name, v in recording.disagreement_joint.items()
    ]
    return lines


def _capped(recording: Recording, places: Mapping[Name, int]) -> list[dict[str, Any]]:
    by_node = [_line(str(name), values) for name, values in recording.capped_by_node.items()]
    return [_line("all", recording.capped), *by_node]


def _residual(recording: Recording, places: Mapping[Name, int]) -> list[dict[str, Any]]:
    return [_line("Eq. 6", recording.residual)]


def _mahalanobis(recording: Recording, places: Mapping[Name, int]) -> list[dict[str, Any]]:
    return [_line("own means", recording.mahalanobis_own), _line("joint means", recording.mahalanobis_joint)]


_MAKERS: dict[str, Callable[[Recording, Mapping[Name, int]], list[dict[str, Any]]]] = {
    "correction": _correction,
    "flow": _flow,
    "strength": _strength,
    "variance": _variance,
    "disagreement": _disagreement,
    "mahalanobis": _mahalanobis,
    "residual": _residual,
    "capped": _capped,
}


# ---- pictures -------------------------------------------------------------------------------------------


def _pictures(recording: Recording, model: JointModel | None) -> dict[str, Any] | None:
    """By step and node, of the first joint sample kept: own and joint mean, correction, variance left, disagreement."""
    names = _shown(recording)
    kept = [k for k, r in enumerate(recording.records) if "joint" in r.images and "denoised" in r.images]
    if not names or not kept:
        return None
    scale = _scale(recording, names)
    frames: list[dict[str, Any]] = []
    spent, stride = 0, 1
    first = _frame(recording, kept[0], names, scale, model)
    size = sum(len(uri) for node in first["nodes"].values() for uri in node.values() if isinstance(uri, str))
    stride = max(1, math.ceil(len(kept) * size / MOST_BYTES))
    for k in kept[::stride]:
        frame = first if k == kept[0] else _frame(recording, k, names, scale, model)
        spent += sum(
            len(uri) for node in frame["nodes"].values() for uri in node.values() if isinstance(uri, str)
        )
        if frames and spent > 1.5 * MOST_BYTES:
            break
        frames.append(frame)
    total = len([n for n in recording.graph.variables if _shape(recording, n) is not None])
    more = total - len(names)
    return {"frames": frames, "names": [str(n) for n in names], "scale": scale, "more": max(more, 0)}


def _shape(recording: Recording, name: Name) -> tuple[int, int, int] | None:
    shape = recording.graph.shape(name)
    if len(shape) == 1 and shape[0] > 1:
        return 1, 1, shape[0]  # a vector as a strip
    return image_shape(shape)


def _shown(recording: Recording) -> list[Name]:
    graph, kept = recording.graph, recording.kept()
    both = set(kept.get("joint", [])) & set(kept.get("denoised", []))
    order = [*graph.hidden, *graph.trajectories]
    return [name for name in order if name in both and _shape(recording, name) is not None][:MOST_SHOWN]


def _scale(recording: Recording, names: Sequence[Name]) -> float:
    """Contents of pictures lie in [-1, 1]; others are shown between plus and minus their 99.5th percentile."""
    values = np.concatenate([
        np.abs(r.images["joint"][n]).ravel() for r in recording.records if "joint" in r.images for n in names
        if n in r.images["joint"]
    ])  # fmt: skip
    top = float(np.percentile(values, 99.5))
    return 1.0 if 0.5 <= top <= 1.3 else max(float(f"{top:.2g}"), 1e-6)


def _frame(
    recording: Recording, place: int, names: Sequence[Name], scale: float, model: JointModel | None
) -> dict[str, Any]:
    record = recording.records[place]
    heat = record.heat
    left = _variance_left(model, record.snr) if model is not None else {}
    nodes: dict[str, dict[str, Any]] = {}
    for name in names:
        shape = _shape(recording, name)
        assert shape is not None
        entry: dict[str, Any] = {}
        for key, kind in (("own", "denoised"), ("joint", "joint")):
            if name in record.images.get(kind, {}):
                entry[key] = _content(record.images[kind][name][0], shape, scale)
        for key, kind in (("correction", "correction"), ("disagreement", "disagreement")):
            if name in heat.get(kind, {}):
                entry[key], entry[f"{key}_most"] = _heat(heat[kind][name], shape)
        if name in left:
            entry["left"], entry["left_most"] = _heat(left[name].numpy(), shape, 1.0)
        nodes[str(name)] = entry
    return {"at": place, "nodes": nodes}


def _content(values: np.ndarray, shape: tuple[int, int, int], scale: float) -> str:
    image = torch.from_numpy(np.ascontiguousarray(values)).reshape(shape) / scale
    return _uri(png(picture(0.5 + 0.5 * image)))


def _heat(values: np.ndarray, shape: tuple[int, int, int], most: float | None = None) -> tuple[str, float]:
    """Channels together, from transparent for 0 to opaque for the largest, which is returned too."""
    flat = np.sqrt(np.mean(np.square(values.reshape(shape)), axis=0))
    top = float(flat.max()) if most is None else most
    alpha = np.round(255 * np.clip(flat / max(top, 1e-12), 0, 1)).astype(np.uint8)
    image = Image.new("RGBA", (shape[2], shape[1]), (*HEAT, 0))
    image.putalpha(Image.fromarray(alpha))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return _uri(buffer.getvalue()), float(f"{top:.3g}")


def _variance_left(model: JointModel, snr: float) -> dict[Name, Tensor]:
    """Per element, joint over own posterior variance of what the coupled features contribute (Eq. 5)."""
    if model.one_for_all:
        return {}
    joint = torch.cholesky_inverse(torch.linalg.cholesky(model.precision(snr)))
    found = {}
    for name, feature in model.features.items():
        here = model.slices[name]
        own = torch.linalg.inv(
            model.own[here, here] + snr * torch.eye(here.stop - here.start, dtype=torch.float64)
        )
        rows = feature.dense()
        both = [((rows.T @ c) * rows.T).sum(1) for c in (joint[here, here], own)]
        found[name] = (both[0] / both[1].clamp_min(1e-12)).clamp(0, 1)
    return found


def _uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()
