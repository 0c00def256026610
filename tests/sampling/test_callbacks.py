"""``on_step``: one function or several, called with every state."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync.errors import ParameterError


def run(on_step):
    graph = ps.chain_graph(2, 2, ps.Correlation(0.8))
    denoiser = ps.GaussianDenoiser(torch.zeros(2), torch.eye(2))
    return ps.sample(graph, denoiser, DDIMScheduler(clip_sample=False), 4, on_step=on_step, progress=False)


def test_one_or_several_in_order():
    seen = []
    result = run([lambda s: seen.append(("first", s.step)), lambda s: seen.append(("second", s.step))])
    assert seen == [(which, step) for step in range(4) for which in ("first", "second")]
    states = []
    run(states.append)
    for name, sample in result.samples.items():
        assert torch.equal(states[-1].next[name], sample)


def test_what_a_callback_raises_ends_the_run():
    def stop(state):
        if state.step == 2:
            raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):
        run([lambda s: seen.append(s.step), stop])
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("on_step", [3, "print", [print, None]])
def test_what_cannot_be_called(on_step):
    with pytest.raises(ParameterError, match="on_step"):
        run(on_step)
