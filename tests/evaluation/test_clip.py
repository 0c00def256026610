"""CLIP with random weights, against the similarity that transformers' own model returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pgm_sync.errors import ShapeError
from pgm_sync.evaluation import Clip, embedding_alignment, kernel_distance


def test_products_of_embeddings_are_the_similarities_of_the_model(clip):
    pictures = torch.rand(3, 3, 20, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    prompts = ["a mug", "two red mugs"]
    images = [
        Image.fromarray((p.permute(1, 2, 0) * 127.5 + 127.5).round().byte().numpy()) for p in pictures
    ]
    given = clip.tokenizer(prompts, padding=True, return_tensors="pt")
    pixels = clip.processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        stock = clip.model(**given, pixel_values=pixels)
    cosines = stock.logits_per_image / clip.model.logit_scale.exp()
    assert torch.allclose(clip(pictures) @ clip.texts(prompts).T, cosines, atol=1e-5)
    assert cosines.std() > 0.01

    found = embedding_alignment(clip(pictures), clip.texts(prompts[:1])[0])
    assert found.value == pytest.approx(cosines[:, 0].mean().item(), abs=1e-5)


def test_features_of_pictures(clip):
    draws = torch.Generator().manual_seed(0)
    dark, bright = (torch.rand(40, 3, 16, 16, generator=draws) * 0.2 + shift for shift in (-0.9, 0.7))
    near = kernel_distance(dark[:20], dark[20:], clip, draws=50)
    far = kernel_distance(dark[:20], bright[:20], clip, draws=50)
    assert far.value > near.high
    with pytest.raises(ShapeError, match=r"not \(2, 1, 8, 8\)"):
        clip(torch.zeros(2, 1, 8, 8))


def test_a_checkpoint_is_read(clip, tmp_path):
    for part in (clip.model, clip.tokenizer, clip.processor):
        part.save_pretrained(tmp_path)
    again = Clip.load(str(tmp_path))
    long = "a " * 300
    assert torch.equal(again.texts([long, "mug"]), clip.texts([long, "mug"]))
    pictures = torch.from_numpy(np.linspace(-1, 1, 3 * 64).reshape(1, 3, 8, 8)).float()
    assert torch.allclose(again(pictures), clip(pictures), atol=1e-6)
