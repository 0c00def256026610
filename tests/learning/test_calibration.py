"""Scales and canvas weights learned by joint denoising: recovered where they are known, resumed to the bit."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import DDIMScheduler
from scipy.optimize import minimize_scalar

import pgm_sync as ps
from pgm_sync.errors import ParameterError, SavedFileError, UnknownNameError, UnsupportedError
from pgm_sync.learning import calibrate
from pgm_sync.learning.denoised import carried_contents, denoise_all
from pgm_sync.learning.score_matching import default_levels
from pgm_sync.score import find_carriers

LEVELS = default_levels(3)


def bimodal(n=400, seed=0):
    """Two numbers with signs that agree: exact denoisers of each, and joint samples of both."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (n, 1), generator=generator, dtype=torch.float64) * 2 - 1
    noise = 0.3 * torch.randn(2, n, 1, generator=generator, dtype=torch.float64)
    data = {"a": signs + noise[0], "b": signs + noise[1]}
    graph = ps.FactorGraph()
    graph.add_trajectory("a", 1)
    graph.add_trajectory("b", 1)
    graph.add_factor("ab", ["a", "b"], ps.JointGaussian())
    return graph, data, ps.MixtureDenoiser([0.5, 0.5], [[-1.0], [1.0]], [[[0.09]]] * 2)


def windows(count=300, seed=0):
    """Two windows of three numbers that share the middle one of five; the second denoiser is no good."""
    graph = ps.FactorGraph()
    graph.add_variable("canvas", 5)
    for name, start in (("good", 0), ("bad", 2)):
        graph.add_trajectory(name, 3)
        graph.add_factor(
            f"see {name}", [name, "canvas"], ps.Equality(), [None, ps.Crop((5,), (start,), (3,))]
        )
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return graph, {"canvas": data}, {
        "good": ps.GaussianDenoiser(torch.zeros(3), torch.eye(3)),
        "bad": ps.GaussianDenoiser(torch.full((3,), 2.0), torch.eye(3)),
    }  # fmt: skip


def options(**more):
    return {"levels": LEVELS, "heldout": 0.0, "epochs": 40, "batch_size": 400, "patience": 40, "seed": 0} | more


def test_the_scale_of_each_level_is_the_best_one():
    """Against scipy's search over one scale at one level, with the loss written out by hand."""
    graph, data, denoiser = bimodal()
    fitted = ps.fit(graph, data, heldout=0)
    found = calibrate(fitted, data, denoisers=denoiser, **options(learning_rate=0.4, epochs=25))
    (_, scales), = found.posterior_covariance.scales
    clean = carried_contents(fitted, data, find_carriers(fitted))
    parts = denoise_all(ps.JointDenoiser(fitted), clean, denoiser, LEVELS[::-1], seed=0)
    for part, scale in zip(parts, scales, strict=True):

        def loss(log_scale, part=part):
            kind = ps.Scaled("surrogate", float(torch.tensor(log_scale).exp()))
            mean = ps.JointDenoiser(fitted, kind)(part.noisy, part.denoised, part.level).mean
            return sum((mean[k] - data[k]).square().sum().item() for k in data)

        best = minimize_scalar(loss, bounds=(-5, 3), method="bounded")
        assert loss(scale.log().item()) <= loss(0.0)
        assert loss(scale.log().item()) == pytest.approx(best.fun, rel=1e-3)
    assert found.losses[found.epoch] == min(found.losses)


def test_exact_gaussians_need_no_scale():
    """Eq. 9: the surrogate is the exact posterior covariance, so no scale beats one by more than the samples' noise."""
    generator = torch.Generator().manual_seed(0)
    covariance = torch.tensor([[1.0, 0.7], [0.7, 1.0]]).double()
    x = torch.randn(4000, 2, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    graph = ps.chain_graph(2, 1, ps.JointGaussian(None, covariance))
    denoiser = ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    data = {k: x[:, k : k + 1] for k in (0, 1)}
    found = calibrate(graph, data, denoisers=denoiser, **options(batch_size=4000, learning_rate=0.1, epochs=12))
    (_, scales), = found.posterior_covariance.scales
    assert ((scales.log().abs() < 0.2).all()), scales
    assert found.losses[0] - min(found.losses) < 1e-3


def test_weights_turn_to_the_view_that_knows():
    """At the shared element, in closed form: the weight that regresses x on two denoised values that sum to one."""
    graph, data, denoisers = windows()
    found = calibrate(
        graph, data, denoisers=denoisers, scales=None, canvas_weights="views",
        **options(learning_rate=0.4, epochs=40),
    )  # fmt: skip
    carriers = find_carriers(graph)
    parts = denoise_all(ps.JointDenoiser(graph), [data["canvas"]], denoisers, LEVELS[::-1], seed=0)
    for part in parts:
        weights = found.canvas_weights.at(part.level, carriers)
        a, b, x = part.denoised["good"][:, 2], part.denoised["bad"][:, 0], data["canvas"][:, 2]
        best = (((x - b) * (a - b)).sum() / (a - b).square().sum()).clamp(0, 1)
        assert weights["good"][2].item() == pytest.approx(best.item(), abs=0.02)
        assert weights["good"][:2].tolist() == [1, 1]  # no other view shows them
        assert torch.allclose(weights["good"][2] + weights["bad"][0], torch.ones(()).double())
    sites = calibrate(graph, data, denoisers=denoisers, scales=None, canvas_weights="sites",
                      **options(learning_rate=0.4, epochs=40))  # fmt: skip
    assert sites.losses[-1] == pytest.approx(found.losses[-1], abs=1e-3)


def test_a_profile_that_trusts_the_middle_of_a_window():
    """Denoisers that are off at their border: weights fall towards it."""
    graph = ps.FactorGraph()
    graph.add_variable("canvas", 7)
    for k, start in enumerate((0, 2)):
        graph.add_trajectory(k, 5)
        graph.add_factor(f"see {k}", [k, "canvas"], ps.Equality(), [None, ps.Crop((7,), (start,), (5,))])
    off = torch.tensor([2.0, 0, 0, 0, 2])
    data = torch.randn(100, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoiser = ps.GaussianDenoiser(off, torch.eye(5))
    found = calibrate(graph, {"canvas": data}, denoisers=denoiser, scales=None, canvas_weights="profile", **options())
    weights = found.canvas_weights.at(LEVELS[-1], find_carriers(graph))
    assert weights[0][4] < 0.2 < 0.8 < weights[0][2]
    assert found.losses[found.epoch] < found.losses[0]


@pytest.mark.parametrize("scales", ["level", "node", "feature"])
def test_resuming_gives_the_same_bits(tmp_path, scales):
    graph, data, denoiser = bimodal(100)
    fitted = ps.fit(graph, data, heldout=0)

    def run(epochs, **more):
        return calibrate(
            fitted, data, denoisers=denoiser, base="denoiser", scales=scales,
            **options(epochs=epochs, batch_size=30, heldout=0.3, patience=9, **more),
        )  # fmt: skip

    whole = run(4)
    file = tmp_path / "run.ckpt"
    run(2, checkpoint=file)
    resumed = run(4, checkpoint=file)
    assert resumed.losses == whole.losses
    assert resumed.heldout == whole.heldout
    assert resumed.posterior_covariance.to_dict() == whole.posterior_covariance.to_dict()
    assert run(4, checkpoint=file).losses == whole.losses  # nothing left to do
    with pytest.raises(SavedFileError, match="checkpoint of another run"):
        run(4, checkpoint=file, seed=1)
    file.write_bytes(b"cut off")
    with pytest.raises(SavedFileError, match="not a readable checkpoint"):
        run(4, checkpoint=file)


def test_what_denoisers_say_is_read_from_disk(tmp_path):
    graph, data, denoiser = bimodal(50)
    fitted = ps.fit(graph, data, heldout=0)
    asked = []

    class Counting(ps.MixtureDenoiser):
        def posterior(self, *args, **options):
            asked.append(1)
            return super().posterior(*args, **options)

    own = Counting([0.5, 0.5], [[-1.0], [1.0]], [[[0.09]]] * 2)
    runs = [
        calibrate(fitted, data, denoisers=own, base="denoiser", cache=folder, **options(epochs=2))
        for folder in (None, tmp_path / "cache", tmp_path / "cache")
    ]
    assert len(asked) == 2 * len(LEVELS) * 2  # two nodes; the third run asked nothing
    assert runs[0].losses == runs[1].losses == runs[2].losses


def test_from_the_front_door_to_samples(tmp_path):
    graph, data, denoiser = bimodal()
    fitted = ps.fit(
        graph, data, method="score", denoisers=denoiser, levels=LEVELS, scales="node", base="denoiser", epochs=3
    )
    record = ps.Fit.of(fitted)
    assert record.method == "score"
    assert len(record.details["calibration"]["losses"]) == 4
    fitted.save(tmp_path / "graph.json")
    loaded = ps.FactorGraph.load(tmp_path / "graph.json")
    json.dumps(loaded.graph["fit"])

    def run(which):
        return ps.sample(
            which, denoiser, DDIMScheduler(clip_sample=False), 10, num_samples=50, progress=False,
            posterior_covariance="fitted", noise_correlation="fitted",
        ).samples  # fmt: skip

    assert torch.equal(run(fitted)["a"], run(loaded)["a"])
    agree = (run(fitted)["a"] * run(fitted)["b"] > 0).float().mean().item()
    alone = ps.sample(graph_without_factors(graph), denoiser, DDIMScheduler(clip_sample=False), 10, 50, progress=False)
    assert agree > (alone.samples["a"] * alone.samples["b"] > 0).float().mean().item() + 0.1


def graph_without_factors(graph):
    bare = ps.FactorGraph()
    for name in graph.trajectories:
        bare.add_trajectory(name, graph.shape(name))
    return bare


def test_weights_from_the_front_door():
    graph, data, denoisers = windows(60)
    fitted = ps.fit(graph, data, method="score", denoisers=denoisers, levels=LEVELS, potentials="keep",
                    canvas_weights="views", epochs=3)  # fmt: skip
    result = ps.sample(fitted, denoisers, DDIMScheduler(clip_sample=False), 5, progress=False, canvas_weights="fitted")
    assert torch.isfinite(result.samples["canvas"]).all()
    assert ps.Fit.of(fitted).objective == ps.Fit.of(fitted).details["calibration"]["losses"]


@pytest.mark.parametrize(("more", "error", "message"), [
    ({"scales": "window"}, ParameterError, "scales='window' is not None, 'level'"),
    ({"canvas_weights": "views"}, UnsupportedError, "none of these is"),
    ({"epochs": 0}, ParameterError, "epochs=0 is not a positive integer"),
    ({"levels": []}, ParameterError, "at least one noise level"),
    ({"denoisers": {"a": bimodal(2)[2]}}, UnknownNameError, "no denoiser for 'b'"),
    ({"denoisers": ps.FunctionDenoiser(lambda x, a, s: x, 1), "base": "denoiser"}, UnsupportedError, "base='jacobian'"),
])  # fmt: skip
def test_bad_input(more, error, message):
    graph, data, denoiser = bimodal(10)
    fitted = ps.fit(graph, data, heldout=0)
    with pytest.raises(error, match=message):
        calibrate(fitted, data, **{"denoisers": denoiser, **options(), **more})


def test_bad_options_of_the_front_door():
    graph, data, denoisers = windows(10)
    with pytest.raises(ParameterError, match="nothing to learn"):
        ps.fit(graph, data, method="score", denoisers=denoisers, potentials="keep")
    with pytest.raises(ParameterError, match="potentials='learn' is not 'score', 'moments' or 'keep'"):
        ps.fit(graph, data, method="score", denoisers=denoisers, potentials="learn")
    with pytest.raises(UnsupportedError, match="scales=None"):
        calibrate(graph, data, denoisers=denoisers, **options())
