"""Posterior covariances of denoisers (Eq. 4): what each kind costs per step, and how exact differences are."""

from __future__ import annotations

from _table import main, table  # first: it pins the threads

import statistics
import time
from collections.abc import Callable

import torch
from diffusers import UNet2DModel

import pgm_sync as ps

SHAPE, LEVEL = (1, 32, 32), ps.NoiseLevel(0.8, 0.6, timestep=300)
FEATURES = (4, 12)
STEPS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
SIGMAS = (0.1, 0.3, 0.6, 0.9, 0.99)


def network() -> ps.Denoiser:
    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=32, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(16, 32),
        norm_num_groups=8, down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"), add_attention=False,
    )  # fmt: skip
    return ps.DiffusersDenoiser(model.eval())


def kinds(quick: bool) -> dict[str, ps.Scaled | ps.Surrogate | ps.Jacobian]:
    """Posterior covariances by title."""
    all_of = {
        "surrogate": ps.Surrogate(),
        "scaled surrogate": ps.Scaled("surrogate", [0.5, 0.8], log_snr=[-1.0, 1.0]),
        "reverse, one by one": ps.Jacobian("reverse"),
        "reverse, 4 at once (vmap)": ps.Jacobian("reverse", batch=4),
        "forward, one by one": ps.Jacobian("forward", batch=1),
        "forward, 4 at once": ps.Jacobian("forward"),
        "differences, one by one": ps.Jacobian("differences", batch=1),
        "differences, 4 at once": ps.Jacobian("differences"),
    }
    return {k: v for k, v in all_of.items() if not quick or "one by one" not in k}


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of a call that has been made once before: on one thread, what else runs counts little."""
    call()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return statistics.median(found)


def cost(quick: bool) -> str:
    """Passes and seconds of one joint denoising of a pair, relative to the denoiser's mean alone."""
    repeats, own = (1 if quick else 3), network()
    noisy = {k: torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(k)) for k in (0, 1)}
    plain = seconds(lambda: [own.denoise(x, LEVEL) for x in noisy.values()], 5 * repeats)
    counts = FEATURES
    rows: list[list[object]] = [["posterior covariance", *(f"r = {r}" for r in counts)]]
    for title, kind in kinds(quick).items():
        row: list[object] = [title]
        for r in counts:
            graph = ps.chain_graph(2, SHAPE, ps.Correlation(0.5), features=lambda s, r=r: ps.DCT(s, r))
            joint = ps.JointDenoiser(graph, kind)
            asked = joint.posterior_covariance.denoiser(own)

            def step(joint: ps.JointDenoiser = joint, asked: ps.Denoiser = asked) -> object:
                if not joint.needs_covariance:
                    return joint(noisy, {k: own.denoise(x, LEVEL) for k, x in noisy.items()}, LEVEL)
                told = {
                    k: asked.posterior(x, LEVEL, features=joint.needs_covariance[k]) for k, x in noisy.items()
                }
                covariances = {k: t.covariance for k, t in told.items()}
                return joint(noisy, {k: t.mean for k, t in told.items()}, LEVEL, covariances)

            row.append(f"{seconds(step, repeats) / plain:.1f}")
        rows.append(row)
    return (
        f"CPU time of one step of two trajectories of {SHAPE}, U-Net of diffusers, batch 1, in units of the step\n"
        f"without covariances ({1e3 * plain:.0f} ms):\n\n" + table(rows)
    )


def mixture() -> tuple[torch.Tensor, ps.Denoiser]:
    """Means of six smooth modes of 8 x 8 numbers, and the denoiser of the modes with a covariance each."""
    generator = torch.Generator().manual_seed(0)
    rows = ps.DCT((1, 8, 8), 16).rows
    means = torch.randn(6, 16, generator=generator, dtype=torch.float64) @ rows
    roots = torch.randn(6, 64, 16, generator=generator, dtype=torch.float64) / 8
    covariances = roots @ roots.mT + 0.02 * torch.eye(64)
    means = means.reshape(6, 1, 8, 8)
    return means, ps.MixtureDenoiser([1 / 6] * 6, means, covariances)


def quality(quick: bool) -> str:
    """Relative Frobenius error of derivatives in float32 against the mixture's own covariance."""
    (means, own), features = mixture(), ps.DCT((1, 8, 8), 12)
    generator = torch.Generator().manual_seed(1)
    modes = torch.randint(6, (50 if quick else 500,), generator=generator)
    noise = torch.randn(len(modes), 1, 8, 8, generator=generator, dtype=torch.float64)
    found: dict[str, list[float]] = {}
    for sigma in SIGMAS:
        level = ps.NoiseLevel((1 - sigma**2) ** 0.5, sigma)
        noisy = level.alpha * means[modes] + level.sigma * noise
        told = own.posterior(noisy, level, features=features).covariance
        size = torch.linalg.matrix_norm(told)
        jacobians = {"reverse": ps.JacobianDenoiser(own)}
        jacobians |= {f"step {step:g}": ps.JacobianDenoiser(own, "differences", step) for step in STEPS}
        for title, denoiser in jacobians.items():
            got = denoiser.posterior(noisy.float(), level, features=features).covariance.double()
            found.setdefault(title, []).append((torch.linalg.matrix_norm(got - told) / size).mean().item())
    rows: list[list[object]] = [["derivative", *(f"sigma = {s:g}" for s in SIGMAS), "worst"]]
    rows += [[title, *(f"{e:.1e}" for e in errors), f"{max(errors):.1e}"] for title, errors in found.items()]
    return (
        "Mean relative Frobenius error in float32, 12 features of a mixture of six Gaussians of 8 x 8 numbers,\n"
        "variance preserving; steps in units of sigma:\n\n" + table(rows)
    )


def build(quick: bool) -> str:
    return quality(quick) + "\n\n" + cost(quick)


if __name__ == "__main__":
    main("posterior_covariance", build)
