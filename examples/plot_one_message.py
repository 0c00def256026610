"""
One message at a time
=====================

Five numbers in a row, each tied to the next by a spring. Only the first has been looked at. Eight messages, sent one by
one, make that known everywhere, and what they say can be checked by hand.
"""

# %%
# The evidence: node 0 has been seen at 2, precisely; of the others nothing is known but that they are of the order of
# one. Numbers and nodes are few, but nothing below depends on that: a node may hold a picture.

import torch

import pgm_sync as ps
from pgm_sync.inference import belief_propagation as bp

spring = 3.0
graph = ps.chain_graph(5, shape=1, potential=ps.Attraction(spring))
evidence = {0: (2.0, 10.0), **dict.fromkeys(range(1, 5), (0.0, 0.3))}  # mean, precision
network = bp.network(graph, evidence)

# %%
# In information form, :math:`\log p = -\tfrac12 x^\top\Lambda x + \eta^\top x`, evidence of precision :math:`\pi`
# about a mean :math:`m` adds :math:`\pi` to the diagonal of :math:`\Lambda` and :math:`\pi m` to :math:`\eta`. A
# spring adds :math:`\lambda` at both of its ends, and :math:`-\lambda` between them.
#
# A message is what is left of a node when it is integrated out. Node 0 has precision :math:`10 + 3` and :math:`\eta_0
# = 20`; eliminating it leaves node 1 with
#
# .. math::
#
#    P_{01} = -\frac{\lambda^2}{\Lambda_{00}} = -\frac{9}{13}, \qquad
#    h_{01} = \frac{\lambda\,\eta_0}{\Lambda_{00}} = \frac{60}{13}.

messages = bp.step(network, bp.init(network), (0, 1))
first = bp.message(network, messages, 0, 1)
print(f"precision {first.precision.item():.4f}, -9/13 = {-9 / 13:.4f}")
print(f"      eta {first.eta.item():.4f}, 60/13 = {60 / 13:.4f}")
torch.testing.assert_close(first.precision.item(), -9 / 13)
torch.testing.assert_close(first.eta.item(), 60 / 13)

# %%
# A negative precision? The spring gave node 1 its full stiffness of 3, as if the other end were nailed down. The
# message takes back what was too much: node 0 is known to a precision of 10, so the spring is worth :math:`3 - 9/13 =
# (1/3 + 1/10)^{-1}`, two springs one behind the other.
#
# The rest: to the right end, and back. Each message may use all that its sender has heard, except from the receiver.

order = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 3), (3, 2), (2, 1), (1, 0)]
messages = bp.init(network)
states = [bp.beliefs(network, messages)]
for edge in order:
    messages = bp.step(network, messages, edge)
    states.append(bp.beliefs(network, messages))
exact = ps.infer(graph, evidence)

# %%
# After every message: mean and standard deviation that each node believes in (blue; the receiver in orange), and the
# exact ones (grey band). On the way to the right every node hears from its left; only on the way back does it
# hear that the nodes to its right give way.

import matplotlib.pyplot as plt

nodes = torch.arange(5)


def band(of) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and standard deviations of all nodes."""
    return torch.cat([of.mean[k] for k in range(5)]), torch.cat(
        [of.variance[k] for k in range(5)]
    ).sqrt()


centre, width = band(exact)
figure, axes = plt.subplots(
    3, 3, figsize=(9, 6.4), sharex=True, sharey=True, layout="constrained"
)
for number, (axis, state) in enumerate(zip(axes.flat, states, strict=True)):
    axis.fill_between(nodes, centre - width, centre + width, color="#77777a", alpha=0.22, lw=0)
    axis.plot(nodes, centre, color="#77777a", lw=1)
    mean, deviation = band(state)
    receiver = order[number - 1][1] if number else None
    for k in range(5):
        colour = "#c8501a" if k == receiver else "#2166ac"
        axis.errorbar(k, mean[k], deviation[k], fmt="o", color=colour, ms=5, capsize=3)
    if number:
        source, target = order[number - 1]
        arrow = {"arrowstyle": "-|>", "color": "#c8501a", "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (target, 3.05), (source, 3.05), arrowprops=arrow)
    axis.set_title(f"{number}: {source} tells {target}" if number else "0: nothing sent")
    axis.set(ylim=(-1.1, 3.4), xticks=nodes)
axes[0, 0].text(2.6, 1.9, "exact", color="#77777a")
for axis in axes[-1]:
    axis.set_xlabel("node")
plt.show()

# %%
# How far every message brings the means. A message changes its receiver only; the last one finishes node 0.

for number, state in enumerate(states):
    error = (band(state)[0] - centre).abs()
    print(f"after {number}: error of the means", " ".join(f"{e:.3f}" for e in error.tolist()))

# %%
# Twice as many messages as edges, and means and variances are exact at every node: on a tree, two sweeps are
# elimination. (:doc:`plot_tree_and_loop` shows what loops change.) For a denoising step it is the same: the evidence
# is what every denoiser says of its own trajectory, and what arrives is the joint mean of Eq. 6.

last = states[-1]
for k in range(5):
    torch.testing.assert_close(last.mean[k], exact.mean[k], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(last.variance[k], exact.variance[k], rtol=1e-10, atol=1e-10)
assert (band(states[-2])[0] - centre).abs().max() > 1e-3  # and not one message earlier
