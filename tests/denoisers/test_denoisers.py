"""Fitting, labels, sampling and files of the denoisers; and what they refuse."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.mixture import GaussianMixture

import pgm_sync as ps
from pgm_sync.denoisers.prediction import PREDICTION_TYPES, coefficients, mean_part
from pgm_sync.errors import (
    CovarianceError,
    DtypeError,
    NotFiniteError,
    ParameterError,
    SavedFileError,
    ShapeError,
    UnsupportedError,
    WeightError,
)
from pgm_sync.levels import expand

LEVEL = ps.NoiseLevel(0.8, 0.6)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_classes() -> tuple[torch.Tensor, torch.Tensor]:
    """200 rows of shape (1, 2, 3): class 4 around +2, class 7 around -2."""
    labels = torch.tensor([4, 7]).repeat(100)
    data = 0.3 * normal(200, 1, 2, 3) + torch.where(labels == 4, 2.0, -2.0)[:, None, None, None]
    return data, labels


class TestFit:
    def test_one_component_is_the_mean_and_covariance_of_the_data(self):
        data = normal(100, 4) @ normal(4, 4, seed=1)
        fitted = ps.MixtureDenoiser.fit(data, components=1, reg_covar=0.0)
        exact = ps.GaussianDenoiser(data.mean(0), torch.cov(data.T, correction=0))
        x = normal(5, 4, seed=2)
        torch.testing.assert_close(fitted.denoise(x, LEVEL), exact.denoise(x, LEVEL))

    def test_it_is_the_mixture_of_sklearn(self):
        data = two_classes()[0].flatten(1)
        fitted = ps.MixtureDenoiser.fit(data, components=2, seed=3)
        stock = GaussianMixture(2, random_state=3, reg_covar=1e-6).fit(data.numpy())
        torch.testing.assert_close(
            fitted.mean, torch.from_numpy(stock.weights_ @ stock.means_), rtol=1e-9, atol=1e-9
        )
        assert fitted.components.means.shape == (2, 6)

    @pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
    def test_every_covariance_type_of_sklearn(self, kind):
        data = two_classes()[0].flatten(1)
        stock = GaussianMixture(2, covariance_type=kind, random_state=0).fit(data.numpy())
        denoiser = ps.MixtureDenoiser.from_sklearn(stock, shape=(1, 2, 3))
        draws = denoiser.sample(20_000, generator=torch.Generator().manual_seed(0)).flatten(1)
        assert denoiser.shape == (1, 2, 3)
        torch.testing.assert_close(torch.cov(draws.T), torch.cov(data.T), rtol=0, atol=0.15)

    def test_an_unfitted_mixture_is_refused(self):
        with pytest.raises(
            ParameterError, match=r"GaussianMixture is not fitted; call its fit\(data\) first"
        ):
            ps.MixtureDenoiser.from_sklearn(GaussianMixture(2))

    def test_rank_keeps_leading_directions_and_the_variance_that_was_left_out(self):
        data = normal(400, 5) @ torch.diag(torch.tensor([3.0, 2.0, 0.5, 0.5, 0.5]).double())
        fitted = ps.MixtureDenoiser.fit(data, components=1, rank=2, reg_covar=0.0)
        assert fitted.components.frame.shape == (5, 2)
        variances = torch.linalg.eigvalsh(torch.cov(data.T, correction=0))
        torch.testing.assert_close(fitted.components.outside, variances[:3].mean())
        torch.testing.assert_close(fitted.components.variances[0].sort().values, variances[3:])

    def test_full_rank_is_no_frame(self):
        data = normal(30, 3)
        assert ps.MixtureDenoiser.fit(data, 1, rank=3).components.frame is None

    def test_labels_give_every_class_its_components_and_share(self):
        data, labels = two_classes()
        fitted = ps.MixtureDenoiser.fit(data[:150], 2, rank=3, labels=labels[:150])
        assert fitted.conditions == [4, 7]
        assert fitted.labels.tolist() == [4, 4, 7, 7]
        torch.testing.assert_close(fitted.components.log_weights.exp().sum(), torch.tensor(1.0).double())
        x = torch.zeros(2, 1, 2, 3).double()
        given = fitted.denoise(x, ps.NoiseLevel(0.1, 1.0), torch.tensor([4, 7]))
        assert (given[0] > 1).all()
        assert (given[1] < -1).all()
        assert "conditions=[4, 7]" in repr(fitted)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"components": 0}, ParameterError, "components must lie in 1..200, the rows, got 0"),
            ({"components": 201}, ParameterError, "components must lie in 1..200, the rows, got 201"),
            (
                {"components": 1, "rank": 7},
                ParameterError,
                "rank must lie in 1..6 for shape (1, 2, 3), got 7",
            ),
            (
                {"components": 2, "labels": torch.tensor([0] * 199 + [1])},
                ParameterError,
                "components must lie in 1..1, the rows of class 1, got 2",
            ),
            ({"components": 1, "labels": [1]}, ShapeError, "labels have shape (1,), but there are 200 rows"),
            (
                {"components": 1, "labels": [0.5] * 200},
                DtypeError,
                "labels must be integers, got torch.float32",
            ),
        ],
    )
    def test_bad_input(self, arguments, error, message):
        with pytest.raises(error, match=re.escape(message)):
            ps.MixtureDenoiser.fit(two_classes()[0], **arguments)


class TestSampling:
    @pytest.mark.parametrize("rank", [None, 2])
    def test_draws_have_the_moments_of_the_mixture(self, rank):
        data = two_classes()[0]
        denoiser = ps.MixtureDenoiser.fit(data, 2, rank=rank)
        draws = denoiser.sample(20_000, generator=torch.Generator().manual_seed(1))
        assert draws.shape == (20_000, 1, 2, 3)
        torch.testing.assert_close(draws.mean(0), denoiser.mean, rtol=0, atol=0.06)
        # pure noise sees the whole prior: its posterior covariance is that of the mixture
        prior = denoiser.posterior(torch.zeros(1, 2, 3).double(), ps.NoiseLevel(1e-9, 1.0)).covariance
        torch.testing.assert_close(torch.cov(draws.flatten(1).T), prior, rtol=0, atol=0.12)

    def test_draws_of_one_class(self):
        data, labels = two_classes()
        denoiser = ps.EmpiricalDenoiser(data, labels, bandwidth=0.01)
        draws = denoiser.sample(50, generator=torch.Generator().manual_seed(1), condition=7)
        assert (draws < 0).all()

    def test_the_prior_mean(self):
        data, _ = two_classes()
        torch.testing.assert_close(ps.EmpiricalDenoiser(data).mean, data.mean(0))
        torch.testing.assert_close(ps.MixtureDenoiser.fit(data, 1, rank=2).mean, data.mean(0))


class TestLabels:
    denoiser = ps.MixtureDenoiser(
        [0.5, 0.25, 0.25], [[-1.0], [1.0], [5.0]], torch.full((3, 1, 1), 0.01), labels=[0, 1, 1]
    )

    def test_a_tensor_of_labels_is_a_loop_over_labels(self):
        x, labels = normal(2, 3, 1), torch.tensor([[0, 1, 0], [1, 1, 0]])
        whole = self.denoiser.posterior(x, LEVEL, labels)
        for i in range(2):
            for j in range(3):
                one = self.denoiser.posterior(x[i, j], LEVEL, int(labels[i, j]))
                torch.testing.assert_close(whole.mean[i, j], one.mean)
                torch.testing.assert_close(whole.covariance[i, j], one.covariance)

    @pytest.mark.parametrize(
        ("condition", "error", "message"),
        [
            (2, ParameterError, "unknown label 2; MixtureDenoiser knows [0, 1]"),
            (torch.tensor([0, 5, 9]), ParameterError, "unknown label 5, 9; MixtureDenoiser knows [0, 1]"),
            (0.5, DtypeError, "a condition is a label (an integer) or a tensor of them, got 0.5"),
            (torch.tensor([0.0, 1.0, 1.0]), DtypeError, "labels are integers, got a condition of dtype"),
            (torch.tensor([0, 1]), ShapeError, "condition has shape (2,), the batch (3,)"),
        ],
    )
    def test_bad_conditions(self, condition, error, message):
        with pytest.raises(error, match=re.escape(message)):
            self.denoiser.denoise(normal(3, 1), LEVEL, condition)

    def test_a_denoiser_without_labels_takes_no_condition(self):
        with pytest.raises(ParameterError, match="GaussianDenoiser was given condition 1 but has no labels"):
            ps.GaussianDenoiser([0.0], [[1.0]]).denoise(normal(1), LEVEL, 1)


class TestFiles:
    @pytest.mark.parametrize("rank", [None, 2])
    @pytest.mark.parametrize("labelled", [False, True])
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 2e-2)]
    )
    def test_load_gives_back_what_was_saved(self, tmp_path, rank, labelled, dtype, tolerance):
        data, labels = two_classes()
        denoiser = ps.MixtureDenoiser.fit(data, 2, rank=rank, labels=labels if labelled else None)
        denoiser.save(tmp_path / "m.safetensors", dtype)
        loaded = ps.MixtureDenoiser.load(tmp_path / "m.safetensors")
        assert loaded.shape == (1, 2, 3)
        assert loaded.conditions == denoiser.conditions
        x = normal(4, 1, 2, 3, seed=9)
        for c in [None, 7] if labelled else [None]:
            torch.testing.assert_close(
                loaded.denoise(x, LEVEL, c), denoiser.denoise(x, LEVEL, c), rtol=tolerance, atol=tolerance
            )
        assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]

    def test_tiny_variances_survive_half_precision(self, tmp_path):
        denoiser = ps.MixtureDenoiser([1.0], [[0.0, 0.0]], [[[1e-8, 0.0], [0.0, 1.0]]])
        denoiser.save(tmp_path / "m", torch.float16)
        variances = ps.MixtureDenoiser.load(tmp_path / "m").components.variances
        torch.testing.assert_close(variances[0], torch.tensor([1e-8, 1.0]), rtol=1e-2, atol=0)

    def test_a_missing_or_foreign_file(self, tmp_path):
        with pytest.raises(SavedFileError, match="cannot read .*nothing"):
            ps.MixtureDenoiser.load(tmp_path / "nothing")
        (tmp_path / "text").write_text("no mixture")
        with pytest.raises(SavedFileError, match="cannot read .*text"):
            ps.MixtureDenoiser.load(tmp_path / "text")
        save_file({"x": torch.zeros(1)}, tmp_path / "other")
        with pytest.raises(
            SavedFileError, match="holds format None version None, expected 'pgm_sync.Mixture"
        ):
            ps.MixtureDenoiser.load(tmp_path / "other")

    def test_a_file_of_another_version_or_with_parts_missing(self, tmp_path):
        metadata = {"format": "pgm_sync.MixtureDenoiser", "version": "99", "shape": "[1]"}
        save_file({"means": torch.zeros(1)}, tmp_path / "m", metadata)
        with pytest.raises(SavedFileError, match="version 99, expected 'pgm_sync.MixtureDenoiser' version 1"):
            ps.MixtureDenoiser.load(tmp_path / "m")
        save_file({"means": torch.zeros(1)}, tmp_path / "m", metadata | {"version": "1"})
        with pytest.raises(SavedFileError, match="lacks parts of a mixture: it holds means"):
            ps.MixtureDenoiser.load(tmp_path / "m")


EYE = torch.eye(2)
REFUSED = [
    (
        lambda: ps.GaussianDenoiser(torch.zeros(3), EYE),
        ShapeError,
        "covariance has shape (2, 2); mean of shape",
    ),
    (
        lambda: ps.GaussianDenoiser(torch.zeros(2), -EYE),
        CovarianceError,
        "covariance is not positive semidefinite: its smallest eigenvalue is -1",
    ),
    (
        lambda: ps.GaussianDenoiser(torch.zeros(2), [[1.0, 0.5], [0.0, 1.0]]),
        CovarianceError,
        "covariance is not symmetric: entries differ by up to 0.5; pass (C + C.T) / 2",
    ),
    (
        lambda: ps.GaussianDenoiser([0, 1], EYE),
        DtypeError,
        "mean must be floating point, got torch.int64; convert (and scale) it first",
    ),
    (
        lambda: ps.GaussianDenoiser([0.0, math.nan], EYE),
        NotFiniteError,
        "mean has 1 NaN or infinite numbers, the first at (1,)",
    ),
    (
        lambda: ps.MixtureDenoiser([0.5, 0.6], EYE, torch.stack([EYE, EYE])),
        WeightError,
        "weights must be positive and sum to 1, got a smallest of 0.5, sum 1.1",
    ),
    (
        lambda: ps.MixtureDenoiser([1.0], EYE, torch.stack([EYE, EYE])),
        ShapeError,
        "weights have shape (1,), but there are 2 components",
    ),
    (
        lambda: ps.MixtureDenoiser([0.5, 0.5], EYE, EYE),
        ShapeError,
        "covariances have shape (2, 2), expected (2, 2, 2)",
    ),
    (
        lambda: ps.MixtureDenoiser([0.5, 0.5], EYE, torch.stack([EYE, EYE]), shape=(3,)),
        ShapeError,
        "shape (3,) does not hold the 2 numbers of each mean",
    ),
    (
        lambda: ps.EmpiricalDenoiser(torch.zeros(3)),
        ShapeError,
        "data must be (n, *shape) with n >= 1, got (3,)",
    ),
    (
        lambda: ps.EmpiricalDenoiser(torch.zeros(3, 1), bandwidth=-1),
        ParameterError,
        "bandwidth must be finite and >= 0, got -1",
    ),
    (
        lambda: ps.FunctionDenoiser(torch.sin, (2,), "noise"),
        ParameterError,
        "unknown prediction type 'noise'; use one of epsilon, sample, v_prediction, flow_prediction",
    ),
    (
        lambda: ps.FunctionDenoiser(torch.sin, (0,)),
        ShapeError,
        "shape (0,) is not a tuple of positive integers",
    ),
    (
        lambda: ps.GaussianDenoiser(torch.zeros(2), EYE).denoise(torch.zeros(3), LEVEL),
        ShapeError,
        "GaussianDenoiser denoises (*batch, 2), got (3,)",
    ),
    (
        lambda: ps.GaussianDenoiser(torch.zeros(2), EYE).denoise(torch.zeros(3, 2).long(), LEVEL),
        DtypeError,
        "GaussianDenoiser needs a floating-point state, got torch.int64",
    ),
    (
        lambda: ps.GaussianDenoiser(torch.zeros(2), EYE).denoise(
            torch.zeros(3, 2), ps.NoiseLevel(torch.ones(2), 1.0)
        ),
        ShapeError,
        "alpha has shape (2,), sigma (), the batch (3,)",
    ),
    (
        lambda: ps.GaussianDenoiser(torch.zeros(2), EYE).posterior(
            torch.zeros(2), LEVEL, features=ps.DCT((3,), 1)
        ),
        ShapeError,
        "features take shape (3,), but GaussianDenoiser denoises (2,)",
    ),
]


@pytest.mark.parametrize(("build", "error", "message"), REFUSED)
def test_bad_input_gets_a_named_error(build, error, message):
    with pytest.raises(error, match=re.escape(message)):
        build()


class TestFunction:
    def test_it_is_asked_with_the_level_as_it_is_and_the_condition_only_if_given(self):
        asked = []

        def function(noisy, alpha, sigma, *rest):
            asked.append((alpha, sigma, *rest))
            return noisy

        denoiser = ps.FunctionDenoiser(function, (2,))
        denoiser.denoise(normal(3, 2), LEVEL)
        denoiser.denoise(normal(3, 2), LEVEL, "a cat")
        assert asked == [(0.8, 0.6), (0.8, 0.6, "a cat")]

    def test_predict_is_what_the_function_returns(self):
        denoiser, x = ps.FunctionDenoiser(lambda x, a, s: 3 * x, (2,), "epsilon"), normal(2)
        assert torch.equal(denoiser.predict(x, LEVEL), 3 * x)
        torch.testing.assert_close(denoiser.denoise(x, LEVEL), (x - 0.6 * 3 * x) / 0.8)

    def test_other_denoisers_predict_the_content_itself(self):
        denoiser, x = ps.GaussianDenoiser([0.0, 0.0], EYE), normal(2)
        assert denoiser.prediction_type == "sample"
        assert torch.equal(denoiser.predict(x, LEVEL), denoiser.denoise(x, LEVEL))

    def test_a_wrong_output_is_named(self):
        denoiser = ps.FunctionDenoiser(lambda x, a, s: x[..., :1], (2,))
        with pytest.raises(
            ShapeError, match=r"FunctionDenoiser\(<lambda>, shape=\(2,\).* returned \(3, 1\) for"
        ):
            denoiser.denoise(normal(3, 2), LEVEL)
        with pytest.raises(ShapeError, match="returned float for a state of shape"):
            ps.FunctionDenoiser(lambda x, a, s: 0.5, (2,)).denoise(normal(3, 2), LEVEL)

    def test_noise_says_nothing_at_pure_noise(self):
        denoiser = ps.FunctionDenoiser(lambda x, a, s: x, (2,), "epsilon")
        with pytest.raises(ParameterError, match=r"does not determine the clean content at alpha = 0"):
            denoiser.denoise(normal(2), ps.NoiseLevel(0.0, 1.0))

    def test_it_knows_only_the_mean(self):
        denoiser = ps.FunctionDenoiser(lambda x, a, s: x, (2,))
        with pytest.raises(
            UnsupportedError, match="FunctionDenoiser gives no posterior covariance; use post"
        ):
            denoiser.posterior(normal(2), LEVEL)


@given(st.sampled_from(PREDICTION_TYPES), st.floats(0.05, 1), st.floats(0.01, 50), st.integers(0, 1000))
def test_coefficients_find_the_content_in_every_prediction(kind, alpha, sigma, seed):
    clean, noise = normal(4, seed=seed), normal(4, seed=seed + 1)
    r = math.hypot(alpha, sigma)
    output = {
        "epsilon": noise,
        "sample": clean,
        "v_prediction": (alpha * noise - sigma * clean) / r,
        "flow_prediction": noise - clean,
    }[kind]
    c_x, c_m = coefficients(kind, alpha, sigma)
    torch.testing.assert_close(
        c_x * (alpha * clean + sigma * noise) + c_m * output, clean, rtol=1e-6, atol=1e-6
    )


def test_unknown_prediction_type():
    with pytest.raises(
        ParameterError, match="prediction type 'x' is not one of epsilon, sample, v_prediction"
    ):
        coefficients("x", 1.0, 1.0)


def test_mean_part_drops_a_learned_variance_only():
    x = torch.zeros(2, 3, 4, 4)
    doubled = torch.randn(2, 6, 4, 4)
    assert torch.equal(mean_part(doubled, x, 1), doubled[:, :3])
    assert mean_part(x, x, 1) is x


class TestLevels:
    def test_snr(self):
        assert ps.NoiseLevel(0.5, 0.25).snr == 4.0
        snr = ps.NoiseLevel(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])).snr
        assert snr.tolist() == [0.25, 4.0]

    def test_expand_lines_up_with_the_batch(self):
        x = torch.zeros(2, 3, 4, 4)
        assert expand(0.5, x, 2).shape == ()
        assert expand(torch.zeros(3), x, 2).shape == (3, 1, 1)
        assert expand(torch.zeros(2, 3), x.half(), 2).dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    denoiser = ps.GaussianDenoiser(torch.zeros(2), EYE)
    x = normal(3, 2)
    result = denoiser.posterior(x.to(dtype), LEVEL)
    assert result.mean.dtype == result.covariance.dtype == dtype
    torch.testing.assert_close(result.mean.double(), denoiser.denoise(x, LEVEL), rtol=2e-2, atol=2e-2)


def test_far_from_the_data_nothing_overflows():
    """The nearest data at hardly any noise, the mean at nothing but noise; in float32, without NaN."""
    data = 100 * normal(10, 3).float()
    denoiser = ps.EmpiricalDenoiser(data)
    far = denoiser.denoise(torch.full((1, 3), 1e4), ps.NoiseLevel(1.0, 1e-3))
    nearest = (data - 1e4).square().sum(1).argmin()
    torch.testing.assert_close(far[0], data[nearest], rtol=1e-4, atol=1e-2)
    pure = denoiser.denoise(torch.zeros(1, 3), ps.NoiseLevel(1.0, 1e6))
    torch.testing.assert_close(pure[0], data.mean(0), rtol=1e-2, atol=1e-2)


def test_rows_are_worked_through_in_chunks(monkeypatch):
    denoiser = ps.EmpiricalDenoiser(normal(20, 3), bandwidth=0.2)
    x = normal(50, 3)
    whole = denoiser.posterior(x, LEVEL)
    monkeypatch.setattr("pgm_sync.denoisers.components.CHUNK_ELEMENTS", 200)
    chunked = denoiser.posterior(x, LEVEL)
    torch.testing.assert_close(chunked.mean, whole.mean)
    torch.testing.assert_close(chunked.covariance, whole.covariance)
    per_row = ps.NoiseLevel(torch.full((50,), 0.8).double(), torch.full((50,), 0.6).double())
    torch.testing.assert_close(denoiser.posterior(x, per_row).covariance, whole.covariance)
