"""A style that all windows share, against edges between windows: held-out likelihood and number of parameters."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import itertools

import networkx as nx
import torch
from tqdm import tqdm

import pgm_sync as ps
from pgm_sync.learning.estimate import bootstrap, estimate_model, log_density
from pgm_sync.learning.hidden import estimate_hidden
from pgm_sync.learning.problem import features, pose
from pgm_sync.zoo import wide_crops

WINDOW, COUNT, MODES = 24, 6, 4
STYLES = (1, 2, 4, 8, 16)


def empty() -> ps.FactorGraph:
    graph = ps.FactorGraph()
    for k in range(COUNT):
        graph.add_trajectory(k, (3, WINDOW, WINDOW))
    return graph


def joined(edges: list[tuple[int, int]], style: int = 0) -> ps.FactorGraph:
    """Windows with edges between them, and from all to a style of some numbers."""
    graph, modes = empty(), ps.DCT((3, WINDOW, WINDOW), MODES)
    for a, b in edges:
        graph.add_factor((a, b), [a, b], ps.JointGaussian(), [modes, modes])
    if style:
        graph.add_variable("style", style)
        for k in range(COUNT):
            graph.add_factor(("style", k), ["style", k], ps.JointGaussian(), [None, modes])
    return graph


def build(quick: bool) -> str:
    count = 300 if quick else 2000
    generator = torch.Generator().manual_seed(0)
    shape = (3, WINDOW, WINDOW * COUNT)
    crops = {
        part: wide_crops(shape, count, part, generator=generator, return_photos=True)
        for part in ("train", "test")
    }
    photographs = torch.as_tensor(crops["test"][1])
    chain = [(k, k + 1) for k in range(COUNT - 1)]
    graphs = {
        "chain": joined(chain),
        "all pairs": joined(list(itertools.combinations(range(COUNT), 2))),
        **{f"style of {s}": joined([], s) for s in STYLES},
        **{f"chain and style of {s}": joined(chain, s) for s in STYLES[:4]},
    }
    windows = {
        part: {k: x[..., WINDOW * k : WINDOW * (k + 1)] for k in range(COUNT)}
        for part, (x, _) in crops.items()
    }
    train, heldout = (features(pose(graphs["chain"]), windows[part]) for part in ("train", "test"))
    size = train.shape[1] // COUNT
    blocks = pose(graphs["chain"]).blocks
    alone = log_density(heldout, *estimate_model(train, "ledoit_wolf", nx.empty_graph(COUNT), blocks)[:2])
    rows: list[list[object]] = [["graph", "factors", "free parameters", "gain, nats", "95 %", "iterations"]]
    for name, graph in tqdm(graphs.items()):
        problem = pose(graph)
        hidden = ["style"] if "style" in problem.blocks else []
        arguments = (train, "ledoit_wolf", problem.network, problem.blocks)
        found = estimate_hidden(*arguments, hidden) if hidden else estimate_model(*arguments)
        gain = log_density(heldout, *found.observed) - alone
        low, high = bootstrap(gain, photographs, seed=0)
        style = len(problem.blocks.get("style", ()))
        own = COUNT * size * (size + 1) // 2
        edges = len(graph.factors) - COUNT * bool(style)
        links = COUNT * size * style - style * (style - 1) // 2 + edges * size**2
        rows.append([
            name, len(graph.factors), own + links, f"{gain.mean():.2f}", f"{low:.2f} to {high:.2f}", len(found.trace),
        ])  # fmt: skip
    return (
        f"{COUNT} windows of {WINDOW} x {WINDOW} side by side, {MODES} cosine modes per colour each. Gain in log\n"
        f"density per held-out crop over independent windows; fitted on {count} crops of the training photographs.\n"
        f"Intervals: bootstrap over {len(photographs.unique())} held-out photographs ({count} crops). A style: hidden\n"
        "numbers joined to every window, by expectation maximisation.\n\n" + table(rows)
    )


if __name__ == "__main__":
    main("hidden", build)
