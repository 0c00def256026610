"""Shrinkage chosen on held-out data, against scipy's densities and fresh samples."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import pgm_sync as ps
from pgm_sync.errors import BatchError, CovarianceError, ParameterError
from pgm_sync.learning import FeatureMoments
from pgm_sync.learning.estimate import choose_shrinkage, estimate_model, folds, information_gain, log_density
from pgm_sync.learning.shrinkage import shrink_between

from .test_moments import sample_covariance

BLOCKS = {k: torch.arange(3 * k, 3 * k + 3) for k in range(4)}
COMPLETE = nx.complete_graph(4)


def draw(n, seed, covariance=None):
    root = torch.linalg.cholesky(sample_covariance(12) if covariance is None else covariance)
    return torch.randn(n, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) @ root.T


def test_the_choice_has_the_largest_crossvalidated_density():
    """Every score again with numpy and scipy, on the same folds."""
    x = draw(40, 0)
    best, compared = choose_shrinkage(x, COMPLETE, BLOCKS)
    parts = folds(torch.arange(40), 5, 0)
    scores = {}
    for overall, between, nats in compared:
        if isinstance(overall, str):
            continue
        values = np.zeros(40)
        for part in parts:
            train = x[~part].numpy()
            covariance = np.cov(train.T, bias=True)
            scale = np.sqrt(np.diag(covariance))
            shrunk = (1 - overall) * covariance + overall * np.diag(scale**2)
            own = np.kron(np.eye(4), np.ones((3, 3)))
            shrunk = np.where(own > 0, shrunk, (1 - between) * shrunk)
            values[part.numpy()] = multivariate_normal(train.mean(0), shrunk).logpdf(x[part].numpy())
        assert nats == pytest.approx(values.mean())
        scores[overall, between] = values.mean()
    assert len(scores) > 8
    assert max(row[2] for row in compared if row[2] is not None) == next(
        row[2] for row in compared if tuple(row[:2]) == best
    )


def test_it_does_not_lose_to_fixed_rules_on_fresh_samples():
    """Weak dependence between nodes of strongly dependent features, 20 samples of 12 numbers, mean over 10 draws."""
    covariance = shrink_between(sample_covariance(12), BLOCKS, 0.8)
    fresh = draw(20000, 99, covariance)
    scores = {}
    for rule in ("heldout", "ledoit_wolf", "oas", 0.1):
        models = [estimate_model(draw(20, seed, covariance), rule, COMPLETE, BLOCKS) for seed in range(10)]
        scores[rule] = np.mean([log_density(fresh, *m[:2]).mean().item() for m in models])
    assert scores["heldout"] > max(scores["ledoit_wolf"], scores["oas"], scores[0.1])


def test_two_intensities():
    x = draw(30, 1)
    data = {k: x[:, rows] for k, rows in BLOCKS.items()}
    graph = ps.complete_graph(4, 3)
    fitted = ps.fit(graph, data, shrinkage=(0.1, 0.5), heldout=0)
    found = fitted.potential((0, 1)).covariance
    sample = np.cov(x[:, :6].T.numpy(), bias=True)
    assert torch.allclose(found[:3, 3:], torch.from_numpy(0.9 * 0.5 * sample[:3, 3:]), atol=1e-9)
    off = torch.from_numpy(sample[:3, :3]) * (0.9 + 0.1 * torch.eye(3))
    assert torch.allclose(found[:3, :3], off, atol=1e-9)


def test_the_record_says_what_was_compared(tmp_path):
    x = draw(40, 2)
    data = {k: x[:, rows] for k, rows in BLOCKS.items()}
    fitted = ps.fit(ps.chain_graph(4, 3), data, shrinkage="heldout", groups=torch.arange(40) // 4)
    fitted.save(tmp_path / "fit.safetensors")
    details = ps.Fit.of(ps.FactorGraph.load(tmp_path / "fit.safetensors")).details
    rows = details["shrinkage_compared"]
    best = max((row for row in rows if row[2] is not None), key=lambda row: row[2])
    assert details["shrinkage_chosen"] == str(best[0])
    assert details.get("shrinkage_between", 0.0) == best[1]
    assert {row[0] for row in rows} >= {"none", "oas", "ledoit_wolf", 0.1}


def test_groups_are_not_cut():
    labels = torch.arange(40) // 7
    parts = folds(labels, 3, 0)
    assert torch.stack(parts).sum(0).eq(1).all()
    for part in parts:
        assert not set(labels[part].tolist()) & set(labels[~part].tolist())


def test_the_gain_is_the_mutual_information():
    """20,000 samples of a known model under that model; and it is indifferent to the units of the features."""
    covariance = sample_covariance(12)
    x = draw(20000, 3)
    model = estimate_model(x[:10000], "none", COMPLETE, BLOCKS)
    gain = information_gain(x[10000:], model, BLOCKS)
    own = sum(torch.logdet(covariance[r[:, None], r]) for r in BLOCKS.values())
    expected = 0.5 * (own - torch.logdet(covariance)).item()
    assert gain.mean().item() == pytest.approx(expected, abs=4 * gain.std().item() / 100)
    units = torch.linspace(0.1, 50, 12, dtype=torch.float64)
    scaled = estimate_model(x[:10000] * units, "none", COMPLETE, BLOCKS)
    assert torch.allclose(information_gain(x[10000:] * units, scaled, BLOCKS), gain, atol=1e-6)


def test_bad_input():
    x = draw(10, 0)
    data = {k: x[:, rows] for k, rows in BLOCKS.items()}
    graph = ps.chain_graph(4, 3)
    with pytest.raises(ParameterError, match=r"the second number must lie in \[0, 1\]"):
        ps.fit(graph, data, shrinkage=(0.1, 2))
    with pytest.raises(ParameterError, match="is not .of all correlations, of those between nodes"):
        ps.fit(graph, data, shrinkage=(0.1, 0.1, 0.1))
    with pytest.raises(BatchError, match="1 groups of samples do not make 2 folds"):
        ps.fit(graph, data, shrinkage="heldout", groups=[0] * 10, heldout=0)
    moments = FeatureMoments(graph)
    moments.update(data)
    with pytest.raises(ParameterError, match="'heldout' needs the samples"):
        ps.fit(graph, moments, shrinkage="heldout")
    data[1] = torch.zeros(10, 3)
    with pytest.raises(CovarianceError, match="leave features without variance out"):
        choose_shrinkage(torch.zeros(10, 12).double(), COMPLETE, BLOCKS)
