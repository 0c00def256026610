"""Eq. 1 in closed form where every p_i is a Gaussian mixture: the joint is a mixture too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..denoisers import MixtureDenoiser
from ..errors import CovarianceError, UnknownNameError, UnsupportedError
from ..gaussian import Gaussian, cholesky
from ..graph.factor_graph import FactorGraph, Name
from ..inference import dense_joint
from ..levels import NoiseLevel
from .noise import correlated_noise
from .reduction import reduce

LARGEST = 20_000  # components of the joint


def joint_mixture(graph: FactorGraph, denoisers: Mapping[Name, MixtureDenoiser]) -> MixtureDenoiser:
    """The joint model of Eq. 1 itself, over the contents of all trajectories, flattened and concatenated.

    A product of components ``prod_i N(m_i, C_i)`` times ``g / prod_i g_i`` is a Gaussian with precision
    ``blockdiag(C_i^{-1}) + K``, weighted by its integral. So the diffused joint, its exact joint denoiser and exact
    samples are known: what the approximations of Eq. 4 are measured against. The number of components is the product
    of the trajectories' numbers; meant for small problems. `denoisers` are ``{name: mixture}`` for the trajectories of
    `graph`.

    Two signs that should agree do, in most of the joint's mass:

    >>> import pgm_sync as ps
    >>> sign = MixtureDenoiser([0.5, 0.5], torch.tensor([[-1.0], [1.0]]), 0.1 * torch.ones(2, 1, 1))
    >>> joint = joint_mixture(ps.chain_graph(2, (1,), ps.Correlation(0.8)), {0: sign, 1: sign})
    >>> weights, means, _ = component_moments(joint)
    >>> agree = (means.sign().sum(1).abs() == 2)
    >>> round(weights[agree].sum().item(), 3)
    0.965

    Raises UnsupportedError on hidden variables, canvases or more than 20,000 components, UnknownNameError on a
    trajectory without a denoiser, CovarianceError on singular components or ones with which Eq. 1 is improper.
    """
    names = graph.trajectories
    if graph.hidden:
        raise UnsupportedError(f"hidden variable {graph.hidden[0]!r}: Eq. 1 as a mixture is for trajectories")
    for name in names:
        if name not in denoisers:
            raise UnknownNameError(f"no denoiser for {name!r}", name=name)
    parts = [component_moments(denoisers[name]) for name in names]
    count = math.prod(len(weights) for weights, _, _ in parts)
    if count > LARGEST:
        raise UnsupportedError(f"the joint would have {count} components, more than {LARGEST}", count=count)
    coupling = dense_joint(graph)
    size = sum(means.shape[1] for _, means, _ in parts)
    if len(coupling.eta) != size:
        raise UnsupportedError("trajectories that share a canvas: Eq. 1 as a mixture is for trajectories without one")
    own = [(w.log(), Gaussian.from_moments(m, c)) for w, m, c in parts]
    index = torch.tensor(list(itertools.product(*(range(len(w)) for w, _, _ in parts))))  # (K, N)
    log_weights, eta = torch.zeros(count, dtype=torch.float64), coupling.eta.expand(count, -1).clone()
    precision, log_scale = coupling.precision.expand(count, -1, -1).clone(), coupling.log_scale.clone()
    start = 0
    for k, (logs, gaussian) in enumerate(own):
        stop = start + gaussian.eta.shape[-1]
        precision[:, start:stop, start:stop] += gaussian.precision[index[:, k]]
        eta[:, start:stop] += gaussian.eta[index[:, k]]
        log_scale = log_scale + gaussian.log_scale[index[:, k]]
        log_weights += logs[index[:, k]]
        start = stop
    joint = Gaussian(precision, eta, log_scale)
    if int(torch.linalg.cholesky_ex(precision)[1].max()) > 0:
        raise CovarianceError("a component of a trajectory is so wide that g / prod g_i times it cannot be normalised")
    log_weights = torch.log_softmax(log_weights + joint.log_normalizer, 0)
    kept = log_weights > math.log(1e-14)  # weights must be positive, and those do not count
    return MixtureDenoiser(
        torch.softmax(log_weights[kept], 0), joint.mean[kept], joint.covariance[kept], shape=(size,)
    )


def noise_covariance(graph: FactorGraph, noise_correlation: float) -> Tensor:
    """R of Eq. 5' over all elements of all trajectories of `graph`, ``(D, D)``, as `sample` draws it; no canvases.

    ``eps_i = e_i + F_i' (u_i - F_i e_i)`` has ``R = I + F' (R_u - I) F``. `noise_correlation` is c, in [0, 1).

    >>> import pgm_sync as ps
    >>> noise_covariance(ps.chain_graph(2, (1,), ps.Correlation(0.8)), noise_correlation=0.5)
    tensor([[1.0000, 0.4000],
            [0.4000, 1.0000]], dtype=torch.float64)
    """
    sizes = [torch.Size(graph.shape(name)).numel() for name in graph.trajectories]
    eye = torch.eye(sum(sizes), dtype=torch.float64)
    reduction = reduce(graph)
    noise = correlated_noise(reduction, noise_correlation)
    if noise is None:
        return eye
    places = dict(zip(graph.trajectories, eye.split(sizes), strict=True))
    rows = torch.cat([reduction.features[name].dense().double() @ places[name] for name in noise.names])
    return eye + rows.T @ (noise.covariance - torch.eye(len(rows), dtype=torch.float64)) @ rows


def component_moments(denoiser: MixtureDenoiser) -> tuple[Tensor, Tensor, Tensor]:
    """Weights ``(K)``, means ``(K, D)`` and covariances ``(K, D, D)`` of a mixture, dense."""
    c = denoiser.components
    p = c.means.shape[1]
    eye = torch.eye(p, dtype=c.means.dtype)
    covariances = c.basis @ ((c.variances - c.residual[:, None]).unsqueeze(-1) * c.basis.mT)
    covariances = covariances + c.residual[:, None, None] * eye
    means = c.means
    if c.frame is not None:
        outside = torch.eye(len(c.frame), dtype=c.means.dtype) - c.frame @ c.frame.T
        covariances = c.frame @ covariances @ c.frame.T + c.outside * outside
        means = means @ c.frame.T
    return torch.softmax(c.log_weights, 0), c.center + means, covariances


class NoisyMixture:
    """A mixture seen through noise of covariance R: ``x_t = alpha x_0 + sigma eps``, Cov(eps) = R (Eq. 5').

    ``R^{-1/2} x_t`` carries white noise, so the white formulas apply to ``R^{-1/2} x_0``.

    Parameters: `mixture`, a `MixtureDenoiser` over D numbers; `noise`, R, ``(D, D)``. Raises CovarianceError where R is
    not positive definite.

    One component N(0, I) and R = 4 I: ``x_t / (1 + 4)`` is expected of x_0 at alpha = sigma = 1.

    >>> mixture = MixtureDenoiser([1.0], torch.zeros(1, 2).double(), torch.eye(2).double()[None])
    >>> noisy = NoisyMixture(mixture, 4 * torch.eye(2).double())
    >>> noisy.denoise(torch.tensor([[5.0, 10.0]]).double(), NoiseLevel(alpha=1.0, sigma=1.0))
    tensor([[1., 2.]], dtype=torch.float64)
    """

    def __init__(self, mixture: MixtureDenoiser, noise: Tensor):  # noise: (D, D)
        weights, means, covariances = component_moments(mixture)
        self.root = cholesky(noise, "the noise covariance")  # R = root root'
        inverse = torch.linalg.inv(self.root)
        self.inverse = inverse
        self.white = MixtureDenoiser(weights, means @ inverse.T, inverse @ covariances @ inverse.T)

    def denoise(self, noisy: Tensor, level: NoiseLevel) -> Tensor:  # (n, D)
        """Exact ``E[x_0 | x_t]`` of `noisy` ``(n, D)`` at a `level`."""
        return self.white.denoise(noisy @ self.inverse.T.to(noisy), level) @ self.root.T.to(noisy)

    def log_density(self, noisy: Tensor, level: NoiseLevel) -> Tensor:  # (n, D) -> (n)
        """Log density ``(n)`` of x_t, `noisy` ``(n, D)``, at a `level`."""
        weights, means, covariances = component_moments(self.white)
        eye = torch.eye(means.shape[1], dtype=means.dtype)
        spread = level.alpha**2 * covariances + level.sigma**2 * eye
        parts = Gaussian.from_moments(level.alpha * means, spread)
        white = (noisy @ self.inverse.T.to(noisy)).double()
        logs = torch.stack(
            [Gaussian(*(v[k] for v in parts)).log_density(white) for k in range(len(weights))], -1
        )
        return torch.logsumexp(logs + weights.log(), -1) - self.root.diagonal().log().sum()
