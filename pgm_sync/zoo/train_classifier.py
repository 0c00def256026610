"""Trains the classifier of a denoiser's data; `python -m pgm_sync.zoo.train NAME --classifier` calls it."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from .classifier import Classifier
from .recipes import Recipe

STEPS = 700
BATCH = 64
RATE = 2e-3
NOISE = 0.1  # largest standard deviation of noise added to a picture; the data have their own jitter
SMOOTHING = 0.1  # of labels: without it the logits of a converged classifier say little but yes and no


def train_classifier(recipe: Recipe, steps: int = STEPS, seed: int = 0, progress: bool = True) -> Classifier:
    """A classifier trained on the train split; reproducible from the seed."""
    torch.manual_seed(seed)
    channels, height, width = recipe.shape
    classifier = Classifier((channels, height, width), recipe.classes)
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    bar = tqdm(range(steps), desc=f"{recipe.name} classifier", disable=not progress, mininterval=10)
    for step in bar:
        generator = torch.Generator().manual_seed(seed + step)
        pictures, labels = recipe.draw(BATCH, "train", generator)
        amount = NOISE * torch.rand(BATCH, 1, 1, 1, generator=generator)
        pictures = pictures + amount * torch.randn(pictures.shape, generator=generator)
        loss = cross_entropy(classifier(pictures), labels, label_smoothing=SMOOTHING)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return classifier.eval().requires_grad_(False)
