"""Telling what a picture shows: classifiers, for measures of prompts and for features to compare pictures by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .. import zoo
from ..evaluation import Clip, mean
from ..zoo.classifier import Classifier
from .base import Measure, Results

Part = tuple[Tensor, Sequence[str]]  # pictures (n, 3, H, W) in [-1, 1], and what each should show


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


def load_clip(clip: str | Clip | None, device: str) -> Clip | None:
    """A task's setting `clip`: the name of a checkpoint, read once, or what it is already."""
    return _loaded(clip, device) if isinstance(clip, str) else clip


@cache
def _loaded(name: str, device: str) -> Clip:
    return Clip.load(name, device)


def clip_score(
    clip: str | Clip | None, device: str, parts: Callable[[Results], Sequence[Part]]
) -> list[Measure]:
    """How well `parts` of results, windows or regions, show their prompts, as CLIP sees it; nothing without a CLIP."""
    reader = load_clip(clip, device)
    if reader is None:
        return []

    def cosines(results: Results) -> Tensor:  # (n)
        found = [(reader(shown) * reader.texts(prompts).to(shown)).sum(-1) for shown, prompts in parts(results)]
        return torch.stack(found, 1).mean(1)

    return [
        Measure(
            "CLIP", "cosine of CLIP's embeddings of a part and of its prompt, mean over parts; 1 is best", "higher",
            lambda r: mean(cosines(r)),
        )
    ]  # fmt: skip
