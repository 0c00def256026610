"""diffusers' networks as the zoo calls them: ``network(sample, timestep, class_labels=labels).sample``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pixel_shuffle, pixel_unshuffle


class Squeezed(nn.Module):
    """A network of images that sees ``factor x factor`` pixels as channels of one: ``factor^2`` times fewer positions.

    Most of a U-Net's time goes into its finest grid, where small pictures hold little to attend to.
    """

    def __init__(self, network: Any, factor: int):
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor) -> SimpleNamespace:
        if not len(sample):
            return SimpleNamespace(sample=sample)  # an empty batch, which pixel_unshuffle does not take
        squeezed = pixel_unshuffle(sample, self.factor).contiguous(memory_format=torch.channels_last)
        output = self.network(squeezed, timestep, class_labels=class_labels, return_dict=False)[0]
        return SimpleNamespace(sample=pixel_shuffle(output, self.factor))


class LabelChannels(nn.Module):
    """A network of sequences without conditions, given its class as one-hot channels; the null class has none."""

    def __init__(self, network: Any, classes: int):
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor) -> SimpleNamespace:
        hot = one_hot(class_labels, self.classes + 1)[:, : self.classes].to(sample)
        hot = hot[:, :, None].expand(-1, -1, sample.shape[-1])
        output = self.network(torch.cat([sample, hot], 1), timestep, return_dict=False)[0]
        return SimpleNamespace(sample=output)
