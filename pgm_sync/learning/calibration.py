"""What depends on the noise level, learned by joint denoising (Eq. 16): posterior-covariance scales and canvas weights.

Mini-batches go through the joint denoiser itself; what the denoisers say does not depend on the parameters, and is
computed once.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..denoisers import Denoiser
from ..errors import ParameterError, SavedFileError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..graph.serialization import to_data, write_atomically
from ..levels import NoiseLevel
from ..score import CanvasWeights, JointDenoiser, PosteriorCovariance, Scaled
from ..score.posterior import as_posterior_covariance
from ..score.schedule import log_snr_of
from ..score.weights import window_profile
from ..spec import tensor_to_json
from .denoised import Denoised, carried_contents, denoise_all
from .problem import split
from .record import fingerprint
from .scale_search import search_scales

SCALES = ("level", "node", "feature")
WEIGHTS = ("profile", "views", "sites")


class Calibration(NamedTuple):
    """Learned settings, and how the losses went; losses are relative to the denoisers alone, averaged over levels."""

    posterior_covariance: PosteriorCovariance  # `base`, scaled by level
    canvas_weights: CanvasWeights | None  # by level, where asked for
    noise_correlation: float  # as it was given
    losses: list[float]  # on the training samples, per epoch; the first before any step
    heldout: list[float]  # likewise on held-out ones, where there are any
    epoch: int  # the one that was kept
    heldout_errors: Tensor  # (n,) of the kept one, sample by sample, averaged over levels
    unscaled: float  # the loss with all scales one and the graph's own weights, on held-out samples if there are any

    def details(self) -> dict[str, Any]:
        """For the record of a fit, where "fitted" finds them."""
        found: dict[str, Any] = {
            "noise_correlation": self.noise_correlation,
            "calibration": {
                "losses": self.losses, "heldout": self.heldout, "epoch": self.epoch, "unscaled": self.unscaled,
            },
        }
        if isinstance(self.posterior_covariance, Scaled):
            found["posterior_covariance"] = self.posterior_covariance.to_dict()
        if self.canvas_weights is not None:
            found["canvas_weights"] = self.canvas_weights.to_dict()
        return found


def calibrate(
    graph: FactorGraph,
    data: Mapping[Name, Any],
    *,
    denoisers: Mapping[Name, Denoiser] | Denoiser,
    levels: Sequence[NoiseLevel],
    scales: str | None = "level",
    base: str | float | PosteriorCovariance = "surrogate",
    canvas_weights: str | None = None,
    noise_correlation: float = 0.0,
    epochs: int = 30,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    patience: int = 5,
    heldout: float = 0.2,
    groups: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    cache: str | Path | None = None,
    progress: bool = False,
) -> Calibration:
    """Learn scales and weights by noise level for a graph whose potentials stay.

    Parameters
    ----------
    scales
        factors on the posterior covariance `base` at every level: one for all ("level"), one per trajectory ("node"),
        one per coupled feature ("feature"), or none (None).
    canvas_weights
        at every level: how sharply weights fall towards the border of a window ("profile"), one logit per view
        ("views"), one per element of each view ("sites"), or as they are (None).
    epochs, batch_size, learning_rate, patience
        of Adam, which starts at the best scale that trajectories share at each level (found by a search on the training
        samples; one where that does not help held-out ones). Stopped when the held-out loss has not fallen for
        `patience` epochs, and the best epoch is kept.
    checkpoint
        file that is written after every epoch, and resumed from if it is there: the result is the same to the bit.
    cache
        folder for what the denoisers say, instead of memory. A second run with the same data, levels and seed finds
        it; delete it when a denoiser has changed.
    noise_correlation, heldout, groups, progress
        as the graph will be sampled with; as for `fit_moments`; whether to show a progress bar.

    Every random number comes from `seed`. Raises ParameterError, UnsupportedError, SavedFileError (a checkpoint of
    another run), and as `fit`.

    Denoisers that are exact need no other scale than 1:

    >>> import torch, pgm_sync as ps
    >>> generator = torch.Generator().manual_seed(0)
    >>> left, noise = torch.randn(2, 400, 1, generator=generator)
    >>> data, denoiser = {0: left, 1: 0.8 * left + 0.6 * noise}, ps.GaussianDenoiser([0.0], [[1.0]])
    >>> graph = ps.chain_graph(2, (1,), ps.Correlation(0.8))
    >>> found = calibrate(graph, data, denoisers=denoiser, levels=[ps.NoiseLevel(0.6, 0.8)], epochs=2)
    >>> found.heldout[found.epoch] < 1.0  # better than the denoisers alone
    True
    """
    _check_choice("scales", scales, SCALES)
    _check_choice("canvas_weights", canvas_weights, WEIGHTS)
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("patience", patience)):
        if not isinstance(value, int) or value < 1:
            raise ParameterError(f"{name}={value!r} is not a positive integer")
    if len(levels) < 1:
        raise ParameterError("calibration needs at least one noise level")
    kind = as_posterior_covariance(base, graph)
    joint = JointDenoiser(graph, kind, noise_correlation)
    parameters = _Parameters(joint, kind, sorted(levels, key=lambda v: float(v.snr)), scales, canvas_weights)
    clean = carried_contents(graph, data, joint.carriers)
    origin = fingerprint(dict(enumerate(clean)))
    cached = denoise_all(
        joint, clean, denoisers, parameters.levels, seed, key=origin, folder=cache, progress=progress
    )
    train, test = split(len(clean[0]), heldout, groups, seed)
    joint = JointDenoiser(graph, parameters.settings(parameters.start)[0], noise_correlation)
    objective = _Objective(joint, cached, clean, train)
    content, tensors = to_data(graph)
    options = [scales, kind.to_dict(), canvas_weights, noise_correlation, batch_size, learning_rate, heldout, seed,
               origin, [fingerprint(c.denoised) for c in cached], content["nodes"],
               {k: tensor_to_json(t) for k, t in tensors.items()}, train.tolist()]  # fmt: skip
    key = hashlib.sha256(json.dumps(options).encode()).hexdigest()
    state = _descend(
        objective, parameters, train, test, key,
        epochs, batch_size, learning_rate, patience, seed, checkpoint, progress,
    )  # fmt: skip
    covariance, weights = parameters.settings(state.best)
    with torch.no_grad():
        errors = objective.errors(covariance, weights, test if len(test) else train)
    return Calibration(
        covariance, weights, float(noise_correlation), state.losses, state.heldout, state.best_epoch, errors,
        state.unscaled,
    )  # fmt: skip


class _Parameters:
    """Logarithms of scales and logits of weights, as leaves, and the settings that they stand for."""

    def __init__(
        self,
        joint: JointDenoiser,
        base: PosteriorCovariance,
        levels: list[NoiseLevel],
        scales: str | None,
        weights: str | None,
    ):
        self.base, self.scales, self.weights, self.levels = base, scales, weights, levels
        self.log_snr = log_snr_of(levels)
        sizes = {name: feature.out_size for name, feature in joint.reduction.features.items()}
        if scales is not None and (not sizes or joint.on_canvas):
            raise UnsupportedError(
                "scales of the posterior covariance are for trajectories that potentials couple; "
                "on a canvas with a prior (Eq. 11) there is none to scale: use scales=None"
            )
        self.names: list[Name] = [] if scales is None else [None] if scales == "level" else list(sizes)
        count = len(levels)
        self.start = [
            torch.zeros((count, sizes[n]) if scales == "feature" else count, dtype=torch.float64) for n in self.names
        ]
        views = {name: view for name, view in joint.carriers.views.items() if view.weight is not None}
        if weights is not None and not views:
            raise UnsupportedError("canvas weights are for trajectories on a canvas, and none of these is")
        self.views = list(views) if weights is not None else []
        self.profiles = {name: window_profile(joint.graph.shape(name)) for name in self.views}
        if weights == "profile":
            self.start.append(torch.zeros(count, dtype=torch.float64))
        elif weights is not None:
            sites = [torch.Size(joint.graph.shape(name)).numel() for name in self.views]
            self.start += [
                torch.zeros((count, size) if weights == "sites" else count, dtype=torch.float64) for size in sites
            ]

    def settings(self, values: Sequence[Tensor]) -> tuple[PosteriorCovariance, CanvasWeights | None]:
        """Gradients flow to `values`."""
        covariance: PosteriorCovariance = self.base
        if self.names:
            scales = zip(self.names, values, strict=False)
            covariance = Scaled(self.base, tuple((n, v.exp()) for n, v in scales), self.log_snr)
        rest = values[len(self.names) :]
        if not self.views:
            return covariance, None
        if self.weights == "profile":
            logits = {name: -rest[0][:, None] * profile for name, profile in self.profiles.items()}
        else:
            logits = dict(zip(self.views, rest, strict=True))
        return covariance, CanvasWeights(logits, self.log_snr)


class _Objective:
    """Squared error of joint denoising, at every level relative to what the denoisers reach alone."""

    def __init__(self, joint: JointDenoiser, cached: list[Denoised], clean: list[Tensor], train: Tensor):
        self.joint, self.cached, self.clean = joint, cached, clean
        self.alone = [
            _squares(joint.carriers.gather(part.rows(train).denoised), clean, train).mean() for part in cached
        ]

    def errors(self, covariance: PosteriorCovariance, weights: CanvasWeights | None, rows: Tensor) -> Tensor:
        """``(n,)`` for the samples `rows`, averaged over levels."""
        joint = self.joint.with_settings(covariance, weights)
        total = torch.zeros((), dtype=torch.float64)
        for k in range(len(self.cached)):
            total = total + self._at(joint, k, rows)
        return total / len(self.cached)

    def level_losses(self, k: int, covariance: PosteriorCovariance, rows: Tensor, chunk: int) -> Tensor:
        """Of the samples `rows` at level k, with the graph's own weights, ``(n,)``."""
        joint = self.joint.with_settings(covariance, None)
        with torch.no_grad():
            return torch.cat([self._at(joint, k, some) for some in rows.split(chunk)])

    def _at(self, joint: JointDenoiser, k: int, rows: Tensor) -> Tensor:
        part = self.cached[k]
        _, noisy, denoised, covariances = part.rows(rows)
        result = joint(noisy, denoised, part.level, covariances)
        return _squares(result.carried, self.clean, rows) / self.alone[k]


def _squares(carried: Sequence[Tensor], clean: Sequence[Tensor], rows: Tensor) -> Tensor:
    return torch.stack([
        (z - x[rows]).flatten(1).double().square().sum(1) for z, x in zip(carried, clean, strict=True)
    ]).sum(0)  # fmt: skip


class _State(NamedTuple):
    values: list[Tensor]
    best: list[Tensor]
    best_epoch: int
    losses: list[float]
    heldout: list[float]
    unscaled: float


def _descend(
    objective: _Objective, parameters: _Parameters, train: Tensor, test: Tensor, key: str,
    epochs: int, batch_size: int, learning_rate: float, patience: int, seed: int,
    checkpoint: str | Path | None, progress: bool,
) -> _State:  # fmt: skip
    """Adam over shuffled mini-batches; the shuffle of an epoch depends on the seed and its number alone."""

    def score(values: Sequence[Tensor], rows: Tensor) -> float:
        with torch.no_grad():
            settings = parameters.settings(values)
            parts = [objective.errors(*settings, some) for some in rows.split(chunk)]
            return torch.cat(parts).mean().item()

    chunk = max(batch_size, 256)
    resumed = checkpoint is not None and Path(checkpoint).exists()
    unscaled = score(parameters.start, test if len(test) else train)
    start = parameters.start if resumed else _searched(objective, parameters, train, test, chunk)
    values = [value.clone().requires_grad_() for value in start]
    optimiser = torch.optim.Adam(values, lr=learning_rate)
    losses = [score(values, train)]
    held = [score(values, test)] if len(test) else []
    best, best_epoch = [v.detach().clone() for v in values], 0
    if checkpoint is not None and resumed:
        saved = _load(checkpoint, key)
        optimiser.load_state_dict(saved["optimiser"])
        with torch.no_grad():
            for value, old in zip(values, saved["values"], strict=True):
                value.copy_(old)
        losses, held, best, best_epoch = (saved[k] for k in ("losses", "heldout", "best", "best_epoch"))
    first = len(losses)
    for epoch in tqdm(range(first, epochs + 1), desc="calibrate", disable=not progress):
        if len(losses) - 1 - best_epoch >= patience:
            break
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = train[torch.randperm(len(train), generator=generator)]
        for rows in order.split(batch_size):
            optimiser.zero_grad()
            loss = objective.errors(*parameters.settings(values), rows).mean()
            loss.backward()
            optimiser.step()
        losses.append(score(values, train))
        if len(test):
            held.append(score(values, test))
        watched = held or losses
        if watched[-1] < watched[best_epoch]:
            best, best_epoch = [v.detach().clone() for v in values], epoch
        if checkpoint is not None:
            _save(checkpoint, {
                "key": key, "values": [v.detach() for v in values], "optimiser": optimiser.state_dict(),
                "losses": losses, "heldout": held, "best": best, "best_epoch": best_epoch,
            })  # fmt: skip
    return _State(values, best, best_epoch, losses, held, unscaled)


def _searched(
    objective: _Objective, parameters: _Parameters, train: Tensor, test: Tensor, chunk: int
) -> list[Tensor]:
    """Where to start: at every level the best scale that all trajectories share, and the graph's own weights."""
    if not parameters.names:
        return parameters.start

    def losses(k: int, log_scale: float, rows: Tensor) -> Tensor:
        return objective.level_losses(k, Scaled(parameters.base, math.exp(log_scale)), rows, chunk)

    shared = search_scales(len(parameters.levels), losses, train, test)
    scales = parameters.start[: len(parameters.names)]
    return [
        *(shared.reshape(-1, *(1,) * (value.ndim - 1)).expand_as(value).clone() for value in scales),
        *parameters.start[len(scales) :],
    ]


def _save(path: str | Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def _load(path: str | Path, key: str) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True)
    except Exception as error:
        raise SavedFileError(f"{str(path)!r} is not a readable checkpoint: {error}", path=str(path)) from error
    if saved.get("key") != key:
        raise SavedFileError(
            f"{str(path)!r} is the checkpoint of another run: graph, data, denoisers or options differ; delete it, or "
            "give another file",
            path=str(path),
        )
    return saved


def _check_choice(name: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise ParameterError(f"{name}={value!r} is not None, {', '.join(map(repr, known))}")
