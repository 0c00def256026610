"""Messages on a chain; walks on a ring; the tree that a loop unrolls to."""

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps
from pgm_sync.inference import belief_propagation as bp

figure, axes = plt.subplots(1, 3, figsize=(9.8, 2.9))

# Two ends of a chain have been seen. Means and standard deviations before, between and after the two sweeps.
n = 9
chain = ps.chain_graph(n, 1, ps.Correlation(0.85))
evidence = dict.fromkeys(range(n), (0.0, 1.0))
evidence |= {0: (1.8, 20.0), n - 1: (-1.2, 20.0)}
network = bp.network(chain, evidence)
right = [(k, k + 1) for k in range(n - 1)]
left = [(b, a) for a, b in reversed(right)]
messages = bp.init(network)
axis = axes[0]
for sweep, label, colour in [
    ([], "no message", "C3"),
    (right, "to the right", "C1"),
    (left, "and back", "C0"),
]:
    for edge in sweep:
        messages = bp.step(network, messages, edge)
    if not sweep:
        # Correlation factors by themselves are no densities: before any message a node knows its own evidence.
        mean = [evidence[k][0] for k in range(n)]
        spread = [evidence[k][1] ** -0.5 for k in range(n)]
    else:
        belief = bp.beliefs(network, messages)
        mean = [belief.mean[k].item() for k in range(n)]
        spread = [belief.variance[k].item() ** 0.5 for k in range(n)]
    axis.plot(range(n), mean, "o-", ms=3.5, lw=1.2, color=colour, label=label)
    if sweep is left:
        low, high = zip(*[(m - s, m + s) for m, s in zip(mean, spread, strict=True)], strict=True)
        axis.fill_between(range(n), low, high, color=colour, alpha=0.15, lw=0)
exact = ps.infer(chain, evidence)
axis.plot(range(n), [exact.mean[k].item() for k in range(n)], "x", color="black", ms=5, label="exact")
axis.set(xlabel="node", title="a chain: two sweeps", ylim=(-2.2, 2.6))
axis.legend(ncol=2, loc="upper right", columnspacing=1.0, handlelength=1.4)

# Walk-sums on complete graphs of 4: the mean of node 0 by walks of growing length.
axis = axes[1]
for rho, colour in [(0.2, "C0"), (-0.35, "C2"), (-0.6, "C1")]:
    graph = ps.complete_graph(4, 1, ps.Correlation(rho))
    seen = {0: (0.0, 1.0), 1: (1.0, 1.0), 2: (1.0, 1.0), 3: (1.0, 1.0)}
    joint = ps.infer(graph, seen).joint(range(4))
    scale = joint.precision.diagonal().rsqrt()
    walks = torch.eye(4, dtype=torch.float64) - scale[:, None] * joint.precision * scale
    term, total, sums = scale * joint.eta, torch.zeros(4, dtype=torch.float64), []
    for _ in range(16):
        total = total + term
        sums.append((scale * total)[0].item())
        term = walks @ term
    radius = ps.walk_summability(graph, seen).radius.item()
    axis.plot(range(16), [s / joint.mean[0].item() for s in sums], "o-", ms=3, lw=1.1, color=colour,
              label=rf"$\rho = {rho}$: $\varrho(|R|) = {radius:.2f}$")  # fmt: skip
axis.axhline(1, color="C3", lw=0.8, ls=":")
axis.set(xlabel="longest walk", title="walks: sum / exact mean", ylim=(-0.4, 3.4), xticks=range(0, 16, 3))
axis.legend(loc="upper right")

# Belief propagation on a ring after k rounds is exact inference on a chain of 2k + 1, which has no end.
axis = axes[2]
strength, size = 2.0, 5
ring = ps.ring_graph(size, 1, ps.Attraction(strength))
unit = dict.fromkeys(range(size), (0.0, 0.5))
network = bp.network(ring, unit)
messages, rounds = bp.init(network), range(1, 11)
loopy, unrolled = [], []
for k in rounds:
    messages = bp.step(network, messages)
    loopy.append(bp.beliefs(network, messages).variance[0].item())
    long = ps.chain_graph(2 * k + 1, 1, ps.Attraction(strength))
    ends = {
        0: (0.0, 0.5 + strength),
        2 * k: (0.0, 0.5 + strength),
    }  # the ends of the ring's copies have two neighbours
    posterior = ps.infer(long, dict.fromkeys(range(2 * k + 1), (0.0, 0.5)) | ends)
    unrolled.append(posterior.variance[k].item())
axis.plot(rounds, unrolled, "-", color="C0", label="exact, unrolled chain of $2k+1$")
axis.plot(rounds, loopy, "o", color="C1", ms=4, label="belief propagation, ring of 5")
axis.axhline(ps.infer(ring, unit).variance[0].item(), color="C3", ls=":", label="exact, ring of 5")
axis.set(xlabel="rounds $k$", ylabel="variance", title="a loop, unrolled", ylim=(0.2, 0.6))
axis.legend(loc="lower right")
