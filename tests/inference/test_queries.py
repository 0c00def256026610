"""Queries of a posterior against torch.distributions, networkx, and formulas on the dense covariance."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import pytest
import torch
from hypothesis import given
from torch.distributions import MultivariateNormal

import pgm_sync as ps
from pgm_sync.errors import (
    BatchError,
    CovarianceError,
    GraphStructureError,
    ParameterError,
    ShapeError,
    UnknownNameError,
    UnsupportedError,
)
from pgm_sync.inference import correlation_network, dense_joint

from .strategies import graphs_with_evidence, networks
from .test_infer import close


def loop(blocks=False, n=5, batch=()):
    """A ring with a chord, of different evidence everywhere; matrices of a joint potential where asked."""
    graph = ps.ring_graph(n, (2,), ps.Attraction(1.0))
    graph.add_factor("chord", [0, 2], ps.Correlation(0.3))
    if blocks:
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(4, 4, generator=generator).double()
        graph.add_factor("joint", [1, 3], ps.JointGaussian(None, root @ root.T + torch.eye(4)))
    generator = torch.Generator().manual_seed(1)
    evidence = {
        k: (
            torch.randn(*batch, 2, generator=generator).double(),
            2 + torch.rand(*batch, 2, generator=generator).double(),
        )
        for k in range(n)
    }
    return graph, evidence


both = pytest.mark.parametrize("blocks", [False, True], ids=["elements", "blocks"])


@both
def test_sets_of_nodes_against_the_dense_covariance(blocks):
    graph, evidence = loop(blocks, batch=(3,))
    posterior = ps.infer(graph, evidence)
    joint = dense_joint(graph, evidence)
    covariance = torch.linalg.inv(joint.precision)
    a, b, c = [0, 1], [2, 3], [6, 7, 8, 9]  # elements of nodes 0; 1; 3 and 4
    close(posterior.cross_covariance(0, [3, 4]), covariance[:, a][:, :, c], 1e-12)
    # p(0, 1 | 3, 4) by the precision alone: Lambda restricted to what is not given, node 2 summed out
    inner = torch.linalg.inv(joint.precision[:, :6, :6])[:, :4, :4]
    close(posterior.conditional([0, 1], [3, 4]).covariance, inner, 1e-10)
    close(
        posterior.partial_correlation(0, 1, given=[3, 4]),
        (inner[:, [0, 1], [2, 3]] / (inner[:, [0, 1], [0, 1]] * inner[:, [2, 3], [2, 3]]).sqrt()),
        1e-10,
    )
    rest = torch.linalg.inv(joint.precision[:, :4, :4])
    close(
        posterior.partial_correlation(0, 1),
        -joint.precision[:, [0, 1], [2, 3]]
        / (joint.precision[:, [0, 1], [0, 1]] * joint.precision[:, [2, 3], [2, 3]]).sqrt(),
        1e-12,
    )
    if not blocks:  # with one-element components, given everything else means given the rest of the component
        close(
            posterior.partial_correlation(0, 1),
            rest[:, [0, 1], [2, 3]] / (rest[:, [0, 1], [0, 1]] * rest[:, [2, 3], [2, 3]]).sqrt(),
            1e-12,
        )
    zero = torch.zeros(3, 4).double()
    entropy = MultivariateNormal(zero, covariance[:, :4, :4]).entropy()
    close(posterior.entropy([0, 1]), entropy, 1e-12)
    close(posterior.entropy(), MultivariateNormal(torch.zeros(3, 10).double(), covariance).entropy(), 1e-12)
    parts = [MultivariateNormal(zero[:, :2], covariance[:, i][:, :, i]).entropy() for i in (a, b)]
    close(posterior.mutual_information(0, 1), sum(parts) - entropy, 1e-10)


def test_mutual_information_of_a_pair_in_closed_form():
    rho = 0.6
    graph = ps.chain_graph(2, 1, ps.Correlation(rho))
    posterior = ps.infer(graph, dict.fromkeys(range(2), (0.0, 1.0)))
    # evidence N(0, 1) makes the copula the bivariate normal of correlation rho
    assert posterior.mutual_information(0, 1).item() == pytest.approx(-0.5 * math.log(1 - rho**2))
    assert posterior.correlation(0, 1).item() == pytest.approx(rho)


def test_separation_makes_mutual_information_vanish_and_the_blanket_is_enough():
    graph = ps.chain_graph(4, 2, ps.Attraction(1.0))
    posterior = ps.infer(graph, dict.fromkeys(range(4), (0.0, 0.5)))
    assert posterior.mutual_information(0, 3).item() > 1e-3
    assert posterior.mutual_information(0, 3, given=1).item() == pytest.approx(0, abs=1e-12)
    assert graph.markov_blanket(1) == {0, 2}
    assert posterior.mutual_information(1, 3, given={0, 2}).item() == pytest.approx(0, abs=1e-12)


@given(networks())
def test_separation_is_reachability_in_the_markov_network(case):
    """Oracle: networkx, after taking the given nodes out of the network the graph was made from."""
    network, _ = case
    graph = ps.from_trajectory_graph(network, 1, ps.Attraction(1.0))
    for a, b in itertools.combinations(network.nodes, 2):
        assert graph.markov_blanket(a) == set(network[a]) - {a}
        for known in itertools.combinations([n for n in network.nodes if n not in (a, b)], 2):
            cut = network.subgraph(set(network.nodes) - set(known))
            connected = nx.has_path(cut, a, b)
            assert graph.separated(a, b, given=known) is not connected
            path = graph.connecting_path(a, b, given=known)
            assert (path is not None) is connected
            if path is not None:
                assert (path[0], path[-1]) == (a, b)
                assert not set(path) & set(known)
                assert len(path[::2]) == nx.shortest_path_length(cut, a, b) + 1


@both
def test_samples_have_the_posterior_moments(blocks):
    """4000 samples: sample means within 5 standard errors, covariances within 5 of theirs."""
    graph, evidence = loop(blocks)
    posterior = ps.infer(graph, evidence)
    count = 4000
    drawn = posterior.sample(count, torch.Generator().manual_seed(0))
    flat = torch.cat([drawn[k] for k in range(5)], -1)
    covariance = posterior.joint(list(range(5))).covariance
    mean = torch.cat([posterior.mean[k] for k in range(5)])
    assert ((flat.mean(0) - mean).abs() < 5 * (covariance.diagonal() / count).sqrt()).all()
    own = covariance.diagonal()
    error = ((own[:, None] * own + covariance.square()) / count).sqrt()  # of a Gaussian sample covariance
    assert ((flat.T.cov() - covariance).abs() < 5 * error).all()
    again = posterior.sample(count, torch.Generator().manual_seed(0))
    assert torch.equal(again[2], drawn[2])


@pytest.mark.parametrize("large", [False, True])
def test_uncertain_directions_are_the_eigenvectors_of_the_covariance(large, monkeypatch):
    if large:
        monkeypatch.setattr("pgm_sync.inference.queries.DENSE_UP_TO", 0)
    graph, evidence = loop(True, batch=(2,))
    posterior = ps.infer(graph, evidence)
    found = posterior.uncertain_directions(3)
    values, vectors = torch.linalg.eigh(torch.linalg.inv(dense_joint(graph, evidence).precision))
    close(found.variance, values.flip(-1)[:, :3].T, 1e-10)
    ours = torch.cat([found.direction[k] for k in range(5)], -1)
    overlap = (ours * vectors.flip(-1)[..., :3].permute(2, 0, 1)).sum(-1).abs()
    close(overlap, torch.ones_like(overlap), 1e-8)
    shares = torch.stack(list(found.share().values())).square().sum(0)
    close(shares, torch.ones_like(shares), 1e-10)


@given(graphs_with_evidence())
def test_observations_condition_the_dense_joint(case):
    """Oracle: Gaussian.condition on the dense joint, and its integral for the log evidence."""
    graph, evidence = case
    sites = ps.compile(graph).sites
    node = graph.trajectories[0]
    value = torch.linspace(-1, 1, 6).double().reshape(2, 3)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    joint = dense_joint(graph, evidence)
    where = sites.index[node][mask.flatten()]
    conditional = joint.condition(where, value[mask].expand(*joint.eta.shape[:-1], 4))
    rest = torch.tensor([k for k in range(sites.size) if k not in set(where.tolist())])
    for method in ("exact", "dense", "cg"):
        options = {"tolerance": 1e-13} if method == "cg" else {}
        posterior = ps.infer(graph, evidence, method, observed={node: (value, mask)}, **options)
        everything = torch.zeros(*posterior.element_mean.shape[:-1], sites.size).double()
        everything[..., where] = value[mask]
        everything[..., rest] = conditional.mean.expand(*everything.shape[:-1], len(rest))
        close(posterior.element_mean, everything[..., sites.elements], 1e-8)
        variance = torch.zeros(sites.size).double().expand(*conditional.precision.shape[:-2], -1).clone()
        variance[..., rest] = torch.linalg.inv(conditional.precision).diagonal(dim1=-2, dim2=-1)
        close(posterior.element_variance, variance[..., sites.elements], 1e-8)
        assert (posterior.covariance(node, node)[..., mask] == 0).all()
        if method != "cg":
            close(posterior.log_evidence, conditional.log_normalizer, 1e-9)
            drawn = posterior.sample(2, torch.Generator().manual_seed(0))[node]
            assert torch.equal(drawn[..., mask], value[mask].expand_as(drawn[..., mask]))


def test_the_log_evidence_of_observations_is_their_density():
    """Two nodes of a bivariate normal, one observed: the integral is the marginal density of the observation."""
    graph = ps.chain_graph(2, 1, ps.Correlation(0.8))
    graph.add_factor("a", [0], ps.Evidence(0.0, 1.0))
    graph.add_factor("b", [1], ps.Evidence(0.0, 1.0))
    posterior = ps.infer(graph, observed={0: 1.3})
    density = torch.distributions.Normal(0.0, 1.0).log_prob(torch.tensor(1.3))
    assert posterior.log_evidence.item() == pytest.approx(density.item())
    assert posterior.mean[1].item() == pytest.approx(0.8 * 1.3)
    assert posterior.variance[1].item() == pytest.approx(1 - 0.8**2)
    assert posterior.entropy().item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e * (1 - 0.8**2)))
    assert "1 sites observed" in posterior.info.plan


@pytest.mark.parametrize(("observed", "error", "message"), [
    ({"nobody": 1.0}, UnknownNameError, "no trajectory or variable 'nobody'"),
    ({0: torch.zeros(3)}, ShapeError, r"observed 0 has shape \(3,\)"),
    ({0: (1.0, torch.ones(2))}, ShapeError, "the mask is torch.float32"),
    ({0: (1.0, torch.ones(3, dtype=torch.bool))}, ShapeError, r"give torch.bool of shape \(2,\)"),
    ({0: float("nan")}, ps.PgmSyncError, "observed 0 has"),
    ({}, ParameterError, "observed holds nothing"),
    ([0], ParameterError, "observed is a list; give a mapping"),
    ({0: "x"}, ParameterError, "observed 0 is .*, neither a number"),
    ({0: None}, ParameterError, "observed 0 is None, neither a number"),
    ({0: (1.0, 2.0, 3.0)}, ParameterError, "observed 0 is a tuple of 3; give values, or a pair"),
    ({0: torch.zeros(4, 2), 1: torch.zeros(3, 2)}, BatchError, r"observed 1 has batch \(3,\).*\(4,\)"),
    (dict.fromkeys(range(3), 0.0), ParameterError, "observed holds every element"),
])  # fmt: skip
def test_bad_observations(observed, error, message):
    graph = ps.chain_graph(3, 2, ps.Attraction(1.0))
    with pytest.raises(error, match=message):
        ps.infer(graph, {0: (0.0, 1.0)}, observed=observed)


@given(graphs_with_evidence())
def test_sets_of_nodes_in_any_graph_against_the_dense_covariance(case):
    """Entropy, mutual and partial information by components; Equality may make sets share elements, which is named."""
    graph, evidence = case
    posterior = ps.infer(graph, evidence)
    first, second, *rest = graph.trajectories
    given_ = rest[:1]
    sites = ps.compile(graph).sites.index
    where = [torch.cat([sites[n] for n in names]) for names in ([first], [second], given_ or [first])]
    asked = torch.cat(where if given_ else where[:2])
    if len(asked.unique()) < len(asked):
        with pytest.raises(CovarianceError, match="share elements"):
            posterior.mutual_information(first, second, given=given_)
        return
    covariance = torch.linalg.inv(dense_joint(graph, evidence).precision)
    inner = covariance[..., asked[:, None], asked]
    if given_:  # p(first, second | given): the precision of the three, restricted
        inner = torch.linalg.inv(torch.linalg.inv(inner)[..., :12, :12])
    normal = [torch.zeros(6).double(), torch.zeros(6).double(), torch.zeros(12).double()]
    parts = (inner[..., :6, :6], inner[..., 6:, 6:], inner)
    entropy = [MultivariateNormal(m, c).entropy() for m, c in zip(normal, parts, strict=True)]
    information = posterior.mutual_information(first, second, given=given_)
    assert (information - (entropy[0] + entropy[1] - entropy[2])).abs().max() < 1e-9
    own = covariance[..., where[0][:, None], where[0]]
    close(posterior.entropy([first]), MultivariateNormal(normal[0], own).entropy(), 1e-9)
    k = torch.arange(6)
    scale = (inner[..., k, k] * inner[..., k + 6, k + 6]).sqrt()
    partial = posterior.partial_correlation(first, second, given=given_).flatten(-2)
    assert (partial - inner[..., k, k + 6] / scale).abs().max() < 1e-9


def test_information_of_large_nodes_takes_one_small_matrix_per_component():
    """16,384 elements per node: one dense covariance of a pair would take 8 GiB. Closed form of a Markov chain."""
    size, rho = 16_384, 0.5
    posterior = ps.infer(ps.chain_graph(3, size, ps.Correlation(rho)), dict.fromkeys(range(3), (0.0, 1.0)))
    assert posterior.mutual_information(0, 1).item() == pytest.approx(-0.5 * size * math.log(1 - rho**2))
    assert posterior.mutual_information(0, 2, given=1).item() == pytest.approx(0, abs=1e-9)
    partial = rho * (1 - rho**2) / math.sqrt((1 - rho**2) * (1 - rho**4))
    close(posterior.partial_correlation(0, 1, given=2), torch.full((size,), partial, dtype=torch.float64))
    one = 0.5 * math.log(2 * math.pi * math.e)
    assert posterior.entropy([0, 1]).item() == pytest.approx(size * (2 * one + 0.5 * math.log(1 - rho**2)))


@both
def test_questions_about_observed_elements(blocks):
    """Oracle: the same questions about the dense covariance of what is not observed."""
    graph, evidence = loop(blocks, batch=(3,))
    mask = torch.tensor([True, False])
    posterior = ps.infer(graph, evidence, observed={1: 0.5, 2: (torch.ones(2), mask)})
    free = torch.tensor([0, 1, 5, 6, 7, 8, 9])  # without both elements of 1 and the first of 2
    precision = dense_joint(graph, evidence).precision
    covariance = torch.zeros(3, 10, 10).double()
    covariance[:, free[:, None], free] = torch.linalg.inv(precision[:, free[:, None], free])
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    for a, b in ((0, 1), (1, 1), (0, 2), (2, 3)):
        i, j = (torch.arange(2 * n, 2 * n + 2) for n in (a, b))
        scale = deviation[:, i] * deviation[:, j]
        expected = torch.where(scale > 0, covariance[:, i, j] / scale.clamp(min=1e-9), 0.0)
        close(posterior.correlation(a, b), expected, 1e-10)
        assert posterior.partial_correlation(a, b).isfinite().all()
    assert (posterior.partial_correlation(0, 1, given=3) == 0).all()
    assert (posterior.partial_correlation(1, 1) == 0).all()
    assert (posterior.partial_correlation(2, 0, given=3)[..., 0] == 0).all()
    assert (posterior.mutual_information(0, 1) == 0).all()
    assert (posterior.entropy([1]) == 0).all()
    # the observed may be named as known; it makes no difference
    close(posterior.mutual_information(0, 3, given=[1, 4]), posterior.mutual_information(0, 3, given=4), 1e-12)
    close(posterior.conditional(0, [1, 2]).covariance, posterior.conditional(0, [2]).covariance, 1e-12)
    inner = torch.linalg.inv(precision[:, free[:, None], free])[:, [2], [2]]  # the free element of node 2
    close(posterior.entropy([1, 2]), 0.5 * (2 * math.pi * math.e * inner[:, 0]).log(), 1e-10)
    network = correlation_network(posterior)
    assert all(math.isfinite(value) for *_, data in network.edges(data=True) for value in data.values())
    with pytest.raises(CovarianceError, match="elements of 1, 2 are observed") as caught:
        posterior.joint([0, 1, 2])
    assert caught.value.names == [1, 2]
    with pytest.raises(CovarianceError, match="elements of 2 are observed"):
        posterior.conditional([2], 0)
    with pytest.raises(ParameterError, match="count=7: 10 sites have 1 to 6 directions to list; the others are"):
        posterior.uncertain_directions(7)


def test_nodes_of_one_number_without_a_shape():
    graph = ps.FactorGraph()
    for name in "ab":
        graph.add_trajectory(name, ())
    graph.add_factor("f", ["a", "b"], ps.Correlation(0.6))
    posterior = ps.infer(graph, dict.fromkeys("ab", (0.0, 1.0)))
    for value in (posterior.correlation("a", "b"), posterior.partial_correlation("a", "b")):
        assert value.shape == ()
        assert value.item() == pytest.approx(0.6)
    assert posterior.mean["a"].shape == ()
    assert posterior.sample(3)["a"].shape == (3,)
    assert ps.infer(graph, dict.fromkeys("ab", (0.0, 1.0)), observed={"a": 2.0}).mean["b"].item() == pytest.approx(1.2)


@pytest.mark.parametrize("method", ["exact", "cg"])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_uncertain_directions_of_every_plan(method, large, shared, monkeypatch):
    """A batch of means under one precision, and of both."""
    if large:
        monkeypatch.setattr("pgm_sync.inference.queries.DENSE_UP_TO", 0)
    graph, evidence = loop(batch=(2, 3))
    if shared:
        evidence = {name: (mean, precision[0, 0]) for name, (mean, precision) in evidence.items()}
    found = ps.infer(graph, evidence, method).uncertain_directions(2)
    values = torch.linalg.eigvalsh(torch.linalg.inv(dense_joint(graph, evidence).precision)).flip(-1)[..., :2]
    close(found.variance, values.movedim(-1, 0), 1e-8)
    assert found.variance.shape == ((2,) if shared else (2, 2, 3))


@both
def test_gradients_of_queries(blocks, monkeypatch):
    monkeypatch.setattr("pgm_sync.inference.queries.DENSE_UP_TO", 0)
    graph, evidence = loop(blocks)

    def quantities(shift, value):
        moved = {n: (mean + shift, precision + shift.square()) for n, (mean, precision) in evidence.items()}
        posterior = ps.infer(graph, moved, observed={4: value})
        return (
            posterior.mean[0],
            posterior.log_evidence,
            posterior.correlation(0, 4),
            posterior.partial_correlation(0, 1),
            posterior.partial_correlation(0, 2, given=[1, 4]),
            posterior.entropy([0, 2, 4]),
            posterior.mutual_information(0, 2, given=4),
            posterior.conditional(0, 1).covariance,
            posterior.sample(1, torch.Generator().manual_seed(0))[2],
            posterior.uncertain_directions(2).variance,
        )

    inputs = [torch.tensor([0.4, -0.7]).double(), torch.tensor([1.0, 0.3]).double()]
    assert torch.autograd.gradcheck(quantities, [x.requires_grad_() for x in inputs])


def test_observations_that_contradict_each_other():
    graph = ps.chain_graph(3, 2, ps.Equality())
    evidence = {0: (0.0, 1.0)}
    graph.add_trajectory("free", 1)
    evidence["free"] = (0.0, 1.0)
    assert ps.infer(graph, evidence, observed={0: 1.0, 1: 1.0}).mean[2].tolist() == [1.0, 1.0]
    with pytest.raises(GraphStructureError, match="observed 1 differs from another observation"):
        ps.infer(graph, evidence, observed={0: 1.0, 1: 2.0})


def test_bad_questions():
    graph, evidence = loop()
    graph.add_trajectory("other", 3)
    evidence["other"] = (0.0, 1.0)
    posterior = ps.infer(graph, evidence)
    with pytest.raises(UnknownNameError, match="'nobody'"):
        posterior.cross_covariance(0, "nobody")
    with pytest.raises(UnknownNameError, match="names: 'chord' is a factor"):
        posterior.joint("chord")
    with pytest.raises(ShapeError, match="elements do not match"):
        posterior.partial_correlation(0, "other")
    with pytest.raises(GraphStructureError, match="0 is both in names and in given"):
        posterior.conditional([0, 1], 0)
    with pytest.raises(GraphStructureError, match="1 is both in first and in second"):
        posterior.mutual_information([0, 1], 1)
    with pytest.raises(GraphStructureError, match="overlap"):
        graph.separated(0, 0)
    with pytest.raises(ParameterError, match="a is empty"):
        graph.separated([], 0)
    with pytest.raises(ParameterError, match="count=0"):
        posterior.sample(0)
    with pytest.raises(ParameterError, match="count=2.5 is not a positive number"):
        posterior.sample(2.5)
    with pytest.raises(ParameterError, match="count='1'"):
        posterior.uncertain_directions("1")
    with pytest.raises(ParameterError, match="count=99: 13 sites have 1 to 12 directions"):
        posterior.uncertain_directions(99)
    with pytest.raises(UnsupportedError, match="no samples"):
        ps.infer(graph, evidence, "cg").sample(1)


@both
def test_covariances_of_chosen_elements(blocks):
    graph, evidence = loop(blocks)
    posterior = ps.infer(graph, evidence)
    whole = dense_joint(graph, evidence).covariance  # two elements per node, in order
    i, j = torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0])
    close(posterior.element_covariance(1, i, 3, j), whole[2 + i, 6 + j])
    with pytest.raises(UnknownNameError, match="'z'"):
        posterior.element_covariance(1, i, "z", j)
