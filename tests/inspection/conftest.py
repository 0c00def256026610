"""A canvas with made-up correlations: what the drawings show does not depend on how it was learned."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest

from pgm_sync.graph import FactorGraph, wide_canvas
from pgm_sync.maps import DCT


class Row(NamedTuple):
    factor: object
    first: object
    second: object
    mode: str
    rho: float
    low: float
    high: float
    mutual_information: float


def row(factor: tuple, mode: str, rho: float) -> Row:
    return Row(factor, *factor, mode, rho, rho - 0.1, rho + 0.1, -0.5 * math.log1p(-(rho**2)))


@pytest.fixture
def canvas() -> FactorGraph:
    return wide_canvas((1, 4, 13), (4, 4), 3, features=lambda shape: DCT(shape, 2), neighbours="all")


@pytest.fixture
def table(canvas: FactorGraph) -> list[Row]:
    return [
        row(factor, mode, rho)
        for factor in canvas.factors
        if isinstance(factor, tuple)
        for mode, rho in zip(canvas.maps(factor)[0].labels(), (0.8, -0.05), strict=True)
    ]
