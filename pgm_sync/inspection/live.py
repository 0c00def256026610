"""A small table that follows a run in a terminal or a notebook."""

from __future__ import annotations

import math
import sys
import weakref
from typing import Any

from ..errors import ParameterError, PgmSyncError, UnsupportedError
from ..extras import optional
from ..graph.factor_graph import FactorGraph
from .coupling import Coupling, Pair, at_level, pairs_of
from .edges import edge_name
from .recorder import levels_by_name
from .surrogate import Covariances, Snr, Surrogate

BAR = 24  # characters of a bar that stands for 1


def _package(module: str) -> Any:
    return optional(module, "LiveView needs", "inspection")


class LiveView:
    """Shows a run while it goes: hand it to ``on_step`` of `sample`, `attach` or `synchronize`.

    Pass ``progress=False`` to these, or its bar and this one draw over each other.

    Step and signal-to-noise ratio; the correction ``m_joint - m_own`` (RMS), and where Eq. 8 had to act; and for the
    `top` factors of largest correlation how much of it acts at this noise level (`coupling`), as bars: shaded is what
    of the correlation of the clean contents does not act.

    Parameters
    ----------
    graph
        the graph that is sampled.
    top
        how many factors to show.
    enabled
        None: in notebooks, and where standard output is a terminal; nothing is shown elsewhere, in log files for
        instance. True or False decide.
    console
        a `rich.console.Console` to show it on, in the place of standard output.
    noise_correlation, variance
        c of Eq. 5' and the variance of contents of which no potential states a marginal, as the run has them.

    It ends with the last step; `close`, or leaving it as a context, ends it earlier.

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> graph, own = ps.chain_graph(2, 1, ps.Correlation(0.8)), ps.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    >>> from rich.console import Console
    >>> view = ps.LiveView(graph, enabled=True, console=Console(width=60, force_terminal=False))
    >>> result = ps.sample(graph, own, DDIMScheduler(clip_sample=False), 10, on_step=view, progress=False)
    step 10 of 10    snr 1e+04
    factor  correlation that acts     acts    of
    0 – 1   ░░░░░░░░░░░░░░░░░░░       0.00  0.80
    correction 0.0001 (RMS)

    Raises MissingPackageError where something is to be shown and rich is not installed, ParameterError.
    """

    def __init__(
        self,
        graph: FactorGraph,
        top: int = 6,
        *,
        enabled: bool | None = None,
        console: Any = None,
        noise_correlation: float = 0.0,
        variance: float | None = None,
    ):
        if not isinstance(top, int) or top < 0:
            raise ParameterError(f"top={top!r} must be an integer of at least 0", top=top)
        self._notebook = console is None and in_notebook()
        if enabled is None:
            enabled = self._notebook or (sys.stdout.isatty() if console is None else console.is_terminal)
        self.enabled, self._console = enabled, console
        self._shown: Any = None  # the output of a notebook
        self._live: Any = None
        self._pairs: list[Pair] = []
        if not enabled:
            return
        if console is None:
            made = _package("rich.console")
            self._console = made.Console(force_jupyter=False, width=80) if self._notebook else made.Console()
        self._choose(graph, top, noise_correlation, variance)

    def _choose(self, graph: FactorGraph, top: int, noise_correlation: float, variance: float | None) -> None:
        """The pairs of largest correlation under the joint prior."""
        try:
            self._model = Surrogate(graph, noise_correlation, variance)
            if not self._model.names or not top:
                return
            self._prior: Covariances = self._model.posterior(0.0)
            names = set(self._model.names)
            pairs = [p for p in pairs_of(self._model, self._prior) if {p.first, p.second} <= names]
            rows = at_level(self._model, self._prior, 0.0, 0.0, pairs)
        except (UnsupportedError, ParameterError):  # a prior on the canvas itself, or no marginals: no bars
            return
        except PgmSyncError:  # no joint prior; own evidence makes up for it while sampling
            return
        order = sorted(range(len(pairs)), key=lambda k: -abs(rows[k].prior))
        self._pairs = [pairs[k] for k in sorted(order[:top])]

    def __call__(self, state: Any) -> None:
        """Show one state, a `SamplingState` or a `LockstepState`."""
        if not self.enabled:
            return
        table = self.render(state)
        if self._notebook:
            self._show_in_notebook(table)
        else:
            if self._live is None:
                live = _package("rich.live").Live(console=self._console, auto_refresh=False)
                live.start()
                self._live, self._stop = live, weakref.finalize(self, live.stop)  # also where the run breaks off
            self._live.update(table, refresh=True)
        if state.step == getattr(state, "num_steps", 0) - 1:
            self.close()

    def render(self, state: Any) -> Any:
        """What is shown of one `state`, something that rich prints."""
        text = _package("rich.text").Text
        parts = [text(self._title(state), style="bold")]
        if self._pairs:
            table = _package("rich.table").Table(box=None, pad_edge=False)
            table.add_column("factor", no_wrap=True)
            table.add_column("correlation that acts", no_wrap=True, min_width=BAR)
            table.add_column("acts", justify="right")
            table.add_column("of", justify="right")
            for row in self._rows(state):
                bar = text.from_markup(_bar(row.strength, row.prior))
                table.add_row(text(edge_name(row.factor)), bar, f"{row.strength:.2f}", f"{row.prior:.2f}")
            parts.append(table)
        parts.append(text(self._caption(state), style="dim"))
        return _package("rich.console").Group(*parts)

    def _rows(self, state: Any) -> list[Coupling]:
        if not self._pairs:
            return []
        levels = {name: (alpha / sigma) ** 2 for name, (alpha, sigma) in levels_by_name(state).items()}
        values = set(levels.values())
        snr: Snr = values.pop() if len(values) == 1 else levels
        return at_level(self._model, self._prior, snr, min(levels.values()), self._pairs)

    def _title(self, state: Any) -> str:
        ratios = [(alpha / sigma) ** 2 for alpha, sigma in levels_by_name(state).values()]
        snr = f"{min(ratios):.3g}" if max(ratios) <= min(ratios) * 1.001 else f"{min(ratios):.3g} to {max(ratios):.3g}"
        steps = getattr(state, "num_steps", 0)
        return f"step {state.step + 1}{f' of {steps}' if steps else ''}    snr {snr}"

    def _caption(self, state: Any) -> str:
        square = [
            (joint - state.denoised[name]).square().mean().item() for name, joint in state.joint.items()
        ]
        moved = math.sqrt(sum(square) / len(square))
        capped = f"    Eq. 8 acted on {100 * state.capped:.1f} %" if state.capped else ""
        return f"correction {moved:.4f} (RMS){capped}"

    def _show_in_notebook(self, table: Any) -> None:
        display = _package("IPython.display")
        with self._console.capture() as captured:
            self._console.print(table)
        text = _package("rich.text").Text.from_ansi(captured.get()).plain
        content = display.HTML(f"<pre style='line-height:1.3'>{_escaped(text)}</pre>")
        if self._shown is None:
            self._shown = display.display(content, display_id=True)
        else:
            self._shown.update(content)

    def close(self) -> None:
        """End the display; what it showed last stays."""
        if self._live is not None:
            self._stop()
            self._live = None

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _bar(strength: float, prior: float) -> str:
    """A bar to an eighth of a character, and what of the correlation does not act, shaded."""
    eighths = round(8 * BAR * min(strength, 1.0))
    solid = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    rest = max(round(BAR * min(prior, 1.0)) - len(solid), 0)
    return f"[cyan]{solid}[/][dim]{'░' * rest}[/]"


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
