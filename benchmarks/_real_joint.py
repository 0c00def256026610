"""The share closed of the gap between independent parts of real pictures and a denoiser of the whole."""

from __future__ import annotations

from _table import RESULTS, table  # first: it pins the threads

import math
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from _real_data import JointData, Split
from diffusers import DDIMScheduler
from PIL import Image, ImageDraw
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm

import pgm_sync as ps
from pgm_sync.denoisers import Denoiser
from pgm_sync.errors import ParameterError
from pgm_sync.learning.score_matching import default_levels
from pgm_sync.metrics import Estimate, energy_distance, energy_gap_closed, gap_closed

STEPS, LEVELS, C = 30, 12, 0.7
PICTURES = RESULTS.parent / "_static"
GRAIN = 1e-2  # variance added to every direction of a mixture


class Choices(NamedTuple):
    """What validation chooses from."""

    kernels: tuple[float, ...] = (0.15, 0.3)  # bandwidths
    gaussians: tuple[float, ...] = (1, 0.3)  # shares of Ledoit and Wolf's shrinkage
    mixtures: tuple[tuple[int, int], ...] = ((1, 32), (1, 96), (10, 48), (30, 24), (30, 64))  # components, rank
    pooled: tuple[float, ...] = (0.0, 0.5)  # share of the common covariance in every component's
    ranks: tuple[int, ...] = (8, 12, 16, 24, 48)  # features per trajectory
    shrinkages: tuple[str | float, ...] = ("ledoit_wolf", 0.02, 0.1)


FEW = Choices((0.15,), (1,), ((1, 32), (10, 16)), (0.5,), (8,), (0.1,))
LOOP = (("a", "b"), ("b", "d"), ("d", "c"), ("c", "a"))


class Way(NamedTuple):
    """A way to denoise and to sample together."""

    graph: str  # of the fitted ones
    options: dict[str, object]
    tilt: ps.Tilt | None = None


OWN = {"posterior_covariance": "denoiser"}
WAYS = {
    "moments, surrogate C": Way("complete", {}),
    "moments, surrogate C, c = .7": Way("complete", {"noise_correlation": C}),
    "moments, denoisers' C": Way("complete", OWN),
    "moments, denoisers' C, c = .7": Way("complete", OWN | {"noise_correlation": C}),
    "score, surrogate C": Way("score", {}),
    "asked again": Way("again", {}, ps.Tilt()),
    "asked again, c = .7": Way("again", {"noise_correlation": C}, ps.Tilt()),
    "asked again, denoisers' C": Way("again", OWN, ps.Tilt(step=0.7)),
}


def mixture(data: Tensor, components: int, rank: int, pool: float) -> Denoiser:
    """A Gaussian mixture in principal components, its covariances drawn towards their mean."""
    size = min(rank, data[0].numel(), len(data) - 1)
    found = ps.MixtureDenoiser.fit(data, components, size, reg_covar=GRAIN)
    if pool == 0 or components == 1:
        return found
    c = found.components
    covariances = (c.basis * c.variances[:, None]) @ c.basis.mT
    common = (torch.softmax(c.log_weights, 0)[:, None, None] * covariances).sum(0)
    variances, basis = torch.linalg.eigh((1 - pool) * covariances + pool * common)
    return ps.MixtureDenoiser.from_components(found.shape, c._replace(basis=basis, variances=variances.clamp_min(0)))


def gaussian(data: Tensor, share: float) -> Denoiser:
    """Shrunk by a share of the intensity of Ledoit and Wolf."""
    flat = data.flatten(1).double()
    mean = flat.mean(0)
    covariance = (flat - mean).mT @ (flat - mean) / len(flat)
    intensity = share * ledoit_wolf_shrinkage((flat - mean).numpy(), assume_centered=True)
    covariance = (1 - intensity) * covariance + intensity * covariance.diagonal().mean() * torch.eye(len(mean))
    return ps.GaussianDenoiser(mean.reshape(data.shape[1:]), covariance)


class Levelwise(Denoiser):
    """Another denoiser at every noise level, the nearest in snr."""

    has_covariance = True

    def __init__(self, denoisers: list[Denoiser], levels: list[ps.NoiseLevel]):
        self.denoisers, self.shape = denoisers, denoisers[0].shape
        self.snr = torch.tensor([float(level.snr) for level in levels]).log()

    def _at(self, level: ps.NoiseLevel) -> Denoiser:
        return self.denoisers[int((self.snr - math.log(level.snr)).abs().argmin())]

    def denoise(self, noisy: Tensor, level: ps.NoiseLevel, condition: object = None) -> Tensor:
        return self._at(level).denoise(noisy, level)

    def posterior(
        self, noisy: Tensor, level: ps.NoiseLevel, condition: object = None, features: object = None
    ) -> tuple:
        return self._at(level).posterior(noisy, level, None, features)


class Apart(Denoiser):
    """The denoisers of the parts, as one of the whole."""

    def __init__(self, data: JointData, denoisers: dict[str, Denoiser]):
        self.data, self.denoisers, self.shape = data, denoisers, tuple(data.splits[0].train.shape[1:])

    def denoise(self, noisy: Tensor, level: ps.NoiseLevel, condition: object = None) -> Tensor:
        return alone(self.data, self.denoisers, noisy, level)


def candidates(size: int, count: int, choices: Choices) -> dict[str, Callable[[Tensor], Denoiser]]:
    """By name."""
    out: dict[str, Callable[[Tensor], Denoiser]] = {}
    for share in choices.gaussians:
        out["Gaussian" + ("" if share == 1 else f" {share}")] = lambda x, s=share: gaussian(x, s)
    for bandwidth in choices.kernels:
        out[f"kernel {bandwidth}"] = lambda x, b=bandwidth: ps.EmpiricalDenoiser(x, bandwidth=b)
    for k, rank in choices.mixtures:
        if rank <= max(size, 32) and k * 10 < count:
            for pool in choices.pooled if k > 1 else (0.0,):
                name = f"mixture {k} x {min(rank, size)}" + (f", pooled {pool}" if pool else "")
                out[name] = lambda x, k=k, r=rank, p=pool: mixture(x, k, r, p)
    return out


def noised(data: Tensor, seed: int = 3) -> list[tuple[ps.NoiseLevel, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (level, level.alpha * data + level.sigma * torch.randn(data.shape, generator=generator))
        for level in default_levels(LEVELS)
    ]


def errors(data: Tensor, denoise: Callable[[Tensor, ps.NoiseLevel], Tensor]) -> Tensor:
    """Squared error ``(levels, n)``."""
    return torch.stack([(denoise(z, level) - data).square().flatten(1).sum(1) for level, z in noised(data)])


def choose(
    train: Tensor, test: Tensor, choices: Choices, others: dict[str, tuple[Denoiser, Denoiser]] | None = None
) -> tuple[str, Callable[[Tensor], Denoiser]]:
    """The denoisers of least loss on `test`, one per pair of neighbouring noise levels.

    `others` are further candidates: how they are when judged, and when used.
    """
    kinds, others = candidates(train[0].numel(), len(train), choices), others or {}
    judged = (build(train) for build in kinds.values())
    found = torch.stack([errors(test, d.denoise).mean(1) for d in (*judged, *(d for d, _ in others.values()))])
    kinds |= {name: lambda _, used=used: used for name, (_, used) in others.items()}
    best = (found / found[0]).reshape(len(kinds), -1, 2).mean(2).argmin(0).tolist()
    names = [list(kinds)[k] for k in best]

    def build(data: Tensor) -> Denoiser:
        made = {name: kinds[name](data) for name in dict.fromkeys(names)}
        return Levelwise([made[names[k // 2]] for k in range(LEVELS)], default_levels(LEVELS))

    runs = [name for k, name in enumerate(names) if k == 0 or name != names[k - 1]]
    return " > ".join(runs), build


def divide(split: Split, share: float) -> tuple[Tensor, Tensor]:
    """Masks of the learning data: all but a share of its groups, and that share."""
    kinds = split.groups.unique()
    kinds = kinds[torch.randperm(len(kinds), generator=torch.Generator().manual_seed(5))]
    kept = torch.isin(split.groups, kinds[: max(1, round(share * len(kinds)))])
    return ~kept, kept


class Models(NamedTuple):
    """What is learned from one split."""

    denoisers: dict[str, Denoiser]
    oracle: Denoiser
    graphs: dict[str, ps.FactorGraph]
    chosen: str


def learn(data: JointData, split: Split, most: int, choices: Choices) -> Models:
    a, v = divide(split, 0.2)
    cut, whole, test = data.cut(split.train), split.train, split.train[v][:most]
    shared = data.name == "wide photographs"  # windows of one kind: one denoiser, as one network would be
    builds, names = {}, {}
    for name in data.boxes:
        if shared and builds:
            names[name], builds[name] = next(iter(names.values())), next(iter(builds.values()))
        else:
            names[name], builds[name] = choose(cut[name][a], data.cut(test)[name], choices)

    def parts(rows: Tensor) -> dict[str, Denoiser]:
        if shared:
            return dict.fromkeys(builds, next(iter(builds.values()))(torch.cat([x[rows] for x in cut.values()])))
        return {name: build(cut[name][rows]) for name, build in builds.items()}

    everything = torch.ones_like(a)
    before, denoisers = parts(a), parts(everything)
    apart = tuple(Apart(data, d) for d in (before, denoisers))
    label, oracle = choose(whole[a], test, choices, {"parts": apart})

    def features(rows: Tensor, rank: int) -> dict[str, ps.Features]:
        basis = None
        if shared:
            basis = ps.Features.pca(torch.cat([x[rows] for x in cut.values()]), rank)
        return {name: basis or ps.Features.pca(x[rows], rank) for name, x in cut.items()}

    def graph(edges: object, seen: dict[str, ps.Features]) -> ps.FactorGraph:
        out = ps.FactorGraph()
        for name, x in cut.items():
            out.add_trajectory(name, tuple(x.shape[1:]))
        for edge in edges:
            out.add_factor("-".join(edge), list(edge), ps.JointGaussian(), maps=[seen[n] for n in edge])
        return out

    complete = tuple(combinations(data.boxes, 2))
    base = errors(test, lambda z, level: alone(data, before, z, level)).mean(1)
    found = []
    sizes = [min(x[0].numel(), int(a.sum()) - 1) for x in cut.values()]
    for rank in (r for r in choices.ranks if r <= 0.8 * min(sizes) and r * len(sizes) <= 96):
        unfitted = graph(complete, features(a, rank))
        for shrinkage in choices.shrinkages:
            fitted = ps.fit(unfitted, {n: x[a] for n, x in cut.items()}, shrinkage=shrinkage, heldout=0)
            losses = [
                (errors(test, together(data, fitted, before, Way("", {}, again))).mean(1) / base).mean().item()
                for again in (None, ps.Tilt())
            ]
            found.append((losses, rank, shrinkage))
    (_, *again), (_, rank, shrinkage) = (min(found, key=lambda f, k=k: f[0][k]) for k in (1, 0))
    seen = features(everything, rank)
    graphs = {
        "complete": ps.fit(graph(complete, seen), cut, shrinkage=shrinkage, heldout=0),
        "again": ps.fit(graph(complete, features(everything, again[0])), cut, shrinkage=again[1], heldout=0),
    }
    if len(data.boxes) == 4 and data.name == "digit quadrants":
        graphs["loop"] = ps.fit(graph(LOOP, seen), cut, shrinkage=shrinkage, heldout=0)
    first, second = divide(split, 0.4)
    graphs["score"] = ps.fit(
        graph(complete, seen), {n: x[second] for n, x in cut.items()}, method="score", denoisers=parts(first),
        groups=split.groups[second], shrinkage=shrinkage, iterations=100,
    )  # fmt: skip
    kinds = ", ".join(dict.fromkeys(names.values()))
    chosen = f"parts: {kinds}; whole: {label}; {rank} features, shrinkage {shrinkage}"
    chosen += f"; to ask again {again[0]}, {again[1]}"
    return Models(denoisers, oracle(whole), graphs, chosen)


def alone(data: JointData, denoisers: dict[str, Denoiser], z: Tensor, level: ps.NoiseLevel) -> Tensor:
    return data.paste({name: denoisers[name].denoise(x, level) for name, x in data.cut(z).items()})


def together(
    data: JointData, graph: ps.FactorGraph, denoisers: dict[str, Denoiser], way: Way
) -> Callable[[Tensor, ps.NoiseLevel], Tensor]:
    joint = ps.JointDenoiser(graph, **way.options)

    def denoise(z: Tensor, level: ps.NoiseLevel) -> Tensor:
        noisy = data.cut(z)
        own, covariances = joint.ask(denoisers, noisy, level)
        found = joint(noisy, own, level, covariances)
        if way.tilt is not None:
            found = way.tilt(joint, noisy, found, level, own, partial(joint.ask, denoisers, level=level))
        return data.paste(found.mean)

    return denoise


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, timestep_spacing="trailing")


def draw(data: JointData, models: Models, way: Way | None, n: int, seed: int) -> Tensor:
    """Joint samples, from the same white noise for all ways; without a way, independent ones."""
    graph = models.graphs["complete" if way is None else way.graph]
    generator = torch.Generator().manual_seed(seed)
    white = {name: torch.randn(n, *graph.shape(name), generator=generator) for name in graph.trajectories}
    options = {"couple": False} if way is None else way.options | {"tilt": way.tilt}
    found = ps.sample(
        graph, models.denoisers, scheduler(), STEPS, n, seed, progress=False, initial_noise=white, **options
    )
    return data.paste(found.samples)


def draw_oracle(data: JointData, models: Models, n: int, seed: int) -> Tensor:
    graph, generator = ps.FactorGraph(), torch.Generator().manual_seed(seed)
    graph.add_trajectory("whole", tuple(data.splits[0].train.shape[1:]))
    parts = [torch.randn(n, *x.shape[1:], generator=generator) for x in data.cut(data.splits[0].train).values()]
    white = {"whole": data.paste(dict(zip(data.boxes, parts, strict=True)))}
    options = {"progress": False, "initial_noise": white}
    return ps.sample(graph, models.oracle, scheduler(), STEPS, n, seed, **options).samples["whole"]


def measure(
    data: JointData, n: int, most: int, choices: Choices, ways: dict[str, Way]
) -> tuple[str, dict[str, Tensor]]:
    """The table of one data set, and its samples by way."""
    loss: dict[str, list[Tensor]] = {}
    drawn: dict[str, list[Tensor]] = {}
    chosen = []
    for fold, split in enumerate(data.splits):
        models = learn(data, split, most, choices)
        chosen.append(models.chosen)
        count = n // len(data.splits)

        def add(name: str, error: Tensor, samples: Tensor) -> None:
            loss.setdefault(name, []).append(error)
            drawn.setdefault(name, []).append(samples)

        error = errors(split.heldout, lambda z, level, m=models: alone(data, m.denoisers, z, level))
        add("independent", error, draw(data, models, None, count, 1000 * fold))
        for name, way in tqdm(ways.items(), desc=data.name, leave=False):
            if way.graph in models.graphs:
                if "noise_correlation" not in way.options:  # where it is, as in the row before: c is about sampling
                    error = errors(split.heldout, together(data, models.graphs[way.graph], models.denoisers, way))
                add(name, error, draw(data, models, way, count, 1000 * fold))
        error = errors(split.heldout, models.oracle.denoise)
        add("oracle: denoiser of the whole", error, draw_oracle(data, models, count, 1000 * fold))
    error = {name: torch.cat(parts, 1) for name, parts in loss.items()}
    samples = {name: torch.cat(parts) for name, parts in drawn.items()}
    heldout = torch.cat([split.heldout for split in data.splits])
    units = torch.cat([split.units for split in data.splits])
    weights = 1 / error["independent"].mean(1, keepdim=True)
    relative = {name: (weights * e).mean(0) for name, e in error.items()}
    first, last = list(error)[0], list(error)[-1]
    rows: list[list[object]] = [["", "denoising loss", "gap closed", "energy distance", "gap closed"]]
    for name in error:
        closed: list[str] = ["", ""]
        if name not in (first, last):
            closed = [
                brief(gap_closed, relative[first], relative[name], relative[last], units),
                brief(energy_gap_closed, samples[first], samples[name], samples[last], heldout, units),
            ]
        energy = energy_distance(samples[name], heldout)
        rows.append([name, f"{relative[name].mean():.4f}", closed[0], f"{energy.value:.4f}", closed[1]])
    floor = energy_distance(heldout[::2], heldout[1::2])
    by_level = [["sigma / alpha", *(f"{level.sigma / level.alpha:.2f}" for level in default_levels(LEVELS)[::2])]]
    for name in list(error)[1:]:
        mean = weights[:, 0] * error[name].mean(1)
        pairs = mean.reshape(-1, 2).mean(1)
        by_level.append([name, *(f"{v:.3f}" for v in pairs)])
    shape = "x".join(map(str, heldout.shape[1:]))
    text = (
        f"{data.name}: {shape}, {len(data.boxes)} trajectories; {len(data.splits[0].train)} to learn from, "
        f"{len(heldout)} held out ({len(units.unique())} units: {data.unit}); {n} samples\n"
        + "\n".join(dict.fromkeys(chosen))
        + f"\n\n{table(rows)}\n(energy distance between two halves of the held-out pictures: {floor.value:.4f})\n\n"
        + "Loss relative to independent, by noise level (means of two):\n"
        + table(by_level)
    )
    return text, samples | {"held out": heldout}


def brief(measured: Callable[..., Estimate], *arguments: Tensor) -> str:
    try:
        estimate = measured(*arguments)
    except ParameterError:
        return "no gap"
    low, high = (f"{x:.2f}" if math.isfinite(x) else ("inf" if x > 0 else "-inf") for x in estimate[1:3])
    return f"{estimate.value:.2f} [{low}, {high}]"


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def head(choices: Choices) -> str:
    mixtures = _list(f"{k} x {r}" for k, r in choices.mixtures)
    return f"""\
Trajectories are parts of pictures; each part has a frozen denoiser that knows that part alone, potentials are learned
from whole pictures. The oracle is a denoiser of the whole picture of the same kinds, from the same data: kernel
densities (bandwidth {_list(choices.kernels)}), Gaussians (shares of Ledoit and Wolf's shrinkage \
{_list(choices.gaussians)}), mixtures
(components x rank {mixtures}; pooled covariances {_list(choices.pooled)}), whichever has the
least denoising loss on a fifth of the learning data at a noise level, for every part and for the whole; for the
whole also the denoisers of the parts side by side, so that the oracle is no worse than independent where data are few.
Number of principal components that the potentials see ({_list(choices.ranks)}) and shrinkage \
({_list(choices.shrinkages)}): by the
joint denoising loss on the same fifth (surrogate C; asked again). Score: potentials from two fifths of the learning
data, denoised by denoisers of the other three.
Denoising loss: squared error of the whole picture relative to that of independent denoisers, mean over {LEVELS} noise
levels. Energy distance of {STEPS}-step DDIM samples to the held-out pictures. Gap closed: 0 is independent, 1 the
oracle; 95 % bootstrap intervals over held-out units (and samples), paired. c is of sampling alone. Asked again: Eq. 5
solved a second time, about the first joint mean, with one more question to the denoisers per step.
"""


SHOWN = {
    "independent": "independent",
    "moments, denoisers' C": "learned",
    "asked again": "learned, asked again",
    "oracle: denoiser of the whole": "oracle",
    "held out": "held out",
}


def sheet(samples: dict[str, Tensor], across: int = 900, gap: int = 4) -> Image.Image:
    """A row of joint samples per way, with its name."""
    shape = next(iter(samples.values())).shape[1:]
    scale = max(2, round(72 / shape[-2] / 2))
    count = across // (shape[-1] * scale + gap)
    rows = []
    for name, label in SHOWN.items():
        tiles = samples[name][:count].clamp(-1, 1)
        tiles = tiles.repeat_interleave(scale, -1).repeat_interleave(scale, -2).expand(-1, 3, -1, -1)
        row = torch.cat([pad(t, (0, gap, 0, gap), value=1.0) for t in tiles], -1)
        title = Image.new("RGB", (row.shape[-1], 14), "white")
        ImageDraw.Draw(title).text((2, 1), label, fill="black")
        pixels = ((row + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        rows.append(np.concatenate([np.asarray(title), pixels]))
    return Image.fromarray(np.concatenate(rows))


def report(
    data: Iterable[tuple[JointData, int]],  # and how many samples to draw
    ways: dict[str, Way],
    choices: Choices,
    quick: bool,
    pictures: bool,
) -> str:
    """Tables of all data sets; with `pictures`, a sheet of samples of each beside the documentation."""
    texts = []
    for joint_data, n in data:
        start = time.perf_counter()
        text, samples = measure(joint_data, n, 60 if quick else 250, choices, ways)
        texts.append(f"{text}\n({time.perf_counter() - start:.0f} s)")
        tqdm.write(texts[-1] + "\n", file=sys.stderr)
        if pictures:
            sheet(samples).save(PICTURES / f"real_{joint_data.name.replace(' ', '_')}.png", optimize=True)
    return head(choices) + "\n" + "\n\n\n".join(texts)
