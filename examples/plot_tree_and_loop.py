"""
Exact on trees, not on loops
============================

Messages between neighbours find exact means and variances on a tree. On a loop a message comes back to where it started
and is counted again: means survive that, variances do not.
"""

# %%
# Six nodes as a tree, a ring, and with every two joined. Every edge is the same correlation; evidence is drawn at
# random.

import networkx as nx
import torch

import pgm_sync as ps
from pgm_sync.inference import belief_propagation as bp

networks = {
    "tree": nx.Graph([(0, 1), (0, 2), (1, 3), (1, 4), (2, 5)]),
    "ring": nx.cycle_graph(6),
    "complete": nx.complete_graph(6),
}
generator = torch.Generator().manual_seed(0)
evidence = {k: (torch.randn(1, generator=generator, dtype=torch.float64), 1.0) for k in range(6)}


def graph_of(name: str, spring: float) -> ps.FactorGraph:
    return ps.from_trajectory_graph(networks[name], 1, ps.Attraction(spring))


# %%
# Flooding: all messages at once, again and again. The residual :math:`\lVert\Lambda\mu-\eta\rVert/\lVert\eta\rVert`
# says how far means are from the solution. On the tree it drops to rounding once every message has crossed it; on
# loops it falls geometrically.

runs = {
    name: bp.run(bp.network(graph_of(name, 1.0), evidence), schedule="flooding", tolerance=1e-12)
    for name in networks
}
for name, found in runs.items():
    exact = ps.infer(found.network.problem.plan.graph, evidence)
    ratio = torch.cat([found.variance[k] / exact.variance[k] for k in range(6)])
    error = max((found.mean[k] - exact.mean[k]).abs().item() for k in range(6))
    print(
        f"{name:>8}: {found.iterations:>2} rounds, error of the means {error:.0e}, variance ratio {ratio.mean():.3f}"
    )

# %%
# The variances over a range of strengths: what belief propagation says, divided by the exact ones. The stronger the
# springs and the more loops, the more often the same evidence is counted.

springs = torch.logspace(-1.5, 1, 12)
ratios = {name: [] for name in networks}
for name, values in ratios.items():
    for spring in springs.tolist():
        graph = graph_of(name, spring)
        found = bp.run(bp.network(graph, evidence), tolerance=1e-10, max_iterations=5000)
        exact = ps.infer(graph, evidence)
        values.append(
            torch.cat([found.variance[k] / exact.variance[k] for k in range(6)]).mean().item()
        )

# %%
# Where the counting goes wrong. After :math:`n` rounds of messages, node 0 of the ring has heard of everything within
# :math:`n` steps, and takes all of it for different: as if it stood in the middle of a chain of :math:`2n+1` nodes.
# In the ring both ends of that chain are one node from the third round on, and from the sixth on node 0 itself is
# among them again. The variance that node 0 believes in is the chain's, number for number.


def unrolled(spring: float, rounds: int) -> float:
    """Exact variance in the middle of a chain with the springs and the evidence of the ring."""
    beside = torch.ones(2 * rounds, dtype=torch.float64)
    precision = (1 + 2 * spring) * torch.eye(2 * rounds + 1) - spring * (
        beside.diag(1) + beside.diag(-1)
    )
    return torch.linalg.inv(precision)[rounds, rounds].item()


strong = 8.0
ring = bp.network(graph_of("ring", strong), evidence)
messages, believed = bp.init(ring), []
for _ in range(13):
    believed.append(bp.beliefs(ring, messages).variance[0].item())
    messages = bp.step(ring, messages)
chain = [unrolled(strong, rounds) for rounds in range(13)]
truth = ps.infer(graph_of("ring", strong), evidence).variance[0].item()

# %%
# Left: the way to the solution. Middle: the price of loops. Right: the ring of six, unrolled.

import matplotlib.pyplot as plt

colours = {"tree": "#3b7d4f", "ring": "#2166ac", "complete": "#c8501a"}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.1), layout="constrained")
for name, found in runs.items():
    trace = [(row.number, row.residual) for row in found.trace]
    axes[0].semilogy(*zip(*trace, strict=True), ".-", color=colours[name], label=name)
    axes[1].semilogx(springs, ratios[name], ".-", color=colours[name], label=name)
axes[0].set(title="residual of the means", xlabel="iteration", ylim=(1e-16, 10))
axes[1].axhline(1, color="#77777a", lw=1, ls=":")
axes[1].set(title="variance: believed / exact", xlabel="spring", ylim=(0, 1.08))
axes[1].legend(loc="lower left")
axes[2].plot(chain, "s", mfc="none", ms=8, color="#77777a", label="middle of the chain, exact")
axes[2].plot(believed, ".-", color=colours["ring"], label="node 0, believed")
axes[2].axhline(truth, color="#c8501a", lw=1.2, ls="--", label="node 0, exact")
axes[2].set(title="variance at node 0 of the ring", xlabel="rounds of messages")
axes[2].legend(loc="lower right")
plt.show()

# %%
# On the tree everything is exact; on loops the means are, and the variances of springs are always too small.
# ``ps.infer`` therefore eliminates by default, which is exact on loops too; belief propagation (``method="gbp"``)
# says of its variances whether they are.

for name, found in runs.items():
    exact = ps.infer(found.network.problem.plan.graph, evidence)
    for k in range(6):
        torch.testing.assert_close(found.mean[k], exact.mean[k], rtol=1e-9, atol=1e-9)
    assert found.variances_exact == (name == "tree")
assert all(abs(ratio - 1) < 1e-9 for ratio in ratios["tree"])
assert all(
    tight < loose < 1 for tight, loose in zip(ratios["complete"], ratios["ring"], strict=True)
)
torch.testing.assert_close(torch.tensor(believed), torch.tensor(chain), rtol=1e-9, atol=1e-9)
assert believed[-1] < truth
