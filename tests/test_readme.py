"""The README keeps its promises."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_test_command_is_the_one_ci_runs():
    (line,) = [x for x in (ROOT / ".ci" / "run").read_text().splitlines() if x.endswith("-m pytest")]
    assert line in README.splitlines()


def test_the_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(code.splitlines()) <= 20
    exec(compile(code, "README.md", "exec"), {})
    assert "dct0,0" in capsys.readouterr().out


def test_what_it_points_to_exists():
    places = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert "docs/_static/demo.png" in places
    assert [p for p in places if not (ROOT / p).exists()] == []


def test_its_numbers_are_those_of_the_scoreboard():
    rows = [line for line in README.splitlines() if line.count("[") >= 3 and line.startswith("| ")]
    assert len(rows) == 6
    board = (ROOT / "docs" / "results" / "scoreboard.txt").read_text()
    for number in re.findall(r"[−.\d]+ \[[^\]]+\]", "".join(rows)):
        assert number.replace("−", "-") in board, number
