"""CLIP: what pictures and texts have in common, by a checkpoint of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ShapeError
from ..extras import optional
from ..inspection.images import picture as as_image
from .features import AT_ONCE


class Clip:
    """Embeddings of pictures and of texts by CLIP, of unit length, so that products are cosines.

    `model` is a ``CLIPModel`` of transformers, `tokenizer` and `processor` are its ``CLIPTokenizer`` and
    ``CLIPImageProcessor``; `Clip.load` takes all three from a checkpoint. Called with pictures it is a feature network
    for `kernel_distance`, `frechet_distance` and the others; with `embedding_alignment` its embeddings give the CLIP
    score, with `alignment` and `concealment` (temperature .01) those of [Geng2024]_::

        clip = Clip.load("openai/clip-vit-base-patch32")
        embedding_alignment(clip(pictures), clip.texts(["a red mug"] * len(pictures)))

    A small one with random weights, for pictures alone:

    >>> from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel
    >>> small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> config = CLIPConfig(
    ...     text_config=small, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=4)
    >>> size = {"height": 16, "width": 16}
    >>> clip = Clip(CLIPModel(config), None, CLIPImageProcessor(size=size, crop_size=size))
    >>> clip(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 4])
    """

    def __init__(self, model: Any, tokenizer: Any, processor: Any):
        self.model, self.tokenizer, self.processor = model.eval(), tokenizer, processor

    @staticmethod
    def load(name: str, device: torch.device | str = "cpu") -> Clip:
        """From the checkpoint `name`, or a folder, on `device`. Raises MissingPackageError without transformers."""
        hub = optional("transformers", "CLIP needs", "pipelines")
        parts = (hub.CLIPModel, hub.CLIPTokenizer, hub.CLIPImageProcessor)
        model, tokenizer, processor = (part.from_pretrained(name) for part in parts)
        return Clip(model.to(device), tokenizer, processor)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Embeddings ``(n, d)`` of `pictures` ``(n, 3, H, W)`` in [-1, 1], as files would hold them.

        The shorter side is resized, and the middle of the longer one taken, as the processor does. Raises ShapeError.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ShapeError(f"pictures are (n, 3, height, width), not {tuple(pictures.shape)}")
        rows = []
        for part in pictures.split(AT_ONCE):
            images = [as_image(shown.float().cpu() / 2 + 0.5) for shown in part]
            values = self.processor(images=images, return_tensors="pt")["pixel_values"]
            seen = self.model.vision_model(pixel_values=values.to(self.model.device, self.model.dtype))
            rows.append(normalize(self.model.visual_projection(seen.pooler_output).float(), dim=-1))
        return torch.cat(rows).to(pictures.device)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings ``(n, d)`` of `prompts`, cut to the length that the model reads; equal ones are read once."""
        place = {prompt: k for k, prompt in enumerate(dict.fromkeys(prompts))}
        given = self.tokenizer(list(place), padding=True, truncation=True, return_tensors="pt")
        read = self.model.text_model(**given.to(self.model.device))
        found = normalize(self.model.text_projection(read.pooler_output).float(), dim=-1)
        return found[[place[prompt] for prompt in prompts]]
