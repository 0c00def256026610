"""Covariances from derivatives against denoisers that know theirs exactly."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel

import pgm_sync as ps
from pgm_sync.denoisers.jacobian import MODES
from pgm_sync.errors import NotFiniteError, ParameterError, UnsupportedError
from pgm_sync.levels import NoiseLevel

LEVEL = NoiseLevel(alpha=0.6, sigma=0.8)


def mixture():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 6, 6, generator=generator, dtype=torch.float64)
    means = torch.randn(3, 2, 3, generator=generator, dtype=torch.float64)
    return ps.MixtureDenoiser([0.5, 0.3, 0.2], means, root @ root.mT / 6 + 0.05 * torch.eye(6))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("features", [None, ps.DCT((2, 3), 3)], ids=["elements", "features"])
def test_the_covariance_of_a_mixture(mode, features):
    own = mixture()
    noisy = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    told = own.posterior(noisy, LEVEL, features=features)
    found = ps.JacobianDenoiser(own, mode, step=1e-4).posterior(noisy, LEVEL, features=features)
    assert torch.allclose(found.mean, told.mean, atol=1e-12)
    assert torch.allclose(found.covariance, told.covariance, atol=1e-10 if mode != "differences" else 1e-6)


def test_levels_per_sample_and_conditions():
    own = ps.MixtureDenoiser(
        [0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], [[[0.1, 0.0], [0.0, 0.3]]] * 2, labels=[0, 1]
    )
    noisy = torch.randn(4, 2)
    level = NoiseLevel(alpha=torch.tensor([0.9, 0.7, 0.5, 0.3]), sigma=torch.tensor([0.3, 0.6, 0.8, 0.9]))
    told = own.posterior(noisy, level, 1)
    found = ps.JacobianDenoiser(own).posterior(noisy, level, 1)
    assert torch.allclose(found.covariance, told.covariance, atol=1e-5)


def test_sampling_with_derived_covariances_is_sampling_with_the_exact_ones():
    own = mixture()
    graph = ps.chain_graph(2, (2, 3), ps.Correlation(0.7))

    def run(denoiser):
        scheduler = DDIMScheduler(num_train_timesteps=1000)
        result = ps.sample(
            graph, denoiser, scheduler, num_inference_steps=10, num_samples=8, seed=0,
            posterior_covariance="denoiser", dtype=torch.float64,
        )  # fmt: skip
        return torch.cat([result.samples[k] for k in (0, 1)])

    exact, derived = run(own), run(ps.JacobianDenoiser(own))
    assert torch.allclose(exact, derived, atol=1e-6)


def test_a_network_of_diffusers_by_all_modes():
    """Reverse, forward and differences agree on a U-Net; float64, so that differences are sharp."""
    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8),
        norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    ).double().eval()  # fmt: skip
    level = NoiseLevel(alpha=0.8, sigma=0.6, timestep=300)
    noisy = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    features = ps.DCT((1, 8, 8), 3)
    own = ps.DiffusersDenoiser(model)
    found = [
        ps.JacobianDenoiser(own, mode, step=1e-4).posterior(noisy, level, features=features) for mode in MODES
    ]
    with torch.inference_mode():
        found.append(ps.JacobianDenoiser(own).posterior(noisy, level, features=features))
    for other in found[1:]:
        assert torch.allclose(other.covariance, found[0].covariance, rtol=1e-6, atol=1e-8)
        assert torch.allclose(other.mean, found[0].mean)
    assert not own.denoise(noisy, level).requires_grad


def test_bad_input():
    own = mixture()
    with pytest.raises(ParameterError, match="mode='exact' is not one of reverse"):
        ps.JacobianDenoiser(own, "exact")
    with pytest.raises(ParameterError, match="step=0 is not positive"):
        ps.JacobianDenoiser(own, "differences", step=0)
    noisy = torch.zeros(1, 2, 3, dtype=torch.float64)
    cut = ps.FunctionDenoiser(lambda x, level, condition=None: x.detach() * 0.5, (2, 3))
    with pytest.raises(UnsupportedError, match="does not pass gradients.*mode='differences'"):
        ps.JacobianDenoiser(cut).posterior(noisy, LEVEL)
    root = ps.FunctionDenoiser(lambda x, level, condition=None: x.sqrt(), (2, 3))
    with pytest.raises(NotFiniteError, match="the derivative of FunctionDenoiser"):
        ps.JacobianDenoiser(root).posterior(noisy, LEVEL)


@pytest.mark.parametrize("mode", MODES)
def test_products_in_one_batch_are_products_one_by_one(mode):
    own = ps.MixtureDenoiser(
        [0.5, 0.5], [[-1.0, 0.0, 0.3], [1.0, 0.5, -0.2]], 0.1 * torch.eye(3).expand(2, 3, 3), labels=[0, 1]
    )
    noisy = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    level = NoiseLevel(alpha=torch.tensor([0.9, 0.7, 0.5, 0.3]), sigma=torch.tensor([0.3, 0.6, 0.8, 0.9]))
    one, many = (ps.JacobianDenoiser(own, mode, batch=k).posterior(noisy, level, 1) for k in (1, 2))
    assert torch.equal(one.mean, many.mean) or mode == "forward"
    assert torch.allclose(one.mean, many.mean, atol=1e-6)
    assert torch.allclose(one.covariance, many.covariance, atol=1e-4 if mode == "differences" else 1e-6)
    with pytest.raises(ParameterError, match="batch=0 is not at least 1"):
        ps.JacobianDenoiser(own, batch=0)


def test_where_passes_cannot_be_vectorised_they_go_one_by_one():
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x / 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 0.5 if float(gradient.sum()) > -1e9 else gradient  # looks at numbers, which vmap refuses

    own = ps.FunctionDenoiser(lambda x, alpha, sigma: Halved.apply(x), (3,))
    found = ps.JacobianDenoiser(own, batch=3).posterior(torch.zeros(2, 3), LEVEL)
    expected = LEVEL.sigma**2 / LEVEL.alpha * 0.5 * torch.eye(3).expand(2, 3, 3)
    assert torch.allclose(found.covariance, expected)
