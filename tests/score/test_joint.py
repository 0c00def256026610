"""The joint denoiser against closed forms of Gaussian models."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import (
    CovarianceError,
    ParameterError,
    UnseenSiteError,
    UnsupportedError,
    WeightError,
)
from pgm_sync.score import NoisyMixture, find_carriers, joint_mixture, noise_covariance, reduce
from pgm_sync.score.covariance import floored_solve, guarded_precision

LEVELS = [ps.NoiseLevel(a, math.sqrt(1 - a * a)) for a in (0.01, 0.3, 0.8, 0.999)] + [ps.NoiseLevel(1.0, 7.0)]
NETWORKS = {
    "chain": nx.path_graph(4),
    "tree": nx.balanced_tree(2, 2),
    "ring": nx.cycle_graph(5),
    "grid": nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3)),
}


def markov_model(network, size, seed=0):
    """JointGaussian potentials of a random Gaussian that is Markov on `network`: (graph, mean, covariance)."""
    generator = torch.Generator().manual_seed(seed)
    n = network.number_of_nodes()
    precision = torch.eye(n * size, dtype=torch.float64) * 2.0
    for a, b in network.edges:
        block = torch.randn(size, size, generator=generator, dtype=torch.float64) / size
        precision[a * size : (a + 1) * size, b * size : (b + 1) * size] = block
        precision[b * size : (b + 1) * size, a * size : (a + 1) * size] = block.T
    low = torch.linalg.eigvalsh(precision)[0].item()
    precision += max(0.3 - low, 0) * torch.eye(n * size, dtype=torch.float64)
    covariance = torch.linalg.inv(precision)
    mean = torch.randn(n * size, generator=generator, dtype=torch.float64)
    rows = {k: torch.arange(k * size, (k + 1) * size) for k in range(n)}
    own = {k: torch.linalg.inv(covariance[r[:, None], r]) for k, r in rows.items()}
    graph = ps.from_trajectory_graph(network, (size,))
    potentials = {}
    for factor in graph.factors:
        a, b = graph.scope(factor)
        both = torch.cat([rows[a], rows[b]])
        share = precision[both[:, None], both].clone()
        for k, half in ((a, slice(0, size)), (b, slice(size, 2 * size))):
            share[half, half] = (share[half, half] - own[k]) / network.degree[k]
        potentials[factor] = ps.JointGaussian(mean[both], covariance[both[:, None], both], share)
    return graph.with_potentials(potentials), mean, covariance


def gaussian_parts(graph, mean, covariance, size):
    rows = {name: slice(k * size, (k + 1) * size) for k, name in enumerate(graph.trajectories)}
    return rows, {name: ps.GaussianDenoiser(mean[r], covariance[r, r]) for name, r in rows.items()}


def run(joint, denoisers, noisy, level):
    denoised, covariances = {}, {}
    for name, denoiser in denoisers.items():
        denoised[name], covariances[name] = denoiser.posterior(
            noisy[name], level, features=joint.needs_covariance.get(name)
        )
    return joint(noisy, denoised, level, covariances if joint.needs_covariance else None)


@pytest.mark.parametrize("noise_correlation", [0.0, 0.7])
@pytest.mark.parametrize("posterior_covariance", ["surrogate", "denoiser"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_gaussian_trajectories_get_the_exact_joint_denoiser(kind, posterior_covariance, noise_correlation):
    """Eq. 9, and Eq. 5' with correlated noise: Sigma alpha (alpha^2 Sigma + sigma^2 R)^{-1} at every noise level."""
    size = 3
    graph, mean, covariance = markov_model(NETWORKS[kind], size)
    rows, denoisers = gaussian_parts(graph, mean, covariance, size)
    joint = ps.JointDenoiser(graph, posterior_covariance, noise_correlation)
    roots = []
    for r in rows.values():
        values, vectors = torch.linalg.eigh(covariance[r, r])
        roots.append(vectors @ torch.diag(values**-0.5) @ vectors.T)
    white = torch.block_diag(*roots)
    noise = noise_correlation * white @ covariance @ white
    for r in rows.values():
        noise[r, r] = torch.eye(size, dtype=torch.float64)
    for level in LEVELS:
        x = level.sigma * torch.randn(
            6, len(mean), generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        result = run(joint, denoisers, {name: x[:, r] for name, r in rows.items()}, level)
        observed = level.alpha**2 * covariance + level.sigma**2 * noise
        gain = level.alpha * torch.linalg.solve(observed, covariance)
        expected = mean + (x - level.alpha * mean) @ gain
        got = torch.cat(list(result.mean.values()), 1)
        assert (got - expected).abs().max() <= 1e-10 * max(expected.abs().max().item(), 1)


def test_the_joint_score_is_the_gradient_of_the_joint_log_density():
    """Eq. 7 against autograd through torch.distributions."""
    graph, mean, covariance = markov_model(nx.path_graph(3), 2)
    rows, denoisers = gaussian_parts(graph, mean, covariance, 2)
    level = ps.NoiseLevel(0.6, 0.8)
    x = torch.randn(6, dtype=torch.float64, requires_grad=True)
    noisy_model = torch.distributions.MultivariateNormal(
        level.alpha * mean, level.alpha**2 * covariance + level.sigma**2 * torch.eye(6, dtype=torch.float64)
    )
    (expected,) = torch.autograd.grad(noisy_model.log_prob(x), x)
    noisy = {name: x.detach()[None, r] for name, r in rows.items()}
    result = run(ps.JointDenoiser(graph), denoisers, noisy, level)
    got = [ps.score_from_denoised(result.mean[n], noisy[n], level)[0] for n in rows]
    assert torch.allclose(torch.cat(got), expected, atol=1e-10)
    epsilon = [ps.epsilon_from_denoised(result.mean[n], noisy[n], level)[0] for n in rows]
    assert torch.allclose(torch.cat(epsilon), -level.sigma * expected, atol=1e-10)


def test_elementwise_correlation_at_image_size():
    """Eq. 5 with Eq. 2's block, per element, against the 2 x 2 formula."""
    graph = ps.chain_graph(2, (3, 16, 16), ps.Correlation(0.8))
    denoiser = ps.FunctionDenoiser(lambda x, a, s: a * x / (a**2 + s**2), (3, 16, 16))
    level = ps.NoiseLevel(0.5, 0.9)
    noisy = {k: torch.randn(2, 3, 16, 16).double() for k in (0, 1)}
    denoised = {k: denoiser.denoise(x, level) for k, x in noisy.items()}
    result = ps.JointDenoiser(graph)(noisy, denoised, level)
    model = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    gain = (
        level.alpha
        * model
        @ torch.linalg.inv(level.alpha**2 * model + level.sigma**2 * torch.eye(2).double())
    )
    stacked = torch.stack([noisy[0], noisy[1]], -1)
    assert torch.allclose(torch.stack([result.mean[0], result.mean[1]], -1), stacked @ gain.T, atol=1e-12)


@pytest.mark.parametrize("largest", [0, 512])
def test_the_node_wise_guard_holds_with_correlated_noise(monkeypatch, largest):
    """Posteriors as wide as their priors: snr (R^{-1} - I) is negative in places; Lambda >= Sigma^{-1} anyway."""
    monkeypatch.setattr("pgm_sync.score.joint.LARGEST_JOINT", largest)
    model = torch.tensor([[1.0, 0.95], [0.95, 1.0]], dtype=torch.float64)
    graph = ps.chain_graph(2, (1,), ps.JointGaussian(None, model))
    joint = ps.JointDenoiser(graph, "denoiser", 0.9)
    level = ps.NoiseLevel(0.8, 0.6)
    state = {k: torch.tensor([[0.7], [-0.4]], dtype=torch.float64) for k in (0, 1)}
    wide = {k: torch.full((2, 1, 1), 1.3, dtype=torch.float64) for k in (0, 1)}
    result = joint(state, state, level, wide)
    noise = torch.tensor([[1, 0.855], [0.855, 1]], dtype=torch.float64)
    share = 1 + level.snr * (1 - 1 / 1.855)
    eye = torch.eye(2, dtype=torch.float64)
    extra = level.snr * (torch.linalg.inv(noise) - eye)
    precision = share * eye + torch.linalg.inv(model) - eye + extra
    x = torch.cat([state[0], state[1]], 1)
    expected = torch.linalg.solve(precision, (share * x + x @ extra / level.alpha).T).T
    assert torch.allclose(torch.cat([result.mean[0], result.mean[1]], 1), expected, atol=1e-10)
    assert result.capped == 1


def test_at_low_noise_correlated_noise_does_not_undo_what_the_denoisers_know():
    """Error of Eq. 5' with the denoisers' C against the exact joint denoiser, in units of doing nothing."""
    model = torch.tensor([[1.0, 0.95], [0.95, 1.0]], dtype=torch.float64)
    graph = ps.chain_graph(2, (1,), ps.JointGaussian(None, model))
    modes = ps.MixtureDenoiser([0.3, 0.4, 0.3], [[-1.2], [0.0], [1.2]], [[[0.02]]] * 3)
    mixture = joint_mixture(graph, {0: modes, 1: modes})
    exact = NoisyMixture(mixture, noise_covariance(graph, 0.98))
    joint = ps.JointDenoiser(graph, "denoiser", 0.98)
    generator = torch.Generator().manual_seed(0)
    clean = mixture.sample(20_000, generator=generator)
    for sigma in (0.02, 0.05):
        level = ps.NoiseLevel(math.sqrt(1 - sigma**2), sigma)
        white = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        x = level.alpha * clean + level.sigma * white @ exact.root.T
        noisy = {0: x[:, :1], 1: x[:, 1:]}
        seen = {k: modes.posterior(v, level, None, joint.needs_covariance[k]) for k, v in noisy.items()}
        own = torch.cat([p.mean for p in seen.values()], 1)
        means = joint(noisy, {k: p.mean for k, p in seen.items()}, level, {k: p.covariance for k, p in seen.items()})
        got, best = torch.cat(list(means.mean.values()), 1), exact.denoise(x, level)
        assert (got - best).square().sum() < (own - best).square().sum()


def test_limits_of_the_coupling():
    """snr -> infinity: no correction; snr -> 0: Sigma blockdiag(Sigma_ii)^{-1} m (Eq. 8)."""
    graph, mean, covariance = markov_model(nx.cycle_graph(4), 2)
    zero_mean = graph.with_potentials(
        {
            f: ps.JointGaussian(None, graph.potential(f).covariance, graph.potential(f).interaction)
            for f in graph.factors
        }
    )
    joint = ps.JointDenoiser(zero_mean)
    rows = {k: slice(2 * k, 2 * k + 2) for k in range(4)}
    m = torch.randn(3, 8).double()
    parts = {k: m[:, r] for k, r in rows.items()}
    sharp = joint(parts, parts, ps.NoiseLevel(1.0, 1e-6))
    assert torch.allclose(torch.cat(list(sharp.mean.values()), 1), m, atol=1e-9)
    own = torch.block_diag(*(torch.linalg.inv(covariance[r, r]) for r in rows.values()))
    blurred = joint(parts, parts, ps.NoiseLevel(1e-6, 1.0))
    assert torch.allclose(torch.cat(list(blurred.mean.values()), 1), m @ own @ covariance, atol=1e-9)


def test_what_nothing_couples_is_handed_back_untouched():
    graph = ps.chain_graph(2, 3, ps.Correlation(0.5))
    graph.add_trajectory("alone", 4)
    denoised = {0: torch.randn(2, 3), 1: torch.randn(2, 3), "alone": torch.randn(2, 4)}
    result = ps.JointDenoiser(graph)(denoised, denoised, LEVELS[1])
    assert result.mean["alone"] is denoised["alone"]
    assert not torch.equal(result.mean[0], denoised[0])
    off = ps.JointDenoiser(graph, couple=False)(denoised, denoised, LEVELS[1])
    assert off.mean[0] is denoised[0]


def test_features_are_whole_contents_where_the_rest_is_independent():
    """Eq. 13 equals Eq. 5 over all elements for a model that couples only the features."""
    shape, features = (1, 4, 4), ps.DCT((1, 4, 4), 3)
    f = features.rows
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(6, 12, generator=generator, dtype=torch.float64) / 3
    small = root @ root.T + 0.1 * torch.eye(6).double()
    rest = torch.eye(16, dtype=torch.float64) - f.T @ f
    lift = torch.block_diag(f.T, f.T)
    whole = lift @ small @ lift.T + torch.block_diag(0.7 * rest, 0.7 * rest)
    narrow = ps.chain_graph(2, shape, ps.JointGaussian(None, small), features=lambda s: ps.DCT(s, 3))
    wide = ps.chain_graph(2, shape, ps.JointGaussian(None, whole))
    denoisers = {
        k: ps.GaussianDenoiser(torch.zeros(shape), whole[16 * k : 16 * k + 16, 16 * k : 16 * k + 16])
        for k in (0, 1)
    }
    noisy = {k: torch.randn(3, *shape, generator=generator, dtype=torch.float64) for k in (0, 1)}
    for level in LEVELS:
        a, b = (run(ps.JointDenoiser(g), denoisers, noisy, level) for g in (narrow, wide))
        assert torch.allclose(a.mean[0], b.mean[0], atol=1e-10)
    assert reduce(narrow).features[0].out_size == 3


def test_different_features_on_one_node_are_joined():
    graph = ps.FactorGraph()
    for name in "abc":
        graph.add_trajectory(name, (8,))
    basis = torch.eye(8, dtype=torch.float64)
    first, second = ps.Features(basis[:2]), ps.Features(basis[2:5])
    graph.add_factor(
        "ab", ["a", "b"], ps.JointGaussian(None, torch.eye(4) + 0.5 * torch.ones(4, 4)), [first, first]
    )
    graph.add_factor(
        "bc", ["b", "c"], ps.JointGaussian(None, torch.eye(6) + 0.5 * torch.ones(6, 6)), [second, second]
    )
    reduction = reduce(graph)
    assert [reduction.features[n].out_size for n in "abc"] == [2, 5, 3]
    x = torch.randn(8).double()
    for factor in ("ab", "bc"):
        position = graph.scope(factor).index("b")
        seen = reduction.graph.maps(factor)[position].apply(reduction.features["b"].apply(x))
        assert torch.allclose(seen, graph.maps(factor)[position].apply(x), atol=1e-12)


# ---- canvases ----------------------------------------------------------------------------------------------------


def ar1(n, rho=0.95):
    index = torch.arange(n)
    return (rho ** (index[:, None] - index).abs()).double()


@pytest.mark.parametrize("wrap", [False, True])
def test_without_potentials_a_canvas_averages(wrap):
    """Eq. 12 against an explicit loop over pixels."""
    graph = ps.wide_canvas((2, 4, 12), (4, 6), 3, wrap=wrap)
    carriers = find_carriers(graph)
    assert [c.name for c in carriers.carriers] == ["canvas"]
    values = {name: torch.randn(3, 2, 4, 6).double() for name in graph.trajectories}
    total, count = torch.zeros(3, 2, 4, 12).double(), torch.zeros(12).double()
    for k, name in enumerate(graph.trajectories):
        for column in range(6):
            total[..., (3 * k + column) % 12] += values[name][..., column]
            count[(3 * k + column) % 12] += 1
    (canvas,) = ps.JointDenoiser(graph)(values, values, LEVELS[1]).carried
    assert torch.allclose(canvas, total / count, atol=1e-14)
    back = carriers.view([canvas], "w1")
    assert torch.equal(back, canvas[..., 3:9])


def test_a_gaussian_canvas_gets_its_exact_denoiser():
    """Eq. 11 with Gaussian windows of the canvas prior is the canvas's own posterior mean."""
    model = ar1(20)
    graph = ps.wide_canvas((1, 1, 20), (1, 8), 4)
    graph.add_factor("prior", ["canvas"], ps.JointGaussian(0.3 * torch.ones(20).double(), model))
    window = ps.GaussianDenoiser(0.3 * torch.ones(1, 1, 8).double(), model[:8, :8])
    whole = ps.GaussianDenoiser(0.3 * torch.ones(1, 1, 20).double(), model)
    joint = ps.JointDenoiser(graph)
    for level in LEVELS:
        z = torch.randn(4, 1, 1, 20).double()
        noisy = {name: joint.carriers.view([z], name) for name in graph.trajectories}
        denoised = {name: window.denoise(x, level) for name, x in noisy.items()}
        (canvas,) = joint(noisy, denoised, level).carried
        assert torch.allclose(canvas, whole.denoise(z, level), atol=1e-10)


def test_windows_that_share_noise_know_it():
    """Eq. 13 on a canvas: R_ij = F A_i A_j' F', and Gaussian features then get their exact joint posterior."""
    graph = ps.wide_canvas((1, 4, 12), (4, 6), 3, features=lambda s: ps.DCT(s, 3))
    data = torch.randn(500, 1, 4, 12, generator=torch.Generator().manual_seed(0)).cumsum(-1).double() / 3
    fitted = ps.fit(graph, {"canvas": data})
    joint = ps.JointDenoiser(fitted)
    noise = torch.randn(20000, 1, 4, 12, generator=torch.Generator().manual_seed(1)).double()
    seen = torch.cat(
        [ps.DCT((1, 4, 6), 3).apply(joint.carriers.view([noise], n)).flatten(1) for n in fitted.trajectories],
        1,
    )
    sample = seen.T @ seen / len(seen)
    assert (sample - joint.noise.covariance).abs().max() < 0.05  # 5 standard errors at n = 20,000
    assert (joint.noise.covariance.diagonal() - 1).abs().max() < 1e-12


def test_weights_are_used_and_checked():
    def weighted(left, right):
        graph = ps.FactorGraph()
        graph.add_variable("canvas", (1, 6))
        for name, start, weight in (("a", 0, left), ("b", 2, right)):
            graph.add_trajectory(name, (1, 4))
            view = ps.Crop((1, 6), start=(0, start), size=(1, 4))
            graph.add_factor(f"see {name}", [name, "canvas"], ps.Equality(weight), maps=[None, view])
        return graph

    left = torch.tensor([[1.0, 1.0, 0.75, 0.25]])
    right = torch.tensor([[0.25, 0.75, 1.0, 1.0]])
    values = {"a": torch.randn(1, 1, 4).double(), "b": torch.randn(1, 1, 4).double()}
    (canvas,) = ps.JointDenoiser(weighted(left, right))(values, values, LEVELS[0]).carried
    assert torch.allclose(canvas[0, 0, 2], 0.75 * values["a"][0, 0, 2] + 0.25 * values["b"][0, 0, 0])
    with pytest.raises(WeightError, match=r"of 'a', 'b' sum to 1\.25 where they meet"):
        find_carriers(weighted(left, right + torch.tensor([[0.25, 0, 0, 0]])))
    with pytest.raises(WeightError, match="'b' has no canvas weight while 'a' has one"):
        find_carriers(weighted(left, None))


def test_a_canvas_must_be_covered():
    graph = ps.FactorGraph()
    graph.add_variable("canvas", (1, 6))
    graph.add_trajectory("a", (1, 4))
    graph.add_factor("see", ["a", "canvas"], ps.Equality(), maps=[None, ps.Crop((1, 6), (0, 0), (1, 4))])
    with pytest.raises(UnseenSiteError, match="no trajectory shows 2 of the 6 elements of 'canvas'"):
        ps.JointDenoiser(graph)


def test_two_views_of_one_image_without_a_hidden_canvas():
    """Visual Anagrams: the mean of the views turned back, as Eq. 12 on the sites of the first view."""
    graph = ps.FactorGraph()
    graph.add_trajectory("upright", (1, 4, 4))
    graph.add_trajectory("turned", (1, 4, 4))
    graph.add_factor("same", ["turned", "upright"], ps.Equality(), maps=[None, ps.Rotate((1, 4, 4), 1)])
    joint = ps.JointDenoiser(graph)
    values = {name: torch.randn(2, 1, 4, 4).double() for name in graph.trajectories}
    result = joint(values, values, LEVELS[1])
    expected = (values["upright"] + torch.rot90(values["turned"], -1, (-2, -1))) / 2
    assert torch.allclose(result.mean["upright"], expected)
    assert torch.allclose(result.mean["turned"], torch.rot90(expected, 1, (-2, -1)))


# ---- covariances -------------------------------------------------------------------------------------------------


def test_a_posterior_wider_than_its_prior_is_capped():
    prior = torch.diag(torch.tensor([1.0, 0.25]).double())  # variances 1 and 4
    precision, capped = guarded_precision(torch.diag(torch.tensor([3.0, 1.0]).double()), prior, widest=1.0)
    assert torch.allclose(precision, torch.diag(torch.tensor([1.0, 1.0]).double()))
    assert capped == 0.5
    free, none = guarded_precision(torch.diag(torch.tensor([3.0, 1.0]).double()), prior, widest=math.inf)
    assert torch.allclose(free, torch.diag(torch.tensor([1 / 3, 1.0]).double()))
    assert none == 0


def test_the_floor_acts_only_below_itself():
    prior = torch.diag(torch.tensor([1.0, 2.0, 4.0]).double())
    system = torch.diag(torch.tensor([5.0, -1.0, 0.1]).double())
    residual = torch.ones(3).double()
    solved, raised = floored_solve(system, residual, prior, floor=0.5)
    assert torch.allclose(solved, 1 / torch.tensor([5.0, 1.0, 2.0]).double())
    assert raised.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: joint(2, ps.Attraction(1.0)), ParameterError, "around 0 states a marginal"),
    (lambda: joint(2, posterior_covariance="exact"), ParameterError, "posterior_covariance='exact'"),
    (lambda: joint(2, noise_correlation=1.0), ParameterError, r"must lie in \[0, 1\)"),
    (lambda: joint(5000, noise_correlation=0.5), UnsupportedError, "couple fewer features"),
    (lambda: ps.JointDenoiser(disagreeing()), CovarianceError, "states another marginal of 1"),
])  # fmt: skip
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


def joint(size, potential=None, **options):
    return ps.JointDenoiser(ps.chain_graph(2, size, potential or ps.Correlation(0.5)), **options)


def disagreeing():
    graph = ps.chain_graph(3, 2)
    return graph.with_potentials({(0, 1): ps.Correlation(0.5), (1, 2): ps.Correlation(0.5, variance=2.0)})


def test_attraction_with_a_prior_variance():
    """Springs between unit-variance Gaussians: (1 + snr + precision Laplacian)^{-1} (1 + snr) m."""
    graph = ps.chain_graph(2, 3, ps.Attraction(2.0))
    level = ps.NoiseLevel(0.6, 0.8)
    m = {k: torch.randn(4, 3).double() for k in (0, 1)}
    result = ps.JointDenoiser(graph, posterior_covariance=1.0)(m, m, level)
    own = 1 + level.snr
    system = torch.tensor([[own + 2, -2], [-2, own + 2]]).double()
    expected = torch.linalg.solve(system, own * torch.stack([m[0], m[1]]).flatten(1)).reshape(2, 4, 3)
    assert torch.allclose(result.mean[0], expected[0], atol=1e-12)
