"""The scoreboard: every task, ours and every published method that applies, from the same seeds."""

from __future__ import annotations

from _table import RESULTS, main  # first: it pins the threads

from pathlib import Path

from pgm_sync import tasks
from pgm_sync.evaluation import Scoreboard, draw_ranks
from pgm_sync.tasks.run import Comparison, compare

CELLS = Path(__file__).resolve().parents[1] / "build" / "scoreboard"  # an interrupted run goes on from here
PICTURES = RESULTS.parent / "_static"
FULL, QUICK = (200, 25, 48), (24, 10, 12)  # joint samples, steps, validation seeds
SLOW = {"ambiguous": (24, 50)}  # validation seeds and batch of a task whose network takes .5 s per sample
SHEET = ["learned", "independent", "multidiffusion", "syncsde-implicit", "real"]  # columns of the pictures
ALIKE = [f"synctweedies-{case}" for case in range(2, 7)]  # with deterministic steps, the rows of synctweedies-1


def measure(name: str, quick: bool = False) -> Comparison:
    """All methods on one task, in a file of cells of its own."""
    samples, steps, seeds = QUICK if quick else FULL
    most, batch = SLOW.get(name, (seeds, None))
    board = Scoreboard(None if quick else CELLS / f"{name}.json")
    return compare(tasks.load(name), None, samples, steps, validation=min(seeds, most), batch=batch, board=board)


def build(quick: bool) -> str:
    found = {name: measure(name, quick) for name in tasks.names()}
    board = Scoreboard()
    for comparison in found.values():
        board.update(comparison.board)
    samples, steps, seeds = QUICK if quick else FULL
    text = board.to_markdown().rstrip()
    for name, comparison in found.items():
        said = [f"- {m.name}: {m.what}." for m in comparison.measures]
        said += [f"- {method} diverged: {why}" for method, why in comparison.diverged.items()]
        text = text.replace(f"## {name}\n", "\n".join([f"## {name}", "", *said, ""]))
        if not quick:
            comparison.write(CELLS)
            shown = compare(comparison.task, SHEET, 6, steps, tuned=(), progress=False)
            shown.sheet().save(PICTURES / f"scoreboard_{name}.png")
    if not quick:
        board.write(CELLS)
        shown_rows = [m for m in board.methods() if m not in [*board.aims, *ALIKE] and not m.startswith("learned: ")]
        ranks = draw_ranks(board, highlight="learned", methods=shown_rows)
        ranks.figure.savefig(PICTURES / "scoreboard_ranks.png", dpi=110)
    head = (
        f"{samples} joint samples per cell, {steps} steps, seed 0; strengths of SyncSDE tuned on {seeds} other\n"
        f"seeds (ambiguous: {min(seeds, SLOW['ambiguous'][0])}) by the main measure, the first column. 95 % intervals."
    )
    return f"{head}\n\n{text}"


if __name__ == "__main__":
    main("scoreboard", build)
