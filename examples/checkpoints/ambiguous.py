"""One image that reads as two things, one of them upside down: DeepFloyd IF, both stages synchronised.

    python ambiguous.py "an oil painting of a duck" "an oil painting of a rabbit"

IF diffuses pixels, so that a turned state is the state of the turned image, noise included.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import pgm_sync as ps


def turned_graph(size: int, quarter_turns: int = 2) -> ps.FactorGraph:
    """An image, and a trajectory for it upright and one for it turned."""
    shape = (3, size, size)
    graph = ps.FactorGraph()
    graph.add_variable("image", shape)
    for name, view in (("upright", None), ("turned", ps.Rotate(shape, quarter_turns))):
        graph.add_trajectory(name, shape)
        graph.add_factor(f"see {name}", [name, "image"], ps.Equality(), maps=[None, view])
    return graph


def paint(pipe: Any, size: int, seed: int = 0, image: Tensor | None = None, **call: Any) -> Tensor:
    """An image ``(1, 3, size, size)`` in [-1, 1]; `call` has a row for each reading.

    With `image`, ``(1, 3, s, s)``, `pipe` is a super-resolution stage, and gets it upright and turned.
    """
    graph = turned_graph(size)
    if image is not None:
        call["image"] = torch.cat([image, image.rot90(2, (-2, -1))])
    with ps.attach(pipe, graph) as attached:
        generator = torch.Generator().manual_seed(seed)
        images = pipe(height=size, width=size, output_type="pt", generator=generator, **call).images
        return attached.samples(images)["image"].clamp(-1, 1)


def main() -> None:
    from diffusers import DiffusionPipeline

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upright")
    parser.add_argument("turned")
    parser.add_argument("--stages", nargs=2, default=("DeepFloyd/IF-I-M-v1.0", "DeepFloyd/IF-II-M-v1.0"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("ambiguous.png"))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"torch_dtype": torch.float16, "variant": "fp16"} if device == "cuda" else {}
    first = DiffusionPipeline.from_pretrained(options.stages[0], **dtype).to(device)
    embeds, negative = first.encode_prompt([options.upright, options.turned])
    prompts = {"prompt_embeds": embeds, "negative_prompt_embeds": negative, "num_inference_steps": options.steps}
    small = paint(first, 64, options.seed, **prompts)
    second = DiffusionPipeline.from_pretrained(options.stages[1], text_encoder=None, **dtype).to(device)
    image = paint(second, 256, options.seed, small, **prompts)[0]
    Image.fromarray(((image.float() + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()).save(options.out)


if __name__ == "__main__":
    main()
