"""Which shrinkage of the covariance predicts joint samples best: rules, and choices on held-out data."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import torch
from sklearn.datasets import load_digits

import pgm_sync as ps
from pgm_sync.learning.estimate import estimate_model, log_density
from pgm_sync.learning.problem import features, pose
from pgm_sync.zoo import wide_crops

Data = dict[str, torch.Tensor]
DIGITS, CROPS = (40, 100, 300, 600), (35, 140, 700, 2100)


def digits(count: int) -> tuple[ps.FactorGraph, Data, Data, None]:
    images = torch.tensor(load_digits().images / 8 - 1)[:, None]
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    # corners are the same in all digits of a small sample; without noise their density is not finite
    images = images + 0.05 * torch.randn(
        images.shape, generator=torch.Generator().manual_seed(1), dtype=images.dtype
    )
    graph = ps.FactorGraph()
    graph.add_trajectory("left", (1, 8, 4))
    graph.add_trajectory("right", (1, 8, 4))
    graph.add_factor("seam", ["left", "right"], ps.JointGaussian())
    train, test = ({"left": x[..., :4], "right": x[..., 4:]} for x in (images[:count], images[1000:]))
    return graph, train, test, None


def photographs(count: int) -> tuple[ps.FactorGraph, Data, Data, torch.Tensor]:
    shape, window = (3, 24, 96), (3, 24, 24)
    train, photos = wide_crops(
        shape, count, "train", generator=torch.Generator().manual_seed(1), return_photos=True
    )
    test = wide_crops(shape, 1400, "test", generator=torch.Generator().manual_seed(2))
    graph = ps.chain_graph(4, window, features=lambda s: ps.DCT(s, 4))
    cut = [{k: x[..., 24 * k : 24 * (k + 1)] for k in range(4)} for x in (train, test)]
    return graph, cut[0], cut[1], photos


def build(quick: bool) -> str:
    rules = ("none", "oas", "ledoit_wolf", "heldout")
    rows: list[list[object]] = [["data", "n", *rules, "chosen"]]
    cases = [("digits", digits, n) for n in DIGITS] + [("photographs", photographs, n) for n in CROPS]
    for name, case, count in cases[::4] if quick else cases:
        graph, train, test, groups = case(count)
        problem = pose(graph)
        seen, unseen = features(problem, train), features(problem, test)
        cells: list[object] = []
        for rule in rules:
            try:
                model = estimate_model(seen, rule, problem.network, problem.blocks, groups)
                cells.append(f"{log_density(unseen, model.mean, model.precision).mean():.2f}")
            except ps.PgmSyncError:
                cells.append("singular")
        chosen = (model.details["shrinkage_chosen"], model.details.get("shrinkage_between", 0.0))
        rows.append([name, count, *cells, f"{chosen[0]}, between {chosen[1]}"])
    return (
        "Mean log density in nats of joint samples not seen. Digits: two halves of 32 pixels, noise of .05 added;\n"
        "photographs: a chain of four windows, 4 cosine modes per colour, crops of the other bands, folds over\n"
        "photographs.\n\n" + table(rows)
    )


if __name__ == "__main__":
    main("shrinkage", build)
