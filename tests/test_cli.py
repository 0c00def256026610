"""The command line."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch

from pgm_sync import zoo
from pgm_sync.cli import OPTIONS, _parser, main
from pgm_sync.denoisers import GaussianDenoiser
from pgm_sync.graph import FactorGraph, chain_graph
from pgm_sync.potentials import Correlation, JointGaussian
from pgm_sync.tasks import demo, wide

SMALL = "--width 12 --height 6 --stride 4 --modes 1 --steps 3 --samples 8 --quiet".split()


@pytest.fixture
def small_zoo(monkeypatch):
    """Windows of 6 x 6 pixels and few photographs, so that a demo takes a second."""
    own = GaussianDenoiser(torch.zeros(3, 6, 6), 0.3 * torch.eye(108))
    monkeypatch.setattr(zoo, "load", lambda name: own)
    monkeypatch.setattr(wide, "CROPS", 70)
    monkeypatch.setattr(wide, "HELD_OUT", 20)


@pytest.fixture
def saved(tmp_path):
    graph = chain_graph(3, (2,), Correlation(0.5))
    graph.save(tmp_path / "graph.json")
    return tmp_path / "graph.json"


def test_the_demo_writes_its_files_and_says_where(small_zoo, tmp_path, capsys):
    out = tmp_path / "made"
    assert main(["demo", "--out", str(out), *SMALL]) == 0
    names = sorted(p.name for p in out.iterdir())
    assert names == sorted(
        [
            "graph.safetensors",
            "learned.png",
            "averaging.png",
            "independent.png",
            "comparison.png",
            "metrics.json",
        ]
        + ["report.html"]
    )
    said = capsys.readouterr().out
    assert all(str(out / name) in said for name in names)
    assert "Averaging" in said
    assert json.loads((out / "metrics.json").read_text())["config"]["width"] == 12


def test_the_demo_is_inspected(small_zoo, tmp_path, capsys):
    main(["demo", "--out", str(tmp_path), *SMALL])
    capsys.readouterr()
    assert main(["graph", str(tmp_path / "graph.safetensors")]) == 0
    assert "hidden variable" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["inspect", str(tmp_path / "graph.safetensors"), "--html", str(page)]) == 0
    assert "dct0,0" in capsys.readouterr().out
    assert "<svg" in page.read_text()


def test_interruption_keeps_what_was_written(small_zoo, tmp_path, capsys, monkeypatch):
    real = demo.compare
    calls = []

    def interrupted(*args, **kwargs):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(demo, "compare", interrupted)
    assert main(["demo", "--out", str(tmp_path), *SMALL]) == 130
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graph.safetensors", "learned.png"]
    assert "interrupted" in capsys.readouterr().err
    assert isinstance(FactorGraph.load(tmp_path / "graph.safetensors").potential(("w0", "w1")), JointGaussian)


def test_named_errors_are_one_line(small_zoo, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), *SMALL, "--stride", "9"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("pgm-sync: stride 9 must be between 1 and the window size")


def test_files_that_are_missing_or_broken(tmp_path, capsys):
    assert main(["graph", str(tmp_path / "none.json")]) == 2
    assert "there is no file" in capsys.readouterr().err
    (tmp_path / "broken.json").write_text("{")
    assert main(["inspect", str(tmp_path / "broken.json")]) == 2
    assert "'broken.json' is not a readable saved graph" in capsys.readouterr().err


def test_other_errors_are_not_hidden(monkeypatch, saved):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(FactorGraph, "load", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["graph", str(saved)])


def test_a_graph_is_printed(saved, capsys):
    assert main(["graph", str(saved)]) == 0
    assert capsys.readouterr().out.startswith("FactorGraph(3 trajectories, 2 factors)\n")


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("pgm_sync 0.")


def test_without_a_command_it_explains_itself(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_help_tells_the_true_defaults():
    defaults = {f.name: f.default for f in dataclasses.fields(wide.Wide)}
    defaults |= {"steps": demo.STEPS, "samples": demo.SAMPLES}
    for name, what in OPTIONS.items():
        assert name == "stride" or what.endswith(f"(default: {defaults[name]})")
        assert not hasattr(_parser().parse_args(["demo"]), name)  # left to the task


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from pgm_sync.cli import _parser; _parser().format_help(); print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_the_module_runs_like_the_command(saved):
    command = [sys.executable, "-m", "pgm_sync", "graph", str(saved)]
    said = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert said.returncode == 0
    assert "3 trajectories" in said.stdout
