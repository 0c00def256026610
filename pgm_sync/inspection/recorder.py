"""A callback that records a run while it goes: `Recorder`, for the ``on_step`` of everything that samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import (
    ImproperGraphError,
    ParameterError,
    RecordingError,
    UnknownNameError,
    UnsupportedError,
    listed,
)
from ..graph.factor_graph import FactorGraph, Name
from ..levels import NoiseLevel
from ..score.carriers import find_carriers
from . import storage
from .forces import terms, with_hidden
from .recording import KINDS, MAPS, Recording, StepRecord
from .surrogate import Surrogate

WHAT = ("factors", "canvases")
MEBIBYTE = 2**20


class Images(NamedTuple):
    """Which contents a `Recorder` keeps.

    >>> Images(kinds=("joint",), samples=(0, 1)).steps
    10
    """

    kinds: Collection[str] = ("denoised", "joint", "correction", "disagreement")  # or "noisy", "next"
    samples: Collection[int] = (0,)  # of the joint samples
    trajectories: Collection[Name] | None = None  # and hidden canvases; None: all
    steps: int | Collection[int] = 10  # so many, evenly spread from first to last, or these


class Recorder:
    """Records a run: hand it to ``on_step`` of `sample`, `attach` or `synchronize`, or call it with their states.

    Statistics are kept of every step wanted, contents only as `images` says. `recording` has what came so far.

    Parameters
    ----------
    graph
        the graph that is sampled.
    what
        groups of statistics beside those of the trajectories: "factors" (flows and log potentials), "canvases".
    steps
        those to record: None for all, a number of them, evenly spread from first to last, or the steps themselves.
    images
        which contents to keep: None for none, a number of joint samples, or a dictionary of ``kinds``, ``samples``,
        ``trajectories`` and ``steps``, each optional. Kinds: "noisy", "denoised", "joint", "next", and the heat maps
        "correction" and "disagreement". By default "denoised", "joint" and the heat maps, of sample 0, of all
        trajectories and hidden canvases, at 10 steps.
    folder
        where to write every step as it is recorded, each file whole or not at all, so that `Recording.load` also reads
        a run that was killed.
    max_bytes
        of contents, in memory or on disk (64 MiB). Contents that would take more are kept of fewer steps, evenly
        spread, and ``recording.note`` says so.
    noise_correlation, variance
        c of Eq. 5' and the variance of contents of which no potential states a marginal, as the run has them.

    The flow of a factor f over its end i is ``C_i (eta_f - K_f m_joint)_i``, C_i the surrogate: what f moves the mean
    of i by. With independent noise and the surrogate the flows over all factors of a node add up to its correction
    (Eq. 6), and ``residual`` says how exactly. `log_potential_own` and `log_potential_joint` are log psi_f before and
    after; `mahalanobis_own` and `mahalanobis_joint` compare all means with the joint prior at once, 1 per number for
    contents drawn from it. Of several processes that share a run, all see the same states: record in one of them.

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> graph, own = ps.chain_graph(2, 1, ps.Correlation(0.8)), ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    >>> recorder = ps.Recorder(graph, steps=[0, 9])
    >>> result = ps.sample(graph, own, DDIMScheduler(clip_sample=False), 10, on_step=recorder, progress=False)
    >>> run = recorder.recording
    >>> run.step.tolist(), bool(run.residual.max() < 1e-5)  # the corrections are the flows over the factor, Eq. 6
    ([0, 9], True)

    Raises ParameterError, UnknownNameError on what it does not know; RecordingError where not even one step of
    contents fits the budget, the folder holds a recording, or a second run starts; SavedFileError for a folder and
    names that cannot be saved.

    >>> import pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> graph, denoiser = ps.chain_graph(2, (1,), ps.Correlation(0.8)), ps.GaussianDenoiser([0.0], [[1.0]])
    >>> recorder = ps.Recorder(graph, images=None)
    >>> for state in ps.sampling_steps(graph, denoiser, DDIMScheduler(clip_sample=False), 5):
    ...     recorder(state)
    >>> recorder.recording.step.tolist(), recorder.recording.complete
    ([0, 1, 2, 3, 4], True)
    """

    def __init__(
        self,
        graph: FactorGraph,
        what: Collection[str] = WHAT,
        steps: int | Collection[int] | None = None,
        images: int | Mapping[str, Any] | Images | None = None,
        folder: str | Path | None = None,
        max_bytes: int = 64 * MEBIBYTE,
        *,
        noise_correlation: float = 0.0,
        variance: float | None = None,
    ):
        unknown = [w for w in what if w not in WHAT]
        if isinstance(what, str) or unknown:
            raise ParameterError(f"what={what!r}: choose from {', '.join(map(repr, WHAT))}", what=what)
        if max_bytes < 0:
            raise ParameterError(f"max_bytes={max_bytes!r} is negative", max_bytes=max_bytes)
        self.what, self.max_bytes = tuple(what), max_bytes
        self.images = _as_images(images)
        self._wanted = steps
        self._carriers = find_carriers(graph)
        self._check_images()
        self.recording = Recording(graph, noise_correlation=noise_correlation, variance=variance)
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            storage.begin(self.folder, graph)
        self._steps: set[int] | None = None
        self._image_steps: set[int] = set()
        self._last = -1
        self._prepare(noise_correlation, variance)

    def _prepare(self, noise_correlation: float, variance: float | None) -> None:
        self._model: Surrogate | None = None
        self._prior: tuple[Tensor, Tensor] | None = None
        self._terms: list[Any] = []
        if "factors" not in self.what:
            return
        graph = self.recording.graph
        try:
            self._model = Surrogate(graph, noise_correlation, variance)
        except (UnsupportedError, ParameterError):  # a prior on the canvas itself, or no marginals: nothing per factor
            return
        self._terms = terms(self._model.reduction.graph)
        if self._terms and self._model.is_small:
            try:
                self._prior = self._model.prior_root()
            except ImproperGraphError:  # sampled all the same, where own evidence makes up for it
                self._prior = None

    def _check_images(self) -> None:
        known = list(self._carriers.views)
        for name in self.images.trajectories or ():
            if name not in known:
                raise UnknownNameError(
                    f"images: the graph has no trajectory or canvas {name!r}; it has {listed(known)}", name=name
                )

    # ---- the callback -----------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(self, state: Any) -> None:
        """Record one state, a `SamplingState` or a `LockstepState`."""
        if state.step <= self._last:
            raise RecordingError(
                f"step {state.step} after step {self._last}: a Recorder records one run; make another for the next",
                step=state.step,
            )
        if self._steps is None:
            self._begin(state)
        assert self._steps is not None
        self._last = state.step
        if state.step not in self._steps and self._wanted is not None:
            return
        record = self._record(state)
        self.recording.records.append(record)
        if self.folder is not None:
            storage.write_step(self.folder, self.recording, record)

    def _begin(self, state: Any) -> None:
        first = next(iter(state.joint.values()))
        num_steps, num_samples = getattr(state, "num_steps", 0), len(first)
        self.recording.num_steps, self.recording.num_samples = num_steps, num_samples
        recorded = None if self._wanted is None else spread(self._wanted, num_steps, "steps")
        self._steps = set() if recorded is None else set(recorded)
        samples = self.images.samples
        outside = [k for k in samples if not 0 <= k < num_samples]
        if outside:
            raise ParameterError(
                f"images: sample {outside[0]} is none of the {num_samples} joint samples, counted from 0",
                samples=tuple(samples),
            )
        self.recording.samples = tuple(samples) if self.images.kinds else ()
        if self.images.kinds:
            self._image_steps = self._within_budget(self._chosen(recorded, num_steps))
        if self.folder is not None:
            storage.write_header(self.folder, self.recording)

    def _chosen(self, recorded: list[int] | None, num_steps: int) -> list[int]:
        """The steps of contents, among those recorded. Raises ParameterError."""
        wanted, what = self.images.steps, "images: steps"
        if recorded is None:
            return spread(wanted, num_steps, what)
        if isinstance(wanted, int):
            return [recorded[k] for k in spread(wanted, len(recorded), what)]
        for step in spread(wanted, num_steps, what):
            if step not in recorded:
                raise ParameterError(f"{what}: step {step} is not recorded; steps={self._wanted!r} leaves it out")
        return spread(wanted, num_steps, what)

    def _within_budget(self, steps: list[int]) -> set[int]:
        """As many of the steps as fit `max_bytes`, evenly spread. Raises RecordingError."""
        one = 4 * sum(self._numbers(kind, name) for kind in self.images.kinds for name in self._names(kind))
        most = self.max_bytes // one if one else len(steps)
        if not steps or most >= len(steps):
            return set(steps)
        if most < 1:
            raise RecordingError(
                f"contents of one step take {one / MEBIBYTE:.1f} MiB, more than max_bytes={self.max_bytes} "
                f"({self.max_bytes / MEBIBYTE:.1f} MiB); keep fewer kinds, samples or trajectories, or allow more",
                needed=one,
                max_bytes=self.max_bytes,
            )
        kept = [steps[k] for k in spread(most, len(steps), "steps")]
        self.recording.note = (
            f"contents of {len(kept)} steps in place of {len(steps)}, to keep to {self.max_bytes} bytes"
        )
        return set(kept)

    def _numbers(self, kind: str, name: Name | None) -> int:
        if kind == "disagreement":
            return math.prod(self._canvases[name].shape)
        size = math.prod(self.recording.graph.shape(name))
        return size if kind == "correction" else size * len(self.images.samples)

    def _names(self, kind: str) -> list[Any]:
        """What is kept of a kind, as far as it exists."""
        graph, wanted = self.recording.graph, self.images.trajectories
        if kind == "disagreement":
            return [n for n in self._canvases if wanted is None or n is None or n in wanted]
        names = [n for n in self._carriers.views if wanted is None or n in wanted]
        return [n for n in names if n in graph.trajectories] if kind == "correction" else names

    # ---- one step -----------------------------------------------------------------------------------------

    def _record(self, state: Any) -> StepRecord:
        common, levels = _levels(state)
        alpha, sigma = common
        correction, own_size = {}, {}
        for name, own in state.denoised.items():
            correction[name] = _size(state.joint[name] - own)
            own_size[name] = _size(own)
        keeps = state.step in self._image_steps
        spreads = {kind: self._disagreement(getattr(state, kind)) for kind in ("denoised", "joint")}
        heat: dict[str, dict[Name | None, np.ndarray]] = {}
        if keeps and "correction" in self.images.kinds:
            heat["correction"] = {
                name: _array((state.joint[name] - state.denoised[name]).square().mean(0).sqrt())
                for name in self._names("correction")
            }
        if keeps and "disagreement" in self.images.kinds and spreads["denoised"]:
            heat["disagreement"] = {
                name: _array(spreads["denoised"][name][0]) for name in self._names("disagreement")
            }
        images = {
            kind: dict(self._contents(state, kind)) for kind in KINDS if keeps and kind in self.images.kinds
        }
        return StepRecord(
            step=int(state.step),
            timestep=float(getattr(state, "timestep", math.nan)),
            alpha=alpha,
            sigma=sigma,
            snr=(alpha / sigma) ** 2,
            capped=float(state.capped),
            capped_by_node=dict(state.guard.by_node),
            seconds=dict(getattr(state, "seconds", {})),
            evaluations=int(getattr(state, "evaluations", 0)),
            correction=correction,
            own_size=own_size,
            **self._factors(state, levels or (alpha / sigma) ** 2),
            disagreement_own={name: value for name, (_, value) in spreads["denoised"].items()},
            disagreement_joint={name: value for name, (_, value) in spreads["joint"].items()},
            levels=levels_by_name(state) if levels else {},
            images={kind: kept for kind, kept in images.items() if kept},
            heat=heat,
        )

    def _factors(self, state: Any, snr: Any) -> dict[str, Any]:
        out: dict[str, Any] = {
            "flow": {}, "log_potential_own": {}, "log_potential_joint": {},
            "mahalanobis_own": math.nan, "mahalanobis_joint": math.nan, "residual": math.nan,
        }  # fmt: skip
        model = self._model
        if model is None or not self._terms:
            return out
        graph, features = model.reduction.graph, model.reduction.features
        contents = {
            kind: {name: f.apply(getattr(state, kind)[name]) for name, f in features.items()}
            for kind in ("denoised", "joint")
        }
        own, joint = (with_hidden(graph, contents[kind]) for kind in ("denoised", "joint"))
        total: dict[Name, Tensor] = {}
        like = next(iter(own.values()))
        precisions = {name: model.precision(name, snr) for name in features}
        covariances = {n: (1 / p if p.ndim == 1 else torch.linalg.inv(p)).to(like) for n, p in precisions.items()}
        for term in self._terms:
            pulls, after = term.evaluate(joint)
            _, before = term.evaluate(own)
            out["log_potential_own"][term.factor] = before.mean().item()
            out["log_potential_joint"][term.factor] = after.mean().item()
            flow = out["flow"][term.factor] = {}
            for name, pull in pulls.items():
                if name not in features:
                    continue
                moved = _times(covariances[name], pull)
                total[name] = total[name] + moved if name in total else moved
                flow[name] = _size(moved, math.prod(model.graph.shape(name)))
        if model.noise is None and not self._carriers.shared:
            out["residual"] = _relative(total, contents)
        for kind in ("denoised", "joint") if self._prior is not None else ():
            assert self._prior is not None
            mean, root = (part.to(like) for part in self._prior)
            flat = torch.cat([contents[kind][name].flatten(1) for name in model.names], 1) - mean
            white = torch.linalg.solve_triangular(root, flat.mT, upper=False)
            out[f"mahalanobis_{'own' if kind == 'denoised' else 'joint'}"] = white.square().mean().item()
        return out

    @property
    def _canvases(self) -> dict[Name | None, Any]:
        """Carriers that several trajectories show; at most one of them has no name of its own."""
        shown = {v.carrier for v in self._carriers.views.values() if v.index is not None}
        return {self._carriers.carriers[k].name: self._carriers.carriers[k] for k in sorted(shown)}

    def _disagreement(self, contents: Mapping[Name, Tensor]) -> dict[Name | None, tuple[Tensor, float]]:
        """Per canvas, the spread of its views: a map, RMS over samples, and its RMS over elements seen twice."""
        if "canvases" not in self.what:
            return {}
        sums: dict[int, list[Tensor]] = {}
        flat = {name: x.flatten(1) for name, x in contents.items()}
        for k, name, index in self._views(contents):
            x = flat[name]
            size = math.prod(self._carriers.carriers[k].shape)
            count, total, _ = sums.setdefault(k, [x.new_zeros(size), x.new_zeros(len(x), size), x])
            count.index_add_(0, index, torch.ones_like(x[0]))
            total.index_add_(1, index, x)
        means = {k: total / count.clamp_min(1) for k, (count, total, _) in sums.items()}
        squares = {k: torch.zeros_like(mean) for k, mean in means.items()}
        for k, name, index in self._views(contents):
            squares[k].index_add_(1, index, (flat[name] - means[k][:, index]).square())
        out: dict[Name | None, tuple[Tensor, float]] = {}
        for k, square in squares.items():
            count, carrier = sums[k][0], self._carriers.carriers[k]
            variance = (square / count.clamp_min(1)).mean(0)
            several = count > 1
            value = variance[several].mean().sqrt().item() if bool(several.any()) else 0.0
            out[carrier.name] = variance.sqrt().reshape(carrier.shape), value
        return out

    def _views(self, contents: Mapping[Name, Tensor]) -> Iterator[tuple[int, Name, Tensor]]:
        for name, x in contents.items():
            view = self._carriers.views.get(name)
            if view is not None and view.index is not None and name in self.recording.graph.trajectories:
                yield view.carrier, name, view.index.to(x.device)

    def _contents(self, state: Any, kind: str) -> Iterator[tuple[Name, np.ndarray]]:
        values = getattr(state, kind, None)
        if values is None:
            return
        chosen = list(self.images.samples)
        trajectories = {n: values[n][chosen] for n in self.recording.graph.trajectories if n in values}
        every = trajectories
        if len(trajectories) == len(self.recording.graph.trajectories):
            every = self._carriers.complete(trajectories)
        for name in self._names(kind):
            if name in every:
                yield name, _array(every[name])


def spread(steps: int | Collection[int], total: int, what: str) -> list[int]:
    """So many of `total` steps, evenly from the first to the last; or the steps themselves.

    >>> spread(3, 10, "steps"), spread([2, 0], 10, "steps")
    ([0, 4, 9], [0, 2])

    Raises ParameterError.
    """
    if not isinstance(steps, int):
        chosen = sorted(set(steps))
        if any(not isinstance(s, int) or s < 0 for s in chosen):
            raise ParameterError(f"{what}: {steps!r} are not steps, counted from 0", steps=steps)
        if total and chosen and chosen[-1] >= total:
            raise ParameterError(f"{what}: there is no step {chosen[-1]}, the run has {total}, from 0", steps=steps)
        return chosen
    if steps < 1:
        raise ParameterError(f"{what}={steps} must be at least 1, or the steps themselves", steps=steps)
    if total < 1:
        raise ParameterError(
            f"{what}={steps}: a run in lockstep does not say how many steps it takes; give the steps themselves",
            steps=steps,
        )
    if steps >= total:
        return list(range(total))
    return sorted({round(k * (total - 1) / max(steps - 1, 1)) for k in range(steps)}) if steps > 1 else [total - 1]


def levels_by_name(state: Any) -> dict[Name, tuple[float, float]]:
    """alpha and sigma per trajectory."""
    if isinstance(getattr(state, "levels", None), Mapping):
        return {name: (float(level.alpha), float(level.sigma)) for name, level in state.levels.items()}
    return dict.fromkeys(state.denoised, (float(state.level.alpha), float(state.level.sigma)))


def _levels(state: Any) -> tuple[tuple[float, float], dict[Name, float]]:
    """alpha and sigma of all, and the ratio of each trajectory where they differ; then the first is that of all."""
    given: Mapping[Name, NoiseLevel] | None = getattr(state, "levels", None)
    if not isinstance(given, Mapping):
        return (float(state.level.alpha), float(state.level.sigma)), {}
    every = levels_by_name(state)
    first, *others = every.values()
    if all(other == first for other in others):
        return first, {}
    return first, {name: (alpha / sigma) ** 2 for name, (alpha, sigma) in every.items()}


def _as_images(images: Any) -> Images:
    if images is None:
        return Images(kinds=())
    if isinstance(images, bool | int):
        count = int(images)
        if count < 1:
            raise ParameterError(f"images={images!r} must be at least one sample, or None", images=images)
        images = Images(samples=range(count))
    elif isinstance(images, Mapping):
        unknown = [key for key in images if key not in Images._fields]
        if unknown:
            raise ParameterError(
                f"images has {unknown[0]!r}; it takes {', '.join(Images._fields)}", option=unknown[0]
            )
        images = Images(**images)
    if not isinstance(images, Images):
        raise ParameterError(
            f"images={images!r} is neither None, a number of samples, nor a dictionary of {', '.join(Images._fields)}",
            images=images,
        )
    unknown = [kind for kind in images.kinds if kind not in (*KINDS, *MAPS)]
    if isinstance(images.kinds, str) or unknown:
        raise ParameterError(
            f"images: kinds={images.kinds!r}; choose from {', '.join(map(repr, (*KINDS, *MAPS)))}", kinds=images.kinds
        )
    return images


def _size(values: Tensor, elements: int | None = None) -> float:
    """RMS over samples and elements; `elements` of a content where `values` are features of it."""
    square = values.flatten(1).square().sum(1).mean()
    return (square / (elements or math.prod(values.shape[1:]))).sqrt().item()


def _times(covariance: Tensor, pull: Tensor) -> Tensor:
    """``C_i`` of a pull ``(batch, *features)``."""
    flat = pull.flatten(1)
    moved = flat * covariance if covariance.ndim == 1 else flat @ covariance
    return moved.reshape(pull.shape)


def _relative(total: Mapping[Name, Tensor], contents: Mapping[str, Mapping[Name, Tensor]]) -> float:
    """``|m_joint - m - C h| / |m_joint|`` over all features."""
    size = left = 0.0
    for name, pulled in total.items():
        joint, own = contents["joint"][name], contents["denoised"][name]
        size += float(joint.square().sum())
        left += float((joint - own - pulled).square().sum())
    return math.sqrt(left / size) if size > 0 else math.nan


def _array(values: Tensor) -> np.ndarray:
    return values.detach().to("cpu", torch.float32).numpy().copy()
