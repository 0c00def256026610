"""What features see of two halves of a digit, and how much dependence they carry."""

from functools import partial

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

import pgm_sync as ps

digits = torch.tensor(load_digits().images[:, None], dtype=torch.float32) / 8 - 1
digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
halves = {"left": digits[..., :4], "right": digits[..., 4:]}
shape = (1, 8, 4)


def coupled(left, right):
    graph = ps.FactorGraph()
    for name in halves:
        graph.add_trajectory(name, shape)
    graph.add_factor("seam", list(halves), ps.JointGaussian(), [left, right])
    return graph


figure = plt.figure(figsize=(9.6, 2.9))
left, middle, right = figure.subfigures(1, 3, width_ratios=[1, 1, 1.3])
canonical = ps.canonical_features(coupled(None, None), {n: x[:1200] for n, x in halves.items()}, 4, ridge=0.3)
for part, title, pair in [
    (left, "cosines (DCT)", [ps.DCT(shape, 4).dense()] * 2),
    (middle, "canonical directions", [m.dense() for m in canonical.maps("seam")]),
]:
    part.suptitle(title, fontsize=10, x=0.02, ha="left")
    axes = part.subplots(2, 4)
    for row, matrix in zip(axes, pair, strict=True):
        for axis, feature in zip(row, matrix, strict=True):
            most = feature.abs().max()
            axis.imshow(feature.reshape(8, 4), cmap="RdBu_r", vmin=-most, vmax=most)
            axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("left")
    axes[1, 0].set_ylabel("right")

axis = right.subplots()
train = {n: x[:600] for n, x in halves.items()}
test = {n: x[1200:].flatten(1).double() for n, x in halves.items()}
counts = [1, 2, 4, 8, 16, 28]
for kind, label in [("dct", "cosines"), ("pca", "principal"), ("cca", "canonical")]:
    nats = []
    for r in counts:
        if kind == "dct":
            graph = coupled(ps.DCT(shape, r), ps.DCT(shape, r))
        else:
            learn = ps.pca_features if kind == "pca" else partial(ps.canonical_features, ridge=0.1)
            graph = learn(coupled(None, None), train, r)
        fitted = ps.fit(graph, train, shrinkage=(0.02, 0.1), heldout=0)
        potential, maps = fitted.potential("seam"), fitted.maps("seam")
        seen = torch.cat([x @ m.dense().double().T for x, m in zip(test.values(), maps, strict=True)], 1)
        mean, covariance = potential.mean.double(), potential.covariance.double()
        own = covariance.clone()
        own[:r, r:] = own[r:, :r] = 0
        gain = ps.Gaussian.from_moments(mean, covariance).log_density(seen)
        gain -= ps.Gaussian.from_moments(mean, own).log_density(seen)
        nats.append(gain.mean().item())
    axis.semilogx(counts, nats, "o-", ms=3.5, label=label)
axis.set(
    xlabel="features per half", ylabel="nats per digit, held out", title="dependence captured", ylim=(0, None)
)
axis.set_xticks(counts, map(str, counts))
axis.minorticks_off()
axis.legend(loc="upper left")
