"""The method in one file does what the library does."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps

FILE = Path(__file__).resolve().parents[1] / "examples" / "minisync.py"
SOURCE = FILE.read_text()
N, D = 4, 3
CHAIN = [(0, 1), (1, 2), (2, 3)]
STAR = [(0, 3), (1, 3), (2, 3)]
LEVEL = ps.NoiseLevel(alpha=0.8, sigma=0.6)


@pytest.fixture(scope="module")
def mini():
    spec = importlib.util.spec_from_file_location("minisync", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def x_0(generator):
    """Joint clean samples ``(200, N, D)`` whose numbers all correlate, with means of their own."""
    mix = torch.randn(N * D, N * D, generator=generator, dtype=torch.float64)
    white = torch.randn(200, N * D, generator=generator, dtype=torch.float64)
    return (white @ mix + torch.arange(N * D)).reshape(200, N, D)


def library_fit(x_0, edges, shrinkage="none"):
    graph = ps.FactorGraph()
    for i in range(N):
        graph.add_trajectory(i, D)
    for edge in edges:
        graph.add_factor(edge, list(edge), ps.JointGaussian())
    return ps.fit(graph, {i: x_0[:, i] for i in range(N)}, shrinkage=shrinkage, heldout=0)


def own_denoisers(g):
    return {i: ps.GaussianDenoiser(g.mu[i], g.Sigma_ii[i]) for i in range(N)}


def denoise(mini, g):
    def own(x, alpha, sigma):
        each = [mini.gaussian_mean(x[:, i], g.Sigma_ii[i], alpha, sigma, g.mu[i]) for i in range(N)]
        return torch.stack(each, 1)

    return own


def test_it_is_one_short_file_of_torch_alone():
    assert len(SOURCE.splitlines()) <= 200
    imports = [node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name.name for node in imports if isinstance(node, ast.Import) for name in node.names}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in names}
    assert roots - set(sys.stdlib_module_names) == {"torch"}


def test_it_runs(mini, capsys):
    mini.main()
    ends = {line.split(":")[0].strip(): float(line.split("ends")[1].split()[0]) for line in
            capsys.readouterr().out.splitlines() if "ends" in line}  # fmt: skip
    assert abs(ends["joint (Eq. 6)"] - 0.31) < 0.06
    assert abs(ends["canvas (Eq. 11)"] - 0.31) < 0.06
    assert abs(ends["averaging (Eq. 12)"]) < 0.06


@pytest.mark.parametrize("edges", [CHAIN, STAR], ids=["chain", "star"])
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_the_fit(mini, x_0, edges, shrinkage):
    g, fitted = mini.fit(x_0, edges, shrinkage), library_fit(x_0, edges, shrinkage)
    for edge in edges:
        potential = fitted.potential(edge)
        torch.testing.assert_close(g.Sigma_pair[edge], potential.covariance, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(g.mu[list(edge)].flatten(), potential.mean, rtol=1e-9, atol=1e-9)
    table = ps.correlations(fitted)
    for edge, nats in table.mutual_information.items():
        assert mini.mutual_information(g.Sigma_pair[edge]) == pytest.approx(nats, rel=1e-9)
    for row in table:
        pair, k = g.Sigma_pair[row.factor], int(row.mode)
        scale = pair.diagonal().rsqrt()
        assert (pair[k, D + k] * scale[k] * scale[D + k]).item() == pytest.approx(row.rho, rel=1e-9)


def test_the_factor_of_one_number_each(mini):
    rho = 0.7
    unit = torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)
    stated = ps.Correlation(rho).information([(1,), (1,)]).precision[..., 0]
    torch.testing.assert_close(mini.edge_factor(unit), stated, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("edges", [CHAIN, STAR], ids=["chain", "star"])
def test_the_joint_mean(mini, x_0, edges, generator):
    g, fitted = mini.fit(x_0, edges), library_fit(x_0, edges)
    m = torch.randn(5, N, D, generator=generator, dtype=torch.float64)
    noisy = {i: torch.randn(5, D, generator=generator, dtype=torch.float64) for i in range(N)}
    found = mini.joint_mean(g, m, LEVEL.snr)
    joint = ps.JointDenoiser(fitted)(noisy, {i: m[:, i] for i in range(N)}, LEVEL)
    for i in range(N):
        torch.testing.assert_close(found[:, i], joint.mean[i], rtol=1e-9, atol=1e-9)


def test_the_joint_mean_of_gaussians_is_that_of_the_joint_gaussian(mini, x_0, generator):
    """Eq. 9 against the dense formula, where g is any Gaussian that is Markov on the graph."""
    g = mini.fit(x_0, CHAIN)
    precision = torch.zeros(N, D, N, D, dtype=torch.float64)
    for (i, j), block in g.K.items():
        precision[i, :, j] = block + (torch.linalg.inv(g.Sigma_ii[i]) if i == j else 0)
    Sigma = torch.linalg.inv(precision.reshape(N * D, N * D))
    x_t = torch.randn(6, N, D, generator=generator, dtype=torch.float64)
    found = mini.joint_mean(g, denoise(mini, g)(x_t, LEVEL.alpha, LEVEL.sigma), LEVEL.snr)
    dense = mini.gaussian_mean(x_t.flatten(1), Sigma, LEVEL.alpha, LEVEL.sigma, g.mu.flatten())
    torch.testing.assert_close(found.flatten(1), dense, rtol=1e-9, atol=1e-9)


def test_messages_solve_a_loop_too(mini, generator):
    root = torch.randn(N * D, N * D, generator=generator, dtype=torch.float64)
    dense = root @ root.T + torch.eye(N * D)
    blocks = {(i, j): dense.reshape(N, D, N, D)[i, :, j] for i in range(N) for j in range(N)}
    eta = torch.randn(7, N, D, generator=generator, dtype=torch.float64)
    found = torch.stack(mini.solve(blocks, list(eta.unbind(1))), 1)
    torch.testing.assert_close(found.flatten(1).T, torch.linalg.solve(dense, eta.flatten(1).T), rtol=1e-9, atol=1e-9)


def test_the_posterior_covariance(mini, x_0, generator):
    """Eq. 4 of Gaussian mixtures, whose covariances the library has in closed form, and the joint mean with it."""
    g, fitted = mini.fit(x_0, CHAIN), library_fit(x_0, CHAIN)
    means = torch.stack([g.mu[0], g.mu[0] + 1.0])
    covariances = g.Sigma_ii[0] / 2 * torch.ones(2, 1, 1, dtype=torch.float64)
    mixture = ps.MixtureDenoiser(torch.tensor([0.3, 0.7], dtype=torch.float64), means, covariances)
    x_t = torch.randn(4, N, D, generator=generator, dtype=torch.float64)

    def own(x):
        return torch.stack([mixture.denoise(x[:, i], LEVEL) for i in range(N)], 1)

    C = mini.posterior_covariance(own, x_t, LEVEL.alpha, LEVEL.sigma)
    asked = {i: mixture.posterior(x_t[:, i], LEVEL) for i in range(N)}
    for i in range(N):
        torch.testing.assert_close(C[:, i], asked[i].covariance, rtol=1e-9, atol=1e-9)
    noisy = {i: x_t[:, i] for i in range(N)}
    joint = ps.JointDenoiser(fitted, posterior_covariance="denoiser")
    library = joint(noisy, {i: a.mean for i, a in asked.items()}, LEVEL, {i: a.covariance for i, a in asked.items()})
    assert library.capped == 0  # else Eq. 8 is kept by a guard, which the one file leaves out
    found = mini.joint_mean(g, own(x_t), LEVEL.snr, C)
    for i in range(N):
        torch.testing.assert_close(found[:, i], library.mean[i], rtol=1e-8, atol=1e-8)


def precise(scheduler):
    """The scheduler with its levels in float64, so that both sides compute with the same numbers."""
    betas = torch.linspace(scheduler.config.beta_start, scheduler.config.beta_end, 1000, dtype=torch.float64)
    scheduler.alphas_cumprod = (1 - betas).cumprod(0)
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return scheduler


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' schedulers
def test_samples_from_the_same_noise(mini, x_0, generator):
    g, fitted = mini.fit(x_0, CHAIN), library_fit(x_0, CHAIN)
    own, noise = denoise(mini, g), torch.randn(8, N, D, generator=generator, dtype=torch.float64)
    found = mini.ddim(
        lambda x, alpha, sigma: mini.joint_mean(g, own(x, alpha, sigma), alpha**2 / sigma**2),
        noise, mini.schedule(20),
    )  # fmt: skip
    result = ps.sample(
        fitted, own_denoisers(g), precise(DDIMScheduler(clip_sample=False)), 20, num_samples=8,
        initial_noise={i: noise[:, i] for i in range(N)}, dtype=torch.float64, progress=False,
    )  # fmt: skip
    for i in range(N):
        torch.testing.assert_close(found[:, i], result.samples[i], rtol=1e-8, atol=1e-8)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("prior", [False, True], ids=["averaging", "Eq. 11"])
def test_canvases_from_the_same_noise(mini, prior, generator):
    width, size, starts = 14, 6, [0, 4, 8]
    index = torch.arange(width)
    Sigma = 0.9 ** (index[:, None] - index).abs().double()
    noise = torch.randn(5, width, generator=generator, dtype=torch.float64)

    def canvas(z, alpha, sigma):
        m = [mini.gaussian_mean(z[:, s : s + size], Sigma[:size, :size], alpha, sigma) for s in starts]
        return mini.canvas_mean(torch.stack(m, 1), z, starts, alpha, sigma, Sigma if prior else None)

    graph = ps.wide_canvas((1, 1, width), window=(1, size), stride=4)
    if prior:
        graph.add_factor("prior", ["canvas"], ps.JointGaussian(None, Sigma))
    result = ps.sample(
        graph, ps.GaussianDenoiser(torch.zeros(1, 1, size).double(), Sigma[:size, :size]),
        precise(DDIMScheduler(clip_sample=False)), 20, num_samples=5,
        initial_noise={"canvas": noise.reshape(5, 1, 1, width)}, dtype=torch.float64, progress=False,
    )  # fmt: skip
    found = mini.ddim(canvas, noise, mini.schedule(20))
    torch.testing.assert_close(found, result.samples["canvas"].reshape(5, width), rtol=1e-8, atol=1e-8)


def test_averaging_is_the_model_without_correlation(mini, generator):
    """Eq. 11 for white Gaussians is Eq. 12, whatever the windows say."""
    m, z = (torch.randn(4, *shape, generator=generator, dtype=torch.float64) for shape in ((3, 6), (14,)))
    for variance in (0.5, 1.0, 3.0):
        white = variance * torch.eye(14, dtype=torch.float64)
        found = mini.canvas_mean(m, z, [0, 4, 8], LEVEL.alpha, LEVEL.sigma, white)
        torch.testing.assert_close(found, mini.canvas_mean(m, z, [0, 4, 8], LEVEL.alpha, LEVEL.sigma))
