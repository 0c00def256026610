"""The messages that the engine shows, on paper and against the dense joint."""

from __future__ import annotations

import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import ImproperGraphError
from pgm_sync.inference import dense_joint, sweeps

from .test_infer import close


def test_the_messages_of_a_chain_on_paper():
    """Attraction(1): couplings -1; node 0 has precision 1 + 1, so it sends -(-1)(-1)/2 and -(-1) eta_0 / 2."""
    graph = ps.chain_graph(3, 1, ps.Attraction(1.0))
    evidence = {0: (3.0, 1.0), 1: (0.0, 1.0), 2: (0.0, 1.0)}
    sent = sweeps(graph, evidence)
    assert [(m.sweep, m.sender, m.receiver) for m in sent] == [
        ("collect", ((0,),), ((1,),)),
        ("collect", ((1,),), ((2,),)),
        ("distribute", ((2,),), ((1,),)),
        ("distribute", ((1,),), ((0,),)),
    ]
    assert sent[0].precision.item() == pytest.approx(-0.5)
    assert sent[0].eta.item() == pytest.approx(1.5)
    posterior = ps.infer(graph, evidence)
    # node 2, the root: own precision 1 + 1 and what it received is the inverse of its variance
    assert 2 + sent[1].precision.item() == pytest.approx(1 / posterior.variance[2].item())
    assert sent[2].eta.item() == pytest.approx(posterior.mean[2].item())
    assert sent[2].precision.item() == pytest.approx(posterior.variance[2].item())


@pytest.mark.parametrize("blocks", [False, True], ids=["elements", "blocks"])
def test_collected_messages_leave_the_marginal_of_the_rest(blocks):
    """Lambda with the first sent node taken out and its message added is the Schur complement, for every copy."""
    graph = ps.ring_graph(4, (2,), ps.Attraction(1.0))
    evidence = {k: (torch.randn(3, 2).double(), 1 + torch.rand(3, 2).double()) for k in range(4)}
    if blocks:
        graph.add_factor("joint", [0, 1], ps.JointGaussian(None, torch.eye(4).double() + 0.3))
    first = sweeps(graph, evidence)[0]
    joint = ps.infer(graph, evidence, method="dense")
    (sender,), receivers = first.sender[0], [names[0] for names in first.receiver]
    rest = [name for name in graph.trajectories if name != sender]
    marginal = joint.joint(rest).precision.reshape(3, 3, 2, 3, 2)
    dense = dense_joint(graph, evidence).precision.reshape(3, 4, 2, 4, 2)
    for i, a in enumerate(receivers):
        for j, b in enumerate(receivers):
            expected = marginal[:, rest.index(a), :, rest.index(b)] - dense[:, a, :, b]  # (3, 2, 2)
            if blocks:
                got = first.precision[..., 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            else:
                got = torch.diag_embed(first.precision[..., i, j])
            close(got, expected, 1e-10)


def test_an_improper_graph_has_no_messages():
    with pytest.raises(ImproperGraphError, match="component of 0, 1"):
        sweeps(ps.chain_graph(2, 1, ps.Attraction(1.0)))
