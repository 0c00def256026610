"""The front door of learning: one function, a method by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..errors import ParameterError
from ..graph.factor_graph import FactorGraph
from .bayesian.fit import posterior_mean
from .moments import FeatureMoments, fit_moments
from .score_matching import fit_score
from .single_view import fit_single_view
from .tuning import fit_elbo

METHODS: dict[str, Callable[..., FactorGraph]] = {
    "moments": fit_moments,
    "single_view": fit_single_view,
    "score": fit_score,
    "bayesian": posterior_mean,
    "elbo": fit_elbo,
}


def fit(graph: FactorGraph, data: Any, method: str = "moments", **options: Any) -> FactorGraph:
    """A copy of `graph` whose `JointGaussian` potentials are learned.

    Parameters
    ----------
    data
        joint clean samples, ``{trajectory: (n, *shape)}``, row k of all of them from the same joint sample; on a canvas
        ``{"canvas": (n, *canvas)}`` is enough. For "single_view", views that were never seen together; for
        "elbo", None.
    method
        "moments" (Eq. 14): shrunk moments, then maximum likelihood under the graph; see `fit_moments`.
        "single_view" (Eq. 15): no joint samples, one stationary model of all views; see `fit_single_view`.
        "score" (Eq. 16): what makes joint denoising by frozen denoisers best; see `fit_score`.
        "bayesian" (Eq. 17): the posterior mean, with credible intervals; see `fit_bayesian`, which returns the draws.
        "elbo" (Eq. 19): no data; coupling strengths or canvas weights by denoiser likelihood; see `fit_elbo`.
    options
        of the method, by name.

    Potentials other than `JointGaussian` stay as they are (but for "elbo"). `Fit.of` reads the record of the fit
    from the result; it is saved with the graph.

    Raises UnknownNameError, ShapeError, BatchError, NotFiniteError on the data, ParameterError on a method, an option
    it does not take, or a graph without JointGaussian factors, CovarianceError where the moments are singular (shrink
    more), ConvergenceError, DiagnosticsError where draws cannot be trusted.

    Two scalars whose correlation is 0.8, from 2,000 samples of both:

    >>> import torch, pgm_sync as ps
    >>> generator = torch.Generator().manual_seed(2)
    >>> left, noise = torch.randn(2, 2000, 1, generator=generator)
    >>> right = 0.8 * left + 0.6 * noise
    >>> fitted = ps.fit(ps.chain_graph(2, shape=(1,)), {0: left, 1: right})
    >>> ps.correlations(fitted)
    factor  ends   mode  rho     95 % interval     nats
    (0, 1)  0 - 1  0     +0.797  [+0.780, +0.812]  0.5040

    """
    if method not in METHODS:
        raise ParameterError(f"method={method!r} is not one of {', '.join(METHODS)}", method=method)
    chosen = METHODS[method]
    taken = list(inspect.signature(chosen).parameters)[2:]
    for option in options:
        if option not in taken:
            also = [name for name, other in METHODS.items() if option in inspect.signature(other).parameters]
            raise ParameterError(
                f"method={method!r} takes no option {option!r} (it takes {', '.join(taken)})"
                + (f"; method={also[0]!r} does" if also else ""),
                option=option,
            )
    if isinstance(data, FeatureMoments) and method != "moments":
        raise ParameterError(
            f"method={method!r} needs samples; moments gathered in batches are for 'moments'"
        )
    return chosen(graph, data, **options)
