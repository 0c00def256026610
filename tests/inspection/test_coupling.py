"""Coupling over the noise level, against a dense solve."""

from __future__ import annotations

import math

import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import ParameterError, UnsupportedError


def joint_map(covariance: torch.Tensor, snr: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Eq. 8's matrix and the posterior covariance, written out; unit variances."""
    eye = torch.eye(len(covariance), dtype=torch.float64)
    posterior = torch.linalg.inv(torch.linalg.inv(covariance) + snr * eye)
    return posterior * (1 + snr), posterior


@pytest.mark.parametrize("snr", [0.0, 1e-3, 0.3, 1.0, 40.0])
def test_a_chain_against_the_closed_form(snr):
    rho = torch.tensor([[1, 0.8, 0.64], [0.8, 1, 0.8], [0.64, 0.8, 1]], dtype=torch.float64)
    moved, posterior = joint_map(rho, snr)
    for row in ps.coupling(ps.chain_graph(3, (2, 2), ps.Correlation(0.8)), snr, modes=True):
        i, j = row.first, row.second
        assert row.prior == pytest.approx(0.8)
        assert row.posterior == pytest.approx(
            (posterior[i, j] / (posterior[i, i] * posterior[j, j]).sqrt()).item()
        )
        assert row.strength == pytest.approx(moved[i, j].item())
        assert row.noise == 0


def test_limits_over_the_noise_level():
    table = ps.coupling(ps.star_graph(4, 3, ps.Correlation(-0.4)), [0, 1e-6, 1e6], modes=True)
    none, low, high = (table[k * len(table) // 3] for k in range(3))
    assert low.posterior == pytest.approx(none.prior, abs=1e-5)
    assert low.strength == pytest.approx(none.prior, abs=1e-5)
    assert abs(high.posterior) < 1e-5 > abs(high.strength)


def random_covariance(size: int, seed: int) -> torch.Tensor:
    a = torch.randn(size, 2 * size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T / size


def test_modes_that_mix_against_a_dense_solve():
    sigma = random_covariance(5, 0)
    graph = ps.FactorGraph()
    graph.add_trajectory("a", 2)
    graph.add_trajectory("b", 3)
    graph.add_factor("ab", ["a", "b"], ps.JointGaussian(covariance=sigma))
    snr = 0.7
    (row,) = ps.coupling(graph, snr)
    own = torch.block_diag(torch.linalg.inv(sigma[:2, :2]), torch.linalg.inv(sigma[2:, 2:]))
    eye = torch.eye(5, dtype=torch.float64)
    posterior = torch.linalg.inv(torch.linalg.inv(sigma) + snr * eye)
    moved = (posterior @ (own + snr * eye))[:2, 2:]

    def root(matrix: torch.Tensor, power: float) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        return (vectors * values**power) @ vectors.T

    def leading(s: torch.Tensor) -> float:
        white = root(s[:2, :2], -0.5) @ s[:2, 2:] @ root(s[2:, 2:], -0.5)
        return torch.linalg.svdvals(white)[0].item()

    assert row.prior == pytest.approx(leading(sigma))
    assert row.posterior == pytest.approx(leading(posterior))
    white = root(sigma[:2, :2], -0.5) @ moved @ root(sigma[2:, 2:], 0.5)
    assert row.strength == pytest.approx(torch.linalg.svdvals(white)[0].item())


def test_large_contents_element_by_element():
    small, large = (ps.coupling(ps.chain_graph(3, n, ps.Correlation(0.6)), [0.2, 2.0]) for n in (3, 700))
    for a, b in zip(small, large, strict=True):
        assert (a.prior, a.posterior, a.strength) == pytest.approx((b.prior, b.posterior, b.strength))
    means = ps.coupling(ps.chain_graph(3, 700, ps.Correlation(0.6)), 0.2, modes=True)
    assert means[0].mode == "every element"
    assert means[0].strength == pytest.approx(small[0].strength)


def test_the_engine_and_the_matrix_agree(monkeypatch):
    graph = ps.ring_graph(5, (1, 4, 4), ps.Correlation(0.4), features=lambda shape: ps.DCT(shape, 3))
    dense = ps.coupling(graph, [0.1, 3.0])
    monkeypatch.setattr("pgm_sync.inspection.surrogate.LARGEST_DENSE", 0)
    for a, b in zip(dense, ps.coupling(graph, [0.1, 3.0]), strict=True):
        assert a[5:] == pytest.approx(b[5:])


def test_shared_noise_takes_over_at_low_noise():
    graph = ps.wide_canvas((1, 4, 10), (4, 4), 3, features=lambda shape: ps.DCT(shape, 2), neighbours="all")
    data = torch.randn(200, 1, 4, 10, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    fitted = ps.fit(graph, {"canvas": data})
    table = ps.coupling(fitted, [0.0, 1e7])
    none, high = table[: len(table) // 2], table[len(table) // 2 :]
    for before, after in zip(none, high, strict=True):
        assert before.posterior == pytest.approx(before.prior)
        assert after.posterior == pytest.approx(after.noise, abs=1e-3)
        assert after.strength < 1e-3
    assert high[0].noise > 0.1  # neighbours overlap
    far = next(row for row in high if {row.first, row.second} == {"w0", "w2"})
    assert far.noise == 0


def test_correlated_noise_is_the_limit(generator):
    row = ps.coupling(ps.chain_graph(2, 1, ps.Correlation(0.8)), 1e8, noise_correlation=0.5)[0]
    assert row.noise == pytest.approx(0.4)
    assert row.posterior == pytest.approx(0.4, abs=1e-5)


def test_hidden_variables_have_no_strength():
    graph = ps.FactorGraph()
    graph.add_trajectory("a", 1)
    graph.add_variable("style", 1)
    graph.add_factor("as", ["a", "style"], ps.Correlation(0.5))
    (row,) = ps.coupling(graph, 0.0)
    assert row.prior == pytest.approx(0.5)
    assert math.isnan(row.strength)


def test_what_it_cannot_say():
    attraction = ps.chain_graph(2, 1, ps.Attraction(precision=2.0))
    with pytest.raises(ParameterError, match="pass variance="):
        ps.coupling(attraction, 1.0)
    assert ps.coupling(attraction, 1.0, variance=1.0)[0].prior > 0
    with pytest.raises(ParameterError, match="at least 0"):
        ps.coupling(ps.chain_graph(2, 1, ps.Correlation(0.8)), -1.0)
    big = ps.chain_graph(2, 600, ps.JointGaussian(covariance=torch.eye(1200)))
    with pytest.raises(UnsupportedError, match="sees 600 numbers"):
        ps.coupling(big, 1.0)
