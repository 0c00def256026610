"""
A dependency graph of your own
==============================

Four quarters of a digit, tied in a loop, and a hidden variable that none of the data shows: the style of the whole.
Define it, fit it, read off which correlation is the strongest, sample it.
"""

# %%
# The data: scikit-learn's digits, 8 by 8 pixels, cut into four quarters, named as on a map.

import torch
from sklearn.datasets import load_digits

import pgm_sync as ps

images = (
    torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
)  # (1797, 1, 8, 8) in [-1, 1]
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train, heldout = images[order[:900]], images[order[900:]]
corners = {"NW": (0, 0), "NE": (0, 4), "SE": (4, 4), "SW": (4, 0)}


def quarters(whole: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        name: whole[..., top : top + 4, left : left + 4] for name, (top, left) in corners.items()
    }


def together(quarter: dict[str, torch.Tensor]) -> torch.Tensor:
    top = torch.cat([quarter["NW"], quarter["NE"]], -1)
    return torch.cat([top, torch.cat([quarter["SW"], quarter["SE"]], -1)], -2)


# %%
# The graph, in networkx's manner. A quarter is a trajectory; each is joined to the next one round, which closes a
# loop. Factors need not see all 16 pixels of a quarter: these look at its four lowest cosine modes. The style has
# three numbers, no denoiser and no data, and touches every quarter.

names = list(corners)
modes = ps.DCT((1, 4, 4), modes=4)
graph = ps.FactorGraph()
for name in names:
    graph.add_trajectory(name, shape=(1, 4, 4))
for a, b in zip(names, names[1:] + names[:1], strict=True):
    graph.add_factor(f"{a} | {b}", [a, b], ps.JointGaussian(), maps=[modes, modes])
loop = graph.copy()
graph.add_variable("style", shape=3)
for name in names:
    graph.add_factor(f"style of {name}", ["style", name], ps.JointGaussian(), maps=[None, modes])
print(graph)

# %%
# Fit the loop alone, and the loop with the style: expectation maximisation, whose E-step is inference on this graph.
# Is the style worth having? The log-likelihood of digits that were kept back says so, in nats per digit.

fitted = {"loop": ps.fit(loop, quarters(train)), "loop and style": ps.fit(graph, quarters(train))}
records = {name: ps.Fit.of(found) for name, found in fitted.items()}
print(f"without any edge {records['loop'].details['heldout_independent']:.2f}")
for name, record in records.items():
    print(f"{name} {record.heldout:.2f}")

# %%
# What was learned. Edges carry correlations mode by mode; the style, whose three numbers have no names, shows its
# canonical correlations with the modes of each quarter.

table = ps.correlations(fitted["loop and style"])
for factor, nats in sorted(table.mutual_information.items(), key=lambda item: -item[1]):
    print(f"{factor:>11}: {nats:.2f} nats")
strongest = max((row for row in table if row.first in corners), key=lambda row: abs(row.rho))
print(
    f"strongest between two quarters: {strongest.mode} of {strongest.first} and {strongest.second}, "
    f"rho {strongest.rho:+.2f} [{strongest.low:+.2f}, {strongest.high:+.2f}]"
)

# %%
# The same in a drawing: colour is the correlation of an edge's leading mode, width the mutual information. Beside it,
# the strongest mode itself, as it looks in its two quarters, one standard deviation up.

import matplotlib.pyplot as plt

from pgm_sync.inspection.plots import draw_graph

places = {
    "NW": (-1, -1),
    "NE": (1, -1),
    "SE": (1, 1),
    "SW": (-1, 1),
    "style": (0, 0),
}
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", width_ratios=[1.7, 1])
shown = {name: (1.5 * x, 1.1 * y) for name, (x, y) in places.items()}
draw_graph(fitted["loop and style"], table, ax=axes[0], positions=shown)
wave = modes.dense()[modes.labels().index(strongest.mode)].reshape(1, 4, 4)
blank = {name: torch.zeros(1, 4, 4) for name in names}
pair = {**blank, strongest.first: wave, strongest.second: wave * (1 if strongest.rho > 0 else -1)}
axes[1].imshow(together(pair)[0], cmap="RdBu_r", vmin=-0.5, vmax=0.5)
axes[1].axhline(3.5, color="#1c1c1a", lw=0.8)
axes[1].axvline(3.5, color="#1c1c1a", lw=0.8)
axes[1].set(title=f"{strongest.mode}, rho {strongest.rho:+.2f}", xticks=[], yticks=[])
plt.show()

# %%
# Every quarter has a denoiser of its own, which has seen that quarter and nothing else. Sampled from the same noise
# without the graph, with the loop, and with the style.

from diffusers import DDIMScheduler

denoisers = {
    name: ps.EmpiricalDenoiser(quarter, bandwidth=0.1)
    for name, quarter in quarters(train).items()
}


def sample(chosen: ps.FactorGraph, **options) -> torch.Tensor:
    result = ps.sample(
        chosen, denoisers, DDIMScheduler(clip_sample=False), 20, num_samples=200,
        posterior_covariance="denoiser", progress=False, **options,
    )  # fmt: skip
    return together(result.samples)


made = {
    "independent": sample(fitted["loop"], couple=False),
    **{name: sample(found) for name, found in fitted.items()},
    "held-out digits": heldout,
}
figure, axes = plt.subplots(4, 1, figsize=(7, 4.6), layout="constrained")
for axis, (label, digits) in zip(axes, made.items(), strict=True):
    tiles = torch.nn.functional.pad(digits[:14, 0], (1, 1, 1, 1), value=-1.0)
    axis.imshow(torch.cat(list(tiles), 1), cmap="gray_r", vmin=-1, vmax=1)
    axis.set_title(label)
    axis.axis("off")
plt.show()

# %%
# Measured in what the factors see: the correlations of all 16 modes with each other, in samples and in digits that
# were kept back. The sum of squares is over modes of different quarters; independent quarters have all of it to lose.


def correlations(digits: torch.Tensor) -> torch.Tensor:
    """Of all modes of all quarters, ``(16, 16)``, with zeros within a quarter."""
    seen = torch.cat(
        [modes.apply(quarter.double()).flatten(1) for quarter in quarters(digits).values()], 1
    )
    across = torch.ones(16, 16) - torch.block_diag(*[torch.ones(4, 4)] * 4)
    return torch.corrcoef(seen.T) * across


real = correlations(heldout)
gap = {
    label: (correlations(digits) - real).square().sum().item() / 2
    for label, digits in made.items()
}
a, b = (
    4 * names.index(end) + modes.labels().index(strongest.mode)
    for end in (strongest.first, strongest.second)
)
for label, digits in made.items():
    print(
        f"{label:>15}: off by {gap[label]:.2f}; the strongest one {correlations(digits)[a, b]:+.2f}"
    )
assert (
    records["loop and style"].heldout
    > records["loop"].heldout
    > records["loop"].details["heldout_independent"]
)
assert gap["loop and style"] < gap["loop"] < 0.7 * gap["independent"]
assert strongest.low * strongest.high > 0  # its interval leaves out 0
