"""
The whole method in one file
============================

Equations 1 to 9, 11, 12 and 14 of the theory in plain torch, under their own names: potentials, their fit to data, the
joint mean by messages, the DDIM loop, averaging as a special case. Read it from top to bottom; change it; run it with
``python examples/minisync.py``. ``tests/test_minisync.py`` holds it against the library, which does the same for any
graph, shapes and scheduler. N trajectories have D numbers each; contents are tensors (n, N, D) of n joint samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Blocks = dict[tuple[int, int], Tensor]  # (i, j) -> (..., D, D), the blocks of a matrix that are not zero


def apply(matrix: Tensor, vectors: Tensor) -> Tensor:
    """(D, D) or (n, D, D) times every one of (n, D)."""
    return (matrix @ vectors[..., None])[..., 0]


# ---- The model: p(x_0) ~ prod_i p_i(x_0^i) * g(x_0) / prod_i g_i(x_0^i)  (Eq. 1) ----------------------------------
# Denoisers know the p_i; of the Gaussian g only the dependence counts, since its marginals g_i are divided out.
class Gaussian(NamedTuple):  # g, on a tree
    mu: Tensor  # (N, D)
    Sigma_ii: Tensor  # (N, D, D), of the marginals g_i
    Sigma_pair: Blocks  # (i, j) -> (2D, 2D), of both ends of an edge

    @property
    def K(self) -> Blocks:
        """Precision of g / prod_i g_i: a factor per edge, nothing elsewhere (Eq. 2)."""
        D = self.mu.shape[1]
        K = {(i, i): torch.zeros_like(own) for i, own in enumerate(self.Sigma_ii)}
        for (i, j), pair in self.Sigma_pair.items():
            factor = edge_factor(pair)
            K[i, i], K[j, j] = K[i, i] + factor[:D, :D], K[j, j] + factor[D:, D:]
            K[i, j], K[j, i] = factor[:D, D:], factor[D:, :D]
        return K


def edge_factor(Sigma_pair: Tensor) -> Tensor:
    """Precision of g_ij / (g_i g_j) (Eq. 2); of unit variances: [[rho^2, -rho], [-rho, rho^2]] / (1 - rho^2)."""
    D = len(Sigma_pair) // 2
    own = torch.block_diag(Sigma_pair[:D, :D], Sigma_pair[D:, D:])
    return torch.linalg.inv(Sigma_pair) - torch.linalg.inv(own)


def mutual_information(Sigma_pair: Tensor) -> float:
    """Of the two ends of an edge, in nats (Eq. 3); of one number each: -log(1 - rho^2) / 2."""
    D = len(Sigma_pair) // 2
    own, other, both = (torch.logdet(S).item() for S in (Sigma_pair[:D, :D], Sigma_pair[D:, D:], Sigma_pair))
    return (own + other - both) / 2


def fit(x_0: Tensor, edges: Sequence[tuple[int, int]], shrinkage: float = 0.0) -> Gaussian:
    """g by moments of joint clean samples (n, N, D) (Eq. 14).

    On a tree, the most likely g has the moments of the data on every edge. `shrinkage` is taken off all correlations.
    """
    n, N, D = x_0.shape
    assert len(edges) == N - 1, "the edges of a tree; ps.fit takes any graph"
    mu = x_0.mean(0)
    centred = (x_0 - mu).reshape(n, N * D)
    covariance = centred.T @ centred / n
    covariance = (1 - shrinkage) * covariance + shrinkage * covariance.diagonal().diag()
    Sigma = covariance.reshape(N, D, N, D)
    pairs = {(i, j): Sigma[[i, j]][:, :, [i, j]].reshape(2 * D, 2 * D) for i, j in edges}
    return Gaussian(mu, Sigma.diagonal(dim1=0, dim2=2).movedim(-1, 0), pairs)


# ---- Inference: what the joint model expects of all contents, given what every denoiser says of its own -----------


def posterior_covariance(denoise: Callable[[Tensor], Tensor], x_t: Tensor, alpha: float, sigma: float) -> Tensor:
    """C_i = (sigma^2 / alpha) dm_i / dx_t^i, (n, N, D, D), by second-order Tweedie (Eq. 4)."""
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: denoise(x[None])[0]))(x_t)  # (n, N, D, N, D)
    return sigma**2 / alpha * jacobian.diagonal(dim1=1, dim2=3).movedim(-1, 1)


def joint_mean(g: Gaussian, m: Tensor, snr: float, C: Tensor | None = None) -> Tensor:
    """m^joint (n, N, D) from the denoised contents m (n, N, D), snr = alpha^2 / sigma^2 (Eq. 5 and 6).

    Without covariances C (Eq. 4), those of Gaussian denoisers, C_i^-1 = Sigma_ii^-1 + snr: then Lambda is positive
    definite (Eq. 8), and if the p_i are Gaussian, m^joint is exact (Eq. 9).
    """
    N, D = g.mu.shape
    own = torch.linalg.inv(g.Sigma_ii) + snr * torch.eye(D, dtype=m.dtype)
    C_inverse = [own[i] if C is None else torch.linalg.inv(C[:, i]) for i in range(N)]
    Lambda = {(i, j): block + C_inverse[i] if i == j else block for (i, j), block in g.K.items()}
    eta = [apply(C_inverse[i], m[:, i]) for i in range(N)]
    for (i, j), block in g.K.items():
        eta[i] = eta[i] + block @ g.mu[j]
    return torch.stack(solve(Lambda, eta), 1)


def solve(Lambda: Blocks, eta: list[Tensor]) -> list[Tensor]:
    """Lambda^-1 eta by messages (Eq. 6): one sweep forward, one back.

    Each node tells its later neighbours what it knows: on a chain, belief propagation; on loops, elimination.
    """
    Lambda, eta, nodes = dict(Lambda), list(eta), range(len(eta))
    later = {}
    for i in nodes:
        later[i] = [j for j in nodes if j > i and (i, j) in Lambda]
        for j in later[i]:
            gain = Lambda[j, i] @ torch.linalg.inv(Lambda[i, i])
            eta[j] = eta[j] - apply(gain, eta[i])  # the message of i to j
            for k in later[i]:
                Lambda[j, k] = Lambda.get((j, k), 0) - gain @ Lambda[i, k]
    mean = list(eta)
    for i in reversed(nodes):
        right = eta[i] - sum(apply(Lambda[i, j], mean[j]) for j in later[i])
        mean[i] = apply(torch.linalg.inv(Lambda[i, i]), right)
    return mean


# ---- Sampling: the joint mean in the place of the denoised contents, nothing else changes -------------------------


def ddim(denoised: Callable[[Tensor, float, float], Tensor], x: Tensor, alpha_bar: Tensor) -> Tensor:
    """Samples by DDIM from normal noise x, alpha_bar (steps + 1,) rising to 1; `denoised` gives m or m^joint."""
    for now, then in zip(alpha_bar[:-1].tolist(), alpha_bar[1:].tolist(), strict=True):
        alpha, sigma = now**0.5, (1 - now) ** 0.5
        mean = denoised(x, alpha, sigma)
        epsilon = (x - alpha * mean) / sigma  # which is -sigma times the joint score (Eq. 7)
        x = then**0.5 * mean + (1 - then) ** 0.5 * epsilon
    return x


def schedule(steps: int) -> Tensor:
    """alpha_bar of `steps` evenly spaced levels of the linear schedule with 1000 betas, and 1."""
    alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    return torch.cat([alpha_bar[torch.arange(steps).flip(0) * (1000 // steps)], torch.ones(1, dtype=torch.float64)])


# ---- Shared content: windows A_i z of one canvas z (n, W), weights so that sum_i A_i' w_i A_i = I ------------------


def canvas_mean(
    m: Tensor, z_t: Tensor, starts: Sequence[int], alpha: float, sigma: float, Sigma: Tensor | None = None
) -> Tensor:
    """Denoised canvas (n, W) from denoised windows m (n, N, D) that start at `starts` (Eq. 11).

    Without a Gaussian N(0, Sigma) of the canvas, the average of all windows at an element (Eq. 12). For Sigma = I
    Eq. 11 says the same: averaging is the model "no correlation beyond the shared elements".
    """
    z_hat = torch.zeros_like(z_t) if Sigma is None else gaussian_mean(z_t, Sigma, alpha, sigma)  # m^g
    D = m.shape[-1]
    count = torch.cat([torch.arange(s, s + D) for s in starts]).bincount()
    for i, view in enumerate(slice(s, s + D) for s in starts):
        m_g = 0.0 if Sigma is None else gaussian_mean(z_t[:, view], Sigma[view, view], alpha, sigma)  # m_i^g
        z_hat[:, view] += (m[:, i] - m_g) / count[view]
    return z_hat


def gaussian_mean(x_t: Tensor, Sigma: Tensor, alpha: float, sigma: float, mu: float | Tensor = 0.0) -> Tensor:
    """E[x_0 | x_t] of N(mu, Sigma): the denoiser of a Gaussian, for (n, D) states."""
    noisy = alpha**2 * Sigma + sigma**2 * torch.eye(len(Sigma), dtype=Sigma.dtype)
    return mu + (x_t - alpha * mu) @ torch.linalg.solve(noisy, alpha * Sigma)


def main() -> None:
    torch.manual_seed(0)
    N, D, index = 4, 3, torch.arange(12)  # a random curve of 12 points in four pieces; neighbours correlate by .9
    truth = 0.9 ** (index[:, None] - index).abs().double()
    x_0 = torch.randn(5000, 12, dtype=torch.float64) @ torch.linalg.cholesky(truth).T
    g = fit(x_0.reshape(-1, N, D), [(0, 1), (1, 2), (2, 3)])
    for (i, j), pair in g.Sigma_pair.items():
        print(f"edge {i}-{j}: {mutual_information(pair):.3f} nats, {-math.log(1 - 0.9**2) / 2:.3f} in truth")

    def own(x_t: Tensor, alpha: float, sigma: float) -> Tensor:  # every denoiser knows its own piece
        means = [gaussian_mean(x_t[:, i], g.Sigma_ii[i], alpha, sigma, g.mu[i]) for i in range(N)]
        return torch.stack(means, 1)

    def joint(x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        return joint_mean(g, own(x_t, alpha, sigma), alpha**2 / sigma**2)

    def canvas(z_t: Tensor, alpha: float, sigma: float, Sigma: Tensor | None = None) -> Tensor:
        starts, size = [0, 3, 6], 6  # windows of six points, every one but the outer ones seen twice
        m = [gaussian_mean(z_t[:, s : s + size], truth[:size, :size], alpha, sigma) for s in starts]
        return canvas_mean(torch.stack(m, 1), z_t, starts, alpha, sigma, Sigma)

    noise = torch.randn(4000, 12, dtype=torch.float64)
    methods = {"independent": own, "joint (Eq. 6)": joint, "averaging (Eq. 12)": canvas}
    methods["canvas (Eq. 11)"] = lambda *state: canvas(*state, truth)
    for name, denoised in methods.items():
        x = ddim(denoised, noise.reshape(-1, N, D) if denoised in (own, joint) else noise, schedule(100))
        R = torch.corrcoef(x.reshape(-1, 12).T)
        print(f"{name:>18}: neighbours {R[2, 3]:+.2f} ({truth[2, 3]:.2f}), ends {R[0, -1]:+.2f} ({truth[0, -1]:.2f})")
    assert abs(R[0, -1] - truth[0, -1]) < 0.06  # by Eq. 11


if __name__ == "__main__":
    main()
