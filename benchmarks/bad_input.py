"""What malformed systems get: our error, beside what scipy, pyro and GTSAM do with the same numbers.

The peers run in an interpreter of their own: set PGM_SYNC_PEERS to a Python that has them (``pip install gtsam scipy
pyro-ppl``); what is not installed there is left out. Every case of GTSAM has its own process, since some end it.
"""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import json
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np

import pgm_sync as ps
from pgm_sync.inference import from_scipy

NAN, INF = math.nan, math.inf
PAIR = [[2.0, -1.0], [-1.0, 2.0]]
RHO = 0.95
STRONG = (1 + 4 * RHO**2 / (1 - RHO**2)) * np.eye(5) - RHO / (1 - RHO**2) * (np.ones((5, 5)) - np.eye(5))  # Eq. 2 on K5

# name: precision, eta; every peer gets the same two
SYSTEMS: dict[str, tuple[Any, Any]] = {
    "nothing fixes the sum": ([[1.0, -1.0], [-1.0, 1.0]], [1.0, -1.0]),
    "a node nothing is known of": ([[1.0, 0.0], [0.0, 0.0]], [1.0, 0.0]),
    "couplings too strong together": (STRONG.tolist(), [1.0] * 5),
    "negative precision": ([[-1.0, 0.0], [0.0, 1.0]], [1.0, 1.0]),
    "NaN in the precision": ([[2.0, NAN], [NAN, 2.0]], [1.0, 1.0]),
    "infinity in the precision": ([[INF, -1.0], [-1.0, 2.0]], [1.0, 1.0]),
    "NaN in eta": (PAIR, [NAN, 1.0]),
    "infinity in eta": (PAIR, [INF, 1.0]),
    "precision not symmetric": ([[2.0, -1.0], [0.5, 2.0]], [1.0, 1.0]),
    "precision not square": ([[2.0, -1.0, 0.0], [-1.0, 2.0, 0.0]], [1.0, 1.0]),
    "eta of another length": (PAIR, [1.0, 1.0, 1.0]),
    "no variable at all": ([], []),
}

PEERS = '''
import json, sys, warnings
import numpy as np

peer, precision, eta = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
A, b = np.array(precision, dtype=float), np.array(eta, dtype=float)
warnings.simplefilter("ignore")

def scipy_():
    import scipy, scipy.sparse, scipy.sparse.linalg
    matrix = scipy.sparse.csc_matrix(A)
    factor = scipy.sparse.linalg.splu(matrix, diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return scipy.__version__, lambda: np.concatenate([factor.solve(b), factor.solve(np.eye(len(b))).diagonal()])

def pyro_():
    import pyro, torch
    from pyro.ops.gaussian import Gaussian
    g = Gaussian(torch.zeros(()).double(), torch.tensor(b), torch.tensor(A))
    return pyro.__version__, lambda: np.atleast_1d(g.event_logsumexp().numpy())

def gtsam_():
    import gtsam
    from importlib.metadata import version
    graph = gtsam.GaussianFactorGraph()
    n = len(b)
    for i in range(n):
        graph.add(gtsam.HessianFactor(i, A[i:i+1, i:i+1].copy(), b[i:i+1].copy(), 0.0))
    for i in range(n):
        for j in range(i + 1, A.shape[1] if A.ndim == 2 else 0):
            if A[i, j] != 0:
                zero = np.zeros((1, 1))
                graph.add(gtsam.HessianFactor(i, j, zero, A[i:i+1, j:j+1].copy(), np.zeros(1), zero, np.zeros(1), 0.0))
    def run():
        tree = graph.eliminateMultifrontal()
        mean = tree.optimize()
        return np.array([x for i in range(n) for x in (mean.at(i)[0], tree.marginalCovariance(i)[0, 0])])
    return version("gtsam"), run

try:
    import importlib
    importlib.import_module({"scipy": "scipy", "pyro": "pyro", "gtsam": "gtsam"}[peer])
except ImportError:
    print(json.dumps({"missing": True})); sys.exit()
version = None
try:
    version, run = {"scipy": scipy_, "pyro": pyro_, "gtsam": gtsam_}[peer]()
    out = run()
    what = "NaN" if not np.isfinite(out).all() else "numbers: " + ", ".join(f"{v:.3g}" for v in out[:4])
except BaseException as error:
    what = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:60] if str(error).strip() else ''}"
print(json.dumps({"what": what, "version": version}))
'''


def ours(precision: Any, eta: Any) -> str:
    try:
        posterior = ps.infer(from_scipy(np.array(precision, dtype=float), eta))
        return f"numbers: {posterior.element_mean[:2].tolist()}"
    except ps.PgmSyncError as error:
        return type(error).__name__


def theirs(peer: str, precision: Any, eta: Any) -> dict[str, Any]:
    python = os.environ.get("PGM_SYNC_PEERS", sys.executable)
    command = [python, "-c", PEERS, peer, json.dumps(precision), json.dumps(eta)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if run.returncode:
        return {"what": f"process ended (signal {-run.returncode})" if run.returncode < 0 else "process ended"}
    return json.loads(run.stdout.strip().splitlines()[-1])


def build(quick: bool) -> str:
    cases = dict(list(SYSTEMS.items())[:3]) if quick else SYSTEMS
    rows: list[list[object]] = [["case", "engine", "what happens"]]
    versions: dict[str, str] = {}
    for name, (precision, eta) in cases.items():
        rows.append([name, "pgm_sync", ours(precision, eta)])
        for peer in ("scipy", "pyro", "gtsam"):
            found = theirs(peer, precision, eta)
            if not found.get("missing"):
                rows.append(["", peer, found["what"]])
                if found.get("version"):
                    versions[peer] = found["version"]
    return (
        "Malformed systems (Lambda, eta): pgm_sync infer on from_scipy; scipy splu, a solve for mean and variances;\n"
        "pyro Gaussian.event_logsumexp; GTSAM HessianFactor per entry, elimination, mean and marginal covariances.\n\n"
        + table(rows)
        + "\n\n"
        + ", ".join(f"{peer} {version}" for peer, version in versions.items())
    )


if __name__ == "__main__":
    main("bad_input", build)
