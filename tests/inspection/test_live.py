"""The live view: what it shows, and where it keeps quiet."""

from __future__ import annotations

import builtins
import io

import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync.errors import MissingPackageError, ParameterError

rich_console = pytest.importorskip("rich.console")


def run(graph: ps.FactorGraph, view, steps: int = 5):
    denoiser = ps.GaussianDenoiser(torch.zeros(2), torch.eye(2))
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    return ps.sample(graph, denoiser, scheduler, steps, on_step=view, progress=False)


def chain() -> ps.FactorGraph:
    return ps.chain_graph(5, 2, lambda u, v: ps.Correlation(0.9 - 0.1 * u))


def terminal() -> tuple[io.StringIO, object]:
    out = io.StringIO()
    return out, rich_console.Console(file=out, force_terminal=True, width=90)


def test_a_terminal_sees_every_step():
    out, console = terminal()
    run(chain(), ps.LiveView(chain(), console=console))
    for step in range(1, 6):
        assert f"step {step} of 5" in out.getvalue()
    assert out.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_bars_are_the_coupling():
    states, view = [], ps.LiveView(chain(), top=2, console=terminal()[1])
    run(chain(), [states.append, view])
    plain = rich_console.Console(file=(text := io.StringIO()), width=90)
    plain.print(view.render(states[2]))
    lines = [line for line in text.getvalue().splitlines() if " – " in line]
    assert [line.split("  ")[0].strip() for line in lines] == ["0 – 1", "1 – 2"]  # the two strongest
    table = ps.coupling(chain(), float(states[2].level.snr), factors=[(0, 1), (1, 2)])
    for line, row in zip(lines, table, strict=True):
        assert f"{row.strength:.2f}" in line
        assert line.count("█") == int(24 * row.strength) or line.count("█") == round(24 * row.strength)


def test_it_is_quiet_elsewhere(capsys, monkeypatch):
    run(chain(), ps.LiveView(chain()))  # pytest captures: no terminal
    out, console = terminal()
    run(chain(), ps.LiveView(chain(), console=console, enabled=False))
    assert capsys.readouterr().out == out.getvalue() == ""


def test_a_run_that_breaks_off_gives_the_cursor_back():
    out, console = terminal()

    def fail(state):
        if state.step == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"), ps.LiveView(chain(), console=console) as view:
        run(chain(), [view, fail])
    assert out.getvalue().endswith("\x1b[?25h")


def test_graphs_without_bars():
    for graph in (ps.chain_graph(3, 2, ps.Attraction(precision=1.0)), ps.wide_canvas((1, 2, 3), (2, 2), 1)):
        out, console = terminal()
        view = ps.LiveView(graph, console=console)
        states = ps.sampling_steps(
            graph,
            ps.GaussianDenoiser(
                torch.zeros(graph.shape(graph.trajectories[0])), torch.eye(4 if graph.hidden else 2)
            ),
            DDIMScheduler(clip_sample=False),
            3,
            posterior_covariance=1.0 if not graph.hidden else "surrogate",
        )
        for state in states:
            view(state)
        assert "correction" in out.getvalue()
        assert "acts" not in out.getvalue()


def test_without_rich_it_names_the_extra(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("rich"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr("pgm_sync.extras.import_module", missing)
    with pytest.raises(MissingPackageError, match=r"pip install 'pgm_sync\[inspection\]'"):
        ps.LiveView(chain(), enabled=True)
    ps.LiveView(chain(), enabled=False)  # needs nothing
    with pytest.raises(ParameterError, match="top=-1"):
        ps.LiveView(chain(), top=-1)


@pytest.mark.slow
def test_a_notebook_shows_one_output_that_is_updated():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cell = """
import torch, pgm_sync as ps
from diffusers import DDIMScheduler
graph = ps.chain_graph(3, 2, ps.Correlation(0.8))
denoiser = ps.GaussianDenoiser(torch.zeros(2), torch.eye(2))
view = ps.LiveView(graph)
ps.sample(graph, denoiser, DDIMScheduler(clip_sample=False), 4, on_step=view, progress=False);
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    (output,) = (o for o in notebook.cells[0].outputs if o["output_type"] == "display_data")
    assert output["data"]["text/html"].startswith("<pre")
    assert "step 4 of 4" in output["data"]["text/html"]
