"""Telling what a picture shows: classifiers, for measures of prompts and for features to compare pictures by."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from .. import zoo
from ..zoo.classifier import Classifier


@cache
def _network() -> Classifier:
    return zoo.classifier("photo-unet")


def _fitting(pictures: Tensor) -> Tensor:  # (n, 3, H, W) -> (n, 3, 32, 32)
    return interpolate(pictures, _network().shape[1:], mode="bilinear", antialias=True, align_corners=False)


def photo_features(pictures: Tensor) -> Tensor:  # (n, 3, H, W) in [-1, 1] -> (n, 128)
    """What the embedded classifier of photographs makes of pictures of any size: what KID is measured with here."""
    return _network().features(_fitting(pictures))


def photo_maps(pictures: Tensor) -> list[Tensor]:  # (n, 3, H, W) in [-1, 1] -> (n, C_l, H_l, W_l)
    """Its maps, layer by layer: what perceptual distances are measured with."""
    return _network().maps(_fitting(pictures))


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
