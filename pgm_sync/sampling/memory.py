"""How much memory was needed at most."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def peak_memory(device: torch.device | str = "cpu") -> int | None:
    """Bytes that this process has had in use at most, as far as the system tells; None where it tells nothing.

    On CUDA those of torch's tensors on `device`, since ``torch.cuda.reset_peak_memory_stats`` or the start; elsewhere
    what was resident.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
