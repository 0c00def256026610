"""Which features of trajectories carry their correlations: cosine modes, principal components, canonical directions."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import torch
from sklearn.datasets import load_digits

import pgm_sync as ps
from pgm_sync.zoo import wide_crops

Data = dict[str, torch.Tensor]


def digits(quick: bool) -> tuple[str, ps.FactorGraph, Data, torch.Tensor | None, dict[str, list[int]]]:
    images = torch.tensor(load_digits().images / 8 - 1)[:, None]
    images = images[
        torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: 300 if quick else 1200]
    ]
    data = {"left": images[..., :4], "right": images[..., 4:]}
    counts = {"dct": [1, 4, 8, 16, 24, 32], "pca": [1, 4, 8, 16, 24], "cca": [1, 2, 4, 8, 16, 24]}
    return f"left and right halves of {len(images)} digits", pair(data), data, None, counts


def faces(quick: bool) -> tuple[str, ps.FactorGraph, Data, torch.Tensor | None, dict[str, list[int]]]:
    from skimage.data import lfw_subset

    images = torch.tensor(lfw_subset()[:100])[:, None].double() * 2 - 1
    data = {"top": images[..., :12, :], "bottom": images[..., 12:, :]}
    counts = {"dct": [1, 2, 4, 8, 16], "pca": [1, 2, 4, 8, 16], "cca": [1, 2, 4, 8, 16]}
    return "top and bottom of 100 faces", pair(data), data, None, counts


def photographs(quick: bool) -> tuple[str, ps.FactorGraph, Data, torch.Tensor | None, dict[str, list[int]]]:
    count = 140 if quick else 1400
    crops, photos = wide_crops(
        (3, 24, 96), count, "train", generator=torch.Generator().manual_seed(0), return_photos=True
    )
    data = {f"w{k}": crops[..., 24 * k : 24 * (k + 1)] for k in range(4)}
    graph = ps.FactorGraph()
    for name, x in data.items():
        graph.add_trajectory(name, tuple(x.shape[1:]))
    for k in range(3):
        graph.add_factor((k, k + 1), [f"w{k}", f"w{k + 1}"], ps.JointGaussian())
    counts = {"dct": [1, 4, 9, 16], "pca": [3, 12, 27, 48], "cca": [3, 12, 27, 48]}
    return f"four windows of 24 x 24 in a chain, {count} crops of 7 photographs", graph, data, photos, counts


def pair(data: Data) -> ps.FactorGraph:
    graph = ps.FactorGraph()
    for name, x in data.items():
        graph.add_trajectory(name, tuple(x.shape[1:]))
    graph.add_factor("seam", list(data), ps.JointGaussian())
    return graph


def build(quick: bool) -> str:
    parts = []
    for case in (digits, faces, photographs):
        try:
            name, graph, data, groups, counts = case(quick)
        except ModuleNotFoundError as error:
            parts.append(f"{case.__name__}: left out, {error.name} is not installed (extra zoo)")
            continue
        choice = ps.choose_features(graph, data, counts, shrinkage="heldout", groups=groups)
        rows: list[list[object]] = [["features", "per node", "nats", "95 %", "behind the best, 95 %"]]
        rows += [
            [f"{r.kind} {r.number}", r.features, f"{r.information:.2f}",
             *(f"{low:.2f} to {high:.2f}" for low, high in (r.interval, r.behind))]
            for r in choice.rows
        ]  # fmt: skip
        parts.append(f"{name}:\n\n{table(rows)}")
    return (
        "Mutual information captured between trajectories, nats per joint sample, in 5-fold cross-validation over\n"
        "samples (photographs: over photographs, which are also what the bootstrap resamples). Features, shrinkage\n"
        "(heldout) and potentials are learned without the samples they are scored on. dct n: n modes per colour.\n\n"
        + "\n\n".join(parts)
    )


if __name__ == "__main__":
    main("learned_features", build)
