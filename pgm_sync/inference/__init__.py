"""Exact inference on Gaussian factor graphs."""

from .compile import Plan, compile
from .dense import dense_joint
from .evidence import Elements
from .infer import infer
from .message_passing import Message, messages
from .posterior import Info, Posterior

__all__ = ["Elements", "Info", "Message", "Plan", "Posterior", "compile", "dense_joint", "infer", "messages"]
