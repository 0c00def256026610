"""What tasks sample with: an embedded denoiser by its name in the zoo, or a diffusers checkpoint by its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import zoo
from ..denoisers import Denoiser, DiffusersDenoiser, GuidedDenoiser
from ..denoisers.predicting import PredictingDenoiser
from ..errors import ParameterError, UnknownNameError, UnsupportedError, listed
from ..sampling import decode_latents, encode_images

LEVELS = 1000  # that a scheduler can be at
Prompt = str | None  # a class of an embedded denoiser, a text of a checkpoint; None: anything


def _as_it_is(content: Tensor) -> Tensor:
    return content


@dataclass(frozen=True)
class Model:
    """A denoiser with all that depends on what it is of: noise schedule, prompts, and the way to pictures and back."""

    name: str
    denoiser: Denoiser  # of one view, guided
    scheduler: Any
    condition: Callable[[Sequence[Prompt]], Any]  # one prompt per joint sample -> rows for the denoiser
    classes: tuple[str, ...] = ()  # the prompts that it knows; empty: any text
    decode: Callable[[Tensor], Tensor] = _as_it_is  # contents (n, *shape) -> pictures (n, C, H, W) in [-1, 1]
    encode: Callable[[Tensor], Tensor] = _as_it_is
    scale: int = 1  # pixels per element of a content
    controlled: bool = False  # conditions need a "controlnet_cond", pictures (n, 3, H, W) in [0, 1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one view."""
        return tuple(self.denoiser.shape)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of one view, of pictures."""
        height, width = self.shape[-2:]
        return height, width

    def resized(self, height: int, width: int) -> Model:
        """The same of views of another size, in pixels. Networks of convolutions take any that their layers divide.

        Raises UnsupportedError for a closed form, ParameterError for a size that is no multiple of `scale`.
        """
        if height % self.scale or width % self.scale or min(height, width) < self.scale:
            raise ParameterError(f"views of {height} x {width} pixels: {self.name} takes multiples of {self.scale}")
        shape = (*self.shape[:-2], height // self.scale, width // self.scale)
        if shape == self.shape:
            return self
        own = self.denoiser
        if not isinstance(own, PredictingDenoiser):
            raise UnsupportedError(f"a {type(own).__name__} knows contents of {own.shape} only; take a network")
        return replace(self, denoiser=_of_shape(own, shape))


def _of_shape(denoiser: PredictingDenoiser, shape: tuple[int, ...]) -> PredictingDenoiser:
    made = copy(denoiser)
    made.shape = shape
    if isinstance(made, GuidedDenoiser):
        made.denoiser = _of_shape(made.denoiser, shape)
    return made


class ControlledUNet(torch.nn.Module):
    """A `unet` of diffusers and the `controlnet` that steers it, called like a U-Net with one more `controlnet_cond`.

    Raises UnsupportedError for several ControlNets at once.
    """

    def __init__(self, unet: Any, controlnet: Any):
        super().__init__()
        if not hasattr(controlnet, "controlnet_cond_embedding"):
            raise UnsupportedError(f"{type(controlnet).__name__} is not one ControlNet; take one")
        self.unet, self.controlnet = unet, controlnet

    @property
    def config(self) -> Any:
        """The U-Net's."""
        return self.unet.config

    @property
    def dtype(self) -> torch.dtype:
        """The U-Net's."""
        found: torch.dtype = self.unet.dtype
        return found

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, controlnet_cond: Tensor) -> Any:
        """The U-Net's output with what the ControlNet adds to its blocks."""
        given = {"encoder_hidden_states": encoder_hidden_states}
        down, middle = self.controlnet(sample, timestep, controlnet_cond=controlnet_cond, return_dict=False, **given)
        return self.unet(
            sample, timestep, down_block_additional_residuals=down, mid_block_additional_residual=middle, **given
        )


def load_model(
    name: str, guidance: float = 1.0, device: torch.device | str = "cpu", control: str | None = None
) -> Model:
    """An embedded denoiser, or a Stable Diffusion checkpoint (1.x, 2.x) that diffusers' `from_pretrained` finds.

    `guidance` is the scale of classifier-free guidance; 1 is none. Closed forms of the zoo know no guidance. `control`
    is the name of a ControlNet checkpoint for the other one.

    >>> load_model("photo-patches").shape
    (3, 24, 24)

    Raises UnknownNameError for a name that is neither (a checkpoint's has a slash, or is a folder),
    UnsupportedError for another kind of pipeline, for guidance of a closed form, and for control of what is embedded.
    """
    from pathlib import Path

    if name in zoo.names():
        if control is not None:
            raise UnsupportedError(f"{name} knows no ControlNet; leave control={control!r} away, or name a checkpoint")
        return _embedded(name, guidance, device)
    if "/" not in name and not Path(name).is_dir():
        raise UnknownNameError(
            f"{name!r} is no embedded denoiser ({listed(zoo.names())}), and no checkpoint: those are called "
            "organisation/name, or lie in a folder",
            name=name,
        )
    from diffusers import ControlNetModel, DiffusionPipeline, StableDiffusionControlNetPipeline

    if control is None:
        pipe = DiffusionPipeline.from_pretrained(name)
    else:
        net = ControlNetModel.from_pretrained(control)
        pipe = StableDiffusionControlNetPipeline.from_pretrained(name, controlnet=net)
    return from_pipeline(pipe.to(device), guidance, name)


def _embedded(name: str, guidance: float, device: torch.device | str) -> Model:
    denoiser, classes = zoo.load(name), zoo.classes(name)
    network = getattr(denoiser, "model", None)
    if network is None:
        if guidance != 1:
            raise UnsupportedError(f"{name} is a closed form, whose conditions are exact; leave guidance at 1")
    else:
        network.to(device)
        assert isinstance(denoiser, PredictingDenoiser)  # what is trained predicts
        denoiser = denoiser if guidance == 1 else GuidedDenoiser(denoiser, guidance)

    def condition(prompts: Sequence[Prompt]) -> Any:
        if all(prompt is None for prompt in prompts):
            return None
        unknown = [prompt for prompt in prompts if prompt not in classes]
        if unknown:
            raise UnknownNameError(
                f"{name} knows no {unknown[0]!r}; its classes are {listed(classes, 40)}", name=unknown[0]
            )
        return torch.tensor([classes.index(str(prompt)) for prompt in prompts])

    return Model(name, denoiser, even_scheduler(), condition, classes)


def even_scheduler(low: float = -9.0, high: float = 10.0) -> Any:
    """A DDIM scheduler whose steps are even in the logarithm of the signal-to-noise ratio, from `low` to `high`.

    Embedded denoisers know every noise level, so it is free. The mean colour of a window of 24 x 24 pixels stands out
    from the noise at a signal-to-noise ratio of about 1/200, where it is decided, and where potentials tell windows of
    each other; the usual schedules with tens of steps leap over that.

    Raises ParameterError unless ``low < high``.
    """
    from diffusers import DDIMScheduler

    if not low < high:
        raise ParameterError(f"low={low} must lie below high={high}")
    kept = torch.linspace(high, low, LEVELS, dtype=torch.float64).sigmoid()  # alpha_bar
    betas = 1 - torch.cat([kept[:1], kept[1:] / kept[:-1]])
    return DDIMScheduler(
        num_train_timesteps=LEVELS, trained_betas=betas.numpy(), clip_sample=False, timestep_spacing="trailing"
    )


def from_pipeline(pipe: Any, guidance: float = 7.5, name: str = "pipeline") -> Model:
    """A Stable Diffusion pipeline, with a ControlNet or without, as a `Model` of latents.

    Raises UnsupportedError for one of another kind.
    """
    if not all(hasattr(pipe, part) for part in ("unet", "vae", "encode_prompt")) or hasattr(pipe, "text_encoder_2"):
        raise UnsupportedError(
            f"{type(pipe).__name__} is not of Stable Diffusion's kind (one text encoder, a U-Net, a VAE); take "
            "`ps.attach` with the pipeline itself, as examples/checkpoints does"
        )
    size, channels = pipe.unet.config.sample_size, pipe.unet.config.in_channels
    control = getattr(pipe, "controlnet", None)
    network = pipe.unet if control is None else ControlledUNet(pipe.unet, control)
    own = DiffusersDenoiser(network, (channels, size, size), pipe.scheduler.config.prediction_type)

    @torch.no_grad()
    def embed(prompts: Sequence[str]) -> dict[str, Tensor]:
        text, _ = pipe.encode_prompt(list(prompts), pipe.device, 1, False)
        return {"encoder_hidden_states": text}

    return Model(
        name,
        own if guidance == 1 else GuidedDenoiser(own, guidance, embed([""])),
        pipe.scheduler,
        lambda prompts: embed([prompt or "" for prompt in prompts]),
        decode=lambda latents: decode_latents(pipe.vae, latents),
        encode=lambda pictures: encode_images(pipe.vae, pictures),
        scale=pipe.vae_scale_factor,
        controlled=control is not None,
    )
