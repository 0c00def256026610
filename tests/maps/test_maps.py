"""What each map picks or computes, against torch and scipy; and what it refuses."""

from __future__ import annotations

import math
import re

import pytest
import scipy.fft
import scipy.sparse
import torch

from pgm_sync.errors import CovarianceError, NotFiniteError, ParameterError, ShapeError
from pgm_sync.maps import (
    DCT,
    ChannelMeans,
    Composition,
    Crop,
    Features,
    Flip,
    Identity,
    Lookup,
    Mask,
    Permutation,
    Rotate,
    SparseMap,
    as_shape,
    element_index,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = normal(2, 4, 6)


class TestIndexMaps:
    def test_crop_is_a_slice(self):
        assert torch.equal(Crop((2, 4, 6), (1, 2), (2, 3)).apply(X), X[:, 1:3, 2:5])

    def test_a_wrapped_crop_goes_on_at_the_beginning(self):
        crop = Crop((2, 4, 6), start=(0, 4), size=(4, 4), wrap=True)
        assert torch.equal(crop.apply(X), X.roll(-4, -1)[..., :4])

    def test_a_crop_of_nothing_is_everything(self):
        assert torch.equal(Crop((2, 4, 6)).apply(X), X)

    def test_flip_and_rotate_are_those_of_torch(self):
        assert torch.equal(Flip((2, 4, 6)).apply(X), X.flip(-1))
        assert torch.equal(Flip((2, 4, 6), axes=(0, 2)).apply(X), X.flip(0, 2))
        assert torch.equal(Rotate((2, 4, 6)).apply(X), X.rot90(1, (-2, -1)))
        assert Rotate((2, 4, 6)).out_shape == (2, 6, 4)

    def test_four_quarter_turns_are_none(self):
        turn, back = Rotate((2, 4, 6)), Rotate((2, 4, 6), -1)
        assert torch.equal((Rotate((2, 6, 4), -1) @ turn).apply(X), X)
        assert torch.equal(turn.adjoint(turn.apply(X)), X)
        assert torch.equal(back.apply(X), Rotate((2, 4, 6), 3).apply(X))

    def test_a_permutation_reorders(self):
        x = torch.tensor([10.0, 20.0, 30.0])
        assert Permutation((3,), [2, 0, 1]).apply(x).tolist() == [30.0, 10.0, 20.0]

    def test_a_mask_selects_in_row_major_order_for_every_channel(self):
        mask = normal(4, 6, seed=1) > 0
        assert torch.equal(Mask((2, 4, 6), mask).apply(X), X[:, mask].flatten())

    def test_element_index_of_a_composition(self):
        both = Flip((2, 2, 3)) @ Crop((2, 4, 6), (1, 2), (2, 3))
        index = element_index(both)
        assert torch.equal(X.flatten()[index].reshape(2, 2, 3), both.apply(X))
        assert element_index(DCT((2, 2, 3), 1) @ Crop((2, 4, 6), (1, 2), (2, 3))) is None
        assert element_index(Features.pca(normal(5, 3), 1)) is None


class TestFeatures:
    def test_dct_is_that_of_scipy(self):
        expected = scipy.fft.dctn(X.numpy(), axes=(1, 2), norm="ortho")
        features = DCT((2, 4, 6), modes=24)
        columns = [tuple(map(int, label.split("dct")[1].split(","))) for label in features.labels()[:24]]
        got = features.apply(X)
        for k, (i, j) in enumerate(columns):
            torch.testing.assert_close(got[:, k], torch.from_numpy(expected[:, i, j].copy()))

    def test_dct_modes_come_by_frequency_in_pixels(self):
        # along 12 pixels, mode 2 is as slow as mode 1 along 6
        assert DCT((6, 12), modes=4).labels() == ["dct0,0", "dct0,1", "dct0,2", "dct1,0"]

    def test_dct_of_a_vector(self):
        x = normal(8)
        expected = torch.from_numpy(scipy.fft.dct(x.numpy(), norm="ortho"))
        torch.testing.assert_close(DCT((8,), modes=3).apply(x), expected[:3])
        assert DCT((8,), modes=2).labels() == ["dct0", "dct1"]

    def test_channel_means(self):
        torch.testing.assert_close(ChannelMeans((2, 4, 6)).apply(X).flatten(), X.mean((1, 2)) * math.sqrt(24))
        assert ChannelMeans((2, 4, 6)).labels() == ["c0 dct0,0", "c1 dct0,0"]

    def test_pca_spans_the_leading_directions(self):
        data = normal(50, 6) @ torch.diag(torch.tensor([5.0, 3.0, 1.0, 0.1, 0.1, 0.1], dtype=torch.float64))
        projected = Features.pca(data, rank=2).apply(data - data.mean(0))
        variances = torch.linalg.eigvalsh(torch.cov(data.T)).flip(0)
        torch.testing.assert_close(torch.cov(projected.T), torch.diag(variances[:2]), rtol=1e-9, atol=1e-9)

    def test_orthonormalise_keeps_the_span_and_drops_dependent_rows(self):
        rows = normal(2, 5)
        features = Features.orthonormalise(torch.cat([rows, rows.sum(0, keepdim=True)]))
        assert features.out_shape == (2,)
        torch.testing.assert_close(features.adjoint(features.apply(rows)), rows)


class TestSparse:
    def test_from_scipy_is_the_matrix(self):
        matrix = scipy.sparse.random(5, 6, density=0.5, rng=1)
        sparse = SparseMap.from_scipy(matrix, (2, 3), (5,))
        torch.testing.assert_close(sparse.dense(), torch.from_numpy(matrix.toarray()))

    def test_repeated_entries_add_up(self):
        sparse = SparseMap((2,), (1,), torch.tensor([[0, 0], [1, 1]]), torch.tensor([1.0, 2.0]))
        assert sparse.dense().tolist() == [[0.0, 3.0]]


REFUSED = [
    (lambda: as_shape((3, 0)), ShapeError, "shape (3, 0) is not a tuple of positive integers"),
    (lambda: as_shape((3, True)), ShapeError, "shape (3, True) is not a tuple of positive integers"),
    (
        lambda: Crop((1, 4, 4), (0, 2), (4, 4)),
        ShapeError,
        "a crop starting at (0, 2) of size (4, 4) does not fit into shape (1, 4, 4) (wrap=True lets it pass",
    ),
    (lambda: Crop((4,), (4,), (1,), wrap=True), ShapeError, "does not fit into shape (4,)"),
    (lambda: Crop((4,), (1.5,), (1,)), ShapeError, "a crop starting at (1.5,)"),
    (lambda: Crop((4,), (0, 0), (1, 1)), ShapeError, "does not fit into shape (4,)"),
    (lambda: Flip((2, 3), axes=(2,)), ShapeError, "axes (2,) do not exist in shape (2, 3)"),
    (lambda: Flip((2, 3), axes=(1, -1)), ShapeError, "axes (1, -1) name an axis of shape (2, 3) twice"),
    (lambda: Rotate((4,)), ShapeError, "a rotation needs two axes, shape (4,) has one"),
    (
        lambda: Permutation((3,), [0, 1, 1]),
        ParameterError,
        "order is not a permutation of 0..2 (it has 3 entries, 2 of them different)",
    ),
    (
        lambda: Mask((2, 3), torch.ones(2, dtype=torch.bool)),
        ShapeError,
        "a mask of shape (2,) does not broadcast to (2, 3)",
    ),
    (lambda: Mask((2,), torch.zeros(2)), ParameterError, "the mask of shape (2,) selects no element"),
    (
        lambda: Lookup((3, 4), torch.tensor([0, 2, 0])),
        ParameterError,
        "1 of 3 sites are listed twice: noise through this map would not be white",
    ),
    (
        lambda: Lookup((3, 4), torch.tensor([0, 4])),
        ShapeError,
        "sites reach from 0 to 4, outside the last axis of (3, 4)",
    ),
    (
        lambda: Lookup((3, 4), torch.tensor([0.0, 1.0])),
        ParameterError,
        "sites of shape (2,) and dtype torch.float32; integers needed",
    ),
    (lambda: DCT((1, 2, 2), modes=5), ParameterError, "modes=5 is not in 1..4 for axes (2, 2)"),
    (lambda: Features(torch.ones(3)), ShapeError, "a basis has shape (r, *in_shape), not (3,)"),
    (
        lambda: Features(torch.full((1, 2), math.nan)),
        NotFiniteError,
        "the feature basis of shape (1, 2) has NaN or infinite entries",
    ),
    (
        lambda: Features(torch.ones(1, 2)),
        CovarianceError,
        "the 1 rows of the feature basis are not orthonormal (largest deviation 1)",
    ),
    (
        lambda: Features.pca(normal(3, 5), rank=3),
        ParameterError,
        "rank=3 is not in 1..2, the directions that 3 rows of data span",
    ),
    (lambda: Features.pca(torch.ones(4, 2), rank=1), ParameterError, "rank=1 is not in 1..0"),
    (lambda: Features.pca(torch.full((4, 2), math.inf), 1), NotFiniteError, "PCA data has 8 NaN or infinite"),
    (
        lambda: SparseMap((2,), (2,), torch.tensor([[0, 2], [0, 1]]), torch.ones(2)),
        ShapeError,
        "sparse indices reach (2, 1), outside the matrix of size (2, 2) between (2,) and (2,)",
    ),
    (
        lambda: SparseMap((2,), (2,), torch.tensor([[0, 1]]), torch.ones(2)),
        ShapeError,
        "indices of shape (1, 2) do not fit 2 values: (2, nnz) needed",
    ),
    (
        lambda: SparseMap((1,), (1,), torch.tensor([[0], [0]]), torch.tensor([math.nan])),
        NotFiniteError,
        "the sparse map has 1 NaN or infinite entries",
    ),
    (
        lambda: SparseMap.from_scipy(scipy.sparse.eye(3), (2,), (3,)),
        ShapeError,
        "a matrix of shape (3, 3) does not map (2,) to (3,): (3, 2) needed",
    ),
    (
        lambda: Composition(Flip((2,)), Identity((3,))),
        ShapeError,
        "cannot compose Flip(in_shape=(2,), axes=(-1,)) after Identity(in_shape=(3,)): the inner map gives "
        "shape (3,), the outer one takes (2,)",
    ),
    (
        lambda: Flip((2, 3)).apply(torch.zeros(3, 2)),
        ShapeError,
        "Flip takes arrays of shape (*batch, 2, 3), not (3, 2)",
    ),
    (lambda: Flip((2, 3)).adjoint(torch.zeros(3)), ShapeError, "Flip takes arrays of shape (*batch, 2, 3)"),
]


@pytest.mark.parametrize(("build", "error", "message"), REFUSED)
def test_bad_input_gets_a_named_error(build, error, message):
    with pytest.raises(error, match=re.escape(message)):
        build()
