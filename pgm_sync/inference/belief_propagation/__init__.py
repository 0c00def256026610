"""Gaussian belief propagation: one message at a time, or until it settles."""

from .comparison import Comparison, NodeComparison, compare_with_exact
from .messages import Messages
from .network import Network, network, with_eta
from .run import Beliefs, Iteration, Message, Result, beliefs, init, log_determinant, message, run, step

__all__ = [
    "Beliefs",
    "Comparison",
    "Iteration",
    "Message",
    "Messages",
    "Network",
    "NodeComparison",
    "Result",
    "beliefs",
    "compare_with_exact",
    "init",
    "log_determinant",
    "message",
    "network",
    "run",
    "step",
    "with_eta",
]
