"""Asking the denoisers again where the other trajectories say that the content lies.

Eq. 4 describes a denoiser's posterior by its mean and covariance at x_t. What the other trajectories multiply it with
is, to first order about the joint mean m*, ``exp(h' x)``, h = eta_c - K m*, with the precision K and eta_c of the
coupling. A posterior times ``exp(h' x)`` is the posterior at ``x_t + (sigma^2 / alpha) h`` and the same noise level,
exactly, for any denoiser. So: solve Eq. 6, shift, ask again, and solve Eq. 6 with what the tilt leaves,

    (blockdiag(C_i^{-1}) + K) m* = blockdiag(C_i^{-1}) m_i(h) - h + eta_c .

A fixed point has m_i(h_i) = m*_i, whatever C_i is. For Gaussian denoisers of the potentials' marginals nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ParameterError, UnsupportedError
from ..graph.factor_graph import Name
from ..levels import NoiseLevel
from ..maps import LinearMap
from .joint import JointDenoised, JointDenoiser
from .posterior import Annealed

Contents = Mapping[Name, Tensor]  # (n, *shape) each
Ask = Callable[[Contents], tuple[Contents, Contents]]  # states -> means, and covariances where the joint needs them


@dataclass(frozen=True)
class Tilt:
    """Eq. 6 about the joint mean: every denoiser is asked again at a shifted state, by ``(sigma^2 / alpha) h_i``.

    It pays where own posteriors have several modes, and their mean and covariance say little about the one that the
    other trajectories select. An answer is kept, sample by sample, where it brings the joint means and the denoisers'
    own, at the shifted states, closer to each other; elsewhere Eq. 6 stays as it was.

    Parameters
    ----------
    times
        further questions to every denoiser per step, each at the cost of the first.
    step
        in (0, 1], how much of the change of h is taken; less leaves more of the coupling to C_i.
    reach
        answers are also refused where a trajectory's state would move by more than so many standard deviations of its
        noise, in root mean square over its coupled features: there the denoiser has seen no data.

    Raises ParameterError.

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> sign = ps.MixtureDenoiser([0.5, 0.5], torch.tensor([[-1.0], [1.0]]), 0.01 * torch.ones(2, 1, 1))
    >>> graph = ps.chain_graph(2, (1,), ps.Correlation(0.9))
    >>> options = {"num_samples": 100, "posterior_covariance": "denoiser", "progress": False}
    >>> for tilt in (None, ps.Tilt()):  # share of samples whose signs agree
    ...     samples = ps.sample(graph, sign, DDIMScheduler(clip_sample=False), 8, tilt=tilt, **options).samples
    ...     print(int((samples[0] * samples[1] > 0).sum()), "%")
    90 %
    93 %
    """

    times: int = 1
    step: float = 1.0
    reach: float = math.inf

    def __post_init__(self) -> None:
        if not isinstance(self.times, int) or isinstance(self.times, bool) or self.times < 1:
            raise ParameterError(f"Tilt: times={self.times!r} must be a positive integer", times=self.times)
        if not 0 < self.step <= 1:
            raise ParameterError(f"Tilt: step={self.step!r} must lie in (0, 1]", step=self.step)
        if not self.reach > 0:
            raise ParameterError(f"Tilt: reach={self.reach!r} must be positive", reach=self.reach)

    def check(self, joint: JointDenoiser) -> None:
        """Raises UnsupportedError where trajectories have no posteriors of their own that a coupling multiplies."""
        if joint.carriers.shared:
            raise UnsupportedError(
                "tilt: trajectories on a canvas share one noisy state, which cannot be shifted for each of them by "
                "itself; use tilt=None"
            )
        if isinstance(joint.posterior_covariance, Annealed):
            raise UnsupportedError(
                "tilt: posterior_covariance='annealed' adds scores of noisy densities and has no posteriors to tilt; "
                "use tilt=None"
            )

    def __call__(
        self, joint: JointDenoiser, noisy: Contents, first: JointDenoised, level: NoiseLevel, own: Contents, ask: Ask
    ) -> JointDenoised:
        """`first`, which is ``joint(noisy, own, level, ...)``, with the denoisers asked again by `ask`."""
        features = {name: f for name, f in joint.reduction.features.items() if name in first.tilt}
        if not features or level.alpha == 0:  # nothing is coupled, or a state without content
            return first
        mean, implied = dict(first.mean), first.tilt
        tilt = {name: torch.zeros_like(h) for name, h in implied.items()}
        apart = _apart(features, mean, own)
        for _ in range(self.times):
            new = {name: h + self.step * (implied[name] - h) for name, h in tilt.items()}
            shift = {name: level.sigma**2 / level.alpha * h for name, h in new.items()}
            states = {name: noisy[name] + f.adjoint(shift[name]) for name, f in features.items()}
            own, covariances = ask({**noisy, **states})
            found = joint(noisy, own, level, covariances, new)
            now = _apart(features, found.mean, own)
            kept = now < apart
            for h in shift.values():
                kept &= h.flatten(1).square().mean(1).sqrt() <= self.reach * level.sigma
            mean = {name: _where(kept, found.mean[name], m) for name, m in mean.items()}
            implied = {name: _where(kept, found.tilt[name], h) for name, h in implied.items()}
            tilt = {name: _where(kept, new[name], h) for name, h in tilt.items()}
            apart = torch.where(kept, now, apart)
        return first._replace(mean=mean, carried=[mean[c.name] for c in joint.carriers.carriers])


def _apart(features: Mapping[Name, LinearMap], mean: Contents, own: Contents) -> Tensor:
    """Squared distance between joint and own means in the coupled features, ``(n,)``."""
    parts = [f.apply(mean[name] - own[name]).flatten(1).square().sum(1) for name, f in features.items()]
    return torch.stack(parts).sum(0)


def _where(kept: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(kept.reshape(-1, *[1] * (old.ndim - 1)), new, old)
