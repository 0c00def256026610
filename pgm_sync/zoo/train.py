"""Trains a denoiser of the zoo: python -m pgm_sync.zoo.train NAME --minutes M --out DIR [--resume]

v-prediction (Salimans and Ho, 2022) on a cosine schedule (Nichol and Dhariwal, 2021), labels dropped one time in ten
for classifier-free guidance (Ho and Salimans, 2022), weights averaged over steps. DIR keeps a checkpoint and a log with
the held-out loss; --resume goes on from there. Where that checkpoint is gone, --start FOLDER begins with what --export
wrote, its optimiser anew. --classifier trains the classifier of the same data instead. --export FOLDER writes what was
trained as diffusers loads it, with its model card; --minutes 0 --resume does no more than that.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import ParameterError, SavedFileError
from .cards import card
from .recipes import NAMES, SCHEDULE, STEPS, Recipe, recipe
from .train_classifier import STEPS as CLASSIFIER_STEPS
from .train_classifier import train_classifier
from .trained import CLASSIFIER, DESCRIPTION

DROPPED = 0.1
WARMUP = 200  # steps
HELD_OUT = 256
HELD_OUT_SEED = 10**9  # no training step has this seed
REPORT = 2.0  # minutes between held-out losses, with a checkpoint at each


class Trainer:
    """The state of a training: weights, their average, optimiser, step, and the minutes of processor time it took."""

    def __init__(self, recipe: Recipe, seed: int = 0, compiled: bool = False):
        torch.manual_seed(seed)  # of the initial weights; every step draws from a generator of its own
        self.recipe, self.seed = recipe, seed
        self.network = recipe.build().to(memory_format=torch.channels_last).eval()
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=recipe.rate, weight_decay=0.0)
        self.step, self.minutes = 0, 0.0
        self.restarts: list[int] = []  # steps at which the optimiser was begun anew
        model = recipe.wrap(self.network)
        self.model: Any = torch.compile(model) if compiled else model
        self.alphas = cumulative_alphas()
        self.held_out = recipe.draw(HELD_OUT, "test", _generator(HELD_OUT_SEED))

    def advance(self) -> float:
        """One step of training; the loss."""
        generator = _generator(self.seed + self.step)
        clean, labels = self.recipe.draw(self.recipe.batch, "train", generator)
        n = len(clean)
        # One timestep in each of n equal parts of the schedule: less variance than n independent ones.
        timesteps = ((torch.arange(n) + torch.rand(n, generator=generator)) * (STEPS / n)).long()
        dropped = torch.rand(n, generator=generator) < DROPPED
        labels = labels.masked_fill(dropped, len(self.recipe.classes))
        loss = v_loss(self.model, clean, labels, timesteps, self.alphas, generator).mean()
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for group in self.optimiser.param_groups:
            begun = self.restarts[-1] if self.restarts else 0
            group["lr"] = self.recipe.rate * min(1.0, (self.step - begun + 1) / WARMUP)
        self.optimiser.step()
        self.step += 1
        # The average starts short, so that it forgets the random weights.
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        return float(loss.detach())

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """The training loss of the averaged weights on fixed held-out contents, noises and timesteps."""
        model, generator = self.recipe.wrap(self.average), _generator(HELD_OUT_SEED)
        clean, labels = self.held_out
        timesteps = ((torch.arange(len(clean)) + 0.5) * (STEPS / len(clean))).long()
        return float(v_loss(model, clean, labels, timesteps, self.alphas, generator).mean())

    def start(self, folder: Path) -> None:
        """Begin with the weights that `export` wrote to `folder`. Raises SavedFileError where they are not these."""
        try:
            about = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            weights = type(self.network).from_pretrained(folder).float().state_dict()
            self.network.load_state_dict(weights)
            self.average.load_state_dict(weights)
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise SavedFileError(f"{folder} has no weights of {self.recipe.name}: {error}", path=str(folder)) from error
        self.step, self.minutes = about["steps"], float(about["minutes"])
        self.restarts = [*about.get("restarts", []), self.step]

    def save(self, path: Path) -> None:
        """Write a checkpoint; a killed process leaves the old one."""
        state = {
            "name": self.recipe.name, "config": self.recipe.config, "seed": self.seed, "step": self.step,
            "minutes": self.minutes, "restarts": self.restarts, "network": self.network.state_dict(),
            "average": self.average.state_dict(), "optimiser": self.optimiser.state_dict(),
        }  # fmt: skip
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises SavedFileError where it is none of this recipe."""
        try:
            state = torch.load(path, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise SavedFileError(
                f"{path} is no checkpoint of {self.recipe.name}: {error}", path=str(path)
            ) from error
        self.seed, self.step, self.minutes = state["seed"], state["step"], state["minutes"]
        self.restarts = state.get("restarts", [])  # not in older ones


def cumulative_alphas() -> Tensor:  # (STEPS)
    """alpha_t^2 of the schedule, float64."""
    from diffusers import DDIMScheduler

    alphas: Tensor = DDIMScheduler(**SCHEDULE).alphas_cumprod.double()
    return alphas


def v_loss(
    model: Any,
    clean: Tensor,  # (n, *shape)
    labels: Tensor,  # (n)
    timesteps: Tensor,  # (n)
    alphas: Tensor,
    generator: torch.Generator,
) -> Tensor:  # (n)
    """Squared error of the predicted velocity ``alpha eps - sigma x_0``, the mean over the numbers of each sample."""
    noise = torch.randn(clean.shape, generator=generator)
    ones = (1,) * (clean.ndim - 1)
    alpha = alphas[timesteps].sqrt().float().reshape(-1, *ones)
    sigma = (1 - alphas[timesteps]).sqrt().float().reshape(-1, *ones)
    wide = "AVX512" in torch.backends.cpu.get_cpu_capability()  # without, bfloat16 takes ten times as long as float32
    with torch.autocast("cpu", torch.bfloat16, enabled=wide):
        output = model(alpha * clean + sigma * noise, timesteps, class_labels=labels).sample
    return (output.float() - (alpha * noise - sigma * clean)).square().flatten(1).mean(1)


def train(trainer: Trainer, minutes: float, folder: Path, steps: int | None = None, progress: bool = True) -> None:
    """Train until the minutes of this process's processor time, or the steps, are over.

    A checkpoint and a line in the log come every few minutes; SIGTERM ends it early, with a checkpoint.
    """
    stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True

    before = signal.signal(signal.SIGTERM, stop)
    start, at_start = time.process_time(), trainer.minutes
    reported, losses = start, []
    bar = tqdm(desc=trainer.recipe.name, initial=trainer.step, disable=not progress, mininterval=10)
    try:
        while not stopped and trainer.minutes - at_start < minutes and trainer.step != steps:
            losses.append(trainer.advance())
            bar.update()
            now = time.process_time()
            trainer.minutes = at_start + (now - start) / 60
            if now - reported > 60 * REPORT:
                reported = now
                _report(trainer, losses, folder, bar)
                losses = []
    finally:
        signal.signal(signal.SIGTERM, before)
        if losses:
            _report(trainer, losses, folder, bar)
        bar.close()


def _report(trainer: Trainer, losses: list[float], folder: Path, bar: Any) -> None:
    line = {
        "step": trainer.step,
        "minutes": round(trainer.minutes, 2),
        "train": round(sum(losses) / max(len(losses), 1), 5),
        "held_out": round(trainer.held_out_loss(), 5),
    }
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    bar.write(json.dumps(line))
    trainer.save(folder / "checkpoint.pt")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def export(trainer: Trainer, folder: Path) -> None:
    """Write the averaged weights in float16, the noise schedule and the classes: what `zoo.load` and diffusers read."""
    from diffusers import DDIMScheduler

    half = copy.deepcopy(trainer.average).half().to(memory_format=torch.contiguous_format)
    half.save_pretrained(folder)
    DDIMScheduler(**SCHEDULE).save_pretrained(folder)
    r = trainer.recipe
    about = {"classes": r.classes, "shape": r.shape, "squeeze": r.squeeze, "steps": trainer.step, "batch": r.batch}
    about |= {"restarts": trainer.restarts} if trainer.restarts else {}
    text = json.dumps({**about, "minutes": round(trainer.minutes)}, indent=1)
    (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    """Train, or go on training, one denoiser or its classifier; write it where asked."""
    parser = argparse.ArgumentParser(description="Train a denoiser of the zoo.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--minutes", type=float, default=60.0, help="of processor time")
    parser.add_argument("--steps", type=int, help="stop at this step, if the minutes last so long")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and the log")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="begin with the weights of an exported denoiser")
    parser.add_argument("--classifier", action="store_true", help="the classifier of the same data, a few minutes")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write weights, noise schedule and card here")
    parser.add_argument("--compile", action="store_true", help="torch.compile: minutes to start, then faster steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    r = recipe(options.name)
    if options.classifier:
        if len(r.shape) != 3:
            raise ParameterError(f"{r.name} is not of pictures, and the classifier is of pictures", name=r.name)
        classifier = train_classifier(r, options.steps or CLASSIFIER_STEPS, options.seed, not options.quiet)
        classifier.save((options.export or options.out) / CLASSIFIER)
        return
    checkpoint = options.out / "checkpoint.pt"
    if checkpoint.exists() and not options.resume:
        raise ParameterError(f"{checkpoint} is there already; pass --resume to go on, or another --out")
    trainer = Trainer(r, options.seed, options.compile)
    if options.resume:
        trainer.load(checkpoint)
    elif options.start:
        trainer.start(options.start)
    train(trainer, options.minutes, options.out, options.steps, not options.quiet)
    if options.export:
        options.export.mkdir(parents=True, exist_ok=True)
        export(trainer, options.export)
        text = card(r, options.export)
        (options.export / "card.md").write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
