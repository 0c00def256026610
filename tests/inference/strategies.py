"""Random factor graphs with random evidence, for Hypothesis."""

from __future__ import annotations

import networkx as nx
import torch
from hypothesis import strategies as st

from pgm_sync.gaussian import Gaussian
from pgm_sync.graph import FactorGraph
from pgm_sync.inference import dense_joint
from pgm_sync.maps import DCT, Crop, Mask, Permutation, SparseMap
from pgm_sync.potentials import Attraction, Correlation, Equality, Evidence, JointGaussian, Likelihood

SHAPE = (2, 3)
SIZE = 6


def covariance(size, generator):
    """A random covariance, eigenvalues roughly between .1 and 3."""
    factor = torch.randn(size, 3 * size, generator=generator, dtype=torch.float64)
    return factor @ factor.T / (3 * size) + 0.05 * torch.eye(size, dtype=torch.float64)


@st.composite
def networks(draw):
    """Trees, cycles, complete and chordal graphs, grids and random graphs on a few nodes."""
    kind = draw(st.sampled_from(["tree", "cycle", "complete", "chordal", "grid", "random"]))
    n = draw(st.integers(2, 6))
    seed = draw(st.integers(0, 10**6))
    network = {
        "tree": lambda: nx.random_labeled_tree(n, seed=seed),
        "cycle": lambda: nx.cycle_graph(max(n, 3)),
        "complete": lambda: nx.complete_graph(min(n, 4)),
        "chordal": lambda: nx.complete_to_chordal_graph(nx.gnp_random_graph(n, 0.4, seed=seed))[0],
        "grid": lambda: nx.convert_node_labels_to_integers(nx.grid_2d_graph(2, max(n // 2, 2))),
        "random": lambda: nx.gnp_random_graph(n, 0.5, seed=seed),
    }[kind]()
    return network, torch.Generator().manual_seed(seed)


def potential_and_maps(kind, generator):
    def number(low, high):
        return low + (high - low) * torch.rand((), generator=generator).item()

    if kind == "correlation":
        return Correlation(
            number(-0.9, 0.9), variance=(number(0.5, 2), number(0.5, 2)), mean=number(-1, 1)
        ), None
    if kind == "attraction":
        return Attraction(torch.rand(SHAPE, generator=generator).double() + 0.1), None
    if kind == "permuted":
        order = torch.randperm(SIZE, generator=generator)
        return Correlation(number(-0.9, 0.9)), [None, Permutation(SHAPE, order)]
    if kind == "masked":
        masks = [torch.rand(SHAPE, generator=generator).argsort().flatten() for _ in range(2)]
        masks = [
            torch.isin(torch.arange(SIZE), torch.randperm(SIZE, generator=generator)[:3]).reshape(SHAPE)
            for _ in masks
        ]
        return Attraction(number(0.1, 2)), [Mask(SHAPE, m) for m in masks]
    if kind == "sparse":  # two entries per row, as bilinear look-ups have four
        indices = torch.stack([torch.arange(4).repeat(2), torch.randint(0, SIZE, (8,), generator=generator)])
        views = [SparseMap(SHAPE, (4,), indices, torch.rand(8, generator=generator)) for _ in range(2)]
        return Attraction(number(0.1, 2)), views
    if kind == "features":
        return JointGaussian(None, covariance(4, generator)), [DCT(SHAPE, 2), DCT(SHAPE, 2)]
    if kind == "feature pull":
        return Attraction(number(0.1, 2)), [DCT(SHAPE, 2), DCT(SHAPE, 2)]
    if kind == "equality":
        return Equality(), [Crop(SHAPE, (0, 0), (2, 1)), Crop(SHAPE, (0, 2), (2, 1))]
    return JointGaussian(torch.randn(2 * SIZE, generator=generator), covariance(2 * SIZE, generator)), None


KINDS = [
    "correlation", "attraction", "permuted", "masked", "sparse", "features", "feature pull", "joint", "equality",
]  # fmt: skip


@st.composite
def graphs_with_evidence(draw, kinds=KINDS, margins=(0.01, 1.0, 150.0)):
    """(graph, evidence) with a proper joint density, by a wide or by a narrow margin.

    The evidence outweighs what indefinite potentials take away; condition numbers reach 1e5.
    """
    network, generator = draw(networks())
    graph = FactorGraph()
    for node in network.nodes:
        graph.add_trajectory(node, SHAPE)
    joined = nx.Graph()
    for k, (a, b) in enumerate(network.edges):
        kind = draw(st.sampled_from(kinds))
        if kind == "equality":
            if nx.has_path(joined, a, b) if a in joined and b in joined else False:
                continue  # a loop of shifts could make a node repeat its own elements
            joined.add_edge(a, b)
        potential, maps = potential_and_maps(kind, generator)
        graph.add_factor(f"f{k}", [a, b], potential, maps)
    if draw(st.booleans()):
        graph.add_factor("seen", [0], Evidence(torch.randn(SHAPE, generator=generator), 2.0))
    margin = draw(st.sampled_from(margins))
    floor = margin - min(torch.linalg.eigvalsh(dense_joint(graph).precision)[0].item(), 0.0)
    batch = draw(st.sampled_from([(), (3,), (2, 2)]))
    shared_precision = draw(st.booleans())
    evidence = {}
    for node in network.nodes:
        lead = () if shared_precision else batch
        mean = torch.randn(*batch, *SHAPE, generator=generator, dtype=torch.float64)
        if draw(st.integers(0, 4)) == 0:
            root = torch.randn(*lead, SIZE, SIZE, generator=generator, dtype=torch.float64)
            precision = floor * torch.eye(SIZE, dtype=torch.float64) + root @ root.mT
            evidence[node] = Gaussian(precision, mean.flatten(-2), mean.new_zeros(()))
        else:
            evidence[node] = (mean, floor + torch.rand(*lead, *SHAPE, generator=generator, dtype=torch.float64))
    if draw(st.integers(0, 3)) == 0:
        scope = list(network.nodes)[:2]
        graph.add_factor("noise", scope, Likelihood())
        root = torch.randn(2 * SIZE, 2 * SIZE, generator=generator, dtype=torch.float64)
        eta = torch.randn(*batch, 2 * SIZE, generator=generator, dtype=torch.float64)
        evidence["noise"] = Gaussian(root @ root.T, eta, eta.new_zeros(()))
    return graph, evidence
