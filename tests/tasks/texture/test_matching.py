"""One texel per pixel: the best matching against a dense assignment, the quick one against the best."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from pgm_sync.tasks.texture.matching import FRESH, REACH, assign, take_best

ALONE = 1 + REACH**2 + FRESH


def pairs(seed: int, pixels: int = 40, texels: int = 45) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels and texels at random places of a square, and the pairs that are near."""
    generator = np.random.default_rng(seed)
    a, b = generator.random((pixels, 2)), generator.random((texels, 2))
    distance = np.linalg.norm(a[:, None] - b, axis=2) * texels**0.5
    row, texel = np.nonzero(distance < REACH)
    return row, texel, distance[row, texel] ** 2 + FRESH * (generator.random(texels) < 0.5)[texel]


def total(chosen: np.ndarray, cost: np.ndarray, pixels: int = 40) -> float:
    return cost[chosen].sum() + ALONE * (pixels - len(chosen))


@pytest.mark.parametrize("seed", range(5))
def test_the_best_matching_costs_what_a_dense_solver_finds(seed):
    row, texel, cost = pairs(seed)
    table = np.full((40, 45 + 40), 1e6)
    table[row, texel] = cost
    table[np.arange(40), 45 + np.arange(40)] = ALONE
    expected = table[linear_sum_assignment(table)].sum()
    assert total(assign(row, texel, cost), cost) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_taking_the_cheapest_pairs_one_by_one(seed):
    row, texel, cost = pairs(seed)
    expected, rows, texels = [], set(), set()
    for k in np.argsort(cost, kind="stable"):
        if row[k] not in rows and texel[k] not in texels:
            expected.append(k)
            rows.add(row[k])
            texels.add(texel[k])
    assert sorted(take_best(row, texel, cost)) == sorted(expected)


@pytest.mark.parametrize("matching", [assign, take_best])
def test_nothing_is_used_twice(matching):
    row, texel, cost = pairs(9)
    chosen = matching(row, texel, cost)
    assert len(np.unique(row[chosen])) == len(np.unique(texel[chosen])) == len(chosen) > 20
    nothing = np.zeros(0, dtype=int)
    assert len(matching(nothing, nothing, np.zeros(0))) == 0
