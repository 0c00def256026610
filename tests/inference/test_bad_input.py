"""The bad-input matrix: malformed graphs and inputs, each with its own named error that says what is wrong where."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch

import pgm_sync as ps
from pgm_sync import errors as e
from pgm_sync.inference import from_scipy, sweeps

F64 = torch.float64
eye = torch.eye(2, dtype=F64)


def pair(potential=None, shape=2, n=2):
    return ps.chain_graph(n, shape, potential or ps.Attraction(1.0))


def with_factor(potential, maps=None, scope=(0, 1), shape=2):
    graph = ps.FactorGraph()
    for k in (0, 1):
        graph.add_trajectory(k, shape)
    graph.add_factor("f", list(scope), potential, maps)
    return graph


def infer(evidence, graph=None, **options):
    return ps.infer(graph or pair(), evidence, **options)


def added(*steps):
    graph = pair()
    for method, *arguments in steps:
        getattr(graph, method)(*arguments)
    return graph


def networkx_edit(edit):
    graph = pair()
    edit(graph)
    return ps.infer(graph, {0: (0.0, 1.0)})


def stale():
    graph = pair()
    plan = ps.compile(graph)
    graph.nodes[graph.factors[0]]["potential"] = ps.Attraction(2.0)
    return ps.infer(plan, {0: (0.0, 1.0)})


def indefinite_ring():
    """Precision of its own on one node only."""
    return ps.ring_graph(3, 1, ps.Quadratic(torch.tensor([[0.0, 0.6], [0.6, 0.0]])))


unit = {0: (0.0, 1.0), 1: (0.0, 1.0)}
matrix = ps.Gaussian(eye, torch.zeros(2, dtype=F64), torch.zeros((), dtype=F64))

CASES = {
    # graphs
    "empty graph": (lambda: ps.infer(ps.FactorGraph()), e.EmptyGraphError, "call add_trajectory"),
    "node twice": (lambda: added(("add_trajectory", 0, 2)), e.DuplicateNameError, "0"),
    "factor named like a node": (
        lambda: added(("add_factor", 0, [1], ps.Evidence(0.0))), e.DuplicateNameError, "0"),
    "None for a name": (lambda: added(("add_trajectory", None, 2)), e.GraphStructureError, "None cannot name"),
    "zero size": (lambda: added(("add_trajectory", "z", (0, 2))), e.ShapeError, "'z'.*positive integers"),
    "negative size": (lambda: added(("add_trajectory", "z", -1)), e.ShapeError, "positive integers"),
    "fractional size": (lambda: added(("add_trajectory", "z", (1.5,))), e.ShapeError, "positive integers"),
    "unknown end": (lambda: with_factor(ps.Attraction(1.0), scope=(0, 9)), e.UnknownNameError, "'f' names 9"),
    "a factor for an end": (
        lambda: added(("add_factor", "g", [0, (0, 1)], ps.Attraction(1.0))), e.UnknownNameError, r"names \(0, 1\)"),
    "an end twice": (lambda: with_factor(ps.Attraction(1.0), scope=(0, 0)), e.GraphStructureError, "twice"),
    "no end": (lambda: with_factor(ps.Attraction(1.0), scope=()), e.GraphStructureError, "empty scope"),
    "too many ends": (
        lambda: added(("add_trajectory", 2, 2), ("add_factor", "g", [0, 1, 2], ps.Attraction(1.0))),
        e.ParameterError, "joins 2 trajectories, not 3"),
    "no potential": (lambda: with_factor("strong"), e.ParameterError, "'strong' is not a potential"),
    "maps for other ends": (
        lambda: with_factor(ps.Attraction(1.0), [None]), e.ShapeError, "2 ends and 1 maps"),
    "no map": (lambda: with_factor(ps.Attraction(1.0), [None, "crop"]), e.ParameterError, "'crop' on 1 is not a map"),
    "map of another shape": (
        lambda: with_factor(ps.Attraction(1.0), [None, ps.Identity((3,))]), e.ShapeError, "the map on 1 takes shape"),
    "ends of other shapes": (
        lambda: with_factor(ps.Attraction(1.0), [None, ps.Crop((2,), (0,), (1,))]), e.ShapeError, "to one shape"),
    "node added by networkx": (lambda: networkx_edit(lambda g: g.add_node("x")), e.GraphStructureError, "'x' was not"),
    "edge added by networkx": (
        lambda: networkx_edit(lambda g: g.add_edge(0, 1)), e.GraphStructureError, "does not join a factor"),
    "node removed by networkx": (
        lambda: networkx_edit(lambda g: g.remove_node(1)), e.GraphStructureError, "have changed since"),
    "equality around a shift": (
        lambda: infer({0: (0.0, 1.0)}, added(
            ("add_factor", "e", [0, 1], ps.Equality()),
            ("add_factor", "x", [0, 1], ps.Equality(), [None, ps.Flip((2,), (0,))]))),
        e.GraphStructureError, "copies of others of its own elements"),
    "equality through features": (
        lambda: infer({0: (0.0, 1.0)}, with_factor(ps.Equality(), [ps.DCT((2,), 1), ps.DCT((2,), 1)])),
        e.UnsupportedError, "'f'.*Equality through a DCT"),
    "stale plan": (stale, e.StalePlanError, "compile"),
    # maps
    "crop outside": (lambda: ps.Crop((4,), (3,), (2,)), e.PgmSyncError, "4"),
    "mask of nothing": (lambda: ps.Mask((2,), torch.zeros(2, dtype=torch.bool)), e.PgmSyncError, "[Mm]ask"),
    "mask of numbers": (lambda: ps.Mask((2,), torch.ones(3, dtype=torch.bool)), e.ShapeError, "3"),
    "permutation with a repeat": (lambda: ps.Permutation((2,), torch.tensor([0, 0])), e.PgmSyncError, "ermutation"),
    "sparse map outside": (
        lambda: ps.SparseMap((2,), (2,), torch.tensor([[0], [5]]), torch.ones(1)), e.ShapeError, "outside the matrix"),
    "sparse map with NaN": (
        lambda: ps.SparseMap((2,), (2,), torch.zeros(2, 1, dtype=torch.long), torch.tensor([float("nan")])),
        e.NotFiniteError, "NaN"),
    # potentials
    "rho of one": (lambda: ps.Correlation(1.0), e.ParameterError, "rho 1.0"),
    "rho of NaN": (lambda: ps.Correlation(float("nan")), e.ParameterError, "rho nan"),
    "negative variance": (lambda: ps.Correlation(0.5, variance=-1.0), e.ParameterError, "variance -1"),
    "negative attraction": (lambda: ps.Attraction(-1.0), e.ParameterError, "precision -1"),
    "rho per element of another shape": (
        lambda: with_factor(ps.Correlation(torch.full((3,), 0.5))), e.ShapeError, r"'f'.*shape \(3,\)"),
    "indefinite covariance": (
        lambda: ps.JointGaussian(None, torch.tensor([[1.0, 2.0], [2.0, 1.0]])), e.CovarianceError, "positive definite"),
    "asymmetric covariance": (
        lambda: ps.JointGaussian(None, torch.tensor([[1.0, 0.5], [0.0, 1.0]])), e.CovarianceError, "symmetric"),
    "covariance of another size": (
        lambda: with_factor(ps.JointGaussian(None, torch.eye(3))), e.ShapeError, "'f'"),
    "unfitted potential": (
        lambda: infer(unit, with_factor(ps.JointGaussian())), e.UnfittedError, "'f'.*ps.fit"),
    "asymmetric quadratic": (lambda: ps.Quadratic(torch.ones(2, 2).tril()), e.CovarianceError, "not symmetric"),
    "infinite observation in the graph": (lambda: ps.Evidence(float("inf")), e.NotFiniteError, "value"),
    "negative precision in the graph": (lambda: ps.Evidence(0.0, -1.0), e.ParameterError, "-1.0 is negative"),
    # evidence
    "evidence for nobody": (lambda: infer({"x": (0.0, 1.0)}), e.UnknownNameError, "'x', which is not in the graph"),
    "evidence for a factor": (lambda: infer({(0, 1): (0.0, 1.0)}), e.UnknownNameError, "a factor with a Attraction"),
    "NaN mean": (lambda: infer({0: (torch.tensor([0.0, float("nan")]), 1.0)}), e.NotFiniteError, "mean for 0 has 1"),
    "infinite mean": (lambda: infer({0: (float("inf"), 1.0)}), e.NotFiniteError, "mean for 0"),
    "NaN precision": (lambda: infer({0: (0.0, float("nan"))}), e.NotFiniteError, "precision for 0"),
    "infinite precision": (lambda: infer({0: (0.0, float("inf"))}), e.NotFiniteError, "precision for 0"),
    "negative precision": (lambda: infer({0: (0.0, -2.0)}), e.ParameterError, "for 0 is negative"),
    "mean of another shape": (lambda: infer({0: (torch.zeros(3), 1.0)}), e.ShapeError, "mean for 0 has shape"),
    "precision of another shape": (
        lambda: infer({0: (0.0, torch.ones(3))}), e.ShapeError, "precision for 0 has shape"),
    "integers": (lambda: infer({0: (torch.zeros(2, dtype=torch.int64), 1.0)}), e.DtypeError, "torch.int64"),
    "booleans": (lambda: infer({0: (torch.zeros(2, dtype=torch.bool), 1.0)}), e.DtypeError, "torch.bool"),
    "complex numbers": (
        lambda: infer({0: (torch.zeros(2, dtype=torch.complex64), 1.0)}), e.DtypeError, "torch.complex64"),
    "half precision": (
        lambda: infer({0: (torch.zeros(2, dtype=torch.float16), 1.0)}), e.DtypeError, "compile.*float32"),
    "two dtypes": (
        lambda: infer({0: (torch.zeros(2), 1.0), 1: (torch.zeros(2).double(), 1.0)}), e.DtypeError, "bring them"),
    "two devices": (
        lambda: infer({0: (torch.zeros(2), 1.0), 1: (torch.zeros(2, device="meta"), 1.0)}), e.DeviceError, "meta"),
    "batches that do not fit": (
        lambda: infer({0: (torch.zeros(3, 2), 1.0), 1: (torch.zeros(4, 2), 1.0)}), e.ShapeError, r"\(4,\) of 1"),
    "batches of precision that do not fit": (
        lambda: infer({0: (torch.zeros(3, 2), torch.ones(4, 2))}), e.ShapeError, "batch"),
    "a mean alone": (lambda: infer({0: torch.zeros(2)}), e.ParameterError, "give a pair"),
    "a triple": (lambda: infer({0: (0.0, 1.0, 2.0)}), e.ParameterError, "give a pair"),
    "text": (lambda: infer({0: ("much", 1.0)}), e.ParameterError, "evidence mean for 0"),
    "evidence that is no dictionary": (lambda: infer([(0.0, 1.0)]), e.ParameterError, "evidence is a list"),
    "Gaussian of another size": (
        lambda: infer({0: ps.Gaussian(torch.eye(3), torch.zeros(3), torch.zeros(()))}), e.ShapeError, "it has 2"),
    "asymmetric Gaussian": (
        lambda: infer({0: ps.Gaussian(torch.ones(2, 2).triu(), torch.zeros(2), torch.zeros(()))}),
        e.CovarianceError, "not symmetric"),
    "NaN in a Gaussian": (
        lambda: infer({0: ps.Gaussian(torch.eye(2), torch.tensor([0.0, float("nan")]), torch.zeros(()))}),
        e.NotFiniteError, "eta for 0"),
    "elements of another number": (
        lambda: infer(ps.Elements(torch.zeros(3), torch.ones(3))), e.ShapeError, r"\(\*batch, 4\)"),
    # improper joint densities
    "no evidence at all": (lambda: infer({}), e.ImproperGraphError, "component of 0, 1.*add_factor"),
    "a large grid without evidence": (
        lambda: ps.infer(ps.grid_graph(64, 64, 1, ps.Attraction(1.0))), e.ImproperGraphError, "improper"),
    "conjugate gradients without evidence": (
        lambda: infer({}, method="cg", max_iterations=50).element_mean,
        (e.ImproperGraphError, e.ConvergenceError), "conjugate gradients"),
    "a node apart": (
        lambda: infer(unit, added(("add_trajectory", "apart", 2))), e.ImproperGraphError, "'apart'"),
    "too strong together": (
        lambda: infer(dict.fromkeys(range(5), (0.0, 1.0)), ps.complete_graph(5, 1, ps.Correlation(0.95))),
        e.ImproperGraphError, "too strong together.*times"),
    "indefinite Gaussian evidence": (
        lambda: infer({0: ps.Gaussian(-9 * eye, eye[0], torch.zeros((), dtype=F64)), 1: matrix}),
        e.ImproperGraphError, "too strong together"),
    "precision beyond float32": (
        lambda: infer({0: (torch.zeros(2), 3e38), 1: (torch.zeros(2), 1.0)}, added(
            ("add_factor", "big", [0], ps.Evidence(0.0, 3e38)))), e.NotFiniteError, "overflows torch.float32"),
    # methods and queries
    "unknown method": (lambda: infer(unit, method="magic"), e.ParameterError, "'magic' is not one of"),
    "unknown option": (lambda: infer(unit, method="exact", steps=3), e.ParameterError, "'steps' is no option"),
    "start of another graph": (
        lambda: infer(unit, start=infer({0: (0.0, 1.0)}, pair(n=3))), e.ParameterError, "6 sites"),
    "plan in half precision": (lambda: ps.compile(pair(), dtype=torch.float16), e.DtypeError, "torch.float16"),
    "conjugate gradients, improper": (
        lambda: infer({0: (1.0, 1.0)}, indefinite_ring(), method="cg"), e.ImproperGraphError, "conjugate gradients"),
    "conjugate gradients, too few steps": (
        lambda: infer({0: (1.0, 1e-9)}, pair(n=50), method="cg", max_iterations=2), e.ConvergenceError, "residual"),
    "log evidence of conjugate gradients": (
        lambda: infer(unit, method="cg").log_evidence, e.UnsupportedError, "method='exact'"),
    "mean of nobody": (lambda: infer(unit).mean["x"], e.UnknownNameError, "no node 'x'"),
    "covariance of other shapes": (
        lambda: infer({**unit, "o": (0.0, 1.0)}, added(("add_trajectory", "o", 3))).covariance(0, "o"),
        e.ShapeError, "joint"),
    "covariance of shared elements": (
        lambda: infer(unit, pair(ps.Equality())).joint([0, 1]), e.CovarianceError, "0 and 1 share elements"),
    "observed NaN": (lambda: infer(unit, observed={0: float("nan")}), e.NotFiniteError, "observed 0"),
    "observed everything": (lambda: infer(unit, observed={0: 0.0, 1: 0.0}), e.ParameterError, "every element"),
    "separation of a node from itself": (lambda: pair().separated(0, 0), e.GraphStructureError, "overlap"),
    "samples, none": (lambda: infer(unit).sample(0), e.ParameterError, "count=0"),
    "messages of an improper graph": (lambda: sweeps(pair()), e.ImproperGraphError, "component of 0, 1"),
    "|R| without a diagonal": (
        lambda: ps.walk_summability(added(("add_trajectory", "a", 1)), unit), e.ImproperGraphError, "'a'"),
    "rectangular matrix": (
        lambda: from_scipy(scipy.sparse.coo_array(np.ones((2, 3)))), e.ShapeError, "square"),
    "asymmetric matrix": (lambda: from_scipy(np.triu(np.ones((2, 2)))), e.CovarianceError, "not symmetric"),
    "trajectory graph without nodes": (
        lambda: ps.infer(ps.from_trajectory_graph(nx.Graph(), 2)), e.EmptyGraphError, "add_trajectory"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_its_own_error(case):
    call, error, message = CASES[case]
    with pytest.raises(error, match=message):
        call()


def test_messages_tell_cases_apart():
    """No two cases may end in the same words: an error that fits everything says nothing."""
    seen: dict[str, str] = {}
    for case, (call, _, _) in CASES.items():
        with pytest.raises(e.PgmSyncError) as caught:
            call()
        text = str(caught.value)
        assert len(text) > 20, case
        seen.setdefault(text, case)
    assert len(seen) >= len(CASES) - 8  # a few ask the same question on purpose (improper pair, mean of NaN)
