"""The noise of all trajectories: independent, shared on a canvas, or correlated like their contents (Eq. 5')."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..errors import ParameterError, UnsupportedError
from ..gaussian import Gaussian, cholesky
from ..graph.factor_graph import Name
from ..inference import infer
from ..levels import NoiseLevel
from .carriers import Carriers
from .reduction import Reduction, own_prior

LARGEST = 4096  # features of all trajectories together whose noise covariance is kept as a matrix
# Features of strongly overlapping windows are nearly linearly dependent. A small independent share of noise keeps
# the likelihood of Eq. 5' finite; it changes Cov(eps) by at most this much.
INDEPENDENT_SHARE = 1e-3


@dataclass(frozen=True, eq=False)
class FeatureNoise:
    """Covariance R of the features' noise over coupled trajectories in order (Eq. 5'); diagonal blocks are identities.

    >>> import torch
    >>> noise = FeatureNoise(["a", "b"], [1, 1], torch.tensor([[1.0, 0.6], [0.6, 1.0]]).double())
    >>> noise.excess  # R^{-1} - I
    tensor([[ 0.5625, -0.9375],
            [-0.9375,  0.5625]], dtype=torch.float64)

    Raises CovarianceError where R is not positive definite.
    """

    names: list[Name]  # coupled trajectories
    sizes: list[int]  # features of each
    covariance: Tensor  # (P, P) float64

    @cached_property
    def excess(self) -> Tensor:
        """``R^{-1} - I``, ``(P, P)`` float64."""
        eye = torch.eye(len(self.covariance), dtype=self.covariance.dtype)
        return torch.cholesky_inverse(cholesky(self.covariance, "the noise covariance")) - eye


def canvas_noise(reduction: Reduction, carriers: Carriers) -> FeatureNoise | None:
    """R_ij = F_i A_i A_j' F_j' where trajectories share a canvas; None where none do."""
    names = list(reduction.features)
    if not any(carriers.views[name].index is not None for name in names):
        return None
    sizes = [reduction.features[name].out_size for name in names]
    _check_size(sum(sizes))
    starts = np.cumsum([0, *(torch.Size(c.shape).numel() for c in carriers.carriers)])
    rows = []
    for name in names:
        view, dense = carriers.views[name], reduction.features[name].dense().numpy()
        index = np.arange(dense.shape[1]) if view.index is None else view.index.numpy()
        coo = sparse.coo_array(dense)
        columns = starts[view.carrier] + index[coo.col]
        rows.append(sparse.csr_array((coo.data, (coo.row, columns)), shape=(dense.shape[0], starts[-1])))
    stacked = sparse.vstack(rows)
    covariance = torch.from_numpy((stacked @ stacked.T).toarray())
    covariance = (1 - INDEPENDENT_SHARE) * covariance + INDEPENDENT_SHARE * torch.eye(
        len(covariance), dtype=torch.float64
    )
    return FeatureNoise(names, sizes, covariance)


def correlated_noise(reduction: Reduction, strength: float) -> FeatureNoise | None:
    """R_ij = c Sigma_ii^{-1/2} Sigma_ij Sigma_jj^{-1/2}, c = `strength` in [0, 1), 0 for independent noise (None).

    Raises ParameterError on a strength out of range or a trajectory without a stated marginal, UnsupportedError
    above 4096 features, ImproperGraphError where the potentials have no joint covariance.
    """
    if not 0 <= strength < 1:
        raise ParameterError(f"noise_correlation={strength} must lie in [0, 1)", noise_correlation=strength)
    names = list(reduction.features)
    if strength == 0 or not names:
        return None
    sizes = [reduction.features[name].out_size for name in names]
    _check_size(sum(sizes))
    prior = {name: own_gaussian(reduction, name) for name in reduction.graph.trajectories}
    joint = infer(reduction.graph, prior).joint(names).covariance
    roots = []
    for block in _blocks(joint, sizes):
        values, vectors = torch.linalg.eigh(block)
        roots.append((vectors * values.rsqrt()) @ vectors.T)
    whitening = torch.block_diag(*roots)
    correlation = whitening @ joint @ whitening
    eye = torch.eye(len(joint), dtype=joint.dtype)
    # On a loopy graph the joint's own blocks may differ from the stated marginals; R_ii = I in any case.
    mask = torch.block_diag(*(torch.ones(n, n, dtype=torch.bool) for n in sizes))
    return FeatureNoise(names, sizes, torch.where(mask, eye, strength * correlation))


def own_gaussian(reduction: Reduction, name: Name) -> Gaussian:
    own = own_prior(reduction.graph, name)
    if not own.known:
        raise ParameterError(
            f"noise_correlation needs the covariance of the contents, but no potential around {name!r} states one; "
            "use Correlation or JointGaussian potentials, or noise_correlation=0",
            name=name,
        )
    precision = torch.diag(own.precision) if own.precision.ndim == 1 else own.precision
    # Elements that no potential sees have no stated precision and no coupling: any value serves.
    unseen = (precision.diagonal() == 0).to(precision)
    zero = precision.new_zeros(())
    return Gaussian(precision + torch.diag(unseen), own.eta.to(precision), zero)


def likelihood(noise: FeatureNoise, level: NoiseLevel, seen: Tensor) -> Gaussian:
    """What correlated noise adds to independent noise in Eq. 5': precision ``snr (R^{-1} - I)``.

    `seen` is ``F x_t``, ``(*batch, P)``. alpha may be 0, where flow schedules start.
    """
    eta = seen @ (level.alpha / level.sigma**2 * noise.excess).to(seen)
    return Gaussian((level.snr * noise.excess).to(seen), eta, seen.new_zeros(()))


def correlate(
    noise: FeatureNoise, reduction: Reduction, white: Sequence[Tensor], carriers: Carriers
) -> list[Tensor]:
    """White noise ``(batch, *shape)`` per carrier with its features replaced by ones of covariance R.

    ``eps_i = e_i + F_i' (u_i - F_i e_i)`` with u = R^{1/2} F e, which stays white in itself because R_ii = I.
    """
    flat = []
    for name in noise.names:
        e = white[carriers.views[name].carrier]
        flat.append(reduction.features[name].apply(e).reshape(len(e), -1))
    features = torch.cat(flat, 1)
    root = cholesky(noise.covariance, "the noise covariance").to(features)
    change = (features @ root.mT - features).split(noise.sizes, 1)
    out = list(white)
    for name, delta in zip(noise.names, change, strict=True):
        carrier, feature = carriers.views[name].carrier, reduction.features[name]
        out[carrier] = out[carrier] + feature.adjoint(delta.reshape(len(delta), *feature.out_shape))
    return out


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise UnsupportedError(
            f"the noise of {size} coupled features together would be a matrix of {size} x {size}; couple fewer "
            f"features (at most {LARGEST} in all), for instance with DCT maps, or use noise_correlation=0",
            size=size,
        )


def _blocks(matrix: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    edges = np.cumsum([0, *sizes])
    return [matrix[a:b, a:b] for a, b in zip(edges, edges[1:], strict=False)]
