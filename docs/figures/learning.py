"""Correlations from few samples, and what the graph adds to them."""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pgm_sync as ps

rho, nodes = 0.7, 8
truth = rho ** np.abs(np.subtract.outer(np.arange(nodes), np.arange(nodes)))
root = torch.from_numpy(np.linalg.cholesky(truth))


def drawn(count, seed):
    x = torch.randn(count, nodes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) @ root.T
    return {k: x[:, k : k + 1] for k in range(nodes)}


figure, axes = plt.subplots(1, 3, figsize=(9.8, 2.8), width_ratios=[1.1, 1, 1.1])
axis = axes[0]
fitted = ps.fit(ps.chain_graph(nodes, 1), drawn(100, 0), heldout=0)
rows = list(ps.correlations(fitted))
values, lows, highs = np.array([[float(r.rho), float(r.low), float(r.high)] for r in rows]).T
axis.errorbar(
    range(len(rows)), values, [values - lows, highs - values], fmt="o", color="C0", ms=4, lw=1, capsize=2
)
axis.axhline(rho, color="C3", ls=":", lw=1)
axis.set(xlabel="edge", ylabel=r"$\rho$, 95 % interval", title="a chain, 100 samples", ylim=(0, 1))

# What the wrong edges cost: the divergence of the fitted model from the truth, in closed form.
counts = [15, 40, 160, 640]
graphs = {"chain (true)": ps.chain_graph(nodes, 1), "all pairs": ps.complete_graph(nodes, 1)}
axis = axes[1]
for label, graph in graphs.items():
    lost = np.zeros(len(counts))
    for place, count in enumerate(counts):
        for seed in range(2):
            fitted = ps.fit(graph, drawn(count, seed + 1), heldout=0, shrinkage="ledoit_wolf")
            marginals = {}
            for factor in fitted.factors:
                potential = fitted.potential(factor)
                moments = zip(
                    potential.mean.tolist(), (1 / potential.covariance.diagonal()).tolist(), strict=True
                )
                marginals |= dict(zip(fitted.scope(factor), moments, strict=True))
            g = ps.infer(fitted, marginals).joint(range(nodes))
            precision, mean = g.precision.numpy(), g.mean.numpy()
            spread = np.trace(precision @ truth) + mean @ precision @ mean - nodes
            lost[place] += 0.5 * (spread - np.linalg.slogdet(precision @ truth)[1]) / 2
    axis.loglog(counts, lost, "o-", ms=3.5, label=label)
axis.set(xlabel="samples", title="nats lost against the truth")
axis.set_xticks(counts, map(str, counts))
axis.minorticks_off()
axis.legend(loc="upper right")

# Far pairs: through the graph, and by the sample alone.
axis = axes[2]
errors = {"sample": [], "through the chain": []}
for seed in range(200):
    data = drawn(50, 1000 + seed)
    sample = np.corrcoef(np.concatenate([x.numpy() for x in data.values()], 1).T)
    errors["sample"].append(sample[0, 1:] - truth[0, 1:])
    errors["through the chain"].append(np.cumprod(np.diag(sample, 1)) - truth[0, 1:])
for (label, error), colour in zip(errors.items(), ["C1", "C0"], strict=True):
    axis.plot(range(1, nodes), np.std(error, 0), "o-", ms=3.5, color=colour, label=label)
axis.set(xlabel="steps apart", ylabel="standard error", title="50 samples: far pairs", ylim=(0, 0.17))
axis.legend(loc="lower left")
