"""Recording a run: what it says, how much it keeps, and what is left of a killed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync.errors import ParameterError, RecordingError, SavedFileError, UnknownNameError

STEPS = 12


def chain(rho: float = 0.8) -> ps.FactorGraph:
    return ps.chain_graph(3, (2,), ps.Correlation(rho))


def run(graph: ps.FactorGraph, recorder, size: int = 2, **options):
    denoiser = ps.GaussianDenoiser(torch.zeros(size), torch.eye(size))
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    options = {"num_samples": 8, "dtype": torch.float64, **options}
    return ps.sample(graph, denoiser, scheduler, STEPS, on_step=recorder, progress=False, **options)


def test_a_recorder_does_not_change_the_samples():
    with_it, without = run(chain(), ps.Recorder(chain(), images=2)), run(chain(), None)
    for name in chain().trajectories:
        assert torch.equal(with_it.samples[name], without.samples[name])


def test_statistics_are_those_of_the_states():
    states, recorder = [], ps.Recorder(chain())
    run(chain(), [states.append, recorder])
    recording = recorder.recording
    assert recording.complete
    assert recording.step.tolist() == [s.step for s in states]
    np.testing.assert_allclose(recording.snr, [s.level.snr for s in states])
    for name in chain().trajectories:
        expected = [(s.joint[name] - s.denoised[name]).square().mean().sqrt().item() for s in states]
        np.testing.assert_allclose(recording.correction[name], expected)


def test_flows_add_up_to_the_correction():
    states, recorder = [], ps.Recorder(chain())
    run(chain(), [states.append, recorder])
    # Two factors meet in node 1; of node 0 all comes from one
    np.testing.assert_allclose(
        recorder.recording.flow[(0, 1), 0], recorder.recording.correction[0], rtol=1e-6
    )
    assert recorder.recording.residual.max() < 1e-9


def test_mahalanobis_against_a_dense_matrix():
    states, recorder = [], ps.Recorder(chain())
    run(chain(), [states.append, recorder])
    rho = 0.8 ** torch.tensor([[0, 1, 2], [1, 0, 1], [2, 1, 0]], dtype=torch.float64)
    inverse = torch.linalg.inv(rho)
    for kind in ("own", "joint"):
        found = recorder.recording.array(f"mahalanobis_{kind}")
        for k, state in enumerate(states):
            x = torch.stack(list((state.denoised if kind == "own" else state.joint).values()), -1)
            expected = torch.einsum("...i,ij,...j->...", x, inverse, x).mean() / 3
            assert found[k] == pytest.approx(expected.item())


def test_log_potentials_against_densities():
    states, recorder = [], ps.Recorder(chain())
    run(chain(), [states.append, recorder])
    pair = torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    pair = pair.expand((1,))
    one = torch.distributions.Normal(0.0, 1.0)
    state = states[5]
    x = torch.stack([state.joint[1], state.joint[2]], -1).float()
    expected = (pair.log_prob(x) - one.log_prob(x).sum(-1)).sum(-1).mean()
    assert recorder.recording.log_potential_joint[1, 2][5] == pytest.approx(expected.item(), rel=1e-4)


def test_steps_and_images_that_were_asked_for():
    states = []
    recorder = ps.Recorder(
        chain(),
        steps=[0, 5, 11],
        images={"kinds": ["joint"], "samples": [1, 3], "trajectories": [2], "steps": [5]},
    )
    run(chain(), [states.append, recorder])
    recording = recorder.recording
    assert recording.step.tolist() == [0, 5, 11]
    assert list(recording.images("joint", 2)) == [5]
    np.testing.assert_allclose(recording.images("joint", 2)[5], states[5].joint[2][[1, 3]].float().numpy())
    with pytest.raises(UnknownNameError, match="no joint contents of 0 were kept"):
        recording.images("joint", 0)


def test_contents_are_of_recorded_steps():
    recorder = ps.Recorder(chain(), steps=[1, 4, 7, 10], images={"kinds": ["joint"], "steps": 2})
    run(chain(), recorder)
    assert list(recorder.recording.images("joint", 0)) == [1, 10]
    with pytest.raises(ParameterError, match="step 5 is not recorded"):
        run(chain(), ps.Recorder(chain(), steps=[1, 4], images={"steps": [5]}))
    with pytest.raises(ParameterError, match="no step 12, the run has 12"):
        run(chain(), ps.Recorder(chain(), steps=[1, 12]))
    with pytest.raises(ParameterError, match="sample 8 is none of the 8"):
        run(chain(), ps.Recorder(chain(), images={"samples": [8]}))
    with pytest.raises(UnknownNameError, match="no trajectory or canvas 'z'"):
        ps.Recorder(chain(), images={"trajectories": ["z"]})


def test_groups_of_statistics_can_be_left_out():
    recorder = ps.Recorder(chain(), what=["canvases"])
    run(chain(), recorder)
    assert recorder.recording.flow == {}
    assert recorder.recording.correction[0].max() > 0
    assert len(recorder.recording.coupling()) == 2 * STEPS  # needs no record of the factors


def test_contents_keep_to_the_budget():
    recorder = ps.Recorder(chain(), images={"kinds": ["joint"], "steps": STEPS}, max_bytes=5 * 3 * 2 * 4)
    run(chain(), recorder)
    kept = recorder.recording.images("joint", 0)
    assert len(kept) == 5
    assert {0, STEPS - 1} <= set(kept)
    assert "5 steps in place of 12" in recorder.recording.note
    with pytest.raises(RecordingError, match="more than max_bytes=7"):
        run(chain(), ps.Recorder(chain(), images=1, max_bytes=7))


def test_a_folder_holds_what_was_recorded(tmp_path):
    recorder = ps.Recorder(chain(), images=2, folder=tmp_path / "run")
    run(chain(), recorder)
    loaded = ps.Recording.load(tmp_path / "run")
    assert len(loaded) == STEPS
    for found, made in zip(loaded.records, recorder.recording.records, strict=True):
        assert found._replace(images={}, heat={}).__repr__() == made._replace(images={}, heat={}).__repr__()
        for kind in made.images:
            for name in made.images[kind]:
                np.testing.assert_array_equal(found.images[kind][name], made.images[kind][name])
    recorder.recording.save(tmp_path / "copy")
    assert ps.Recording.load(tmp_path / "copy").to_frame("factors").equals(loaded.to_frame("factors"))
    with pytest.raises(RecordingError, match="holds a recording already"):
        ps.Recorder(chain(), folder=tmp_path / "run")


def test_a_killed_run_can_be_loaded(tmp_path):
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import pgm_sync as ps
        from test_recorder import chain, run
        recorder = ps.Recorder(chain(), images=1, folder={str(tmp_path / "run")!r})
        run(chain(), [recorder, lambda state: time.sleep(0.3 if state.step > 2 else 0)])
    """)
    child = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "step-000004.safetensors").exists():
            assert child.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    loaded = ps.Recording.load(tmp_path / "run")
    assert 5 <= len(loaded) < STEPS
    assert not loaded.complete
    whole = ps.Recorder(chain(), images=1)
    run(chain(), whole)
    for name in chain().trajectories:
        np.testing.assert_array_equal(
            loaded.correction[name], whole.recording.correction[name][: len(loaded)]
        )


def test_a_run_that_ended_before_its_first_step(tmp_path):
    ps.Recorder(chain(), folder=tmp_path / "run")
    loaded = ps.Recording.load(tmp_path / "run")
    assert len(loaded) == len(loaded.to_frame()) == len(loaded.coupling()) == 0
    assert not loaded.complete
    assert loaded.graph.factors == chain().factors


def test_folders_that_hold_no_recording(tmp_path):
    with pytest.raises(SavedFileError, match="holds no recording"):
        ps.Recording.load(tmp_path)
    recorder = ps.Recorder(chain(), folder=tmp_path / "run")
    run(chain(), recorder)
    path = tmp_path / "run" / "step-000003.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SavedFileError, match="damaged"):
        ps.Recording.load(tmp_path / "run")


def test_one_recorder_is_for_one_run():
    recorder = ps.Recorder(chain())
    run(chain(), recorder)
    with pytest.raises(RecordingError, match="step 0 after step 11"):
        run(chain(), recorder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"what": ["edges"]}, "choose from 'factors'"),
        ({"images": {"sample": [0]}}, "images has 'sample'"),
        ({"images": {"kinds": "joint"}}, "choose from 'noisy'"),
        ({"images": 0}, "at least one sample"),
        ({"max_bytes": -1}, "negative"),
    ],
)
def test_options_it_does_not_know(options, message):
    with pytest.raises(ParameterError, match=message):
        ps.Recorder(chain(), **options)


def test_disagreement_on_a_canvas():
    graph = ps.wide_canvas((1, 4, 10), (4, 4), 3)
    states, recorder = [], ps.Recorder(graph, images={"steps": STEPS})
    denoiser = ps.GaussianDenoiser(torch.zeros(1, 4, 4), torch.eye(16) + 0.5)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    ps.sample(graph, denoiser, scheduler, STEPS, 4, progress=False, on_step=[states.append, recorder])
    recording = recorder.recording
    k = 6
    own = [states[k].denoised[f"w{i}"] for i in range(3)]
    expected = torch.zeros(1, 4, 10)
    for i in range(2):  # columns 3 and 6 are shown twice
        left, right = own[i][..., 3], own[i + 1][..., 0]
        expected[..., 3 * (i + 1)] = ((left - right) / 2).square().mean(0).sqrt()
    np.testing.assert_allclose(recording.heat("disagreement", "canvas")[k], expected, atol=1e-6)
    rms = expected[..., [3, 6]].square().mean().sqrt().item()
    assert recording.disagreement_own["canvas"][k] == pytest.approx(rms, rel=1e-5)
    assert recording.disagreement_joint["canvas"].max() == pytest.approx(0, abs=1e-6)
    assert set(recording.kept()["joint"]) == {"canvas", "w0", "w1", "w2"}
    np.testing.assert_allclose(
        recording.images("joint", "canvas")[k][0, ..., 3:7], states[k].joint["w1"][0], atol=1e-6
    )


def style() -> ps.FactorGraph:
    graph = ps.FactorGraph()
    graph.add_variable("style", 2)
    for name in "abc":
        graph.add_trajectory(name, 2)
        graph.add_factor(f"{name} style", [name, "style"], ps.Correlation(0.7))
    return graph


def test_flows_through_a_hidden_variable():
    """Each trajectory has one factor, which brings all of its correction."""
    for dtype in (torch.float64, torch.float32):
        recorder = ps.Recorder(style())
        run(style(), recorder, dtype=dtype)
        recording = recorder.recording
        for name in "abc":
            found = recording.flow[f"{name} style", name][:-1]
            np.testing.assert_allclose(found, recording.correction[name][:-1], rtol=1e-4)
        assert recording.residual.max() < 1e-5


def test_features_of_large_contents_are_not_all_of_them():
    """Flows are RMS over all elements of a content, as corrections are."""
    graph = ps.chain_graph(2, (1, 4, 4), ps.JointGaussian(covariance=torch.tensor([[1.0, 0.7], [0.7, 1.0]])),
                           features=lambda shape: ps.DCT(shape, 1))  # fmt: skip
    recorder = ps.Recorder(graph)
    denoiser = ps.GaussianDenoiser(torch.zeros(1, 4, 4), torch.eye(16))
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    ps.sample(graph, denoiser, scheduler, 6, 4, on_step=recorder, progress=False, dtype=torch.float64)
    np.testing.assert_allclose(
        recorder.recording.flow[(0, 1), 0], recorder.recording.correction[0], rtol=1e-6
    )


def test_variances_against_the_closed_form():
    recorder = ps.Recorder(chain())
    run(chain(), recorder)
    recording = recorder.recording
    rho = 0.8 ** torch.tensor([[0, 1, 2], [1, 0, 1], [2, 1, 0]], dtype=torch.float64)
    found = recording.variances()
    for k, snr in enumerate(recording.snr):
        joint = torch.linalg.inv(torch.linalg.inv(rho) + snr * torch.eye(3, dtype=torch.float64)).diagonal()
        for name in range(3):
            assert found["own"][name][k] == pytest.approx(1 / (1 + snr))
            assert found["joint"][name][k] == pytest.approx(joint[name].item())
    frame = recording.to_frame("variances")
    assert frame[frame["trajectory"] == 1]["joint"].tolist() == found["joint"][1].tolist()


def test_coupling_of_a_run_is_that_of_its_noise_levels():
    recorder = ps.Recorder(chain(), steps=4, noise_correlation=0.5)
    run(chain(), recorder, noise_correlation=0.5)
    assert len(recorder.recording) == 4
    expected = ps.coupling(chain(), recorder.recording.snr, noise_correlation=0.5)
    assert recorder.recording.coupling().rows == expected.rows
    frame = recorder.recording.to_frame("coupling")
    assert frame["step"].tolist() == np.repeat(recorder.recording.step, 2).tolist()
    modes = recorder.recording.to_frame("modes")
    assert modes["strength"].tolist() == pytest.approx(np.repeat(frame["strength"], 2).tolist())  # two alike
    with pytest.raises(ParameterError, match="what='edges' is none of steps"):
        recorder.recording.to_frame("edges")


def test_where_eq_8_acted_by_node():
    states, graph = [], ps.chain_graph(2, 1, ps.Correlation(0.8))
    modes = ps.MixtureDenoiser(torch.ones(2) / 2, torch.tensor([[-3.0], [3.0]]), torch.full((2, 1, 1), 0.1))
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    recorder = ps.Recorder(graph)
    options = {"posterior_covariance": "denoiser", "noise_correlation": 0.3, "progress": False}
    ps.sample(graph, modes, scheduler, STEPS, 16, on_step=[states.append, recorder], **options)
    recording = recorder.recording
    assert recording.capped.max() > 0
    np.testing.assert_array_equal(recording.capped, [s.capped for s in states])
    for name in graph.trajectories:
        np.testing.assert_array_equal(recording.capped_by_node[name], [s.guard.by_node[name] for s in states])


def test_graphs_of_which_only_corrections_are_known():
    graph = ps.chain_graph(2, 2, ps.Attraction(precision=1.0))
    recorder = ps.Recorder(graph)
    run(graph, recorder, posterior_covariance=1.0)
    assert recorder.recording.correction[0].max() > 0
    assert recorder.recording.flow == {}
    with pytest.raises(ParameterError, match="pass variance="):
        recorder.recording.coupling()
    told = ps.Recorder(graph, variance=1.0)
    run(graph, told, posterior_covariance=1.0)
    assert told.recording.residual.max() < 1e-9


def test_a_flow_schedule_starts_at_pure_noise():
    from diffusers import FlowMatchEulerDiscreteScheduler

    recorder = ps.Recorder(chain())
    denoiser = ps.GaussianDenoiser(torch.zeros(2), torch.eye(2))
    ps.sample(chain(), denoiser, FlowMatchEulerDiscreteScheduler(), 6, on_step=recorder, progress=False)
    recording = recorder.recording
    assert recording.snr[0] == 0
    assert recording.coupling()[0].strength == pytest.approx(0.8)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_pipeline_that_is_attached():
    from tests.pipelines import PIPELINES, scheduler

    tiny = PIPELINES["PixArt"]
    pipe = tiny.build()
    pipe.scheduler = scheduler(tiny.schedulers[0])
    graph = ps.chain_graph(3, tiny.shape, ps.Correlation(0.8))
    states, recorder = [], ps.Recorder(graph, images={"kinds": ["next"], "steps": 2})
    with ps.attach(pipe, graph, on_step=[states.append, recorder]):
        tiny.run(pipe)
    recording = recorder.recording
    assert recording.complete
    assert recording.num_steps == len(states)
    np.testing.assert_array_equal(
        recording.images("next", 2)[recording.num_steps - 1], states[-1].next[2].numpy()
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pipelines_in_lockstep_have_levels_of_their_own(tmp_path):
    from tests.sampling.test_lockstep import Loop, calls_of, ddim, noise_for

    graph = ps.chain_graph(2, 2, ps.Correlation(0.8))
    one = ps.GaussianDenoiser(torch.zeros(2), torch.eye(2))
    pipes = {n: Loop(one, ddim(timestep_spacing="trailing")) for n in graph.trajectories}
    states, recorder = [], ps.Recorder(graph, images={"steps": [1]}, folder=tmp_path / "run")
    calls = calls_of(pipes, noise_for(graph, 2), {0: 4, 1: 2})
    ps.synchronize(calls, graph, align="level", on_step=[states.append, recorder], progress=False)
    recording = ps.Recording.load(tmp_path / "run")
    assert len(recording) == len(states)
    frame = recording.to_frame("trajectories")
    for k, state in enumerate(states):
        for name, level in state.levels.items():
            row = frame[(frame["step"] == k) & (frame["trajectory"] == name)]
            assert row["snr"].item() == pytest.approx(float(level.snr))
    step = next(k for k, s in enumerate(states) if float(s.levels[0].snr) != float(s.levels[1].snr))
    a, b = (float(states[step].levels[name].snr) for name in (0, 1))
    rho = torch.tensor([[1, 0.8], [0.8, 1]], dtype=torch.float64)
    posterior = torch.linalg.inv(
        torch.linalg.inv(rho) + torch.diag(torch.tensor([a, b], dtype=torch.float64))
    )
    found = recording.coupling()[step]
    assert found.posterior == pytest.approx(
        (posterior[0, 1] / (posterior[0, 0] * posterior[1, 1]).sqrt()).item()
    )
    assert found.strength == pytest.approx((posterior[0, 1] * (1 + b)).item())
    counted = ps.Recorder(graph, steps=2)
    with pytest.raises(ParameterError, match="in lockstep does not say how many steps"):
        ps.synchronize(calls, graph, align="level", on_step=counted, progress=False)
