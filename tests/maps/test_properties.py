"""Laws of maps over random shapes, crops and permutations."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from pgm_sync.maps import DCT, Crop, Flip, LinearMap, Mask, Permutation, Rotate, element_index
from pgm_sync.testing import MapTests

shapes = st.lists(st.integers(1, 5), min_size=2, max_size=3).map(tuple)


@st.composite
def crops(draw, shape=None):
    shape = draw(shapes) if shape is None else shape
    wrap = draw(st.booleans())
    size = [draw(st.integers(1, n)) for n in shape[-2:]]
    start = [draw(st.integers(0, n - 1 if wrap else n - s)) for n, s in zip(shape[-2:], size, strict=True)]
    return Crop(shape, start, size, wrap)


@st.composite
def permutations(draw, shape=None):
    shape = draw(shapes) if shape is None else shape
    return Permutation(shape, draw(st.permutations(range(math.prod(shape)))))


@st.composite
def masks(draw):
    shape = draw(shapes)
    bits = draw(st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape)).filter(any))
    return Mask(shape, torch.tensor(bits).reshape(shape))


flips = shapes.flatmap(lambda s: st.sets(st.integers(0, len(s) - 1)).map(lambda a: Flip(s, sorted(a))))
turns = st.builds(Rotate, shapes, st.integers(-5, 5))
index_maps = st.one_of(crops(), permutations(), masks(), flips, turns)
dcts = shapes.flatmap(lambda s: st.integers(1, math.prod(s[-2:])).map(lambda m: DCT(s, m)))


@st.composite
def compositions(draw):
    inner = draw(crops())
    outer = draw(st.one_of(crops(inner.out_shape), permutations(inner.out_shape)))
    return outer @ inner


class Laws(MapTests):
    def __init__(self, map: LinearMap):
        self.map = map

    def create(self):
        return self.map


@given(st.one_of(index_maps, dcts, compositions()))
def test_every_law_holds_for_every_map(map):
    laws = Laws(map)
    for name in dir(laws):
        if name.startswith("test_"):
            getattr(laws, name)()


@given(st.one_of(index_maps, compositions()))
def test_the_element_index_tells_all(map):
    index = element_index(map)
    assert len(index.unique()) == len(index) == map.out_size
    x = torch.arange(map.in_size, dtype=torch.float64)
    assert torch.equal(map.apply(x.reshape(map.in_shape)).flatten(), x[index])


@given(permutations())
def test_the_adjoint_of_a_permutation_undoes_it(map):
    x = torch.arange(map.in_size, dtype=torch.float64).reshape(map.in_shape)
    assert torch.equal(map.adjoint(map.apply(x)), x)
    assert torch.equal(map.apply(map.adjoint(x)), x)


@given(crops())
def test_a_crop_and_back_keeps_what_was_seen_and_zeroes_the_rest(map):
    x = torch.arange(1, map.in_size + 1, dtype=torch.float64).reshape(map.in_shape)
    back = map.adjoint(map.apply(x))
    assert torch.equal(back[back != 0], x[back != 0])
    assert int((back != 0).sum()) == map.out_size


@given(dcts)
def test_all_dct_modes_of_a_shape_lose_nothing(map):
    whole = DCT(map.in_shape, math.prod(map.in_shape[-2:]))
    x = torch.randn(map.in_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(whole.adjoint(whole.apply(x)), x)
    torch.testing.assert_close(whole.apply(x)[..., : map.modes], map.apply(x))
