"""Closed forms of the potentials, and what they refuse."""

from __future__ import annotations

import math
import re

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgm_sync.errors import (
    CovarianceError,
    NotFiniteError,
    ParameterError,
    ShapeError,
    UnfittedError,
    UnsupportedError,
)
from pgm_sync.gaussian import Gaussian
from pgm_sync.graph import from_trajectory_graph
from pgm_sync.potentials import (
    Attraction,
    Correlation,
    Equality,
    Evidence,
    JointGaussian,
    Likelihood,
    Quadratic,
)
from pgm_sync.testing import dense_information, saved_and_loaded

correlations = st.floats(-0.95, 0.95)
variances = st.floats(0.1, 10)


@given(correlations)
def test_equation_2(rho):
    precision = Correlation(rho).information([(1,), (1,)]).precision.squeeze(-1)
    expected = torch.tensor([[rho**2, -rho], [-rho, rho**2]], dtype=torch.float64) / (1 - rho**2)
    torch.testing.assert_close(precision, expected)
    if abs(rho) > 1e-3:
        low, high = torch.linalg.eigvalsh(precision).tolist()
        assert low < 0 < high  # indefinite on its own


@given(correlations, variances, variances)
def test_the_copula_gives_the_pair_its_correlation(rho, first, second):
    shapes = [(1,), (1,)]
    own = Gaussian(
        torch.diag(torch.tensor([1 / first, 1 / second], dtype=torch.float64)),
        torch.zeros(2, dtype=torch.float64),
        torch.zeros((), dtype=torch.float64),
    )
    joint = dense_information(Correlation(rho, variance=(first, second)), shapes) + own
    cross = rho * math.sqrt(first * second)
    expected = torch.tensor([[first, cross], [cross, second]], dtype=torch.float64)
    torch.testing.assert_close(joint.covariance, expected, rtol=1e-6, atol=1e-8)


def joint_of_tree(edges, rho, variance, mean):
    """prod_i g_i * prod_edges psi on a tree of scalars, by hand."""
    n = len(variance)
    precision = torch.diag(1 / variance)
    eta = mean / variance
    for (i, j), r in zip(edges, rho, strict=True):
        potential = Correlation(r, variance=(variance[i], variance[j]), mean=(mean[i], mean[j])).information(
            [(), ()]
        )
        at = torch.tensor([i, j])
        precision[at[:, None], at] += potential.precision
        eta[at] += potential.eta
    return Gaussian(precision, eta, torch.zeros(n, dtype=torch.float64).sum())


@given(st.integers(2, 8), st.integers(0, 10_000))
def test_on_a_tree_correlations_leave_the_marginals_alone(n, seed):
    edges = list(nx.random_labeled_tree(n, seed=seed).edges)
    generator = torch.Generator().manual_seed(seed)
    rho = (1.8 * torch.rand(n - 1, generator=generator) - 0.9).double()
    variance = (0.2 + torch.rand(n, generator=generator)).double()
    mean = torch.randn(n, generator=generator).double()
    joint = joint_of_tree(edges, rho.tolist(), variance, mean)
    torch.testing.assert_close(joint.mean, mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(joint.covariance.diagonal(), variance, rtol=1e-6, atol=1e-6)
    # closed form: correlations multiply along the path between two nodes
    tree = nx.Graph()
    tree.add_weighted_edges_from([(*edge, r) for edge, r in zip(edges, rho.tolist(), strict=True)])
    scale = variance.sqrt()
    for target, path in nx.single_source_shortest_path(tree, 0).items():
        product = math.prod(tree.edges[a, b]["weight"] for a, b in zip(path, path[1:], strict=False))
        expected = product * scale[0] * scale[target]
        torch.testing.assert_close(joint.covariance[0, target], expected, rtol=1e-5, atol=1e-6)


def test_attraction_shrinks_the_marginals():
    own = Gaussian.from_moments(torch.zeros(2).double(), torch.eye(2).double())
    joint = own + dense_information(Attraction(3.0), [(1,), (1,)])
    assert (joint.covariance.diagonal() < 1).all()
    # x - y gets precision 1/2 + 3, x + y keeps its variance 2
    torch.testing.assert_close(joint.covariance[0, 0], torch.tensor((1 / 3.5 + 2) / 4).double())


def test_evidence_of_precision_zero_says_nothing():
    information = Evidence(5.0, precision=0.0).information([(2,)])
    assert all((part == 0).all() for part in information)


def test_no_mean_means_zero():
    assert JointGaussian(covariance=torch.eye(3)).mean.tolist() == [0.0] * 3


def test_an_unfitted_joint_gaussian_says_what_to_call():
    potential = JointGaussian()
    assert not potential.fitted
    potential.check("seam", [(2,), (3,)])
    for ask in (potential.information, potential.marginals):
        with pytest.raises(UnfittedError, match=r"no parameters yet: call ps\.fit\(graph, data\) first"):
            ask([(2,), (3,)])
    assert not saved_and_loaded(potential).fitted


@pytest.mark.parametrize("potential", [Equality(), Likelihood()])
def test_structural_potentials_have_no_density(potential):
    with pytest.raises(UnsupportedError, match="has no density of its own"):
        potential.information([(1,), (1,)])
    assert potential.marginals([(1,), (1,)]) == [None, None]


class TestEqualityWeight:
    def test_it_is_none_by_default_and_not_shown(self):
        assert Equality().weight is None
        assert repr(Equality()) == "Equality()"
        assert repr(Equality(0.5)) == "Equality(weight=0.5)"

    @pytest.mark.parametrize("weight", [0, 1.0, torch.zeros(2, 3), torch.rand(2, 3).double()])
    def test_it_accepts(self, weight):
        Equality(weight).check("see w0", [(2, 3), (2, 3)])

    @pytest.mark.parametrize("weight", [None, 0.25, torch.rand(2, 3)])
    def test_it_is_saved(self, weight):
        loaded = saved_and_loaded(Equality(weight))
        if isinstance(weight, torch.Tensor):
            assert torch.equal(loaded.weight, weight)
            assert loaded.weight.dtype == weight.dtype
        else:
            assert loaded.weight == weight

    @pytest.mark.parametrize(
        ("weight", "error", "message"),
        [
            (
                torch.ones(3),
                ShapeError,
                "factor 'see w0': Equality.weight has shape (3,), its ends see (2, 3)",
            ),
            (
                torch.tensor([[-0.25, 0, 0], [0, 0, 1.5]]),
                ParameterError,
                "factor 'see w0': Equality.weight with entries in [-0.25, 1.5] must be finite and >= 0",
            ),
            (-1.0, ParameterError, "with entries in [-1, -1] must be finite and >= 0"),
            (math.nan, ParameterError, "must be finite and >= 0"),
        ],
    )
    def test_it_refuses(self, weight, error, message):
        with pytest.raises(error, match=re.escape(message)) as caught:
            Equality(weight).check("see w0", [(2, 3), (2, 3)])
        assert caught.value.factor == "see w0"


REFUSED = [
    (lambda: Quadratic(torch.ones(2, 3)), ShapeError, "Quadratic: precision has shape (2, 3)"),
    (lambda: Quadratic(torch.ones(2, 2).triu()), CovarianceError, "Quadratic: precision is not symmetric"),
    (lambda: Quadratic(torch.eye(2), torch.ones(3)), ShapeError, "eta has shape (3,) for 2 ends"),
    (lambda: Quadratic(torch.eye(2), torch.tensor([1.0, math.nan])), NotFiniteError, "Quadratic: eta has 1 NaN"),
    (lambda: Quadratic(torch.eye(2)).check("f", [(2,)]), ShapeError, "for 2 ends, the factor has 1"),
    (
        lambda: Quadratic(torch.eye(2), torch.ones(2, 3)).check("f", [(2,), (2,)]),
        ShapeError,
        "Quadratic.eta is for elements of shape (3,), its ends see (2,)",
    ),
    (lambda: Attraction(0.0), ParameterError, "Attraction: precision 0.0 must be strictly between 0 and inf"),
    (lambda: Attraction(math.nan), ParameterError, "Attraction: precision nan must be strictly between"),
    (
        lambda: Attraction(torch.ones(3)).check("f", [(2, 3), (2, 3)]),
        ShapeError,
        "factor 'f': Attraction.precision has shape (3,), its ends see (2, 3)",
    ),
    (lambda: Correlation(1.0), ParameterError, "Correlation: rho 1.0 must be strictly between -1 and 1"),
    (
        lambda: Correlation(torch.tensor([0.5, -1.5])),
        ParameterError,
        "Correlation: rho with entries in [-1.5, 0.5] must be strictly between -1 and 1",
    ),
    (
        lambda: Correlation(0.5, variance=(1.0, -2.0)),
        ParameterError,
        "Correlation: variance -2.0 must be strictly between 0 and inf",
    ),
    (lambda: Correlation(0.5, mean=math.inf), ParameterError, "Correlation: mean inf must be finite"),
    (
        lambda: Correlation(0.5, mean=(1.0, 2.0, 3.0)),
        ParameterError,
        "Correlation: mean is one number, a tensor, or a pair of them, not a tuple of 3",
    ),
    (
        lambda: Correlation((0.1, 0.2)),
        ParameterError,
        "Correlation: rho is one number, a tensor, not a tuple of 2",
    ),
    (
        lambda: Correlation(torch.full((3,), 0.1)).check("f", [(2, 3), (2, 3)]),
        ShapeError,
        "factor 'f': Correlation.rho has shape (3,), its ends see (2, 3)",
    ),
    (
        lambda: Correlation(0.1, mean=(0.0, torch.ones(3))).check("f", [(2, 3), (2, 3)]),
        ShapeError,
        "factor 'f': Correlation.mean has shape (3,)",
    ),
    (lambda: Evidence(math.nan), NotFiniteError, "Evidence: value has 1 NaN or infinite entries out of 1"),
    (lambda: Evidence(0.0, precision=-1.0), ParameterError, "Evidence: precision -1.0 is negative"),
    (
        lambda: Evidence(torch.zeros(4)).check("seen", [(2, 3)]),
        ShapeError,
        "factor 'seen': Evidence.value of shape (4,) does not broadcast to (2, 3)",
    ),
    (
        lambda: Evidence(0.0, mask=[True, False]).check("seen", [(2, 3)]),
        ShapeError,
        "factor 'seen': Evidence.mask of shape (2,) does not broadcast to (2, 3)",
    ),
    (
        lambda: JointGaussian(covariance=torch.tensor([[1.0, 0.5], [0.2, 1.0]])),
        CovarianceError,
        "JointGaussian: covariance is not symmetric: entries differ by up to 0.3",
    ),
    (
        lambda: JointGaussian(covariance=torch.tensor([[1.0, 2.0], [2.0, 1.0]])),
        CovarianceError,
        "JointGaussian: covariance (2 x 2) is not positive definite: its smallest eigenvalue is -1",
    ),
    (
        lambda: JointGaussian(covariance=torch.full((2, 2), math.nan)),
        NotFiniteError,
        "JointGaussian: covariance has 4 NaN",
    ),
    (
        lambda: JointGaussian(covariance=torch.ones(2, 3)),
        ShapeError,
        "JointGaussian: covariance of shape (2, 3) is not square",
    ),
    (
        lambda: JointGaussian(torch.zeros(3), torch.eye(2)),
        ShapeError,
        "JointGaussian: mean has 3 elements, covariance is 2 x 2",
    ),
    (
        lambda: JointGaussian(torch.zeros(2), torch.eye(2), interaction=torch.eye(3)),
        ShapeError,
        "JointGaussian: interaction is (3, 3), covariance (2, 2)",
    ),
    (
        lambda: JointGaussian(torch.zeros(4), torch.eye(4)).check("seam", [(2,), (1, 3)]),
        ShapeError,
        "factor 'seam': JointGaussian is over 4 elements, its ends have 2 + 3 (shapes (2,), (1, 3))",
    ),
    (
        lambda: Correlation(0.5).check("seam", [(2,)]),
        ParameterError,
        "factor 'seam': Correlation joins 2 trajectories, not 1",
    ),
    (
        lambda: Correlation(0.5).check("seam", [(2,), (3,)]),
        ShapeError,
        "factor 'seam': Correlation joins matching elements, but its ends see shapes (2,), (3,); "
        "give maps=[...] that bring them to one shape",
    ),
]


@pytest.mark.parametrize(("build", "error", "message"), REFUSED)
def test_bad_input_gets_a_named_error(build, error, message):
    with pytest.raises(error, match=re.escape(message)):
        build()


def test_a_list_is_one_number_per_element_and_stays_so_when_saved():
    potential = Correlation(0.5, variance=[1.0, 2.0])
    for p in (potential, saved_and_loaded(potential)):
        assert [m.covariance.tolist() for m in p.marginals([(2,), (2,)])] == [[1.0, 2.0]] * 2


def test_a_whole_chain_is_normalised():
    """On a tree of copulas, log_scale is the logarithm of the true normaliser."""
    graph = from_trajectory_graph(nx.path_graph(3), (1,), Correlation(0.6, variance=2.0, mean=1.0))
    joint = Gaussian.from_moments(torch.ones(3).double(), 2 * torch.eye(3).double())
    for factor in graph.factors:
        part = dense_information(graph.potential(factor), graph.seen_shapes(factor))
        at = torch.tensor(graph.scope(factor))
        precision, eta = torch.zeros(3, 3).double(), torch.zeros(3).double()
        precision[at[:, None], at], eta[at] = part.precision, part.eta
        joint = joint + Gaussian(precision, eta, part.log_scale)
    assert abs(joint.log_normalizer.item()) < 1e-9
