"""
Recover a known correlation
===========================

Data with a correlation that is known, a fit, an interval. Then all of it again, a hundred times: does the interval hold
the truth as often as it says?
"""

# %%
# Three numbers in a row, each a trajectory: the first two have correlation .8, the last two -.4. Given the middle
# one, the outer ones have nothing to do with each other, so that they correlate by the product, -.32.

import torch

import pgm_sync as ps

rhos = {(0, 1): 0.8, (1, 2): -0.4}


def draw(n: int, generator: torch.Generator) -> dict[int, torch.Tensor]:
    """Joint samples of the chain, ``(n, 1)`` each."""
    news = torch.randn(3, n, 1, generator=generator, dtype=torch.float64)
    first = news[0]
    second = rhos[0, 1] * first + (1 - rhos[0, 1] ** 2) ** 0.5 * news[1]
    third = rhos[1, 2] * second + (1 - rhos[1, 2] ** 2) ** 0.5 * news[2]
    return {0: first, 1: second, 2: third}


# %%
# One fit. The table has an interval for every edge, Fisher's: :math:`\operatorname{atanh}\hat\rho` is nearly normal
# with standard deviation :math:`1/\sqrt{n-3}`.

generator = torch.Generator().manual_seed(0)
unfitted = ps.chain_graph(3, shape=1)  # edges to be learned
fitted = ps.fit(unfitted, draw(50, generator))
print(ps.correlations(fitted))

# %%
# Potentials leave the nodes' own distributions out (Eq. 1). With those as evidence, the graph is the whole Gaussian,
# and tells what it says of the outer two, between which there is no edge.

first, second = (fitted.potential(edge).covariance for edge in rhos)
own = {0: first[0, 0], 1: first[1, 1], 2: second[1, 1]}
joint = ps.infer(fitted, {k: (0.0, 1 / variance) for k, variance in own.items()})
product = ps.correlations(fitted)[0].rho * ps.correlations(fitted)[1].rho
print(f"0 and 2: {joint.correlation(0, 2).item():+.4f}; product along the path: {product:+.4f}")

# %%
# A hundred data sets of each of three sizes, each fitted from scratch. By default correlations are shrunk towards
# zero, by as much as the data call for (Ledoit and Wolf), which is what one wants for sampling. An interval about a
# number that was moved on purpose is another matter, so here both are looked at.

repeats, sizes = 100, (12, 50, 200)
rows = []
for shrinkage in ("none", "ledoit_wolf"):
    for n in sizes:
        for _ in range(repeats):
            fitted = ps.fit(unfitted, draw(n, generator), shrinkage=shrinkage, heldout=0)
            rows += [
                (shrinkage, n, row.factor, row.rho, row.low, row.high)
                for row in ps.correlations(fitted)
            ]


def of(shrinkage: str, n: int, edge: tuple[int, int]) -> torch.Tensor:
    """Estimates and intervals ``(repeats, 3)`` of one edge."""
    return torch.tensor([row[3:] for row in rows if row[:3] == (shrinkage, n, edge)])


def coverage(shrinkage: str, n: int, edge: tuple[int, int]) -> float:
    """Share of the intervals that hold the truth."""
    _, low, high = of(shrinkage, n, edge).T
    return ((low <= rhos[edge]) & (rhos[edge] <= high)).double().mean().item()


for edge, rho in rhos.items():
    for shrinkage in ("none", "ledoit_wolf"):
        shown = ", ".join(
            f"n = {n}: mean {of(shrinkage, n, edge)[:, 0].mean():+.3f}, covers {coverage(shrinkage, n, edge):.1%}"
            for n in sizes
        )
        print(f"rho {rho:+.1f}, shrinkage {shrinkage:>11}: {shown}")

# %%
# Left and middle: the first sixty intervals from 50 samples, sorted; those that miss the truth in orange. Right: how
# often intervals hold it, with the range that chance allows for a hundred repeats of an honest 95 %.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(
    1, 3, figsize=(10, 3.6), layout="constrained", width_ratios=[1, 1, 1.15]
)
for axis, (edge, rho) in zip(axes, rhos.items(), strict=False):
    shown = of("none", 50, edge)[:60]
    for height, (estimate, low, high) in enumerate(shown[shown[:, 0].argsort()].tolist()):
        colour = "#2166ac" if low <= rho <= high else "#c8501a"
        axis.plot([low, high], [height, height], color=colour, lw=1.4, solid_capstyle="butt")
        axis.plot(estimate, height, ".", color=colour, ms=4)
    axis.axvline(rho, color="#1c1c1a", lw=1)
    axis.set(
        title=f"edge {edge[0]} - {edge[1]}, true correlation {rho}",
        yticks=[],
        xlabel="correlation",
    )
    axis.spines["left"].set_visible(False)
chance = 1.96 * (0.95 * 0.05 / repeats) ** 0.5
axes[2].axhspan(0.95 - chance, min(0.95 + chance, 1), color="#77777a", alpha=0.2, lw=0)
axes[2].axhline(0.95, color="#77777a", lw=1)
for edge, colour in zip(rhos, ["#2166ac", "#3b7d4f"], strict=True):
    for shrinkage, dash in (("none", "-"), ("ledoit_wolf", ":")):
        label = f"{rhos[edge]:+.1f}, " + ("plain" if shrinkage == "none" else "shrunk")
        axes[2].semilogx(
            sizes,
            [coverage(shrinkage, n, edge) for n in sizes],
            dash,
            marker="o",
            ms=4,
            color=colour,
            label=label,
        )
axes[2].set(title="intervals that hold the truth", xlabel="samples", ylim=(0.35, 1.02))
axes[2].set_xticks(sizes, [str(n) for n in sizes])
axes[2].minorticks_off()
axes[2].legend(loc="lower right")
plt.show()

# %%
# Shrinkage takes the most from strong correlations of few samples; their intervals, about the shrunk value, then hold
# the truth in far fewer cases than they say. Where the interval matters, fit with ``shrinkage="none"``, or with
# ``method="bayesian"`` (:doc:`plot_bayesian_intervals`).
#
# Plain intervals hold the truth as often as they say, within what chance allows (four standard errors, for all six at
# once), and the estimate closes in on it.

for edge, rho in rhos.items():
    for n in sizes:
        assert abs(coverage("none", n, edge) - 0.95) < 4 * (0.95 * 0.05 / repeats) ** 0.5
    spread = [of("none", n, edge)[:, 0].std().item() for n in sizes]
    assert spread[0] > spread[1] > spread[2]
    assert abs(of("none", 200, edge)[:, 0].mean().item() - rho) < 0.02
torch.testing.assert_close(joint.correlation(0, 2).item(), product)
