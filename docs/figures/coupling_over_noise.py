"""How a pair uses both noisy states, over the noise level."""

import matplotlib.pyplot as plt
import torch

import pgm_sync as ps
from pgm_sync.score import JointDenoiser

rho = 0.8
pair = JointDenoiser(ps.chain_graph(2, shape=1, potential=ps.Correlation(rho)))
snrs = torch.logspace(-3, 3, 60, dtype=torch.float64)
weights = []
for snr in snrs.tolist():
    level = ps.NoiseLevel(alpha=1.0, sigma=snr**-0.5)
    noisy = {0: torch.eye(2, dtype=torch.float64)[:, :1], 1: torch.eye(2, dtype=torch.float64)[:, 1:]}
    own = {name: x * snr / (1 + snr) for name, x in noisy.items()}
    weights.append(pair(noisy, own, level).mean[0].flatten())
weights = torch.stack(weights)

figure, axis = plt.subplots(figsize=(5.2, 2.8))
axis.semilogx(snrs, weights[:, 0], label="own state, $a$")
axis.semilogx(snrs, weights[:, 1], label="other state, $b$")
axis.semilogx(snrs, snrs / (1 + snrs), "--", color="C3", lw=1.2, label="own state, independent")
axis.set(xlabel="snr", ylabel="weight")
axis.legend()
