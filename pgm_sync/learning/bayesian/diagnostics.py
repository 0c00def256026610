"""Whether draws can be trusted, as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from .draws import Draws
from .extra import arviz

MOST_R_HAT = 1.01  # Vehtari et al. 2021
LEAST_ESS = 100  # per chain; the same
MOST_K = 0.7  # Vehtari et al. 2024
EQUAL = 0.95  # effective share of the weights from which on their tail is of no concern
LEAST = 0.1  # effective share below which unweighted draws of a guide say little of the posterior
MOST_DRIFT = 0.5  # nats by which the ELBO may still move, over the last quarter of the steps


@dataclass(frozen=True)
class Diagnostics:
    """Of all coordinates the worst, and which fail; nan where a number does not apply to the method.

    R-hat (rank-normalised, split) and effective sample sizes are those of ArviZ. `pareto_k` is the shape of the tail
    of the weights posterior / guide: above 0.7 the guide misses parts of the posterior, unless the weights are nearly
    equal (`efficiency`, their effective share, above 0.95), for k describes the shape of their tail and not its size.
    An efficiency below 0.1 fails too, as the draws are not weighted. `drift`: by how much the mean of the ELBO moved
    between the last two eighths of the steps, beyond two standard errors.

    >>> found = Diagnostics(r_hat=1.3, ess_bulk=40.0, draws=200, failures=["R-hat 1.3 above 1.01"])
    >>> print(found)
    r_hat 1.3, ess_bulk 40, divergences 0, draws 200; R-hat 1.3 above 1.01
    """

    r_hat: float = math.nan  # largest
    ess_bulk: float = math.nan  # smallest
    ess_tail: float = math.nan  # smallest
    divergences: int = 0  # of NUTS, all chains together
    draws: int = 0  # of all chains together
    pareto_k: float = math.nan
    efficiency: float = math.nan
    drift: float = math.nan
    failures: list[str] = field(default_factory=list)  # in words; empty: the draws can be trusted

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        numbers = [f"{k} {v:.4g}" for k, v in self.to_dict().items() if isinstance(v, int | float)]
        return ", ".join(numbers) + "; " + ("; ".join(self.failures) or "no failures")


def diagnose(draws: Draws, method: str) -> Diagnostics:
    """Of draws by "nuts" or "svi". Raises MissingPackageError."""
    return of_chains(draws) if method == "nuts" else of_guide(draws)


def of_chains(draws: Draws) -> Diagnostics:
    """R-hat, effective sample sizes, divergences."""
    chains, count = draws.log_density.shape
    r_hat, bulk, tail = convergence(draws.values)
    diverging = 0 if draws.diverging is None else int(draws.diverging.sum())
    failures = []
    if not r_hat <= MOST_R_HAT:
        failures.append(f"R-hat {r_hat:.3f} > {MOST_R_HAT}")
    for name, value in {"bulk": bulk, "tail": tail}.items():
        if not value >= LEAST_ESS * chains:
            failures.append(f"{name} effective sample size {value:.0f} < {LEAST_ESS * chains}")
    if diverging:
        failures.append(f"{diverging} divergent steps of {count}")
    return Diagnostics(r_hat, bulk, tail, diverging, chains * count, failures=failures)


def convergence(values: Mapping[str, Tensor]) -> tuple[float, float, float]:
    """Largest R-hat, smallest effective sample size of bulk and tails, of sites ``(chains, draws, ...)``."""
    az = arviz()
    data = az.convert_to_dataset({name: x.numpy() for name, x in values.items()})

    def worst(found: Any, largest: bool) -> float:
        every = np.concatenate([found[name].values.ravel() for name in values])
        return float(every.max() if largest else every.min())  # nan stays

    return (
        worst(az.rhat(data), True),
        worst(az.ess(data, method="bulk"), False),
        worst(az.ess(data, method="tail"), False),
    )


def of_guide(draws: Draws) -> Diagnostics:
    """Convergence of the ELBO, and the tail of the importance weights."""
    assert draws.log_guide is not None
    weights = (draws.log_density - draws.log_guide).flatten().numpy()
    k = float(arviz().psislw(weights)[1])
    shares = np.exp(weights - weights.max())
    efficiency = float(shares.sum() ** 2 / (shares**2).sum() / weights.size)
    before, last = np.array_split(np.asarray(draws.losses), 8)[-2:]
    error = math.sqrt(before.var() / len(before) + last.var() / len(last))
    drift = max(0.0, abs(before.mean() - last.mean()) - 2 * error)
    failures = []
    if not (k <= MOST_K or efficiency >= EQUAL):
        failures.append(f"Pareto k {k:.2f} > {MOST_K}: the normal guide does not fit the posterior")
    if not efficiency >= LEAST:
        failures.append(
            f"the weights of the guide's draws are worth {efficiency:.1%} of them (< {LEAST:.0%})"
        )
    if not drift <= MOST_DRIFT:
        failures.append(f"the ELBO still moves by {drift:.2g} nats")
    return Diagnostics(draws=weights.size, pareto_k=k, efficiency=efficiency, drift=drift, failures=failures)


ADVICE = {
    "nuts": "more warm-up (warmup=), more draws (draws=), smaller steps (target_accept=0.95)",
    "svi": "more steps (steps=), a smaller learning_rate=, or inference='nuts', which has no guide",
}
