"""Denoisers that are networks, kept as diffusers keeps them: a folder with a config, weights and a noise schedule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..denoisers import DiffusersDenoiser
from ..denoisers.checks import check_noisy
from ..errors import ParameterError, SavedFileError, UnknownNameError, listed
from ..levels import NoiseLevel, expand, normalised
from .classifier import Classifier
from .recipes import wrapped

MODELS = Path(__file__).with_name("models")
DESCRIPTION = "denoiser.json"  # classes, shape, squeeze: what diffusers' config does not hold
CLASSIFIER = "classifier.safetensors"
NORMALISED = 1e-6  # relative; schedulers keep alpha^2 + sigma^2 at 1 up to float32 rounding
WHOLE = 1e-2  # of a timestep; the same rounding


class TrainedDenoiser(DiffusersDenoiser):
    """A network of the zoo as a denoiser, for any scheduler; `zoo.load` makes one.

    A condition is a class, its position in `classes`, or ``(*batch)`` of them; None is the null class, of contents of
    any kind, which is also what ``GuidedDenoiser(denoiser, scale)`` guides away from. The network (`model`, of contents
    of `shape`) knows noise levels by its own timesteps, which follow from the signal-to-noise ratio by its
    `alphas_cumprod`; coordinates may be variance preserving, variance exploding or flow, and the timesteps of the level
    are not looked at.

    Raises ParameterError on a class that there is not.

    >>> from pgm_sync import zoo
    >>> denoiser = zoo.load("motion-unet")
    >>> denoiser.classes, denoiser.denoise(torch.zeros(2, 4, 32), NoiseLevel(alpha=0.8, sigma=0.6), condition=1).shape
    (('slow', 'fast', 'mixed', 'wild'), torch.Size([2, 4, 32]))
    """

    def __init__(self, model: Any, shape: tuple[int, ...], classes: tuple[str, ...], alphas_cumprod: Tensor):
        super().__init__(model, shape, "v_prediction")
        self.classes = classes
        self._log_snr = torch.logit(alphas_cumprod.double()).flip(0)  # rising

    @property
    def conditions(self) -> list[int]:
        """The classes that a condition may name."""
        return list(range(len(self.classes)))

    def predict(self, noisy: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        """The predicted velocity of `noisy`, scaled to be variance preserving."""
        check_noisy(self, noisy)
        labels = torch.as_tensor(len(self.classes) if condition is None else condition)
        null = len(self.classes)  # a condition too, so that batches may mix it with classes
        if labels.is_floating_point() or (labels.numel() and not 0 <= labels.min() <= labels.max() <= null):
            raise ParameterError(
                f"a condition is a class, an integer from 0 to {null - 1} ({listed(self.classes)}), or None, "
                f"got {condition!r}"
            )
        preserving, scale = normalised(level)
        if isinstance(scale, Tensor) or abs(scale - 1) > NORMALISED:
            noisy = noisy / expand(scale, noisy, len(self.shape))
        own = NoiseLevel(preserving.alpha, preserving.sigma, self.timesteps(level))
        return super().predict(noisy, own, labels)

    def timesteps(self, level: NoiseLevel) -> Tensor:  # () or (*batch)
        """Where in the network's schedule a level is, between 0 and 999; between two timesteps by log-snr."""
        snr = torch.as_tensor(level.snr, dtype=torch.float64).cpu()
        log_snr = snr.log().clamp(float(self._log_snr[0]), float(self._log_snr[-1]))
        above = torch.searchsorted(self._log_snr, log_snr.reshape(-1)).clamp(1, len(self._log_snr) - 1)
        low, high = self._log_snr[above - 1], self._log_snr[above]
        position = above - 1 + (log_snr.reshape(-1) - low) / (high - low)
        position = len(self._log_snr) - 1 - position
        whole = position.round()
        position = torch.where((position - whole).abs() < WHOLE, whole, position)
        return position.reshape(snr.shape).float()


def trained_names() -> list[str]:
    """The folders of trained denoisers."""
    return sorted(folder.parent.name for folder in MODELS.glob(f"*/{DESCRIPTION}"))


def load_denoiser(folder: Path) -> TrainedDenoiser:
    """The denoiser of a folder, in float32, on the CPU. Raises SavedFileError where a file is missing or damaged."""
    description = describe(folder)
    network = load_network(folder)
    model = wrapped(network, len(description["classes"]), description["squeeze"]).eval().requires_grad_(False)
    alphas = load_scheduler(folder).alphas_cumprod
    return TrainedDenoiser(model, tuple(description["shape"]), tuple(description["classes"]), alphas)


def load_network(folder: Path) -> Any:
    """The network of diffusers, in float32. Raises SavedFileError."""
    import diffusers

    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
        # float16 in the file; sums over thousands of numbers want more
        return getattr(diffusers, kind).from_pretrained(
            folder, torch_dtype=torch.float32, low_cpu_mem_usage=False, local_files_only=True
        )
    except (OSError, KeyError, AttributeError, ValueError) as error:
        raise SavedFileError(f"cannot read the network in {folder}: {error}", path=str(folder)) from error


def load_scheduler(folder: Path) -> Any:
    """A fresh DDIM scheduler with the noise schedule that the network was trained on. Raises SavedFileError."""
    from diffusers import DDIMScheduler

    try:
        return DDIMScheduler.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise SavedFileError(f"cannot read the noise schedule in {folder}: {error}", path=str(folder)) from error


def load_classifier(folder: Path) -> Classifier:
    """The classifier of the same data. Raises UnknownNameError where there is none, SavedFileError."""
    path = folder / CLASSIFIER
    if not path.exists():
        raise UnknownNameError(f"{folder.name!r} has no classifier", name=folder.name)
    return Classifier.load(path)


def describe(folder: Path) -> dict[str, Any]:
    """Classes, shape and squeeze of a folder. Raises SavedFileError."""
    try:
        description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        missing = {"classes", "shape", "squeeze"} - set(description)
    except (OSError, ValueError) as error:
        raise SavedFileError(f"cannot read {folder / DESCRIPTION}: {error}", path=str(folder)) from error
    if missing:
        raise SavedFileError(f"{folder / DESCRIPTION} lacks {', '.join(sorted(missing))}", path=str(folder))
    return description
