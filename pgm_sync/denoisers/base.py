"""The one question asked of every denoiser: what is the clean content, given this noisy state?"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import UnsupportedError
from ..levels import NoiseLevel
from ..maps import LinearMap


class DenoisedPosterior(NamedTuple):
    """Mean and covariance of x_0 given x_t under one trajectory's own denoiser (Eq. 4).

    Returned by `Denoiser.posterior`. A prior N(0, 1) and noise of variance 1 share the evidence equally:

    >>> import torch, pgm_sync as ps
    >>> prior = ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    >>> own = prior.posterior(torch.tensor([[2.0]]), ps.NoiseLevel(alpha=1.0, sigma=1.0))
    >>> own.mean.tolist(), own.covariance.tolist()
    ([[1.0]], [[[0.5]]])
    """

    mean: Tensor  # (*batch, *shape)
    covariance: Tensor  # (*batch, r, r), of r features of x_0, or of all its elements, flattened


class Denoiser(abc.ABC):
    """What one trajectory knows by itself: ``E[x_0 | x_t]``, and where it can, ``Cov[x_0 | x_t]`` (Eq. 4).

    A new one has a `shape` and `denoise` (or, for a network, `predict`: see `PredictingDenoiser`);
    `pgm_sync.testing.DenoiserTests` holds the laws that it must keep.

    The denoiser of contents that are N(0, I):

    >>> import torch, pgm_sync as ps
    >>> class Standard(ps.Denoiser):
    ...     shape = (2,)
    ...     def denoise(self, noisy, level, condition=None):
    ...         return noisy * level.alpha / (level.alpha**2 + level.sigma**2)
    >>> Standard().denoise(torch.tensor([1.0, 2.0]), ps.NoiseLevel(alpha=0.8, sigma=0.6))
    tensor([0.8000, 1.6000])
    """

    shape: tuple[int, ...]
    has_covariance: bool = False
    prediction_type: str = "sample"  # what `predict` returns

    @abc.abstractmethod
    def denoise(
        self,
        noisy: Tensor,  # (*batch, *shape)
        level: NoiseLevel,
        condition: Any = None,
    ) -> Tensor:  # (*batch, *shape)
        """The posterior mean of the clean content at a `level`, in the shape of `noisy` ``(*batch, *shape)``.

        `condition` is what the denoiser takes as one: a label, an embedding, or None.
        """

    def predict(
        self,
        noisy: Tensor,  # (*batch, *shape)
        level: NoiseLevel,
        condition: Any = None,
    ) -> Tensor:
        """The raw prediction of `noisy` at a `level`, of type `prediction_type`; a network's own output, unconverted.

        `condition` as of `denoise`.
        """
        return self.denoise(noisy, level, condition)

    def posterior(
        self,
        noisy: Tensor,  # (*batch, *shape)
        level: NoiseLevel,
        condition: Any = None,
        features: LinearMap | None = None,
    ) -> DenoisedPosterior:
        """Posterior mean and the covariance of ``features(x_0)`` (Eq. 4).

        Raises UnsupportedError where the denoiser knows only the mean.
        """
        raise UnsupportedError(
            f"{type(self).__name__} gives no posterior covariance; "
            "use posterior_covariance='surrogate', or a denoiser with has_covariance = True",
            denoiser=type(self).__name__,
        )
