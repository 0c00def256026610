"""A small convolutional classifier of pictures: what class is it, and features to compare distributions by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import SavedFileError, ShapeError

WIDTHS = (32, 64, 96, 128)
GROUPS = 8


class Classifier(nn.Module):
    """Logits and features of pictures ``(n, *shape)`` in [-1, 1].

    Four convolutions, each after the first halving the picture, group normalisation, and the mean over what is left:
    that mean is the feature vector, 128 numbers, and the logits are linear in it. `shape` is ``(C, H, W)``, `classes`
    names the logits, `widths` are the channels of the four.

    >>> network = Classifier((1, 32, 32), classes=("even", "odd"))
    >>> network(torch.zeros(5, 1, 32, 32)).shape, network.features(torch.zeros(5, 1, 32, 32)).shape
    (torch.Size([5, 2]), torch.Size([5, 128]))
    """

    def __init__(self, shape: tuple[int, int, int], classes: tuple[str, ...], widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        self.shape, self.classes, self.widths = tuple(shape), tuple(classes), tuple(widths)
        layers: list[nn.Module] = []
        for k, (before, after) in enumerate(zip((shape[0], *widths), widths, strict=False)):
            layers += [nn.Conv2d(before, after, 3, stride=1 if k == 0 else 2, padding=1)]
            layers += [nn.GroupNorm(GROUPS, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], len(classes))

    def maps(self, pictures: Tensor) -> list[Tensor]:  # (n, *shape) -> (n, C_l, H_l, W_l) of every layer
        """The maps of all four layers, after their activation. Raises ShapeError."""
        if tuple(pictures.shape[1:]) != self.shape:
            raise ShapeError(
                f"the classifier takes (n, {', '.join(map(str, self.shape))}), got {tuple(pictures.shape)}",
                shape=self.shape,
            )
        found, current = [], pictures.to(self.head.weight.dtype)
        for k, layer in enumerate(self.layers):
            current = layer(current)
            if k % 3 == 2:  # convolution, normalisation, activation
                found.append(current)
        return found

    def features(self, pictures: Tensor) -> Tensor:  # (n, *shape) -> (n, 128)
        """The last layer before the logits. Raises ShapeError."""
        return self.maps(pictures)[-1].mean((2, 3))

    def forward(self, pictures: Tensor) -> Tensor:  # (n, *shape) -> (n, classes)
        """Logits. Raises ShapeError."""
        output: Tensor = self.head(self.features(pictures))
        return output

    def save(self, path: Path) -> None:
        """Write float16 weights to `path`."""
        weights = {key: value.half().contiguous() for key, value in self.state_dict().items()}
        about = {name: json.dumps(getattr(self, name)) for name in ("shape", "classes", "widths")}
        save_file(weights, path, metadata=about)

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Read a classifier saved at `path`, in float32 and without gradients of its weights. Raises SavedFileError."""
        try:
            with safe_open(path, "pt") as file:
                about: dict[str, Any] = {key: json.loads(value) for key, value in file.metadata().items()}
                weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
            classifier = cls(tuple(about["shape"]), tuple(about["classes"]), tuple(about["widths"]))
            classifier.load_state_dict(weights)
        except (OSError, KeyError, ValueError, RuntimeError, AttributeError, SafetensorError) as error:
            raise SavedFileError(f"{path} holds no classifier: {error}", path=str(path)) from error
        return classifier.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(classifier: Classifier, pictures: Tensor, labels: Tensor) -> float:
    """The share of pictures whose largest logit is their label's."""
    hits = [classifier(x).argmax(1) == y for x, y in zip(pictures.split(256), labels.split(256), strict=True)]
    return float(torch.cat(hits).double().mean())
