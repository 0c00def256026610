"""Specifications as plain data, and back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgm_sync.errors import DuplicateNameError, MissingPackageError, PgmSyncError, SavedFileError
from pgm_sync.maps import Flip, Identity
from pgm_sync.spec import Spec, decode, encode, same, tensor_from_json, tensor_to_json
from pgm_sync.testing import saved_and_loaded


@dataclass(frozen=True, eq=False, repr=False)
class Everything(Spec):
    number: float = 1.5
    words: tuple = ()
    weights: torch.Tensor | None = None
    inner: Spec | None = None


names = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=8,
)


@given(names)
def test_names_come_back_equal_and_hashable(name):
    tensors: dict[str, torch.Tensor] = {}
    back = decode(json.loads(json.dumps(encode(name, tensors))), tensors)
    assert back == name
    assert hash(back) == hash(name)
    assert tensors == {}


def test_specifications_nest():
    spec = Everything(0.1, ("a", (1, None)), torch.arange(3), Everything(inner=Flip((2, 3))))
    back = saved_and_loaded(spec)
    assert same(back, spec)
    assert type(back.inner.inner) is Flip
    assert repr(back) == (
        "Everything(number=0.1, words=('a', (1, None)), weights=[0, 1, 2], "
        "inner=Everything(number=1.5, words=(), inner=Flip(in_shape=(2, 3), axes=(-1,))))"
    )


def test_large_tensors_are_shown_by_shape():
    assert "weights=tensor(5, 2)" in repr(Everything(weights=torch.zeros(5, 2)))


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool],
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 2), (0,), (0, 3), (2, 0)])
def test_tensors_survive_json_bit_for_bit(dtype, shape):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 100
    tensor = values.abs().to(dtype)
    back = tensor_from_json(json.loads(json.dumps(tensor_to_json(tensor))))
    assert (back.dtype, back.shape) == (dtype, tensor.shape)
    assert torch.equal(back, tensor)


def test_numbers_that_are_hard_to_print():
    tensor = torch.tensor([math.pi, 1e-310, 5e-324, 0.1 + 0.2, -0.0, math.inf], dtype=torch.float64)
    back = tensor_from_json(json.loads(json.dumps(tensor_to_json(tensor))))
    assert torch.equal(back.view(torch.int64), tensor.view(torch.int64))


def test_saved_tensors_carry_no_gradient():
    tensors: dict[str, torch.Tensor] = {}
    encode(Everything(weights=torch.zeros(2, requires_grad=True)), tensors)
    assert not tensors["t0"].requires_grad


class TestSame:
    @pytest.mark.parametrize(
        ("a", "b"),
        [
            (1, 1.0),
            ((1, torch.ones(2)), (1, torch.ones(2))),
            (Flip((2,)), Flip((2,), axes=[-1])),
            (Everything(inner=Identity((3,))), Everything(inner=Identity((3,)))),
        ],
    )
    def test_equal(self, a, b):
        assert same(a, b)

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            (torch.ones(2), torch.ones(2).double()),
            (torch.ones(2), torch.ones(1)),
            (torch.ones(1), 1.0),
            ((1,), (1, 2)),
            (Flip((2,)), Identity((2,))),
            (Flip((2, 3), axes=(0,)), Flip((2, 3), axes=(1,))),
            (Everything(weights=torch.zeros(2)), Everything()),
        ],
    )
    def test_different(self, a, b):
        assert not same(a, b)
        assert not same(b, a)


class TestErrors:
    def test_what_cannot_be_saved(self):
        with pytest.raises(
            SavedFileError, match=r"cannot save \{1: 2\} of type dict: names and parameters that"
        ):
            encode({1: 2}, {})

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (
                {"spec": "Nothing"},
                "the saved file uses class 'Nothing', which is not known here; import the mod",
            ),
            ({"tensor": "t3"}, "the saved file lacks tensor 't3'"),
            ({"odd": 1, "even": 2}, "the saved file has an entry of no known kind, with 'odd', 'even'"),
        ],
    )
    def test_what_cannot_be_read(self, data, message):
        with pytest.raises(SavedFileError) as caught:
            decode(data, {})
        assert message in str(caught.value)

    def test_the_name_of_a_built_in_class_is_taken(self):
        message = (
            "Flip is already the name of pgm_sync.maps.index.Flip, and saved files know a map or potential"
        )
        with pytest.raises(DuplicateNameError, match=message):
            type("Flip", (Spec,), {"__module__": "mine"})
        assert Spec.registry["Flip"] is Flip

    def test_ones_own_class_may_be_defined_again(self):
        """As running a notebook cell twice does: the latest definition counts."""
        first, second = (type("Mine", (Spec,), {"__module__": "notebook"}) for _ in range(2))
        assert Spec.registry.pop("Mine") is second is not first

    def test_errors_share_a_root_and_carry_data(self):
        error = MissingPackageError("no plots", package="matplotlib", extra="plots")
        assert isinstance(error, PgmSyncError)
        assert isinstance(error, ImportError)
        assert isinstance(error, ValueError)
        assert (error.package, error.data) == ("matplotlib", {"package": "matplotlib", "extra": "plots"})
