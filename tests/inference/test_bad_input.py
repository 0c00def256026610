"""The bad-input matrix: malformed graphs and inputs, each with its own named error that says what is wrong where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch

import pgm_sync as ps
from pgm_sync import errors as e
from pgm_sync.inference import from_scipy, sweeps
from pgm_sync.potentials import Information, Potential

F64 = torch.float64
NAN = float("nan")
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


def tampered(name, **attributes):
    """What networkx lets anybody write to a node."""
    return networkx_edit(lambda g: g.nodes[name].update(attributes))


@dataclass(frozen=True, eq=False, repr=False)
class Own(Potential):
    """A potential of a user's own, of which `wrong` replaces a part."""

    wrong: object
    elementwise: ClassVar[bool] = True
    ends: ClassVar[int] = 2

    def information(self, shapes):
        parts = {"precision": torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), "eta": torch.zeros(2), "log_scale": zero}
        return Information(**{**parts, **self.wrong}) if isinstance(self.wrong, dict) else self.wrong


def changed_in_place():
    """The numbers of a potential written over between two uses of one plan."""
    strength = torch.ones(2, dtype=F64)
    plan = ps.compile(pair(ps.Attraction(strength)))
    strength.mul_(5)
    return ps.infer(plan, unit)


def map_changed_in_place():
    basis = torch.eye(2, dtype=F64)
    plan = ps.compile(with_factor(ps.Attraction(1.0), [ps.Features(basis), ps.Identity((2,)) @ ps.Features(basis)]))
    basis.copy_(basis.flip(0))
    return ps.infer(plan, unit)


def indefinite_ring():
    """Precision of its own on one node only."""
    return ps.ring_graph(3, 1, ps.Quadratic(torch.tensor([[0.0, 0.6], [0.6, 0.0]])))


zero = torch.zeros(())
unit = {0: (0.0, 1.0), 1: (0.0, 1.0)}
plain = ps.Gaussian(torch.eye(2), torch.zeros(2), zero)
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
    "a list for a name": (lambda: added(("add_trajectory", [1], 2)), e.GraphStructureError, "a list is not hashable"),
    "a list for an end": (lambda: with_factor(ps.Attraction(1.0), scope=([0], 1)), e.UnknownNameError, r"names \[0\]"),
    "None for a scope": (lambda: added(("add_factor", "g", None, ps.Evidence(0.0))), e.UnknownNameError, "names None"),
    "a number for a shape": (lambda: added(("add_trajectory", "z", 2.0)), e.ShapeError, "2.0 is not a tuple"),
    "None for a shape": (lambda: added(("add_trajectory", "z", None)), e.ShapeError, "None is not a tuple"),
    "text for a shape": (lambda: added(("add_trajectory", "z", "ab")), e.ShapeError, "'ab' is not a tuple"),
    "more elements than can be numbered": (
        lambda: infer({}, added(("add_trajectory", "z", (10**7, 10**7)))), e.ShapeError, "largest is 'z'"),
    "a class for a potential": (
        lambda: with_factor(ps.Correlation), e.ParameterError, "Correlation'> is not a potential"),
    "other potentials: no potential": (
        lambda: pair().with_potentials({(0, 1): "weak"}), e.ParameterError, "'weak' is not a potential"),
    "other potentials: unknown factor": (
        lambda: pair().with_potentials({"x": ps.Attraction(1.0)}), e.UnknownNameError, "no factor 'x'"),
    "shape written over": (lambda: tampered(1, shape=(3,)), e.ShapeError, "sees? shapes? .*(2,).*(3,)"),
    "shape written over with nothing": (lambda: tampered(1, shape=(0,)), e.ShapeError, r"shape of 1: \(0,\)"),
    "potential written over": (lambda: tampered((0, 1), potential="x"), e.ParameterError, "'x' is not a potential"),
    "maps written over": (lambda: tampered((0, 1), maps=("a", "b")), e.ParameterError, "'a' on 0 is not a map"),
    "maps of another shape written over": (
        lambda: tampered((0, 1), maps=(None, ps.Identity((3,)))), e.ShapeError, r"the map on 1 takes shape \(3,\)"),
    "maps written over with a number": (lambda: tampered((0, 1), maps=5), e.GraphStructureError, "have changed since"),
    "kind written over": (lambda: tampered(1, kind="pixel"), e.GraphStructureError, "node 1 was not added"),
    "trajectory without a shape": (
        lambda: networkx_edit(lambda g: g.add_node("z", kind="trajectory")), e.GraphStructureError, "'z' has no shape"),
    "order of the ends written over": (
        lambda: networkx_edit(lambda g: g.edges[(0, 1), 0].update(position=1)),
        e.GraphStructureError, "edges of factor"),
    "parallel edges": (
        lambda: ps.from_trajectory_graph(nx.MultiGraph([(0, 1), (0, 1)]), 2), e.GraphStructureError, "a MultiGraph"),
    "directed edges": (
        lambda: ps.from_trajectory_graph(nx.DiGraph([(0, 1), (1, 0)]), 2), e.GraphStructureError, "a DiGraph"),
    "a list for a network": (lambda: ps.from_trajectory_graph([(0, 1)], 2), e.ParameterError, "network is a list"),
    "a chain of none": (lambda: ps.chain_graph(0, 2), e.ParameterError, "a count of 0"),
    "a chain of a half": (lambda: ps.chain_graph(0.5, 2), e.ParameterError, "a count of 0.5"),
    "a ring of two": (lambda: ps.ring_graph(2, 2), e.ParameterError, "at least 3"),
    "canvas, stride of halves": (lambda: ps.wide_canvas((4, 8), (4, 4), 2.5), e.ParameterError, "stride.*2.5"),
    "canvas, stride that skips": (lambda: ps.wide_canvas((4, 8), (4, 4), 5), e.ParameterError, "pixels are missed"),
    "canvas, no stride": (lambda: ps.wide_canvas((4, 8), (4, 4), None), e.ParameterError, "stride.*None"),
    "canvas, window too wide": (lambda: ps.wide_canvas((4, 8), (4, 9), 2), e.ShapeError, r"windows of \(4, 9\)"),
    "canvas, circle that does not close": (
        lambda: ps.wide_canvas((4, 8), (4, 4), 3, wrap=True), e.ParameterError, "3 must divide the width 8"),
    "canvas, unknown neighbours": (
        lambda: ps.wide_canvas((4, 8), (4, 4), 2, neighbours="some"), e.ParameterError, "neighbours='some'"),
    "a networkx graph for a factor graph": (lambda: ps.infer(nx.path_graph(3)), e.ParameterError, "graph is a Graph"),
    "nothing for a graph": (lambda: ps.infer(None), e.ParameterError, "graph is a NoneType"),
    "compile a networkx graph": (lambda: ps.compile(nx.DiGraph([(0, 1)])), e.ParameterError, "graph is a DiGraph"),
    "map changed in place": (map_changed_in_place, e.StalePlanError, "factor 'f'.*in place.*compile"),
    "plan for a device without numbers": (lambda: ps.compile(pair(), device="meta"), e.DeviceError, "no numbers"),
    "potential changed in place": (changed_in_place, e.StalePlanError, r"factor \(0, 1\).*in place.*compile"),
    # maps
    "crop before the beginning": (lambda: ps.Crop((4,), (-1,), (2,)), e.ShapeError, r"starting at \(-1,\)"),
    "crop of nothing": (lambda: ps.Crop((4,), (0,), (0,)), e.ShapeError, r"crop size \(0,\)"),
    "crop of axes that are not there": (lambda: ps.Crop((4,), (0, 0), (1, 1)), e.ShapeError, "does not fit"),
    "flip of an axis that is not there": (lambda: ps.Flip((4,), (1,)), e.ShapeError, r"axes \(1,\) do not exist"),
    "flip twice": (lambda: ps.Flip((4, 4), (0, -2)), e.ShapeError, "twice"),
    "rotation of a vector": (lambda: ps.Rotate((4,)), e.ShapeError, "needs two axes"),
    "rotation by an eighth": (lambda: ps.Rotate((4, 4), 0.5), e.ParameterError, "quarter_turns .*0.5"),
    "permutation by fractions": (
        lambda: ps.Permutation((2,), torch.tensor([0.5, 1.2])), e.ParameterError, "float32; integers needed"),
    "permutation by text": (lambda: ps.Permutation((2,), "ab"), e.ParameterError, "order 'ab'"),
    "permutation too long": (lambda: ps.Permutation((2,), [0, 1, 2]), e.ParameterError, "it has 3 entries"),
    "mask of weights": (lambda: ps.Mask((2,), torch.tensor([0.5, 1.0])), e.ParameterError, "mask has entries other"),
    "mask of NaN": (lambda: ps.Mask((2,), torch.tensor([NAN, 1.0])), e.ParameterError, "mask has entries other"),
    "no modes": (lambda: ps.DCT((4,), 0), e.ParameterError, "modes=0 is not in 1..4"),
    "modes in halves": (lambda: ps.DCT((4,), 2.5), e.ParameterError, "modes .*2.5"),
    "features that are not orthonormal": (lambda: ps.Features(torch.ones(2, 2)), e.CovarianceError, "not orthonormal"),
    "features of NaN": (lambda: ps.Features(torch.tensor([[NAN, 1.0]])), e.NotFiniteError, "feature basis"),
    "complex features": (
        lambda: ps.Features(torch.eye(2, dtype=torch.complex64)), e.DtypeError, "feature basis has complex"),
    "features of text": (lambda: ps.Features("ab"), e.ParameterError, "feature basis 'ab'"),
    "a basis of NaN": (
        lambda: ps.Features.orthonormalise(torch.full((2, 2), NAN)), e.NotFiniteError, "rows has 4 NaN"),
    "a basis of nothing": (lambda: ps.Features.orthonormalise(torch.zeros(2, 2)), e.ParameterError, "all zero"),
    "more principal directions than data": (
        lambda: ps.Features.pca(torch.eye(3), 9), e.ParameterError, "rank=9 is not in 1..[23]"),
    "sparse map of lists": (
        lambda: ps.SparseMap((2,), (2,), [[0], [0]], [1.0]), e.ParameterError, "indices .* are a list"),
    "sparse map by fractions": (
        lambda: ps.SparseMap((2,), (2,), torch.zeros(2, 1), torch.ones(1)), e.DtypeError, "indices have dtype"),
    "complex sparse map": (
        lambda: ps.SparseMap((2,), (2,), torch.zeros(2, 1, dtype=torch.long), torch.ones(1) * 1j),
        e.DtypeError, "values have dtype torch.complex64"),
    "sparse map of a dense matrix": (
        lambda: ps.SparseMap.from_scipy(np.eye(2), (2,), (2,)), e.ParameterError, "a ndarray is not a scipy"),
    "sparse map of a matrix of another size": (
        lambda: ps.SparseMap.from_scipy(scipy.sparse.eye(3), (2,), (2,)), e.ShapeError, r"shape \(3, 3\) does not map"),
    "composition that does not fit": (
        lambda: ps.Identity((2,)) @ ps.Identity((3,)), e.ShapeError, r"gives shape \(3,\)"),
    "composition with a matrix": (lambda: ps.Identity((2,)) @ torch.eye(2), e.ParameterError, "which is not a map"),
    "map of content of another shape": (lambda: ps.Flip((2,)).apply(torch.zeros(3)), e.ShapeError, r"not \(3,\)"),
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
    "rho of minus one": (lambda: ps.Correlation(-1.0), e.ParameterError, "rho -1.0"),
    "rho of one somewhere": (lambda: ps.Correlation(torch.tensor([0.5, 1.0])), e.ParameterError, r"\[0.5, 1\]"),
    "rho of nothing": (lambda: ps.Correlation(torch.zeros(0)), e.ParameterError, r"rho of shape \(0,\) is empty"),
    "rho of text": (lambda: ps.Correlation("strong"), e.ParameterError, "rho 'strong'"),
    "rho of None": (lambda: ps.Correlation(None), e.ParameterError, "rho None"),
    "complex rho": (lambda: ps.Correlation(torch.tensor([0.5j])), e.DtypeError, "rho has complex"),
    "rho per end": (lambda: ps.Correlation((0.5, 0.5)), e.ParameterError, "rho .* tuple of 2"),
    "variance of zero": (lambda: ps.Correlation(0.5, variance=0.0), e.ParameterError, "variance 0.0"),
    "infinite variance": (lambda: ps.Correlation(0.5, variance=float("inf")), e.ParameterError, "variance inf"),
    "three variances": (
        lambda: ps.Correlation(0.5, variance=(1.0, 1.0, 1.0)), e.ParameterError, "variance .* tuple of 3"),
    "correlated around NaN": (lambda: ps.Correlation(0.5, mean=NAN), e.ParameterError, "mean nan"),
    "attraction of nothing": (lambda: ps.Attraction(0.0), e.ParameterError, "precision 0.0"),
    "attraction of text": (lambda: ps.Attraction("much"), e.ParameterError, "precision 'much'"),
    "a mean without a covariance": (
        lambda: ps.JointGaussian(torch.zeros(4)), e.ParameterError, "a mean without a covariance"),
    "a batch of covariances": (
        lambda: ps.JointGaussian(None, torch.eye(4).expand(4, 4, 4)), e.ShapeError, "not one square matrix"),
    "covariance that is not square": (lambda: ps.JointGaussian(None, torch.ones(2, 3)), e.ShapeError, "not square"),
    "covariance of nothing": (lambda: ps.JointGaussian(None, torch.ones(0, 0)), e.ShapeError, "empty"),
    "covariance of NaN": (lambda: ps.JointGaussian(None, torch.eye(4) * NAN), e.NotFiniteError, "covariance has"),
    "singular covariance": (lambda: ps.JointGaussian(None, torch.ones(4, 4)), e.CovarianceError, "4 x 4.*eigenvalue"),
    "complex covariance": (
        lambda: ps.JointGaussian(None, torch.eye(4, dtype=torch.complex64)), e.DtypeError, "covariance has complex"),
    "covariance of text": (lambda: ps.JointGaussian(None, "wide"), e.ParameterError, "covariance 'wide'"),
    "mean of NaN": (lambda: ps.JointGaussian(torch.full((4,), NAN), torch.eye(4)), e.NotFiniteError, "mean has 4"),
    "mean of another length": (
        lambda: ps.JointGaussian(torch.zeros(3), torch.eye(4)), e.ShapeError, "mean has 3 elements"),
    "interaction of another size": (
        lambda: ps.JointGaussian(None, torch.eye(4), torch.eye(3)), e.ShapeError, r"interaction is \(3, 3\)"),
    "asymmetric interaction": (
        lambda: ps.JointGaussian(None, torch.eye(4), torch.ones(4, 4).triu()), e.CovarianceError, "interaction is not"),
    "log scale of NaN": (
        lambda: ps.JointGaussian(None, torch.eye(4), torch.eye(4), NAN), e.ParameterError, "log_scale nan"),
    "quadratic of NaN": (lambda: ps.Quadratic(eye * NAN), e.NotFiniteError, "Quadratic: precision has 4 NaN"),
    "quadratic for another number of ends": (
        lambda: with_factor(ps.Quadratic(torch.eye(3))), e.ShapeError, "'f'.*for 3 ends, the factor has 2"),
    "complex quadratic": (lambda: ps.Quadratic(eye * 1j), e.DtypeError, "Quadratic: precision has complex"),
    "observation of None": (lambda: ps.Evidence(None), e.ParameterError, "value None"),
    "observation of text": (lambda: ps.Evidence("much"), e.ParameterError, "value 'much'"),
    "complex observation": (lambda: ps.Evidence(1j), e.DtypeError, "value has complex"),
    "infinite precision in the graph": (lambda: ps.Evidence(0.0, float("inf")), e.NotFiniteError, "precision has 1"),
    "mask of an observation of weights": (
        lambda: ps.Evidence(0.0, 1.0, torch.tensor([0.5])), e.ParameterError, "Evidence: mask has entries"),
    "observation of another shape": (
        lambda: with_factor(ps.Evidence(torch.zeros(3)), scope=(0,)), e.ShapeError, r"'f': Evidence.value .*\(3,\)"),
    "observation of two": (lambda: with_factor(ps.Evidence(0.0)), e.ParameterError, "'f'.*joins 1"),
    "canvas weight of NaN": (lambda: with_factor(ps.Equality(weight=NAN)), e.ParameterError, "'f': Equality.weight"),
    "canvas weight of text": (lambda: with_factor(ps.Equality(weight="x")), e.ParameterError, "Equality.weight 'x'"),
    "canvas weights of another shape": (
        lambda: with_factor(ps.Equality(weight=torch.ones(3))), e.ShapeError, r"weight has shape \(3,\)"),
    "equality of other shapes": (
        lambda: added(("add_trajectory", 2, 3), ("add_factor", "f", [0, 2], ps.Equality())),
        e.ShapeError, "'f'.*shapes"),
    "own potential of NaN": (
        lambda: infer(unit, with_factor(Own({"precision": eye * NAN}))), e.NotFiniteError, "'f': Own"),
    "own potential, eta of NaN": (
        lambda: infer(unit, with_factor(Own({"eta": torch.tensor([0.0, NAN])}))), e.NotFiniteError, "'f': Own"),
    "own potential, scale of NaN": (
        lambda: infer(unit, with_factor(Own({"log_scale": zero * NAN}))).log_evidence, e.NotFiniteError, "'f': Own"),
    "own potential, asymmetric": (
        lambda: infer(unit, with_factor(Own({"precision": torch.tensor([[2.0, -1.0], [0.0, 2.0]])}))),
        e.CovarianceError, "'f': Own.*not symmetric"),
    "own potential of another shape": (
        lambda: infer(unit, with_factor(Own({"precision": torch.eye(3)}))), e.ShapeError, r"'f': Own.*\(3, 3\)"),
    "own potential of None": (lambda: infer(unit, with_factor(Own(None))), e.ParameterError, "'f': Own.*None"),
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
    "no value": (lambda: infer({0: None}), e.ParameterError, "for 0 is a NoneType"),
    "no mean": (lambda: infer({0: (None, 1.0)}), e.ParameterError, "mean for 0 is None"),
    "a list for a pair": (lambda: infer({0: [0.0, 1.0]}), e.ParameterError, "for 0 is a list"),
    "a complex number": (lambda: infer({0: (1j, 1.0)}), e.ParameterError, "mean for 0 is 1j"),
    "complex arrays": (
        lambda: infer({0: (np.array([1j, 0.0]), 1.0)}), (e.DtypeError, e.ParameterError), "mean for 0"),
    "a complex number of numpy": (lambda: infer({1: (0.0, np.complex64(1j))}), e.DtypeError, "precision for 1 has"),
    "a list of complex arrays": (
        lambda: infer({1: ([np.array([1j, 0.0])], 1.0)}), e.DtypeError, "mean for 1 has complex"),
    "an integer beyond any float": (
        lambda: infer({0: (10**400, 1.0)}), (e.ParameterError, e.NotFiniteError), "mean for 0"),
    "ragged lists": (lambda: infer({0: ([[1.0], [1.0, 2.0]], 1.0)}), e.ParameterError, "mean for 0"),
    "sparse tensors": (
        lambda: infer({0: (torch.zeros(2).to_sparse(), 1.0)}), (e.DtypeError, e.ParameterError), "for 0"),
    "tensors without numbers": (
        lambda: infer({0: (torch.zeros(2, device="meta"), 1.0)}), e.DeviceError, "for 0.*meta"),
    "a tensor for evidence": (lambda: infer(torch.zeros(2)), e.ParameterError, "evidence is a Tensor"),
    "Gaussian of NaN": (
        lambda: infer({0: plain._replace(precision=eye.float() * NAN)}), e.NotFiniteError, "precision for 0"),
    "Gaussian with a scale of NaN": (
        lambda: infer({0: plain._replace(log_scale=zero * NAN)}), e.NotFiniteError, "log_scale for 0"),
    "Gaussian in half precision": (
        lambda: infer({0: ps.Gaussian(*(part.half() for part in plain))}), e.DtypeError, "0 has dtype torch.float16"),
    "Gaussian of integers": (
        lambda: infer({0: ps.Gaussian(*(part.long() for part in plain))}), e.DtypeError, "0 has dtype torch.int64"),
    "Gaussian of two dtypes": (
        lambda: infer({0: plain._replace(eta=torch.zeros(2).double())}), e.DtypeError, "bring them together"),
    "Gaussian of lists": (
        lambda: infer({0: ps.Gaussian([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], 0.0)}), e.ParameterError, "for 0"),
    "Gaussian of a diagonal": (
        lambda: infer({0: plain._replace(precision=torch.ones(2))}), e.ShapeError, r"over \(2,\) elements"),
    "Gaussian of batches that do not fit": (
        lambda: infer({0: ps.Gaussian(torch.eye(2).expand(3, 2, 2), torch.zeros(4, 2), zero)}),
        e.ShapeError, "for 0.*batch"),
    "batches of a Gaussian and a pair that do not fit": (
        lambda: infer({0: plain._replace(eta=torch.zeros(3, 2)), 1: (torch.zeros(4, 2), 1.0)}),
        e.ShapeError, r"\(4,\).*1"),
    "scales of a Gaussian that do not fit": (
        lambda: infer({0: plain._replace(log_scale=torch.zeros(7)), 1: (torch.zeros(4, 2), 1.0)}).log_evidence,
        e.ShapeError, "for 0"),
    "pair for a likelihood": (
        lambda: infer({"f": (0.0, 1.0)}, with_factor(ps.Likelihood())),
        e.UnknownNameError, "'f', a factor with a Like"),
    "likelihood of another size": (
        lambda: infer({"f": plain}, with_factor(ps.Likelihood())), e.ShapeError, "'f' is over .*it has 4"),
    "elements of NaN": (
        lambda: infer(ps.Elements(torch.full((4,), NAN), torch.ones(4))), e.NotFiniteError, "'all elements' has 4"),
    "elements, negative": (
        lambda: infer(ps.Elements(torch.zeros(4), -torch.ones(4))), e.ParameterError, "'all elements' is negative"),
    "elements of batches that do not fit": (
        lambda: infer(ps.Elements(torch.zeros(3, 4), torch.ones(2, 4))), e.ShapeError, r"batch \(2,\)"),
    # numbers that do not fit their dtype
    "mean beyond float32": (
        lambda: infer({0: (torch.full((2,), 1e38), 1.0), 1: (torch.full((2,), 3e38), 1.0)}),
        e.NotFiniteError, "posterior mean of 0, 1 overflows torch.float32|evidence mean"),
    "product beyond float32": (
        lambda: infer({0: (torch.full((2,), 1e30), 1e30), 1: (torch.zeros(2), 1.0)}),
        e.NotFiniteError, "posterior mean of 0.* overflows torch.float32|evidence mean"),
    "product beyond float64": (lambda: infer({0: (1e200, 1e200)}), e.NotFiniteError, "mean for 0|mean of 0"),
    "variance beyond float64": (
        lambda: ps.infer(ps.chain_graph(1, 1), {0: (0.0, 1e-310)}).variance[0], e.NotFiniteError, "of 0 overflows"),
    "log evidence beyond float64": (
        lambda: ps.infer(ps.chain_graph(1, 1), {0: (1e200, 1.0)}).log_evidence, e.NotFiniteError, "log evidence"),
    "variance assumed beyond float64": (
        lambda: infer(unit, pair(ps.Correlation(0.5, variance=1e-320))),
        e.NotFiniteError, "Correlation.information: precision has 8 NaN"),
    # improper joint densities
    "an unobserved element": (
        lambda: infer({0: (0.0, torch.tensor([1.0, 0.0]))}), e.ImproperGraphError, "nothing fixes a direction"),
    "an unobserved element in a batch": (
        lambda: infer({0: (0.0, torch.tensor([[1.0, 1.0], [1.0, 0.0]]))}), e.ImproperGraphError, "nothing fixes"),
    "observations behind a mask": (
        lambda: infer({1: (0.0, 1.0)}, with_factor(ps.Evidence(0.0, 1.0, torch.zeros(2)), scope=(0,))),
        e.ImproperGraphError, "component of 0:"),
    "only a likelihood left out": (
        lambda: infer({0: (0.0, 1.0)}, with_factor(ps.Likelihood())), e.ImproperGraphError, "component of 1:"),
    "rho beyond rounding": (
        lambda: infer(unit, pair(ps.Correlation(1 - 1e-16))), e.ImproperGraphError, "component of 0, 1"),
    "a long chain without evidence": (
        lambda: ps.infer(ps.chain_graph(3000, 1, ps.Attraction(1.0))), e.ImproperGraphError, "and 2992 more"),
    "a large grid without evidence": (
        lambda: ps.infer(ps.grid_graph(64, 64, 1, ps.Attraction(1.0))), e.ImproperGraphError, "and 4088 more"),
    "no evidence at all": (lambda: infer({}), e.ImproperGraphError, "component of 0, 1.*add_factor"),
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
    "no method": (lambda: infer(unit, method=None), e.ParameterError, "method=None is not one of"),
    "start of text": (lambda: infer(unit, start="zero"), e.ParameterError, "start is a str"),
    "dense, too large": (
        lambda: infer(unit, pair(shape=60_000), method="dense"), e.UnsupportedError, "120000 x 120000"),
    "plan for a device that is not there": (
        lambda: ps.compile(pair(), device="nowhere"), (e.DeviceError, e.ParameterError), "nowhere"),
    "conjugate gradients, tolerance of NaN": (
        lambda: infer(unit, method="cg", tolerance=NAN), e.ParameterError, "tolerance=nan"),
    "conjugate gradients, no steps": (
        lambda: infer(unit, method="cg", max_iterations=0), e.ParameterError, "max_iterations=0"),
    "conjugate gradients, no evidence": (lambda: infer({}, method="cg"), e.ImproperGraphError, "mostly on 0, 1"),
    "belief propagation, cavity": (
        lambda: infer(dict.fromkeys(range(3), (1.0, 1.0)), indefinite_ring(), method="gbp"),
        e.CavityError, "iteration"),
    "belief propagation, tree on a loop": (
        lambda: infer({0: (1.0, 1.0)}, ps.ring_graph(3, 1, ps.Attraction(1.0)), method="gbp", schedule="tree"),
        e.LoopError, "with the loop 0 - "),
    "belief propagation, damping of two": (
        lambda: infer(unit, method="gbp", damping=2.0), e.ParameterError, "damping=2.0"),
    "belief propagation, unknown schedule": (
        lambda: infer(unit, method="gbp", schedule="fast"), e.ParameterError, "schedule='fast'"),
    "belief propagation, unknown edge": (
        lambda: infer(unit, method="gbp", frozen=["x"]), e.UnknownNameError, "no edge 'x'"),
    "belief propagation, no evidence": (lambda: infer({}, method="gbp"), e.ConvergenceError, "iterations"),
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
    "observed nobody": (lambda: infer(unit, observed={"x": 0.0}), e.UnknownNameError, "'x'"),
    "observed a factor": (lambda: infer(unit, observed={(0, 1): 0.0}), e.UnknownNameError, r"\(0, 1\)"),
    "observed in another shape": (
        lambda: infer(unit, observed={0: torch.zeros(3)}), e.ShapeError, r"observed 0 has shape \(3,\)"),
    "observed two values of one element": (
        lambda: infer(unit, pair(ps.Equality()), observed={0: 0.0, 1: 1.0}),
        e.GraphStructureError, "observed 1 differs"),
    "observed in batches that do not fit": (
        lambda: infer({0: (torch.zeros(3, 2), 1.0)}, observed={1: torch.zeros(4, 2)}),
        e.BatchError, r"1 has batch \(4,\)"),
    "observed through weights": (
        lambda: infer(unit, observed={0: (0.0, torch.tensor([0.5, 0.0]))}), e.ShapeError, "mask is torch.float32"),
    "observed text": (lambda: infer(unit, observed={0: "x"}), e.ParameterError, "observed 0 is 'x'"),
    "observed complex numbers": (
        lambda: infer(unit, observed={0: torch.zeros(2) * 1j}), (e.DtypeError, e.ParameterError), "observed 0"),
    "joint of none": (lambda: infer(unit).joint([]), e.ParameterError, "names is empty"),
    "joint with nobody": (lambda: infer(unit).joint([0, "x"]), e.UnknownNameError, "'x'"),
    "correlation with a factor": (lambda: infer(unit).correlation(0, (0, 1)), e.UnknownNameError, r"\(0, 1\)"),
    "given itself": (lambda: infer(unit).conditional([0], [0]), e.GraphStructureError, "0 is both in names"),
    "information about itself": (lambda: infer(unit).mutual_information(0, 0), e.GraphStructureError, "0 is both in"),
    "samples, half of one": (lambda: infer(unit).sample(0.5), e.ParameterError, "count=0.5"),
    "more directions than sites": (lambda: infer(unit).uncertain_directions(99), e.ParameterError, "count=99"),
    "blanket of nobody": (lambda: pair().markov_blanket("x"), e.UnknownNameError, "'x'"),
    # the algebra of Gaussians
    "density of an asymmetric covariance": (
        lambda: ps.Gaussian.from_moments(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])),
        e.CovarianceError, "the covariance is not symmetric"),
    "density of an indefinite covariance": (
        lambda: ps.Gaussian.from_moments(torch.zeros(2), -torch.eye(2)), e.CovarianceError, "eigenvalue is -1"),
    "density of a rectangle": (
        lambda: ps.Gaussian.from_moments(torch.zeros(2), torch.ones(2, 3)), e.ShapeError, r"\(2, 3\) is not square"),
    "density around a longer mean": (
        lambda: ps.Gaussian.from_moments(torch.zeros(3), torch.eye(2)), e.ShapeError, r"mean has shape \(3,\)"),
    "density around NaN": (
        lambda: ps.Gaussian.from_moments(torch.tensor([NAN, 0.0]), torch.eye(2)), e.NotFiniteError, "the mean has 1"),
    "density of integers": (
        lambda: ps.Gaussian.from_moments(torch.zeros(2), torch.eye(2).long()), e.DtypeError, "torch.int64"),
    "product of other sizes": (
        lambda: plain + ps.Gaussian(torch.eye(1), torch.zeros(1), zero), e.ShapeError, "over 2 and 1 variables"),
    "product with a number": (lambda: plain + 1, e.ParameterError, "a Gaussian by 1"),
    "density at a longer point": (lambda: plain.log_density(torch.zeros(3)), e.ShapeError, r"x has shape \(3,\)"),
    "condition on a variable that is not there": (
        lambda: plain.condition(torch.tensor([5]), torch.zeros(1)), e.ParameterError, r"index=\[5\]"),
    "condition on the last, counted from the end": (
        lambda: plain.condition(torch.tensor([-1]), torch.zeros(1)), e.ParameterError, r"index=\[-1\]"),
    "condition twice": (
        lambda: plain.condition(torch.tensor([0, 0]), torch.zeros(2)), e.ParameterError, r"index=\[0, 0\]"),
    "condition on more values": (
        lambda: plain.condition(torch.tensor([0]), torch.zeros(2)), e.ShapeError, r"value has shape \(2,\)"),
    "marginal of a variable that is not there": (
        lambda: plain.marginalize(torch.tensor([5])), e.ParameterError, r"keep=\[5\]"),
    "marginal of fractions": (lambda: plain.marginalize(torch.tensor([0.0])), e.ParameterError, r"keep=\[0.0\]"),
    "marginal that diverges": (
        lambda: ps.Gaussian(0 * eye, 0 * eye[0], zero).marginalize(torch.tensor([0])), e.CovarianceError, "integrated"),
    "mean of an improper density": (
        lambda: ps.Gaussian(0 * eye, 0 * eye[0], zero).mean, e.CovarianceError, "the precision .*eigenvalue is 0"),
    "precision of NaN": (lambda: plain._replace(precision=torch.eye(2) * NAN).mean, e.NotFiniteError, "the precision"),
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
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error or isinstance(error, tuple) or error is e.PgmSyncError
    assert isinstance(caught.value, e.PgmSyncError)


@pytest.mark.parametrize("case", CASES)
def test_the_error_carries_what_was_wrong(case):
    """So that a program can react without reading the message."""
    with pytest.raises(e.PgmSyncError) as caught:
        CASES[case][0]()
    assert caught.value.data
    for key, value in caught.value.data.items():
        assert getattr(caught.value, key) is value


def test_messages_tell_cases_apart():
    """No two cases may end in the same words: an error that fits everything says nothing."""
    seen: dict[str, str] = {}
    for case, (call, _, _) in CASES.items():
        with pytest.raises(e.PgmSyncError) as caught:
            call()
        text = str(caught.value)
        assert len(text) > 20, case
        seen.setdefault(text, case)
    assert len(seen) >= len(CASES) - 16  # some ask one question in two ways (improper pair, mean of NaN)
