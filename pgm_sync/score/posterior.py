"""Where the posterior covariances C_i come from (Eq. 4): one small object per answer, all of them savable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..denoisers import Denoiser, JacobianDenoiser
from ..denoisers.jacobian import MODES, STEP
from ..errors import ParameterError, ShapeError, UnknownNameError
from ..graph.factor_graph import FactorGraph, Name
from ..levels import NoiseLevel
from ..potentials.base import finite_number
from .schedule import Schedule, Setting, fitted


class PosteriorCovariance(Setting):
    """How `JointDenoiser` finds C_i, the covariance of a trajectory's clean features given its own noisy state (Eq. 4).

    Shorthands stand for its subclasses, and a fit can save them:

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(2, 1, ps.Correlation(0.8))
    >>> ps.JointDenoiser(graph, posterior_covariance="denoiser").posterior_covariance
    FromDenoiser()
    """

    asks: ClassVar[bool] = False  # whether denoisers are asked for a covariance, at the cost that they state

    @property
    def prior_variance(self) -> float | None:
        """Variance of contents of which no potential states one; None: not known."""
        return None

    @property
    def guarded(self) -> bool:
        """Whether C_i can be wider than the prior, so that Eq. 8 needs a guard."""
        return self.asks

    def denoiser(self, denoiser: Denoiser) -> Denoiser:
        """What is asked in the place of `denoiser`."""
        return denoiser

    def check(self, sizes: Mapping[Name, int]) -> None:
        """Pass where this fits trajectories coupled in `sizes` ``{name: features}``. Raises elsewhere."""

    def scale(self, name: Name, level: NoiseLevel) -> Tensor | None:
        """Factors on the variance, ``()`` or ``(r,)``, of features of the trajectory `name` at a `level`; None: 1."""
        return None


@dataclass(frozen=True, eq=False, repr=False)
class Surrogate(PosteriorCovariance):
    """``(Sigma_ii^{-1} + snr I)^{-1}``, as if contents were Gaussian (Eq. 4): one for all samples, no network is asked.

    `variance` > 0, in squared content units, stands for Sigma_ii where no potential states one (Attraction).

    >>> import torch, pgm_sync as ps
    >>> graph = ps.chain_graph(2, shape=(1,), potential=ps.Attraction(1.0))
    >>> joint = ps.JointDenoiser(graph, posterior_covariance=ps.Surrogate(variance=1.0))
    >>> noisy = {0: torch.tensor([[2.0]]), 1: torch.tensor([[0.0]])}
    >>> own = {0: torch.tensor([[1.0]]), 1: torch.tensor([[0.0]])}  # C_i = 1 / (1 + snr) = 1/2
    >>> joint(noisy, own, ps.NoiseLevel(alpha=1.0, sigma=1.0)).mean[1].item()  # [[3, -1], [-1, 3]] m = [2, 0]
    0.25

    Raises ParameterError.
    """

    variance: float | None = None

    def __post_init__(self) -> None:
        if self.variance is not None:
            finite_number(self.variance, "Surrogate: variance", low=0)

    @property
    def prior_variance(self) -> float | None:
        return self.variance


@dataclass(frozen=True, eq=False, repr=False)
class FromDenoiser(PosteriorCovariance):
    """What each denoiser itself says, sample by sample: exact for Gaussian, mixture and empirical ones (Eq. 4).

    A trajectory whose denoiser knows that its content is 1 is not moved by the other, and moves it:

    >>> import torch, pgm_sync as ps
    >>> joint = ps.JointDenoiser(ps.chain_graph(2, (1,), ps.Correlation(0.8)), posterior_covariance=ps.FromDenoiser())
    >>> denoisers = {0: ps.GaussianDenoiser([1.0], [[1e-9]]), 1: ps.GaussianDenoiser([0.0], [[1.0]])}
    >>> noisy, level = {0: torch.zeros(1, 1), 1: torch.zeros(1, 1)}, ps.NoiseLevel(alpha=0.01, sigma=1.0)
    >>> own, covariances = joint.ask(denoisers, noisy, level)
    >>> {name: round(mean.item(), 3) for name, mean in joint(noisy, own, level, covariances).mean.items()}
    {0: 1.0, 1: 0.8}
    """

    asks: ClassVar[bool] = True


@dataclass(frozen=True, eq=False, repr=False)
class Jacobian(PosteriorCovariance):
    """Derivatives of every denoiser's mean in features (Eq. 4, second-order Tweedie); see `JacobianDenoiser`.

    Passes per step and trajectory with r coupled features, on top of the one for the mean, by `mode`: r backward
    ("reverse"), r forward with tangents ("forward"), or 2 r plain ones ("differences", in steps of `step` times sigma);
    `batch` of them at once.

    >>> import torch, pgm_sync as ps
    >>> joint = ps.JointDenoiser(ps.chain_graph(2, (1,), ps.Correlation(0.8)), posterior_covariance=ps.Jacobian())
    >>> denoiser = ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    >>> noisy, level = {0: torch.ones(1, 1), 1: torch.ones(1, 1)}, ps.NoiseLevel(alpha=0.6, sigma=0.8)
    >>> _, covariances = joint.ask({0: denoiser, 1: denoiser}, noisy, level)
    >>> round(covariances[0].item(), 4)  # 1 / (1 + snr) = 0.8**2
    0.64

    Raises ParameterError.
    """

    mode: str = "reverse"
    step: float = STEP
    batch: int | None = None
    asks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ParameterError(f"mode={self.mode!r} is not one of {', '.join(MODES)}", mode=self.mode)

    def denoiser(self, denoiser: Denoiser) -> Denoiser:
        return JacobianDenoiser(denoiser, self.mode, self.step, self.batch)


@dataclass(frozen=True, eq=False, repr=False)
class Annealed(PosteriorCovariance):
    """No C_i: the exact score of ``prod_i p_i,t(x_t^i) g_t(x_t) / prod_i g_i,t(x_t^i)`` in the place of Eq. 6.

    The potentials are diffused by themselves, as Gaussians. That is not the diffused joint, but a density at every
    level, the last of them Eq. 1, which `Langevin` steps can therefore sample exactly (Du et al., 2023).

    Of trajectories N(0, 1) it is the score of a Gaussian with covariance ``alpha^2 Sigma + sigma^2 I``:

    >>> import torch, pgm_sync as ps
    >>> graph, level = ps.chain_graph(2, (1,), ps.Correlation(0.8)), ps.NoiseLevel(alpha=0.6, sigma=0.8)
    >>> noisy = {0: torch.tensor([[1.0]]), 1: torch.tensor([[0.0]])}
    >>> own = {name: level.alpha * x for name, x in noisy.items()}
    >>> joint = ps.JointDenoiser(graph, posterior_covariance="annealed")(noisy, own, level)
    >>> ps.score_from_denoised(joint.mean[0], noisy[0], level)
    tensor([[-1.0904]])
    >>> -torch.linalg.inv(torch.tensor([[1.0, 0.36 * 0.8], [0.36 * 0.8, 1.0]]))[0, 0]
    tensor(-1.0904)
    """


@dataclass(frozen=True, eq=False, repr=False)
class Scaled(PosteriorCovariance):
    """`base` with its variances multiplied by factors that depend on the noise level.

    Parameters
    ----------
    base
        another posterior covariance, or a shorthand for one.
    scales
        a positive number; ``(L,)``, one per level of `log_snr`; ``(L, r)``, one per level and coupled feature; or a
        dictionary of those by trajectory, in which trajectories that are not named keep factor 1. Features are scaled
        on both sides, ``S^{1/2} C S^{1/2}``.
    log_snr
        ``(L,)`` increasing natural logarithms of the signal-to-noise ratio. Between them the logarithm of a factor is
        linear in log snr, outside it is constant.

    ``ps.fit(..., method="score", scales=...)`` learns them. Raises ParameterError, ShapeError, and
    UnknownNameError for trajectories that no potential couples.

    >>> import pgm_sync as ps
    >>> half = ps.Scaled("surrogate", [1.0, 0.25], log_snr=[-1.0, 1.0])
    >>> round(half.scale("any", ps.NoiseLevel(alpha=0.5**0.5, sigma=0.5**0.5)).item(), 6)  # at log snr 0
    0.5
    """

    base: PosteriorCovariance
    scales: Any
    log_snr: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", as_posterior_covariance(self.base))
        if isinstance(self.base, Scaled):
            raise ParameterError("Scaled of a Scaled posterior covariance; multiply their scales")
        if isinstance(self.base, Annealed):
            raise ParameterError("an annealed product has no posterior covariance to scale")
        scales = self.scales
        if isinstance(scales, Mapping):
            scales = tuple(scales.items())
        elif not _is_table(scales):
            scales = ((None, scales),)  # of every trajectory
        schedules = []
        for name, values in scales:
            values = values if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float64)
            if self.log_snr is None and values.ndim:
                raise ShapeError(f"Scaled: scales of shape {tuple(values.shape)} need log_snr, their noise levels")
            if not bool((values > 0).all()) or not bool(torch.isfinite(values).all()):
                raise ParameterError(f"Scaled: the scales of {name!r} are not all positive and finite", name=name)
            schedules.append((name, values))
        object.__setattr__(self, "scales", tuple(schedules))
        if self.log_snr is not None:
            object.__setattr__(self, "log_snr", torch.as_tensor(self.log_snr, dtype=torch.float64))
            for name, values in schedules:
                Schedule(self.log_snr, values).check(f"Scaled: scales of {name!r}")

    @property
    def asks(self) -> bool:  # type: ignore[override]
        return self.base.asks

    @property
    def prior_variance(self) -> float | None:
        return self.base.prior_variance

    @property
    def guarded(self) -> bool:
        return True

    def denoiser(self, denoiser: Denoiser) -> Denoiser:
        return self.base.denoiser(denoiser)

    def check(self, sizes: Mapping[Name, int]) -> None:
        for name, values in self.scales:
            if name is not None and name not in sizes:
                raise UnknownNameError(f"Scaled: {name!r} is no trajectory that a potential couples", name=name)
            if values.ndim < 2:
                continue
            for node, size in sizes.items():
                if (name is None or name == node) and values.shape[1] != size:
                    raise ShapeError(
                        f"Scaled: scales of shape {tuple(values.shape)} for {node!r}, "
                        f"which is coupled in {size} features",
                        name=node,
                    )

    def scale(self, name: Name, level: NoiseLevel) -> Tensor | None:
        for node, values in self.scales:
            if node is None or node == name:
                if values.ndim == 0:
                    return values
                assert self.log_snr is not None  # __post_init__ wants it for tables
                return Schedule(self.log_snr, values.log()).at(level).exp()
        return None


def as_posterior_covariance(value: Any, graph: FactorGraph | None = None) -> PosteriorCovariance:
    """An object from its shorthand: "surrogate", "denoiser", "jacobian", a variance, or "fitted" for what `graph` says.

    Raises ParameterError, SavedFileError.
    """
    if isinstance(value, PosteriorCovariance):
        return value
    if value == "fitted" and graph is not None:
        return PosteriorCovariance.from_dict(fitted(graph, "posterior_covariance"))
    if isinstance(value, str) and value in SHORTHANDS:
        return SHORTHANDS[value]()
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return Surrogate(float(value))
    raise ParameterError(
        f"posterior_covariance={value!r} is not {', '.join(map(repr, SHORTHANDS))}, 'fitted', a positive variance, or "
        "one of Surrogate, FromDenoiser, Jacobian, Annealed, Scaled",
        posterior_covariance=value,
    )


SHORTHANDS: dict[str, type[PosteriorCovariance]] = {
    "surrogate": Surrogate,
    "denoiser": FromDenoiser,
    "jacobian": Jacobian,
    "annealed": Annealed,
}


def _is_table(value: Any) -> bool:
    """Whether `value` is already ((name, scales), ...), as it is saved."""
    rows = isinstance(value, tuple) and len(value) > 0
    return rows and all(isinstance(v, tuple) and len(v) == 2 and isinstance(v[1], Tensor) for v in value)

