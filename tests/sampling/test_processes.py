"""Two processes on one machine, against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pgm_sync as ps
from pgm_sync.errors import ParameterError
from pgm_sync.sampling.processes import Processes

SCRIPT = Path(__file__).with_name("_two_processes.py")
ROOT = SCRIPT.parents[2]


def launch(tmp_path, what):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(tmp_path / "store"), str(tmp_path / "out"), what],
            stderr=subprocess.PIPE, text=True, env=environment,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    messages = [process.communicate(timeout=120)[1] for process in started]
    return [process.returncode for process in started], messages


def alone(what="run"):
    namespace: dict = {"__name__": "two_processes"}
    exec(compile(SCRIPT.read_text(), str(SCRIPT), "exec"), namespace)
    return namespace[what](False)


@pytest.mark.parametrize("launcher", ["processes", "torchrun"])
def test_a_pipeline_in_each_of_two_processes_gives_the_windows_of_one(tmp_path, launcher):
    if launcher == "processes":
        codes, messages = launch(tmp_path, "attached")
        assert codes == [0, 0], messages
    else:
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT),
            "accelerate", "-", str(tmp_path / "out"), "attached",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
    expected = alone("attached")
    counts = []
    for rank in (0, 1):
        found = torch.load(tmp_path / f"out{rank}")
        counts.append(int(found.pop("rows")))
        for name in ("canvas", "w0", "w1", "w2"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9)
    assert counts == [2, 1]
    assert expected["rows"] == 3
    torch.testing.assert_close(expected["w0"][..., 4:], expected["w1"][..., :4], rtol=1e-12, atol=1e-12)


def test_two_processes_give_the_samples_of_one(tmp_path):
    codes, messages = launch(tmp_path, "runs")
    assert codes == [0, 0], messages
    expected = alone()
    for rank in (0, 1):
        found = torch.load(tmp_path / f"out{rank}")
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_killed_process_ends_the_run_with_a_reason(tmp_path):
    codes, messages = launch(tmp_path, "dies")
    assert codes[1] == 3
    assert codes[0] == 1
    assert "ProcessError: process 0 of 2 could not gather the answers of step 4" in messages[0]
    assert "look after 2)" in messages[0]


def test_without_a_group_it_says_how_to_start_one():
    with pytest.raises(ParameterError, match="accelerate launch"):
        Processes(["a"])
    with pytest.raises(ParameterError, match="accelerate launch"):
        ps.sample(ps.chain_graph(2, (1,), ps.Correlation(0.5)), None, None, distributed=True)
