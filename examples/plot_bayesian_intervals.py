"""
How sure is a correlation?
==========================

Twelve samples do not tell a correlation well, and a fitted graph should know that. A Bayesian fit gives a distribution
over graphs: intervals for every edge, graphs drawn from it, and diagnostics that say whether to believe it.
"""

# %%
# Four numbers in a row with correlations .9, .5 and 0, seen a few times and often.

import torch

import pgm_sync as ps
from pgm_sync.learning import fit_bayesian

rhos = {(0, 1): 0.9, (1, 2): 0.5, (2, 3): 0.0}
generator = torch.Generator().manual_seed(4)


def draw(n: int) -> dict[int, torch.Tensor]:
    """Joint samples of the chain, ``(n, 1)`` each."""
    news = torch.randn(4, n, 1, generator=generator, dtype=torch.float64)
    data = {0: news[0]}
    for (before, after), rho in rhos.items():
        data[after] = rho * data[before] + (1 - rho**2) ** 0.5 * news[after]
    return data


data = {n: draw(n) for n in (12, 60, 300)}
unfitted = ps.chain_graph(4, shape=1)

# %%
# ``ps.fit(graph, data, method="bayesian")`` gives a fitted graph, the posterior mean, with credible intervals in its
# table. :py:obj:`fit_bayesian <pgm_sync.learning.fit_bayesian>` gives the draws as well. Twelve samples get the
# no-U-turn sampler; the posteriors of the larger sets are nearly normal, and variational inference does. (Standard
# deviations are held at the samples', and draws are few, so that this page is quick.) Both check themselves, and
# raise an error rather than return draws that cannot be trusted.

posteriors = {
    12: fit_bayesian(unfitted, data[12], scales="fixed", warmup=150, draws=300),
    60: fit_bayesian(unfitted, data[60], inference="svi", steps=300),
    300: fit_bayesian(unfitted, data[300], inference="svi", steps=300),
}
for n, posterior in posteriors.items():
    print(n, posterior.diagnostics)
print(ps.correlations(posteriors[12].graph))

# %%
# Everything goes to ArviZ: draws, prior, predictive checks.

import arviz as az

exported = posteriors[12].to_arviz(replicates=50)
print(az.summary(exported, var_names=["rho"], round_to=3).to_string())

# %%
# The posterior of every edge with 12, 60 and 300 samples, over the prior that it started from (grey, uniform), and the
# truth (line).

import matplotlib.pyplot as plt

colours = {12: "#8fb7d9", 60: "#2166ac", 300: "#0b2f59"}
bins = torch.linspace(-1, 1, 81).numpy()
figure, axes = plt.subplots(1, 3, figsize=(9.5, 2.9), sharex=True, layout="constrained")
for k, (axis, (edge, rho)) in enumerate(zip(axes, rhos.items(), strict=True)):
    axis.axhspan(0, 0.5, color="#77777a", alpha=0.18, lw=0)
    for n, posterior in posteriors.items():
        drawn = posterior.edge_correlations(0)[..., k].flatten().numpy()
        axis.hist(drawn, bins, density=True, histtype="stepfilled", alpha=0.3, color=colours[n])
        axis.hist(drawn, bins, density=True, histtype="step", color=colours[n], label=f"n = {n}")
    axis.axvline(rho, color="#c8501a", lw=1.4)
    axis.set(
        title=f"edge {edge[0]} - {edge[1]}, true correlation {rho}",
        xlabel="correlation",
        yticks=[],
    )
    axis.spines["left"].set_visible(False)
axes[2].legend()
plt.show()

# %%
# A draw is a graph with potentials like any other. So what one wants to know of a fitted graph, one can ask of all
# draws: here, what the last number tells of the first, in nats, which no row of the table says. In truth it is
# nothing.


def information(graph: ps.FactorGraph) -> float:
    """Mutual information of nodes 0 and 3 under a fitted chain."""
    covariances = [graph.potential(edge).covariance for edge in rhos]
    variances = [covariances[0][0, 0], *(c[1, 1] for c in covariances)]
    whole = ps.infer(graph, {k: (0.0, 1 / variance) for k, variance in enumerate(variances)})
    return whole.mutual_information(0, 3).item()


told = {
    n: torch.tensor([information(p.draw(k)) for k in range(0, len(p), len(p) // 25)])
    for n, p in posteriors.items()
}
for n, nats in told.items():
    low, high = nats.quantile(torch.tensor([0.05, 0.95], dtype=nats.dtype)).tolist()
    print(f"{n:>3} samples: between {low:.4f} and {high:.4f} nats (90 %)")

# %%
# The intervals hold the truth, and narrow as samples come in.

widths = {}
for n, posterior in posteriors.items():
    assert not posterior.diagnostics.failures
    rows = {row.factor: row for row in posterior.correlations(level=0.99)}
    for edge, rho in rhos.items():
        assert rows[edge].low < rho < rows[edge].high
    widths[n] = rows[1, 2].high - rows[1, 2].low
print({n: round(width, 2) for n, width in widths.items()})
assert widths[12] > widths[60] > 1.5 * widths[300]
