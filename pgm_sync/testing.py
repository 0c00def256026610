"""The laws that every map, potential and denoiser keeps, as test classes to inherit.

A class of your own joins in by supplying an instance; pytest then collects every law for it::

    from pgm_sync.testing import MapTests

    class TestEveryOther(MapTests):
        def create(self):
            return EveryOther((1, 8, 8))

The suites use plain asserts and `torch.testing`, so any test runner that collects methods will do. Numbers
are drawn from a fixed seed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .denoisers import Denoiser
from .denoisers.prediction import coefficients, mean_part
from .errors import DtypeError, ParameterError, PgmSyncError, ShapeError, UnsupportedError
from .gaussian import Gaussian
from .graph.marginals import full_covariance
from .levels import NoiseLevel
from .maps import Features, LinearMap, Shape
from .potentials import Potential
from .potentials.base import sizes
from .spec import Spec, decode, encode, same, tensor_from_json, tensor_to_json

S = TypeVar("S", bound=Spec)
assert_close = torch.testing.assert_close

__all__ = ["DenoiserTests", "MapTests", "PotentialTests", "dense_information", "saved_and_loaded"]


class MapTests:
    """Laws of a `LinearMap`; a subclass supplies one.

    As a class of a test module, which pytest collects:

    >>> from pgm_sync.maps import Flip
    >>> class TestMine(MapTests):
    ...     def create(self):
    ...         return Flip((1, 4, 6))
    >>> TestMine().test_the_adjoint_is_the_transpose()
    """

    def create(self) -> LinearMap:
        """The map under test; small, its dense matrix is formed."""
        raise NotImplementedError

    def test_apply_goes_from_in_shape_to_out_shape(self) -> None:
        map = self.create()
        assert map.apply(_normal(*map.in_shape)).shape == map.out_shape
        assert map.adjoint(_normal(*map.out_shape)).shape == map.in_shape
        assert (map.in_size, map.out_size) == (math.prod(map.in_shape), math.prod(map.out_shape))

    def test_the_adjoint_is_the_transpose(self) -> None:
        map = self.create()
        x, y = _normal(5, *map.in_shape), _normal(5, *map.out_shape, seed=1)
        left = (map.apply(x) * y).flatten(1).sum(1)
        assert_close(left, (x * map.adjoint(y)).flatten(1).sum(1))

    def test_the_dense_matrix_agrees(self) -> None:
        map = self.create()
        matrix = map.dense()
        assert matrix.shape == (map.out_size, map.in_size)
        assert matrix.dtype == torch.float64
        x, y = _normal(*map.in_shape), _normal(*map.out_shape, seed=1)
        assert_close(matrix @ x.flatten(), map.apply(x).flatten())
        assert_close(matrix.T @ y.flatten(), map.adjoint(y).flatten())

    def test_it_is_linear(self) -> None:
        map = self.create()
        for f, shape in ((map.apply, map.in_shape), (map.adjoint, map.out_shape)):
            a, b = _normal(*shape), _normal(*shape, seed=1)
            assert_close(f(2.5 * a - b), 2.5 * f(a) - f(b))

    def test_batch_dimensions_stay_on_the_left(self) -> None:
        map = self.create()
        for f, shape, target in (
            (map.apply, map.in_shape, map.out_shape),
            (map.adjoint, map.out_shape, map.in_shape),
        ):
            batch = _normal(2, 3, *shape)
            looped = torch.stack([torch.stack([f(x) for x in row]) for row in batch])
            assert_close(f(batch), looped)
            assert f(batch[:0]).shape == (0, 3, *target)

    def test_float32_and_float64_are_kept(self) -> None:
        map = self.create()
        for f, shape in ((map.apply, map.in_shape), (map.adjoint, map.out_shape)):
            x = _normal(*shape)
            assert f(x).dtype == torch.float64
            assert f(x.float()).dtype == torch.float32
            assert_close(f(x.float()).double(), f(x), rtol=1e-5, atol=1e-5)

    def test_the_gradient_is_the_adjoint(self) -> None:
        map = self.create()
        x, y = _normal(*map.in_shape).requires_grad_(), _normal(*map.out_shape, seed=1)
        (gradient,) = torch.autograd.grad((map.apply(x) * y).sum(), x)
        assert_close(gradient, map.adjoint(y))

    def test_orthonormal_says_whether_the_rows_are(self) -> None:
        map = self.create()
        matrix = map.dense()
        gap = (matrix @ matrix.T - torch.eye(map.out_size, dtype=matrix.dtype)).abs().max().item()
        assert map.orthonormal == (gap < 1e-6), f"orthonormal is {map.orthonormal}, A A' - I is {gap:.2g}"

    def test_every_output_element_has_a_label_of_its_own(self) -> None:
        map = self.create()
        assert len(set(map.labels())) == map.out_size

    def test_save_and_load_gives_the_same_map(self) -> None:
        map = self.create()
        loaded = saved_and_loaded(map)
        assert same(map, loaded)
        x = _normal(*map.in_shape)
        assert torch.equal(map.apply(x), loaded.apply(x))

    def test_a_wrong_shape_is_named(self) -> None:
        map = self.create()
        for f, shape in ((map.apply, map.in_shape), (map.adjoint, map.out_shape)):
            wrong = (*shape[:-1], shape[-1] + 1)
            error = _raised(ShapeError, f, _normal(2, *wrong))
            assert str((2, *wrong)) in str(error), f"the message does not give the shape: {error}"


class PotentialTests:
    """Laws of a `Potential` with a density; a subclass supplies one, its ends, and an independent oracle.

    As a class of a test module, which pytest collects:

    >>> from pgm_sync.potentials import Attraction
    >>> class TestMine(PotentialTests):
    ...     shapes = [(2,), (2,)]
    ...     def create(self):
    ...         return Attraction(3.0)
    ...     def log_density(self, contents):
    ...         return -1.5 * (contents[0] - contents[1]).square().sum(-1)
    >>> TestMine().test_log_density_equals_the_oracle()
    """

    shapes: Sequence[Shape]  # what the factor sees of each end; small
    ratio: bool = True  # with stated marginals: psi = g / prod_i g_i, the copula of Eq. 1

    def create(self) -> Potential:
        """The potential under test."""
        raise NotImplementedError

    def log_density(self, contents: Sequence[Tensor]) -> Tensor:  # per end (n, *shape) -> (n)
        """Oracle: log psi, computed another way than from `information`."""
        raise NotImplementedError

    def contents(self) -> list[Tensor]:
        """Seven random contents of every end."""
        return [_normal(7, *shape, seed=k) for k, shape in enumerate(self.shapes)]

    def test_it_accepts_its_ends(self) -> None:
        potential = self.create()
        potential.check("factor", self.shapes)
        assert potential.fitted

    def test_information_is_symmetric_and_float64(self) -> None:
        potential = self.create()
        information = potential.information(self.shapes)
        assert {part.dtype for part in information} == {torch.float64}
        assert_close(information.precision, information.precision.transpose(0, 1), rtol=1e-9, atol=1e-9)
        n, size = len(self.shapes), sum(sizes(self.shapes))
        if potential.elementwise:
            assert information.precision.shape[:2] == (n, n)
            assert information.eta.shape[:1] == (n,)
            assert information.precision.shape[2:] in ((), self.shapes[0])
            assert information.eta.shape[1:] in ((), self.shapes[0])
            assert information.log_scale.shape in ((), self.shapes[0])
        else:
            assert [part.shape for part in information] == [(size, size), (size,), ()]

    def test_log_density_equals_the_oracle(self) -> None:
        contents = self.contents()
        joint = dense_information(self.create(), self.shapes)
        value = joint.log_density(torch.cat([c.flatten(1) for c in contents], 1))
        assert_close(value, self.log_density(contents).double(), rtol=1e-8, atol=1e-8)

    def test_the_elementwise_form_agrees_with_the_dense_one(self) -> None:
        potential = self.create()
        if not potential.elementwise:
            return
        precision, eta, log_scale = potential.information(self.shapes)
        shape = self.shapes[0]
        y = torch.stack(self.contents(), 1)  # (n, ends, *shape)
        ends = len(self.shapes)
        precision = precision.reshape(ends, ends, *(precision.shape[2:] or (1,) * len(shape)))
        eta = eta.reshape(ends, *(eta.shape[1:] or (1,) * len(shape)))
        quadratic = torch.einsum("ni...,ij...,nj...->n...", y, precision.expand(ends, ends, *shape), y)
        each = -0.5 * quadratic + (eta * y).sum(1) + log_scale
        joint = dense_information(potential, self.shapes)
        # y runs (end, element) once flattened, which is the order of the dense form
        assert_close(each.flatten(1).sum(1), joint.log_density(y.flatten(1)))

    def test_stated_marginals_are_those_of_the_joint(self) -> None:
        """Eq. 1: psi times its marginals is a normalised density that has these marginals."""
        potential = self.create()
        stated = potential.marginals(self.shapes)
        assert len(stated) == len(self.shapes)
        blocks = sizes(self.shapes)
        for marginal, size in zip(stated, blocks, strict=True):
            if marginal is not None:
                assert marginal.mean.shape == (size,)
                assert marginal.covariance.shape in ((size,), (size, size))
        own = [Gaussian.from_moments(m.mean, full_covariance(m)) for m in stated if m is not None]
        if not self.ratio or len(own) < len(stated):
            return
        joint = dense_information(potential, self.shapes) + Gaussian(
            torch.block_diag(*(g.precision for g in own)),
            torch.cat([g.eta for g in own]),
            torch.stack([g.log_scale for g in own]).sum(),
        )
        assert_close(joint.log_normalizer, torch.zeros_like(joint.log_scale), rtol=0, atol=1e-8)
        assert_close(joint.mean, torch.cat([g.mean for g in own]), rtol=1e-8, atol=1e-8)
        for g, part in zip(own, torch.arange(sum(blocks)).split(blocks), strict=True):
            assert_close(joint.covariance[part][:, part], g.covariance, rtol=1e-8, atol=1e-8)

    def test_save_and_load_gives_the_same_potential(self) -> None:
        potential = self.create()
        loaded = saved_and_loaded(potential)
        assert same(potential, loaded)
        pairs = zip(potential.information(self.shapes), loaded.information(self.shapes), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_gradients_of_tensor_parameters(self) -> None:
        potential = self.create()
        for name, tensor in _float_tensors(potential):

            def information(value: Tensor, name: str = name) -> tuple[Tensor, ...]:
                changed = dataclasses.replace(potential, **{name: value})  # type: ignore[type-var]
                parts = changed.information(self.shapes)
                return tuple(part for part in parts if part.requires_grad)

            assert torch.autograd.gradcheck(information, tensor.detach().double().requires_grad_())

    def test_a_wrong_number_of_ends_is_named(self) -> None:
        potential = self.create()
        if potential.ends is None:
            return
        error = _raised(ParameterError, potential.check, "seam", [*self.shapes, self.shapes[0]])
        assert "'seam'" in str(error)

    def test_ends_that_do_not_match_are_named(self) -> None:
        potential = self.create()
        if not potential.elementwise or len(self.shapes) < 2:
            return
        *others, last = self.shapes
        error = _raised(ShapeError, potential.check, "seam", [*others, (*last, 2)])
        assert "'seam'" in str(error)


class DenoiserTests:
    """Laws of a `Denoiser`; a subclass supplies one, and a sampler of contents it should be right about.

    As a class of a test module, which pytest collects:

    >>> from pgm_sync.denoisers import GaussianDenoiser
    >>> class TestMine(DenoiserTests):
    ...     def create(self):
    ...         return GaussianDenoiser(torch.zeros(3).double(), 4 * torch.eye(3).double())
    ...     def clean(self, count, generator):
    ...         return 2 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    >>> TestMine().test_the_covariance_is_the_jacobian_of_the_mean()
    """

    coordinates: Sequence[tuple[float, float]] = ((0.95, 0.3), (1.0, 2.0), (0.5, 0.5))  # (alpha, sigma)
    condition: Any = None
    exact: bool = True  # the posterior mean is exact for what `clean` draws, so its errors are noise
    count: int = 4000  # draws for the laws that hold on average
    tolerance: float = 1e-8  # of float64 results

    def create(self) -> Denoiser:
        """The denoiser under test."""
        raise NotImplementedError

    def clean(self, count: int, generator: torch.Generator) -> Tensor:
        """Clean contents, ``(count, *shape)``, float64, drawn another way than by the denoiser."""
        raise NotImplementedError

    def posterior_mean(self, noisy: Tensor, level: NoiseLevel) -> Tensor | None:
        """Oracle: ``E[x_0 | x_t]`` of `noisy` at a `level` in closed form, where there is one."""
        return None

    def level(self, alpha: float | Tensor, sigma: float | Tensor) -> NoiseLevel:
        """The noise level of `alpha` and `sigma`; a network's has a timestep too."""
        return NoiseLevel(alpha, sigma)

    def features(self) -> LinearMap:
        """Two features of the content."""
        shape = self.create().shape
        return Features.orthonormalise(_normal(min(2, math.prod(shape)), *shape, seed=2))

    def states(self, *batch: int) -> Iterator[tuple[Tensor, NoiseLevel]]:
        """Noisy states of some clean contents at every level, with `batch` dimensions."""
        for k, (alpha, sigma) in enumerate(self.coordinates):
            count = math.prod(batch)
            clean = self.clean(max(count, 1), torch.Generator().manual_seed(k))[:count]
            clean = clean.reshape(*batch, *clean.shape[1:])
            yield alpha * clean + sigma * _normal(*clean.shape, seed=k), self.level(alpha, sigma)

    def test_the_output_has_the_shape_of_the_input(self) -> None:
        denoiser = self.create()
        for batch in ((), (3,), (2, 3), (0,)):
            for noisy, level in self.states(*batch):
                assert denoiser.denoise(noisy, level, self.condition).shape == (*batch, *denoiser.shape)

    def test_a_batch_equals_a_loop(self) -> None:
        denoiser = self.create()
        for noisy, level in self.states(2, 3):
            whole = denoiser.denoise(noisy, level, self.condition)
            rows = [[denoiser.denoise(x, level, self.condition) for x in row] for row in noisy]
            self._close(whole, torch.stack([torch.stack(row) for row in rows]))

    def test_each_element_may_have_a_level_of_its_own(self) -> None:
        denoiser = self.create()
        alpha, sigma = torch.tensor(self.coordinates, dtype=torch.float64).T
        clean = self.clean(len(alpha), torch.Generator().manual_seed(0))
        noisy = torch.stack(
            [a * x + s * e for a, s, x, e in zip(alpha, sigma, clean, _normal(*clean.shape), strict=True)]
        )
        whole = denoiser.denoise(noisy, self.level(alpha, sigma), self.condition)
        rows = [
            denoiser.denoise(x, self.level(*pair), self.condition)
            for x, pair in zip(noisy, self.coordinates, strict=True)
        ]
        self._close(whole, torch.stack(rows))

    def test_float32_and_float64_are_kept(self) -> None:
        denoiser = self.create()
        for noisy, level in self.states(3):
            result = denoiser.denoise(noisy, level, self.condition)
            single = denoiser.denoise(noisy.float(), level, self.condition)
            assert (result.dtype, single.dtype) == (torch.float64, torch.float32)
            assert_close(single.double(), result, rtol=1e-3, atol=1e-3)

    def test_without_noise_the_content_is_what_is_seen(self) -> None:
        denoiser = self.create()
        clean = self.clean(4, torch.Generator().manual_seed(0))
        for alpha, sigma in ((1.0, 1e-6), (0.5, 1e-6)):
            noisy = alpha * clean + sigma * _normal(*clean.shape)
            result = denoiser.denoise(noisy, self.level(alpha, sigma), self.condition)
            assert_close(result, noisy / alpha, rtol=0, atol=1e-4)

    def test_it_equals_the_closed_form(self) -> None:
        denoiser = self.create()
        for noisy, level in self.states(5):
            expected = self.posterior_mean(noisy, level)
            if expected is not None:
                self._close(denoiser.denoise(noisy, level, self.condition), expected)

    def test_its_errors_are_uncorrelated_with_the_state(self) -> None:
        """What makes a posterior mean one; and the errors have the covariance that it states, on average."""
        denoiser = self.create()
        if not self.exact:
            return
        generator = torch.Generator().manual_seed(0)
        for alpha, sigma in self.coordinates:
            clean = self.clean(self.count, generator)
            noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
            noisy, level = alpha * clean + sigma * noise, self.level(alpha, sigma)
            error = (clean - denoiser.denoise(noisy, level, self.condition)).flatten(1)
            _averages_to_zero(error)
            _averages_to_zero(error[:, :, None] * noisy.flatten(1)[:, None, :])
            if denoiser.has_covariance:
                covariance = denoiser.posterior(noisy, level, self.condition).covariance
                _averages_to_zero(error[:, :, None] * error[:, None, :] - covariance)

    def test_the_covariance_is_the_jacobian_of_the_mean(self) -> None:
        """Eq. 4, ``C = sigma^2 / alpha * dm/dx``."""
        denoiser = self.create()
        if not denoiser.has_covariance:
            _raised(UnsupportedError, denoiser.posterior, *next(self.states(2)), self.condition)
            return
        size = math.prod(denoiser.shape)
        for states, level in self.states(2):
            posterior = denoiser.posterior(states, level, self.condition)
            self._close(posterior.mean, denoiser.denoise(states, level, self.condition))
            for noisy, covariance in zip(states, posterior.covariance, strict=True):
                jacobian = torch.autograd.functional.jacobian(
                    lambda x, level=level: denoiser.denoise(x, level, self.condition), noisy
                )
                assert isinstance(jacobian, Tensor)
                expected = level.sigma**2 / level.alpha * jacobian.reshape(size, size)
                assert_close(covariance, expected, rtol=1e-5, atol=max(self.tolerance, 1e-7))
                self._close(covariance, covariance.mT)
                assert torch.linalg.eigvalsh(covariance).min() > -1e-7 * covariance.abs().max()

    def test_the_covariance_of_features(self) -> None:
        denoiser = self.create()
        if not denoiser.has_covariance:
            return
        features = self.features()
        matrix = features.dense()
        for noisy, level in self.states(2, 2):
            whole = denoiser.posterior(noisy, level, self.condition)
            seen = denoiser.posterior(noisy, level, self.condition, features)
            self._close(seen.mean, whole.mean)
            self._close(seen.covariance, matrix @ whole.covariance @ matrix.T)

    def test_its_prediction_converts_to_the_denoised_content(self) -> None:
        denoiser = self.create()
        for noisy, level in self.states(3):
            output = mean_part(denoiser.predict(noisy, level, self.condition), noisy, 1)
            c_x, c_m = coefficients(denoiser.prediction_type, level.alpha, level.sigma)
            self._close(c_x * noisy + c_m * output, denoiser.denoise(noisy, level, self.condition))

    def test_a_state_that_does_not_fit_is_named(self) -> None:
        denoiser = self.create()
        noisy, level = next(self.states(2))
        wrong = torch.cat([noisy, noisy[..., :1]], -1)
        error = _raised(ShapeError, denoiser.denoise, wrong, level, self.condition)
        assert str(tuple(wrong.shape)) in str(error), f"the message does not give the shape: {error}"
        _raised(DtypeError, denoiser.denoise, noisy.long(), level, self.condition)

    def _close(self, actual: Tensor, expected: Tensor) -> None:
        assert_close(actual, expected, rtol=self.tolerance, atol=self.tolerance)


def dense_information(potential: Potential, shapes: Sequence[Shape]) -> Gaussian:
    """psi of a `potential` as one Gaussian over the contents of all ends, flattened and concatenated in scope order.

    `shapes` are what the factor sees of each end.

    >>> from pgm_sync.potentials import Attraction
    >>> dense_information(Attraction(2.0), [(1,), (1,)]).precision.tolist()
    [[2.0, -2.0], [-2.0, 2.0]]
    """
    precision, eta, log_scale = potential.information(shapes)
    if not potential.elementwise:
        return Gaussian(precision, eta, log_scale)
    n, shape = len(shapes), shapes[0]
    size = math.prod(shape)
    ones = (1,) * len(shape)
    precision = precision.reshape(n, n, *(precision.shape[2:] or ones)).expand(n, n, *shape)
    eta = eta.reshape(n, *(eta.shape[1:] or ones)).expand(n, *shape)
    rows = [torch.cat([precision[i, j].flatten().diag() for j in range(n)], 1) for i in range(n)]
    return Gaussian(torch.cat(rows), eta.reshape(n * size), log_scale.expand(shape).sum())


def saved_and_loaded(spec: S) -> S:
    """A map or potential, the `spec`, after a trip through a file's text.

    >>> from pgm_sync.potentials import Attraction
    >>> saved_and_loaded(Attraction(2.0))
    Attraction(precision=2.0)
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(encode(spec, tensors))
    written = json.dumps({key: tensor_to_json(tensor) for key, tensor in tensors.items()})
    return decode(json.loads(text), {k: tensor_from_json(t) for k, t in json.loads(written).items()})


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _float_tensors(potential: Potential) -> Iterator[tuple[str, Tensor]]:
    for field in dataclasses.fields(potential):  # type: ignore[arg-type]
        value = getattr(potential, field.name)
        if isinstance(value, Tensor) and value.is_floating_point():
            yield field.name, value


def _averages_to_zero(values: Tensor, deviations: float = 5.5) -> None:
    """The mean over the first axis is within so many standard errors of zero, at every entry."""
    error = values.std(0) / math.sqrt(len(values))
    worst = (values.mean(0).abs() / (error + 1e-9)).max().item()
    assert worst < deviations, f"a mean of {len(values)} draws is {worst:.1f} standard errors from zero"


def _raised(error: type[PgmSyncError], call: Callable[..., Any], *arguments: Any) -> PgmSyncError:
    try:
        call(*arguments)
    except error as caught:
        return caught
    raise AssertionError(f"no {error.__name__} was raised")
