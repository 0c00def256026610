"""Denoisers asked in pieces of any size say what they say trajectory by trajectory."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync.denoisers import DiffusersDenoiser, EmpiricalDenoiser, FunctionDenoiser, MixtureDenoiser
from pgm_sync.errors import NotFiniteError, ParameterError, ShapeError, UnsupportedError

SHAPE = (2, 4, 4)
CHUNKS = [1, 2, 5, 64]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def graph(n=3, potential=None):
    return ps.chain_graph(n, SHAPE, potential or ps.Correlation(0.5), features=lambda shape: ps.DCT(shape, 2))


def mixture():
    means = torch.randn(4, *SHAPE, generator=generator())
    return MixtureDenoiser([0.25] * 4, means, 0.05 * torch.eye(32).expand(4, 32, 32), labels=[0, 0, 1, 1])


class Counting(FunctionDenoiser):
    """Of the class that its condition names; remembers how many rows it was asked for, and with what."""

    def __init__(self, inner):
        super().__init__(inner.denoise, inner.shape)
        self.inner, self.asked = inner, []

    def denoise(self, noisy, level, condition=None):
        self.asked.append((len(noisy), condition))
        return self.inner.denoise(noisy, level, condition)


def run(denoisers, chunk=None, factor_graph=None, **options):
    options = {"num_samples": 2, "num_inference_steps": 4, **options}
    return ps.sample(
        graph() if factor_graph is None else factor_graph, denoisers, DDIMScheduler(clip_sample=False),
        progress=False, dtype=torch.float64, chunk=chunk, **options,
    ).samples  # fmt: skip


def same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("conditions", [None, 1, {0: 0, 1: 1, 2: 0}, {0: torch.tensor([0, 1]), 1: 1, 2: 0}, {0: 1}])
@pytest.mark.parametrize("covariance", ["surrogate", "denoiser"])
def test_any_piece_size_gives_the_same_samples(chunk, conditions, covariance):
    options = {"conditions": conditions, "posterior_covariance": covariance}
    same(run(mixture(), chunk, **options), run(mixture(), **options))


def test_a_class_of_its_own_per_trajectory_reaches_its_rows():
    counting = Counting(mixture())
    run(counting, chunk=4, conditions={0: 0, 1: 1, 2: 0}, num_inference_steps=1)
    assert [rows for rows, _ in counting.asked] == [4, 2]
    assert [c.tolist() for _, c in counting.asked] == [[0, 0, 1, 1], [0, 0]]


def test_one_class_for_all_stays_a_number():
    counting = Counting(mixture())
    run(counting, chunk=100, conditions=1, num_inference_steps=1)
    assert counting.asked == [(6, 1)]


def test_trajectories_of_other_denoisers_and_other_kinds_of_conditions_are_asked_apart():
    first, second = Counting(mixture()), Counting(EmpiricalDenoiser(torch.randn(5, *SHAPE, generator=generator())))
    run({0: first, 1: second, 2: first}, chunk=100, conditions={0: 1}, num_inference_steps=1)
    assert [rows for rows, _ in first.asked] == [2, 2]  # with a class, without one
    assert [rows for rows, _ in second.asked] == [2]


def network(channels=2):
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=4, in_channels=2, out_channels=channels, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=6, attention_head_dim=4, layers_per_block=1,
    ).double().eval()  # fmt: skip


@pytest.mark.parametrize("chunk", CHUNKS)
def test_prompts_of_a_network_are_cut_with_its_rows(chunk):
    own = DiffusersDenoiser(network(), SHAPE, "epsilon")
    text = torch.randn(5, 3, 6, generator=generator(), dtype=torch.float64)
    conditions = {
        0: {"encoder_hidden_states": text[:1]},  # one prompt for both samples
        1: {"encoder_hidden_states": text[1:3]},  # one for each
        2: {"encoder_hidden_states": text[3:]},
    }
    same(run(own, chunk, conditions=conditions), run(own, conditions=conditions))
    flipped = run(own, chunk, conditions={**conditions, 2: {"encoder_hidden_states": text[3:].flip(0)}})
    assert (flipped[2] - run(own, chunk, conditions=conditions)[2]).abs().max() > 1e-6


@pytest.mark.parametrize("chunk", [3, 64])
def test_derivatives_in_pieces(chunk):
    own = DiffusersDenoiser(network(), SHAPE, "epsilon")
    conditions = {k: {"encoder_hidden_states": torch.randn(1, 3, 6, generator=generator(k)).double()} for k in range(3)}
    options = {"conditions": conditions, "posterior_covariance": "jacobian", "num_inference_steps": 2}
    same(run(own, chunk, **options), run(own, **options))


def test_stochastic_steps_do_not_depend_on_the_piece_size():
    options = {"eta": 1.0, "noise_correlation": 0.5}
    same(run(mixture(), 3, **options), run(mixture(), **options))


def test_a_bad_row_is_named_by_its_trajectory():
    def bad(noisy, alpha, sigma, condition):
        return torch.where((condition == 2).reshape(-1, 1, 1, 1), torch.nan, noisy)

    with pytest.raises(NotFiniteError, match="denoiser of 1 returned 64 NaN .* at step 0") as caught:
        run(FunctionDenoiser(bad, SHAPE), chunk=100, conditions={0: 0, 1: 2, 2: 1})
    assert (caught.value.name, caught.value.step) == (1, 0)


class Halved(Counting):
    """Of another shape than it was asked about."""

    def denoise(self, noisy, level, condition=None):
        return noisy[: len(noisy) // 2]


def test_an_answer_of_a_wrong_shape_is_named():
    with pytest.raises(ShapeError, match="denoiser of 0 returned shape"):
        run(Halved(mixture()), chunk=100)


@pytest.mark.parametrize("options", [
    {}, {"posterior_covariance": "denoiser", "tilt": ps.Tilt()}, {"posterior_covariance": "jacobian", "chunk": 4},
    {"corrector": ps.Langevin(), "noise_correlation": 0.4}, {"eta": 1.0},
], ids=["surrogate", "tilt", "jacobian", "corrector", "stochastic"])  # fmt: skip
def test_under_inference_mode(options):
    """The same samples; what the caller made under inference mode, conditions included, may go in."""
    own = mixture()
    expected = run(own, conditions=1, **options)
    with torch.inference_mode():
        same(run(own, conditions=torch.ones(2, dtype=torch.int64), **options), expected)


def test_a_denoiser_made_under_inference_mode_has_no_derivatives():
    with torch.inference_mode():
        own = mixture()
    with pytest.raises(UnsupportedError, match="made under torch.inference_mode.*outside"):
        run(own, posterior_covariance="jacobian")


@pytest.mark.parametrize("chunk", [0, -1, 2.5])
def test_bad_piece_sizes(chunk):
    with pytest.raises(ParameterError, match="chunk="):
        run(mixture(), chunk)
