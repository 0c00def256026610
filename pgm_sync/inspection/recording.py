"""What happened while trajectories were sampled, as numbers, arrays and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import ParameterError, UnknownNameError, listed
from ..graph.factor_graph import FactorGraph, Name
from ..tables import frame
from .coupling import CouplingTable, at_level, pairs_of
from .surrogate import Snr, Surrogate

KINDS = ("noisy", "denoised", "joint", "next")  # of contents
MAPS = ("correction", "disagreement")  # of heat maps
TABLES = ("steps", "trajectories", "factors", "canvases", "coupling", "modes", "variances")


class StepRecord(NamedTuple):
    """What was recorded of one step; numbers are means over the joint samples, dictionaries are by name.

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> graph, own = ps.chain_graph(2, 1, ps.Correlation(0.8)), ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    >>> recorder = ps.Recorder(graph)
    >>> result = ps.sample(graph, own, DDIMScheduler(clip_sample=False), 10, on_step=recorder, progress=False)
    >>> last = recorder.recording.records[-1]
    >>> last.step, last.timestep, last.evaluations, list(last.flow)
    (9, 0.0, 10, [(0, 1)])
    """

    step: int  # counts from 0
    timestep: float  # of the scheduler
    alpha: float  # signal scale
    sigma: float  # noise scale
    snr: float  # ``alpha^2 / sigma^2``
    capped: float  # fraction of directions where Eq. 8 had to act
    capped_by_node: dict[Name, float]  # the same per trajectory, where it is kept node by node
    seconds: dict[str, float]  # of "denoiser", "engine" and "scheduler" so far
    evaluations: int  # of every denoiser so far
    correction: dict[Name, float]  # per trajectory: RMS over elements of m_joint - m_own
    own_size: dict[Name, float]  # per trajectory: RMS of m_own
    flow: dict[Name, dict[Name, float]]  # per factor and end: RMS of what it moves that end's mean by, see Recorder
    log_potential_own: dict[Name, float]  # per factor: log psi_f of the own means, nats
    log_potential_joint: dict[Name, float]  # per factor: log psi_f of the joint means
    mahalanobis_own: float  # of the own means under the joint prior, squared, per coupled number; nan if improper
    mahalanobis_joint: float  # of the joint means
    residual: float  # of Eq. 6 with the surrogate, relative to the joint means; nan where more than Eq. 6 acts
    disagreement_own: dict[Name | None, float]  # per canvas: RMS spread of its views over shared elements
    disagreement_joint: dict[Name | None, float]  # the same of the joint means
    levels: dict[Name, tuple[float, float]]  # alpha and sigma per trajectory, where they differ (lockstep)
    images: dict[str, dict[Name, np.ndarray]]  # kind -> name -> (samples kept, *shape), float32
    heat: dict[str, dict[Name | None, np.ndarray]]  # kind of map -> name -> (*shape), float32

    @property
    def ratios(self) -> Snr:
        """The signal-to-noise ratio of all trajectories, or of each where they differ."""
        return {name: (alpha / sigma) ** 2 for name, (alpha, sigma) in self.levels.items()} or self.snr


@dataclass
class Recording:
    """A recorded run.

    Made by `Recorder`, or read from its folder by `Recording.load`, also of a run that was killed. ``records`` has a
    `StepRecord` per recorded step. Arrays over steps: `step`, `timestep`, `alpha`, `sigma`, `snr`, `capped`,
    `mahalanobis_own`, ... ``(steps,)``; `correction`, `flow`, ... are dictionaries of such. `images` and `heat` give
    contents. `to_frame` gives tables, and `coupling` what the factors did at these noise levels.

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> graph, own = ps.chain_graph(2, 1, ps.Correlation(0.8)), ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    >>> recorder = ps.Recorder(graph)
    >>> result = ps.sample(graph, own, DDIMScheduler(clip_sample=False), 10, on_step=recorder, progress=False)
    >>> run = recorder.recording
    >>> run.complete, len(run), run.correction[0].shape
    (True, 10, (10,))
    >>> acts = [row.strength for row in run.coupling()]
    >>> round(acts[0], 2), round(acts[-1], 2)  # the correlation acts while there is noise
    (0.8, 0.0)
    """

    graph: FactorGraph  # that was sampled
    num_steps: int = 0  # that the run would take; 0 before it starts
    num_samples: int = 0  # joint ones
    noise_correlation: float = 0.0  # c of Eq. 5'
    variance: float | None = None  # of contents of which no potential states a marginal
    samples: tuple[int, ...] = ()  # joint samples whose contents are kept
    note: str = ""  # what was left out to keep to the budget of bytes
    records: list[StepRecord] = field(default_factory=list)
    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _coupling: dict[tuple[int, bool], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def load(cls, folder: str | Path) -> Recording:
        """Read what a `Recorder` with ``folder=`` wrote, as far as it came.

        Raises SavedFileError where the folder holds no recording, or a damaged one.
        """
        from .storage import load

        return load(folder)

    def save(self, folder: str | Path) -> None:
        """Write to an empty folder, as a `Recorder` would have. Raises RecordingError."""
        from .storage import save

        save(self, folder)

    # ---- numbers ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.records)

    @property
    def complete(self) -> bool:
        """Whether the run came to its last step."""
        return bool(self.records) and self.records[-1].step == self.num_steps - 1

    def array(self, what: str) -> np.ndarray:
        """A number of every recorded step, by its name in `StepRecord`, ``(steps,)``."""
        return np.array([getattr(record, what) for record in self.records])

    step = property(lambda self: self.array("step"), doc="Steps that were recorded.")
    timestep = property(lambda self: self.array("timestep"), doc="The scheduler's timesteps.")
    alpha = property(lambda self: self.array("alpha"), doc="Signal scale.")
    sigma = property(lambda self: self.array("sigma"), doc="Noise scale.")
    snr = property(lambda self: self.array("snr"), doc="``alpha**2 / sigma**2``.")
    capped = property(lambda self: self.array("capped"), doc="Fraction of directions where Eq. 8 had to act.")
    mahalanobis_own = property(lambda self: self.array("mahalanobis_own"), doc="Of the own means, per number.")
    mahalanobis_joint = property(lambda self: self.array("mahalanobis_joint"), doc="Of the joint means, per number.")
    residual = property(lambda self: self.array("residual"), doc="Of Eq. 6.")

    def by_name(self, what: str) -> dict[Any, np.ndarray]:
        """A dictionary of `StepRecord` as arrays over steps, nan where a step lacks an entry.

        "flow" has keys (factor, end).
        """
        rows = [getattr(record, what) for record in self.records]
        if what == "flow":
            rows = [{(f, end): v for f, ends in row.items() for end, v in ends.items()} for row in rows]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: np.array([row.get(name, math.nan) for row in rows], dtype=float) for name in names}

    correction = property(lambda self: self.by_name("correction"), doc="Per trajectory: RMS of m_joint - m_own.")
    flow = property(lambda self: self.by_name("flow"), doc="Per (factor, end): RMS of what it moves the end by.")
    capped_by_node = property(lambda self: self.by_name("capped_by_node"), doc="Per trajectory.")
    disagreement_own = property(lambda self: self.by_name("disagreement_own"), doc="Per canvas.")
    disagreement_joint = property(lambda self: self.by_name("disagreement_joint"), doc="Per canvas.")
    log_potential_own = property(lambda self: self.by_name("log_potential_own"), doc="Per factor, nats.")
    log_potential_joint = property(lambda self: self.by_name("log_potential_joint"), doc="Per factor, nats.")

    # ---- contents --------------------------------------------------------------------------------------

    def images(self, kind: str, name: Name) -> dict[int, np.ndarray]:
        """Contents ``(samples kept, *shape)`` by step; `kind` one of "noisy", "denoised", "joint", "next".

        `name` is a trajectory, or a hidden canvas. Raises ParameterError, UnknownNameError for what was not kept.
        """
        return self._kept("images", KINDS, kind, name)

    def heat(self, kind: str, name: Name | None) -> dict[int, np.ndarray]:
        """Heat maps ``(*shape)`` by step, RMS over the joint samples; `kind` is "correction" or "disagreement".

        "correction": of m_joint - m_own, `name` a trajectory; "disagreement": the spread of the own means of all views
        of an element of a canvas, 0 where only one shows it, `name` a canvas. Raises ParameterError, UnknownNameError.
        """
        return self._kept("heat", MAPS, kind, name)

    def _kept(self, where: str, kinds: Sequence[str], kind: str, name: Any) -> dict[int, np.ndarray]:
        if kind not in kinds:
            raise ParameterError(f"kind={kind!r} is none of {', '.join(kinds)}", kind=kind)
        found = {r.step: getattr(r, where)[kind] for r in self.records if kind in getattr(r, where)}
        if not any(name in kept for kept in found.values()):
            names = dict.fromkeys(n for kept in found.values() for n in kept)
            raise UnknownNameError(
                f"no {kind} contents of {name!r} were kept; there are some of {listed(names)}. Ask for them by "
                "Recorder(graph, images=...)",
                name=name,
            )
        return {step: kept[name] for step, kept in found.items() if name in kept}

    def kept(self, where: str = "images") -> dict[str, list[Name]]:
        """Which names were kept, by kind; `where` is "images" or "heat"."""
        out: dict[str, dict[Name, None]] = {}
        for record in self.records:
            for kind, names in getattr(record, where).items():
                out.setdefault(kind, {}).update(dict.fromkeys(names))
        return {kind: list(names) for kind, names in out.items()}

    # ---- functions of the noise level --------------------------------------------------------------------

    def _surrogate(self) -> tuple[Surrogate, Any, Any]:
        if self._model is None:
            model = Surrogate(self.graph, self.noise_correlation, self.variance)
            prior = model.posterior(0.0) if model.names else None
            self._model = model, prior, pairs_of(model, prior)
        return self._model

    def coupling(self, modes: bool = False) -> CouplingTable:
        """What every factor did at the noise level of every recorded step: see `inspection.coupling`.

        A function of the graph and the noise levels, computed when first asked for. In rows of a run in lockstep whose
        levels differ, snr is that of the record. With `modes`, one row per mode. Raises as `coupling`.
        """
        model, prior, pairs = self._surrogate()
        rows = []
        for k, record in enumerate(self.records if pairs else ()):
            if (k, modes) not in self._coupling:
                self._coupling[k, modes] = at_level(model, prior, record.ratios, record.snr, pairs, modes)
            rows += self._coupling[k, modes]
        return CouplingTable(rows)

    def variances(self) -> dict[str, dict[Name, np.ndarray]]:
        """Mean posterior variance of the coupled features of every trajectory, ``(steps,)``.

        "own": of C_i, given its own noisy state; "joint": given all of them (Eq. 5), both with the surrogate of Eq. 4.
        """
        model, _, _ = self._surrogate()
        out: dict[str, dict[Name, list[float]]] = {"own": {}, "joint": {}}
        for record in self.records:
            joint = model.posterior(record.ratios)
            for name in model.names:
                own = model.precision(name, record.ratios)
                value = (1 / own).mean() if own.ndim == 1 else own.inverse().diagonal().mean()
                out["own"].setdefault(name, []).append(value.item())
                out["joint"].setdefault(name, []).append(joint.variance(name).mean().item())
        return {kind: {n: np.array(v) for n, v in names.items()} for kind, names in out.items()}

    # ---- tables ----------------------------------------------------------------------------------------

    def rows(self, what: str = "steps") -> list[dict[str, Any]]:
        """One dictionary per row of a table; see `to_frame`. Raises ParameterError, and as `coupling`."""
        if what not in TABLES:
            raise ParameterError(f"what={what!r} is none of {', '.join(TABLES)}", what=what)
        if what in ("coupling", "modes"):
            steps = [r.step for r in self.records]
            table = self.coupling(modes=what == "modes").to_dicts()
            each = len(table) // len(steps) if steps else 0
            return [{"step": steps[k // each], **row} for k, row in enumerate(table)]
        if what == "variances":
            found = self.variances()
            return [
                {"step": r.step, "snr": r.snr, "trajectory": n, "own": own[k], "joint": found["joint"][n][k]}
                for k, r in enumerate(self.records)
                for n, own in found["own"].items()
            ]
        make: Callable[[StepRecord], list[dict[str, Any]]] = {
            "steps": _step_rows, "trajectories": _trajectory_rows, "factors": _factor_rows, "canvases": _canvas_rows,
        }[what]  # fmt: skip
        return [row for record in self.records for row in make(record)]

    def to_frame(self, what: str = "steps") -> Any:
        """A pandas DataFrame.

        what: "steps", one row per recorded step; "trajectories", one per step and trajectory; "factors", one per step,
        factor and end; "canvases", one per step and canvas; "coupling", one per step and two ends of a factor, and
        "modes", one for each of its modes; "variances", one per step and coupled trajectory.

        Raises ParameterError, MissingPackageError without pandas, and as `coupling`.
        """
        return frame(self.rows(what))

    def __repr__(self) -> str:
        share = f"{len(self.records)} of {self.num_steps} steps"
        kept = ", ".join(f"{kind} of {len(names)}" for kind, names in self.kept().items())
        return f"Recording({self.graph!r}, {share}{f', {kept}' if kept else ''})"


def _step_rows(r: StepRecord) -> list[dict[str, Any]]:
    return [
        {
            "step": r.step, "timestep": r.timestep, "alpha": r.alpha, "sigma": r.sigma, "snr": r.snr,
            "correction": _rms(r.correction), "capped": r.capped, "mahalanobis_own": r.mahalanobis_own,
            "mahalanobis_joint": r.mahalanobis_joint, "residual": r.residual,
            "disagreement_own": _rms(r.disagreement_own), "disagreement_joint": _rms(r.disagreement_joint),
            "evaluations": r.evaluations, **{f"seconds_{part}": value for part, value in r.seconds.items()},
        }
    ]  # fmt: skip


def _trajectory_rows(r: StepRecord) -> list[dict[str, Any]]:
    rows = []
    for name, correction in r.correction.items():
        alpha, sigma = r.levels.get(name, (r.alpha, r.sigma))
        rows.append(
            {
                "step": r.step, "trajectory": name, "alpha": alpha, "sigma": sigma, "snr": (alpha / sigma) ** 2,
                "correction": correction, "own_size": r.own_size[name],
                "capped": r.capped_by_node.get(name, math.nan),
            }
        )  # fmt: skip
    return rows


def _factor_rows(r: StepRecord) -> list[dict[str, Any]]:
    return [
        {
            "step": r.step, "snr": r.snr, "factor": factor, "end": end, "flow": flow,
            "log_potential_own": r.log_potential_own.get(factor, math.nan),
            "log_potential_joint": r.log_potential_joint.get(factor, math.nan),
        }
        for factor, ends in r.flow.items()
        for end, flow in ends.items()
    ]  # fmt: skip


def _canvas_rows(r: StepRecord) -> list[dict[str, Any]]:
    return [
        {"step": r.step, "snr": r.snr, "canvas": name, "own": own, "joint": r.disagreement_joint[name]}
        for name, own in r.disagreement_own.items()
    ]


def _rms(values: Mapping[Any, float]) -> float:
    return math.sqrt(sum(v**2 for v in values.values()) / len(values)) if values else math.nan
