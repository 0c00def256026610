"""Correlation along a noisy chain: true, and implied by the Bethe sum."""

import matplotlib.pyplot as plt
import numpy as np

rho, steps = 0.9, np.arange(1, 11)
figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.7), sharey=True)
for axis, a in zip(axes, [0.9, 0.5], strict=True):
    covariance = a * rho ** np.abs(np.subtract.outer(np.arange(11), np.arange(11))) + (1 - a) * np.eye(11)
    # The Bethe sum: pairs' precisions minus the inner nodes' own.
    precision = np.zeros((11, 11))
    for i in range(10):
        precision[i : i + 2, i : i + 2] += np.linalg.inv(covariance[i : i + 2, i : i + 2])
    precision[range(1, 10), range(1, 10)] -= 1
    bethe = np.linalg.inv(precision)
    assert np.allclose(bethe[0, 1:], (a * rho) ** steps)
    axis.plot(steps, covariance[0, 1:], "o-", ms=3.5, label="true")
    axis.plot(steps, bethe[0, 1:], "o-", ms=3.5, label="Bethe sum")
    axis.set(title=rf"$\alpha^2 = {a}$", xlabel="steps $k$", ylim=(0, 1))
axes[0].set_ylabel("correlation")
axes[0].legend()
