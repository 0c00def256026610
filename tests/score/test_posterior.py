"""Posterior covariances: against dense solves, against denoisers that know theirs, and their statistics."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync.errors import ParameterError, SavedFileError, ShapeError, UnknownNameError
from pgm_sync.score import PosteriorCovariance, joint
from pgm_sync.score.covariance import clamped_inverse

LEVEL = ps.NoiseLevel(0.8, 0.6)
HIGH, LOW = 1.0, -1.0  # log snr


def pair(size=3, seed=0):
    """Two nodes of `size` numbers with a random covariance; the graph and that covariance."""
    root = torch.randn(2 * size, 2 * size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    covariance = root @ root.mT / size + 0.2 * torch.eye(2 * size)
    return ps.chain_graph(2, size, ps.JointGaussian(None, covariance)), covariance


def contents(size=3, count=5):
    generator = torch.Generator().manual_seed(1)
    return {k: torch.randn(count, size, generator=generator, dtype=torch.float64) for k in (0, 1)}


def by_hand(covariance, posterior, m):
    """Eq. 5 and 6, dense: ``m + Lambda^{-1} K (0 - m)``, posterior the blocks C_i."""
    size = len(covariance) // 2
    own = torch.block_diag(
        torch.linalg.inv(covariance[:size, :size]), torch.linalg.inv(covariance[size:, size:])
    )
    coupling = torch.linalg.inv(covariance) - own
    system = torch.block_diag(*(torch.linalg.inv(c) for c in posterior)) + coupling
    return m - m @ coupling @ torch.linalg.inv(system)


def surrogate(covariance):
    size = len(covariance) // 2
    blocks = (covariance[:size, :size], covariance[size:, size:])
    return [torch.linalg.inv(torch.linalg.inv(b) + LEVEL.snr * torch.eye(size)) for b in blocks]


@pytest.mark.parametrize("largest", [0, 512], ids=["node by node", "joint floor"])
@pytest.mark.parametrize(
    ("scales", "factors"),
    [
        (0.5, ([0.5] * 3, [0.5] * 3)),
        ({1: 0.25}, ([1.0] * 3, [0.25] * 3)),
        (torch.tensor([[0.2, 0.5, 0.9]] * 2), ([0.2, 0.5, 0.9],) * 2),
        ({0: torch.tensor([0.3, 0.3])}, ([0.3] * 3, [1.0] * 3)),
    ],
)
def test_scaled_surrogates(scales, factors, largest, monkeypatch):
    monkeypatch.setattr(joint, "LARGEST_JOINT", largest)
    graph, covariance = pair()
    m = contents()
    kind = ps.Scaled("surrogate", scales, log_snr=torch.tensor([LOW, HIGH]))
    result = ps.JointDenoiser(graph, kind)(m, m, LEVEL)
    roots = [torch.tensor(f, dtype=torch.float64).sqrt() for f in factors]
    posterior = [r[:, None] * c * r for r, c in zip(roots, surrogate(covariance), strict=True)]
    expected = by_hand(covariance, posterior, torch.cat(list(m.values()), 1))
    assert torch.allclose(torch.cat(list(result.mean.values()), 1), expected, atol=1e-10)
    assert result.capped == 0  # none of these is wider than the prior


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_scaled_surrogates_of_elements(scale, monkeypatch):
    """Matching elements with unit variance, 2 x 2 by hand; a variance beyond the prior's is capped there."""
    monkeypatch.setattr(joint, "LARGEST_JOINT", 0)
    graph, m = ps.chain_graph(2, 3, ps.Correlation(0.6)), contents()
    result = ps.JointDenoiser(graph, ps.Scaled("surrogate", scale))(m, m, LEVEL)
    own = max((1 + LEVEL.snr) / scale, 1.0)
    model = torch.tensor([[1.0, 0.6], [0.6, 1.0]]).repeat_interleave(3, 0).repeat_interleave(3, 1)
    model = (model * torch.eye(3).repeat(2, 2)).double()
    posterior = [torch.eye(3).double() / own] * 2
    expected = by_hand(model, posterior, torch.cat(list(m.values()), 1))
    assert torch.allclose(torch.cat(list(result.mean.values()), 1), expected, atol=1e-12)
    assert result.guard == joint.Guard("nodes", dict.fromkeys((0, 1), 0.0 if scale < 1 else 1.0))
    assert result.capped == (0.0 if scale < 1 else 1.0)


def test_a_scale_of_one_changes_nothing():
    graph, _ = pair()
    m = contents()
    told = {k: torch.eye(3).double().expand(5, 3, 3) * 0.1 for k in m}
    for kind, given in (("surrogate", None), ("denoiser", told)):
        plain = ps.JointDenoiser(graph, kind)(m, m, LEVEL, given).mean
        scaled = ps.JointDenoiser(graph, ps.Scaled(kind, {0: 1.0}))(m, m, LEVEL, given).mean
        assert torch.allclose(plain[0], scaled[0], atol=1e-12)


def test_scales_between_levels_and_beyond():
    kind = ps.Scaled("denoiser", {"a": [1.0, 4.0]}, log_snr=[LOW, HIGH])

    def at(log_snr):
        snr = torch.tensor(log_snr, dtype=torch.float64).exp()
        level = ps.NoiseLevel(float((snr / (1 + snr)).sqrt()), float((1 / (1 + snr)).sqrt()))
        return kind.scale("a", level).item()

    assert at(0.0) == pytest.approx(2.0)  # in the middle, the geometric mean
    assert at(0.5) == pytest.approx(4**0.75)
    assert [at(-9.0), at(9.0)] == pytest.approx([1.0, 4.0])
    assert kind.scale("b", LEVEL) is None
    assert kind.asks
    assert not ps.Scaled("surrogate", 2.0).asks


@pytest.mark.parametrize("kind", [
    ps.Surrogate(), ps.Surrogate(2.0), ps.FromDenoiser(), ps.Jacobian("differences", step=0.1),
    ps.Scaled("jacobian", {("left", 1): [0.1, 0.3], "b": torch.rand(2, 3) + 0.1}, [LOW, HIGH]), ps.Scaled(1.5, 0.7),
], ids=["surrogate", "variance", "denoiser", "jacobian", "scaled", "one scale"])  # fmt: skip
def test_as_json_data_and_back(kind):
    again = PosteriorCovariance.from_dict(json.loads(json.dumps(kind.to_dict())))
    assert repr(again) == repr(kind)
    assert again.to_dict() == kind.to_dict()
    assert again.prior_variance == kind.prior_variance
    for name in ("b", ("left", 1)):
        scales = [k.scale(name, LEVEL) for k in (kind, again)]
        assert scales[0] is scales[1] is None or torch.equal(*scales)


def test_a_saved_graph_knows_its_fitted_one(tmp_path):
    graph, _ = pair()
    graph.graph["fit"] = {"details": {"posterior_covariance": ps.Scaled("surrogate", 0.3).to_dict()}}
    graph.save(tmp_path / "graph.json")
    loaded = ps.FactorGraph.load(tmp_path / "graph.json")
    m = contents()
    fitted = ps.JointDenoiser(loaded, "fitted")(m, m, LEVEL).mean
    plain = ps.JointDenoiser(graph, ps.Scaled("surrogate", 0.3))(m, m, LEVEL).mean
    assert torch.equal(fitted[0], plain[0])


def test_inverses_of_clamped_matrices_and_their_gradients():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    # below, equal and inside, equal and above
    matrix = (basis * torch.tensor([0.1, 1.0, 1.0, 7.0, 7.0], dtype=torch.float64)) @ basis.mT
    inverse, values = clamped_inverse(matrix, torch.tensor(0.5).double(), 5.0)
    assert torch.allclose(
        inverse, (basis / torch.tensor([0.5, 1.0, 1.0, 5.0, 5.0]).double()) @ basis.mT
    )
    assert torch.allclose(values, torch.tensor([0.1, 1.0, 1.0, 7.0, 7.0]).double())

    def function(x):
        return clamped_inverse(x + x.mT, torch.tensor(0.5).double(), 5.0)[0]

    assert torch.autograd.gradcheck(function, (matrix / 2).requires_grad_())
    batch = torch.stack([matrix, torch.eye(5).double() * 2, matrix + 0.1 * torch.eye(5)]) / 2
    assert torch.autograd.gradcheck(function, batch.requires_grad_())


@pytest.mark.parametrize("base", ["surrogate", "denoiser"])
@pytest.mark.parametrize("largest", [0, 512], ids=["node by node", "joint floor"])
def test_gradients_of_scales_through_the_engine(base, largest, monkeypatch):
    monkeypatch.setattr(joint, "LARGEST_JOINT", largest)
    graph, covariance = pair()
    m = contents()
    root = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    told = dict.fromkeys(m, root @ root.mT * 0.3) if base == "denoiser" else None

    def function(first, second):
        kind = ps.Scaled(base, {0: first.exp(), 1: second.exp()}, torch.tensor([LOW, HIGH]))
        mean = ps.JointDenoiser(graph, kind)(m, m, LEVEL, told).mean
        return torch.cat(list(mean.values()))

    scales = (torch.tensor([0.4, -0.8]).double(), torch.zeros(2, 3).double())
    assert torch.autograd.gradcheck(function, tuple(s.requires_grad_() for s in scales))


def test_the_wide_posterior_of_two_modes_is_counted():
    """Between modes at -1 and 1 the posterior is wider than a prior of half their variance."""
    graph = ps.chain_graph(2, 1, ps.JointGaussian(None, [[0.5, 0.2], [0.2, 0.5]]))
    denoiser = ps.MixtureDenoiser([0.5, 0.5], [[-1.0], [1.0]], [[[0.01]], [[0.01]]])

    def run(**options):
        scheduler = DDIMScheduler(clip_sample=False)
        return ps.sample(graph, denoiser, scheduler, 10, num_samples=20, progress=False, **options)

    joint_rule = run(posterior_covariance="denoiser").info
    assert joint_rule["guard"] == "joint"
    assert joint_rule["capped_by_node"] == {}
    assert 0 < joint_rule["capped"] < 1
    assert joint_rule["capped"] == pytest.approx(sum(joint_rule["capped_per_step"]) / 10)
    assert joint_rule["capped_per_step"][0] > joint_rule["capped_per_step"][-1] == 0  # at low noise a mode is chosen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint, "LARGEST_JOINT", 0)
        nodes = run(posterior_covariance="denoiser").info
    assert nodes["guard"] == "nodes"
    assert list(nodes["capped_by_node"]) == [0, 1]
    means = [sum(nodes["capped_by_node"][k][step] for k in (0, 1)) / 2 for step in range(10)]
    assert nodes["capped_per_step"] == pytest.approx(means)
    surrogates = run().info
    assert surrogates["guard"] is None
    assert surrogates["capped"] == 0


def test_denoisers_are_asked_only_for_what_is_used():
    asked = []

    class Counting(ps.GaussianDenoiser):
        def posterior(self, *args, **options):
            asked.append(options.get("features", args[3] if len(args) > 3 else None))
            return super().posterior(*args, **options)

    denoiser = Counting(torch.zeros(1, 4, 4), torch.eye(16))
    graph = ps.chain_graph(2, (1, 4, 4), ps.Correlation(0.5), features=lambda s: ps.DCT(s, 3))
    graph.add_trajectory("alone", (1, 4, 4))

    def count(kind):
        asked.clear()
        scheduler = DDIMScheduler(clip_sample=False)
        ps.sample(graph, denoiser, scheduler, 3, posterior_covariance=kind, progress=False)
        return [f.out_size for f in asked]

    assert count("surrogate") == count(ps.Scaled("surrogate", 0.5)) == count("jacobian") == []
    assert count("denoiser") == count(ps.Scaled("denoiser", 0.5)) == [3] * 6  # two coupled nodes, three steps


def test_derived_covariances_by_name():
    graph, _ = pair(2)
    own = ps.MixtureDenoiser([0.3, 0.7], torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), torch.eye(2).expand(2, 2, 2) * 0.1)

    def run(kind):
        scheduler = DDIMScheduler(clip_sample=False)
        return ps.sample(
            graph, own, scheduler, 5, num_samples=4, dtype=torch.float64, posterior_covariance=kind, progress=False
        ).samples[0]

    exact = run("denoiser")
    assert torch.allclose(run("jacobian"), exact, atol=1e-6)
    assert torch.allclose(run(ps.Jacobian("differences", step=1e-3, batch=1)), exact, atol=1e-4)
    assert not torch.allclose(run("surrogate"), exact, atol=1e-2)


@pytest.mark.parametrize("kind", ["surrogate", "denoiser"])
def test_elements_that_no_potential_sees(kind):
    """Windows that overlap by half, elements independent: Eq. 9, with the exact covariance and with the surrogate."""
    graph = ps.FactorGraph()
    for name in "ab":
        graph.add_trajectory(name, (1, 4, 4))
    seam = [ps.Crop((1, 4, 4), (0, 2), (4, 2)), ps.Crop((1, 4, 4), (0, 0), (4, 2))]
    graph.add_factor("seam", ["a", "b"], ps.Correlation(0.5), seam)
    denoiser = ps.GaussianDenoiser(torch.zeros(1, 4, 4), torch.eye(16))
    generator = torch.Generator().manual_seed(0)
    noisy = {n: torch.randn(2, 1, 4, 4, generator=generator, dtype=torch.float64) for n in "ab"}
    joint_denoiser = ps.JointDenoiser(graph, kind)
    answers = {
        n: denoiser.posterior(x, LEVEL, features=joint_denoiser.needs_covariance.get(n)) for n, x in noisy.items()
    }
    told = {n: a.covariance for n, a in answers.items()} if kind == "denoiser" else None
    result = joint_denoiser(noisy, {n: a.mean for n, a in answers.items()}, LEVEL, told)
    covariance = torch.eye(32).double()
    f = [m.dense() for m in seam]
    covariance[:16, 16:] = 0.5 * f[0].T @ f[1]
    covariance[16:, :16] = covariance[:16, 16:].T
    x = torch.cat([x.flatten(1) for x in noisy.values()], 1)
    gain = LEVEL.alpha * torch.linalg.solve(LEVEL.alpha**2 * covariance + LEVEL.sigma**2 * torch.eye(32), covariance)
    assert torch.allclose(torch.cat([m.flatten(1) for m in result.mean.values()], 1), x @ gain, atol=1e-8)
    assert result.capped == 0


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: ps.Surrogate(0.0), ParameterError, "Surrogate: variance 0.0 must be"),
    (lambda: ps.Jacobian("exact"), ParameterError, "mode='exact' is not one of reverse"),
    (lambda: ps.Scaled("exact", 1.0), ParameterError, "posterior_covariance='exact' is not 'surrogate'"),
    (lambda: ps.Scaled("surrogate", -1.0), ParameterError, "not all positive"),
    (lambda: ps.Scaled("surrogate", {"a": float("nan")}), ParameterError, "of 'a' are not all positive and finite"),
    (lambda: ps.Scaled("surrogate", [1.0, 2.0]), ShapeError, "need log_snr"),
    (lambda: ps.Scaled("surrogate", [1.0, 2.0], [0.0]), ShapeError, "one row per level"),
    (lambda: ps.Scaled("surrogate", [1.0, 2.0], [1.0, 0.0]), ParameterError, "must be finite and increasing"),
    (lambda: ps.Scaled(ps.Scaled("surrogate", 1.0), 1.0), ParameterError, "multiply their scales"),
    (lambda: ps.JointDenoiser(pair()[0], ps.Scaled("surrogate", {"z": 1.0})), UnknownNameError, "'z' is no trajectory"),
    (lambda: ps.JointDenoiser(pair()[0], ps.Scaled("surrogate", [[1.0, 2.0]], [0.0])), ShapeError, "in 3 features"),
    (lambda: ps.JointDenoiser(pair()[0], "fitted"), ParameterError, "the graph has no fitted one"),
    (lambda: PosteriorCovariance.from_dict({}), SavedFileError, "not a saved specification"),
])  # fmt: skip
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
