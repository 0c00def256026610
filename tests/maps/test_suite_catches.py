"""The map suite fails for maps that break its laws."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from pgm_sync.maps import LinearMap
from pgm_sync.testing import MapTests


@dataclass(frozen=True, eq=False, repr=False)
class Broken(LinearMap):
    """Sums neighbours; each way of being wrong is switched on by name."""

    wrong: str = ""
    in_shape = (4,)
    out_shape = (3,)

    @property
    def orthonormal(self):
        return self.wrong == "orthonormal"

    def labels(self):
        return ["a"] * 3 if self.wrong == "labels" else ["a", "b", "c"]

    def apply(self, x):
        if self.wrong != "shape":
            self._check(x, (4,))
        y = x[..., :3] + x[..., 1:4]
        if self.wrong == "linear":
            y = y + 1
        if self.wrong == "batch" and x.ndim > 2:
            y = y.flip(0)
        return y.double() if self.wrong == "dtype" else y

    def adjoint(self, y):
        if self.wrong != "shape":
            self._check(y, (3,))
        zero = torch.zeros_like(y[..., :1])
        left, right = torch.cat([y, zero], -1), torch.cat([zero, y], -1)
        return left if self.wrong == "adjoint" else left + right


class Suite(MapTests):
    def __init__(self, wrong):
        self.wrong = wrong

    def create(self):
        return Broken(self.wrong)


LAWS = [name for name in dir(MapTests) if name.startswith("test_")]


def broken_laws(wrong):
    found = []
    for law in LAWS:
        try:
            getattr(Suite(wrong), law)()
        except (AssertionError, RuntimeError, IndexError):
            found.append(law)
    return found


def test_it_passes_when_nothing_is_wrong():
    assert broken_laws("") == []


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ("adjoint", "test_the_adjoint_is_the_transpose"),
        ("adjoint", "test_the_gradient_is_the_adjoint"),
        ("linear", "test_it_is_linear"),
        ("batch", "test_batch_dimensions_stay_on_the_left"),
        ("dtype", "test_float32_and_float64_are_kept"),
        ("orthonormal", "test_orthonormal_says_whether_the_rows_are"),
        ("labels", "test_every_output_element_has_a_label_of_its_own"),
        ("shape", "test_a_wrong_shape_is_named"),
    ],
)
def test_it_catches(wrong, law):
    assert law in broken_laws(wrong)
