"""Run every benchmark of this folder, one after the other; arguments are passed on (--quick, --write)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    scripts = [
        p for p in sorted(Path(__file__).parent.glob("*.py")) if p.name != "run.py" and p.name[0] != "_"
    ]
    failed = []
    for script in scripts:
        print(f"== {script.name}", flush=True)
        if subprocess.run([sys.executable, str(script), *sys.argv[1:]], check=False).returncode:
            failed.append(script.name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
