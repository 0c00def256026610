"""The Bethe sum against scores added up by hand, and where it is exact."""

from __future__ import annotations

import diffusers
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import ParameterError, ShapeError, WeightError
from pgm_sync.peers import BetheDenoiser, bethe_windows
from pgm_sync.testing import DenoiserTests

INDEX = torch.arange(40)
AR1 = (0.98 ** (INDEX[:, None] - INDEX).abs()).double()


def exact(shape):
    return ps.GaussianDenoiser(torch.zeros(shape).double(), AR1[: shape[-1], : shape[-1]])


def gaussian_score(x, covariance, level):
    noisy = level.alpha**2 * covariance + level.sigma**2 * torch.eye(len(covariance))
    return -torch.linalg.solve(noisy, x)


class TestWindowsSideBySide(DenoiserTests):
    """Without overlaps the Bethe sum is exact for independent windows, and a denoiser like any other."""

    def create(self):
        return bethe_windows((1, 6), 3, 3, exact)

    def clean(self, count, generator):
        root = torch.linalg.cholesky(torch.block_diag(AR1[:3, :3], AR1[:3, :3]))
        return (torch.randn(count, 6, generator=generator, dtype=torch.float64) @ root.T)[:, None]

    def posterior_mean(self, noisy, level):
        covariance = torch.block_diag(AR1[:3, :3], AR1[:3, :3])
        noise = level.alpha**2 * covariance + level.sigma**2 * torch.eye(6)
        return level.alpha * torch.linalg.solve(noise, noisy.mT).mT @ covariance


@pytest.mark.parametrize("snr", [0.01, 1.0, 100.0])
def test_its_score_is_the_windows_scores_minus_the_overlaps(snr, generator):
    alpha = (snr / (1 + snr)) ** 0.5
    level = ps.NoiseLevel(alpha, (1 - alpha**2) ** 0.5)
    x = torch.randn(1, 20, generator=generator, dtype=torch.float64)
    found = ps.score_from_denoised(bethe_windows((1, 20), 8, 4, exact).denoise(x, level), x, level)
    expected = torch.zeros(20, dtype=torch.float64)
    for left in (0, 4, 8, 12):
        expected[left : left + 8] += gaussian_score(x[0, left : left + 8], AR1[:8, :8], level)
    for left in (4, 8, 12):
        expected[left : left + 4] -= gaussian_score(x[0, left : left + 4], AR1[:4, :4], level)
    assert torch.allclose(found[0], expected, atol=1e-9 * max(1.0, snr))


def test_it_is_exact_without_noise_and_for_one_window_only(generator):
    """Without noise an AR(1) canvas is Markov, so its windows determine it; with noise it is not."""
    x = torch.randn(1, 20, generator=generator, dtype=torch.float64)
    whole, bethe, single = (
        exact((1, 20)),
        bethe_windows((1, 20), 8, 4, exact),
        bethe_windows((1, 20), 20, 7, exact),
    )
    for sigma, close in [(1e-3, True), (1.0, False)]:
        level = ps.NoiseLevel(1.0, sigma)
        score, truth, one = (
            ps.score_from_denoised(d.denoise(x, level), x, level) for d in (bethe, whole, single)
        )
        error = ((score - truth).norm() / truth.norm()).item()
        assert (error < 1e-3) == close
        assert torch.allclose(one, truth)


def test_sampling_has_the_known_loss_of_long_range_correlation():
    """AR(1), rho .98, seven windows of 16 at stride 4, Stable Diffusion's noise schedule, 50 DDIM steps: relative
    covariance error .360, mean variance .826, end correlation .072 (truth .455), without Monte Carlo."""
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    graph = ps.FactorGraph()
    graph.add_trajectory("canvas", (1, 40))
    unit = torch.eye(40, dtype=torch.float64)[:, None]
    response = ps.sample(
        graph, bethe_windows((1, 40), 16, 4, exact), scheduler, 50, 40,
        initial_noise={"canvas": unit}, dtype=torch.float64, progress=False,
    ).samples["canvas"][:, 0]  # fmt: skip
    covariance = response.T @ response
    scale = covariance.diagonal().sqrt()
    assert ((covariance - AR1).norm() / AR1.norm()).item() == pytest.approx(0.360, abs=5e-4)
    assert covariance.diagonal().mean().item() == pytest.approx(0.826, abs=5e-4)
    assert (covariance / scale / scale[:, None])[0, -1].item() == pytest.approx(0.072, abs=5e-4)


@pytest.mark.parametrize(("parts", "error", "message"), [
    ([], ParameterError, "at least one part"),
    ([(ps.Crop((1, 6), (0,), (4,)), exact((1, 4)), 1.0)], WeightError, r"sum to 0 \.\. 1 over the elements"),
    ([(ps.Crop((1, 6), (0,), (6,)), exact((1, 5)), 1.0)], ShapeError, r"the part's denoiser \(1, 5\)"),
    ([(ps.DCT((1, 6, 6), 2), exact((1, 4)), 1.0)], ParameterError, "not a map that picks elements"),
])  # fmt: skip
def test_parts_that_do_not_make_a_whole(parts, error, message):
    with pytest.raises(error, match=message):
        BetheDenoiser(parts)


@pytest.mark.parametrize(("window", "stride"), [(8, 5), (8, 9), (30, 4), (8, 0)])
def test_windows_that_do_not_cover(window, stride):
    with pytest.raises(
        ParameterError, match=f"windows of {window} at stride {stride} do not cover 20 columns"
    ):
        bethe_windows((1, 20), window, stride, exact)
