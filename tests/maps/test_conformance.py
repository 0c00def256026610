"""Every built-in map keeps the laws of `MapTests`, and does what its own name says."""

from __future__ import annotations

from dataclasses import dataclass

import scipy.sparse
import torch

from pgm_sync.maps import (
    DCT,
    ChannelMeans,
    Composition,
    Crop,
    Features,
    Flip,
    Identity,
    LinearMap,
    Lookup,
    Mask,
    Permutation,
    Rotate,
    SparseMap,
    Tokens,
)
from pgm_sync.maps.base import Shape
from pgm_sync.testing import MapTests


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


class TestIdentity(MapTests):
    def create(self):
        return Identity((2, 3))


class TestScalarIdentity(MapTests):
    def create(self):
        return Identity((1,))


class TestCrop(MapTests):
    def create(self):
        return Crop((2, 5, 6), start=(1, 2), size=(3, 4))


class TestCropOfEveryAxis(MapTests):
    def create(self):
        return Crop((3, 4, 4), start=(1, 0, 2), size=(1, 4, 2))


class TestCropWrap(MapTests):
    def create(self):
        return Crop((1, 4, 6), start=(3, 4), size=(2, 5), wrap=True)


class TestFlip(MapTests):
    def create(self):
        return Flip((2, 3, 4))


class TestFlipBothAxes(MapTests):
    def create(self):
        return Flip((2, 3, 4), axes=(1, -1))


class TestRotate(MapTests):
    def create(self):
        return Rotate((2, 3, 4))


class TestLookup(MapTests):
    def create(self):
        return Lookup((2, 3, 9), torch.tensor([[7, 2], [0, 8], [3, 4]]))


class TestTokens(MapTests):
    def create(self):
        return Tokens((2, 4, 6))


class TestRotateBack(MapTests):
    def create(self):
        return Rotate((2, 3, 4), quarter_turns=-1)


class TestPermutation(MapTests):
    def create(self):
        return Permutation((2, 3), order=[3, 0, 5, 1, 2, 4])


class TestMask(MapTests):
    def create(self):
        return Mask((2, 2, 3), torch.tensor([[True, False, True], [False, True, True]]))


class TestDCT(MapTests):
    def create(self):
        return DCT((2, 4, 6), modes=5)


class TestDCTOfVectors(MapTests):
    def create(self):
        return DCT((7,), modes=3)


class TestAllDCTModes(MapTests):
    def create(self):
        return DCT((3, 4), modes=12)


class TestChannelMeans(MapTests):
    def create(self):
        return ChannelMeans((3, 2, 4))


class TestFeatures(MapTests):
    def create(self):
        return Features.orthonormalise(normal(3, 2, 4))


class TestPCA(MapTests):
    def create(self):
        return Features.pca(normal(20, 1, 3, 3), rank=4)


class TestSparseMap(MapTests):
    def create(self):
        matrix = scipy.sparse.random(6, 8, density=0.4, rng=0, dtype="float64")
        return SparseMap.from_scipy(matrix, in_shape=(2, 4), out_shape=(6,))


class TestEmptySparseMap(MapTests):
    def create(self):
        return SparseMap((3,), (2,), torch.empty(2, 0, dtype=torch.int64), torch.empty(0))


class TestComposition(MapTests):
    def create(self):
        return DCT((1, 3, 3), modes=4) @ Rotate((1, 3, 3)) @ Crop((1, 4, 5), start=(0, 1), size=(3, 3))


class TestCompositionWithASparseMap(MapTests):
    def create(self):
        blur = SparseMap(
            (4,), (3,), torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 3]]), torch.full((6,), 0.5)
        )
        return Composition(Flip((3,)), blur)


@dataclass(frozen=True, eq=False, repr=False)
class Doubled(LinearMap):
    """A map that a user would write, without any help from the base class."""

    in_shape: Shape
    factor: float = 2.0

    @property
    def out_shape(self):
        return self.in_shape

    def apply(self, x):
        self._check(x, self.in_shape)
        return self.factor * x

    adjoint = apply


class TestAMapOfOnesOwn(MapTests):
    def create(self):
        return Doubled((2, 2))
