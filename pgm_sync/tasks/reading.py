"""Telling what a picture shows: a small classifier, for measures of prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


def pixel_classifier(pixels: Tensor | np.ndarray, labels: Tensor) -> Any:  # (n, d), (n)
    """Principal components, their products, and logistic regression on them: a fitted scikit-learn pipeline."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    return make_pipeline(
        PCA(16, whiten=True, random_state=0), PolynomialFeatures(2), StandardScaler(),
        LogisticRegression(C=0.1, max_iter=300),
    ).fit(np.asarray(pixels, dtype=np.float64), labels.numpy())  # fmt: skip
