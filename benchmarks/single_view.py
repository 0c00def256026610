"""Correlations of windows that were never seen together: held-out likelihood against moments of joint crops."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import itertools

import numpy as np
import torch

import pgm_sync as ps
from pgm_sync.learning.problem import features, pose
from pgm_sync.score import reduce
from pgm_sync.zoo import wide_crops

WINDOW, COUNT, MODES = 24, 4, 4


def cut(crops: torch.Tensor) -> dict[int, torch.Tensor]:
    return {k: crops[..., WINDOW * k : WINDOW * (k + 1)] for k in range(COUNT)}


def graph_of(edges: list[tuple[int, int]]) -> ps.FactorGraph:
    shape = (3, WINDOW, WINDOW)
    dct = ps.DCT(shape, MODES)
    graph = ps.FactorGraph()
    for k in range(COUNT):
        graph.add_trajectory(k, shape)
    for a, b in edges:
        graph.add_factor((a, b), [a, b], ps.JointGaussian(), [dct, dct])
    return graph


def joint_of(fitted: ps.FactorGraph) -> ps.Gaussian:
    """The joint Gaussian of all features that a fitted graph states."""
    reduced = reduce(fitted).graph
    prior = {}
    for name in reduced.trajectories:
        factor = next(iter(reduced.adj[name]))
        place = reduced.scope(factor).index(name)
        own = reduced.potential(factor).marginals(reduced.seen_shapes(factor))[place]
        prior[name] = ps.Gaussian.from_moments(own.mean, own.covariance)
    return ps.infer(reduced, prior).joint(reduced.trajectories)


def gains(fitted: ps.FactorGraph, samples: torch.Tensor, blocks: dict) -> np.ndarray:
    """Nats per crop over the same windows taken as independent."""
    joint = joint_of(fitted)
    covariance, mean = joint.covariance, joint.mean
    alone = sum(
        ps.Gaussian.from_moments(mean[rows], covariance[rows][:, rows]).log_density(samples[:, rows])
        for rows in blocks.values()
    )
    return (joint.log_density(samples) - joint.log_normalizer - alone).numpy()


def build(quick: bool) -> str:
    count = 300 if quick else 2000
    generator = torch.Generator().manual_seed(0)
    shape = (3, WINDOW, WINDOW * COUNT)
    train, photos = wide_crops(shape, count, "train", generator=generator, return_photos=True)
    heldout, groups = wide_crops(shape, count, "test", generator=generator, return_photos=True)
    # one window of every crop, so that no two of them come from one place
    which = torch.randint(0, COUNT, (count,), generator=generator)
    views = torch.stack([cut(crop)[int(k)] for crop, k in zip(train, which, strict=True)])
    labels = torch.as_tensor(groups).numpy()
    kinds, index = np.unique(labels, return_inverse=True)
    chosen = np.random.default_rng(0).integers(0, len(kinds), (2000, len(kinds)))
    rows: list[list[object]] = [
        ["edges", "moments, nats", "single view, nats", "single view / moments", "95 %"]
    ]
    for name, edges in (
        ("all pairs", list(itertools.combinations(range(COUNT), 2))),
        ("chain", [(k, k + 1) for k in range(COUNT - 1)]),
    ):
        graph = graph_of(edges)
        moments = ps.fit(graph, cut(train), groups=photos)
        single = ps.fit(graph, views, method="single_view", positions={k: WINDOW * k for k in range(COUNT)})
        samples, blocks = features(pose(graph), cut(heldout)), pose(graph).blocks
        both = [gains(fitted, samples, blocks) for fitted in (moments, single)]
        sums = [np.bincount(index, values, len(kinds)) for values in both]
        ratio = sums[1][chosen].sum(1) / sums[0][chosen].sum(1)
        low, high = np.quantile(ratio, [0.025, 0.975])
        rows.append([
            name, f"{both[0].mean():.2f}", f"{both[1].mean():.2f}", f"{both[1].mean() / both[0].mean():.2f}",
            f"{low:.2f} to {high:.2f}",
        ])  # fmt: skip
    return (
        f"Four windows of {WINDOW} x {WINDOW} side by side, {MODES} cosine modes per colour each. Gain in log density\n"
        "per held-out crop over independent windows of the same model. Moments saw "
        f"{count} joint crops of the\ntraining photographs, the single-view fit one window of each. Intervals: "
        f"bootstrap\nover {len(kinds)} held-out photographs "
        f"({count} crops).\n\n" + table(rows)
    )


if __name__ == "__main__":
    main("single_view", build)
