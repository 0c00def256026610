"""The scoreboard: every task, ours and every published method that applies, from the same seeds."""

from __future__ import annotations

from _table import RESULTS, main  # first: it pins the threads

from pathlib import Path

from pgm_sync import tasks
from pgm_sync.evaluation import Scoreboard, draw_ranks
from pgm_sync.tasks.run import compare

CELLS = Path(__file__).resolve().parents[1] / "build" / "scoreboard"  # an interrupted run goes on from here
PICTURES = RESULTS.parent / "_static"
SAMPLES, STEPS, VALIDATION, BATCH = 200, 25, 48, None
SLOW = {"ambiguous": (24, 50)}  # validation seeds and batch of a task whose network takes .5 s per sample
SHEET = ["learned", "independent", "multidiffusion", "syncsde-implicit", "real"]  # columns of the pictures


def build(quick: bool) -> str:
    samples, steps = (24, 10) if quick else (SAMPLES, STEPS)
    board = Scoreboard(None if quick else CELLS / "cells.json")
    parts = [
        f"{samples} joint samples per cell, {steps} steps, seed 0; strengths of SyncSDE tuned on {VALIDATION} other\n"
        f"seeds (ambiguous: {SLOW['ambiguous'][0]}) by the main measure, the first column. 95 % intervals.\n"
    ]
    for name in tasks.names():
        task, (validation, batch) = tasks.load(name), SLOW.get(name, (VALIDATION, BATCH))
        found = compare(task, None, samples, steps, validation=12 if quick else validation, batch=batch, board=board)
        parts += [f"{name}, {m.name}: {m.what}." for m in task.measures()]
        parts += [f"{name}, {method} diverged: {why}" for method, why in found.diverged.items()]
        if not quick:
            found.write(CELLS)
            shown = compare(task, SHEET, 6, steps, tuned=(), progress=False)
            shown.sheet().save(PICTURES / f"scoreboard_{name}.png")
    if not quick:
        draw_ranks(board, highlight="learned").figure.savefig(PICTURES / "scoreboard_ranks.png", dpi=110)
    return "\n".join([*parts, "", board.to_markdown().rstrip()])


if __name__ == "__main__":
    main("scoreboard", build)
