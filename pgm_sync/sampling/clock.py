"""Where the time of a run goes."""

from __future__ import annotations

import time

PARTS = ("denoiser", "engine", "scheduler")


class Clock:
    """Adds up where the time goes."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds, self.last = seconds, time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last = now
