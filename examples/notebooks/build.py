"""Write the classroom notebooks: exercises and solutions from one source.

A source is a Python file in cells: ``# %% [markdown]`` and text in comments, or ``# %%`` and code. In a cell of code,
what stands between ``# <solution>`` and ``# </solution>`` is the answer; students get a line to fill in instead. Run
this file after changing a source: ``python examples/notebooks/build.py``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
CELL = re.compile(r"^# %%( \[markdown\])?\n", flags=re.M)
SOLUTION = re.compile(r"^( *)# <solution>\n.*?^ *# </solution>\n", flags=re.M | re.S)
MARKS = re.compile(r"^ *# </?solution>\n", flags=re.M)
TODO = "...  # your code here"


def notebook(source: str, solutions: bool) -> dict[str, Any]:
    """The notebook of a source as JSON data. Cells with an answer are tagged "exercise"."""
    _, *pieces = CELL.split(source)
    cells = []
    for kind, body in zip(pieces[::2], pieces[1::2], strict=True):
        number = f"cell-{len(cells):02}"
        if kind:
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            cells.append({"cell_type": "markdown", "id": number, "metadata": {}, "source": "\n".join(lines)})
            continue
        asked = SOLUTION.search(body) is not None
        body = MARKS.sub("", body) if solutions else SOLUTION.sub(rf"\g<1>{TODO}\n", body)
        cells.append({
            "cell_type": "code", "execution_count": None, "id": number, "outputs": [],
            "metadata": {"tags": ["exercise"]} if asked else {}, "source": body.strip(),
        })  # fmt: skip
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    language = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    metadata = {"kernelspec": kernel, "language_info": language}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def sources() -> list[Path]:
    """The sources in this folder, numbered."""
    return sorted(FOLDER.glob("[0-9]*.py"))


def notebooks() -> dict[Path, str]:
    """All notebooks, by path, as they should be."""
    made = {}
    for path in sources():
        for suffix, solutions in (("exercises", False), ("solutions", True)):
            text = json.dumps(notebook(path.read_text(), solutions), indent=1, ensure_ascii=False)
            made[FOLDER / f"{path.stem}_{suffix}.ipynb"] = text + "\n"
    return made


if __name__ == "__main__":
    for path, text in notebooks().items():
        path.write_text(text)
        print(path.name)
