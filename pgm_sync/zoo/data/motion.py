"""Motion with known physics: a planar double pendulum, simulated, cut into windows, and checked against its equations.

Two point masses of 1 kg on massless rods of 1 m, without friction. A state is ``(theta_1, theta_2, omega_1, omega_2)``:
angles from hanging straight down, in radians, and their velocities per second. Frames are 0.1 s apart. What the windows
of one motion share, however far apart, is its energy, and while it is small the amplitudes of its two modes.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from ...errors import ParameterError, ShapeError

#: Kinds of motion of the double pendulum, by position: what `motion-unet` takes as condition.
STYLES = ("slow", "fast", "mixed", "wild")
FEATURES = ("theta_1", "theta_2", "omega_1", "omega_2")
FRAMES = 32  # of a window
STEP = 0.1  # seconds between frames
SUBSTEPS = 10  # of the integrator, between frames
SCALE = (1.0, 1.4, 4.0, 6.0)  # a window holds states divided by these

GRAVITY = 9.81
FLIP = 2 * GRAVITY  # energy that the outer rod needs to turn over; no style has as much
SPLITS = ("train", "test")
BANK = {"train": (4096, 0), "test": (1024, 1)}  # motions to cut windows from, and their seed
BANK_FRAMES = 128
SETTLE = 32  # frames simulated and dropped, so that a motion has no memory of how it was started


def motion_windows(
    n: int, split: str = "train", *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:  # (n, 4, 32), (n) int64
    """`n` random windows of motions, and their positions in `STYLES`; every style comes equally often.

    `split` is "train" or "test"; they come from different motions. Raises ParameterError.

    >>> windows, styles = motion_windows(8, "test", generator=torch.Generator().manual_seed(0))
    >>> tuple(windows.shape), bool((physics_residual(windows) < 1e-4).all())
    ((8, 4, 32), True)
    """
    if split not in SPLITS:
        raise ParameterError(f"split must be 'train' or 'test', got {split!r}", split=split)
    if n < 1:
        raise ParameterError(f"n must be at least 1, got {n}", n=n)
    bank, styles = _bank(split)
    labels = torch.arange(n)[torch.randperm(n, generator=generator)] % len(STYLES)
    which, start, mirror = torch.rand(3, n, generator=generator)
    per_style = len(bank) // len(STYLES)  # the styles of the bank take turns
    rows = (which * per_style).long() * len(STYLES) + labels
    frames = (start * (BANK_FRAMES - FRAMES + 1)).long()[:, None] + torch.arange(FRAMES)
    windows = bank[rows[:, None], :, frames].transpose(1, 2)
    return torch.where(mirror[:, None, None] < 0.5, windows, -windows).contiguous(), styles[rows]


def motions(
    n: int, frames: int, *, styles: Tensor | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:  # (n, 4, frames) float64, (n)
    """`n` long motions of a double pendulum in the units of windows, and their positions in `STYLES`.

    ``(n, 4, frames)`` float64 and ``(n)``. `styles` are the positions wanted (None: taking turns); initial states come
    from `generator`, torch's own without one.

    >>> x, styles = motions(4, frames=50, generator=torch.Generator().manual_seed(0))
    >>> x.shape, styles.tolist(), bool((physics_residual(x) < 1e-6).all())
    (torch.Size([4, 4, 50]), [0, 1, 2, 3], True)

    Raises ParameterError on the numbers, ShapeError where there is not one style per motion.
    """
    if n < 1 or frames < 1:
        raise ParameterError(f"n={n} and frames={frames} must be at least 1", n=n, frames=frames)
    if styles is None:
        styles = torch.arange(n) % len(STYLES)
    if styles.shape != (n,):
        raise ShapeError(f"styles have shape {tuple(styles.shape)}, but there are {n} motions")
    if styles.min() < 0 or styles.max() >= len(STYLES):
        raise ParameterError(f"styles are positions in {STYLES}, got {styles.unique().tolist()}")
    states = integrate(initial_states(styles, generator), SETTLE + frames)[..., SETTLE:]
    return states / _scale(states), styles


def cut(motion: Tensor, stride: int = FRAMES) -> Tensor:  # (*batch, 4, frames) -> (*batch, windows, 4, 32)
    """The windows ``(*batch, windows, 4, 32)`` of a long `motion` ``(*batch, 4, frames)``, `stride` frames apart.

    Frames left over at the end are dropped.

    >>> cut(torch.zeros(4, 80), stride=24).shape
    torch.Size([3, 4, 32])

    Raises ShapeError, ParameterError on a stride below 1.
    """
    if motion.ndim < 2 or motion.shape[-2] != len(FEATURES) or motion.shape[-1] < FRAMES:
        raise ShapeError(f"a motion has shape (*batch, 4, frames >= {FRAMES}), got {tuple(motion.shape)}")
    if stride < 1:
        raise ParameterError(f"stride must be at least 1, got {stride}", stride=stride)
    return motion.unfold(-1, FRAMES, stride).movedim(-2, -3)


def physics_residual(motion: Tensor) -> Tensor:  # (*batch, 4, frames) -> (*batch)
    """How far a `motion` ``(*batch, 4, frames)`` violates the equations: each frame is integrated to the next.

    What comes out is compared with the next frame.

    The root of the mean square over frames and features, in the units of windows: 0 for a true motion, about 0.7 for
    white noise as strong as the motions.

    >>> true, _ = motions(1, 50, generator=torch.Generator().manual_seed(0))
    >>> noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(0)).double()
    >>> bool(physics_residual(true) < 1e-6 < 0.1 < physics_residual(noise))
    True

    Raises ShapeError.
    """
    if motion.ndim < 2 or motion.shape[-2] != len(FEATURES) or motion.shape[-1] < 2:
        raise ShapeError(f"a motion has shape (*batch, 4, frames >= 2), got {tuple(motion.shape)}")
    states = motion.double() * _scale(motion.double())
    here, after = states[..., :-1].movedim(-2, -1), states[..., 1:]
    predicted = integrate(here, 2)[..., 1].movedim(-1, -2)
    return ((predicted - after) / _scale(states)).square().mean((-2, -1)).sqrt().to(motion.dtype)


def energy(motion: Tensor) -> Tensor:  # (*batch, 4, frames) -> (*batch, frames)
    """Kinetic and potential energy of a `motion` ``(*batch, 4, frames)`` at every frame, joules; 0 at rest.

    >>> motion, _ = motions(1, 64, generator=torch.Generator().manual_seed(0))
    >>> lost = energy(motion).diff().abs().max() / energy(motion).max()  # nothing rubs
    >>> bool(lost < 1e-3)
    True
    """
    states = motion * _scale(motion)
    return potential(states.movedim(-2, -1)) + kinetic(states.movedim(-2, -1))


def joints(motion: Tensor) -> Tensor:  # (*batch, 4, frames) -> (*batch, frames, 3, 2)
    """Where the pivot and the two masses of a `motion` ``(*batch, 4, frames)`` are: x to the right, y upwards, metres.

    ``(*batch, frames, 3, 2)``.

    >>> joints(torch.zeros(4, 1))[0].tolist()  # hanging at rest, two rods of a metre
    [[0.0, 0.0], [0.0, -1.0], [0.0, -2.0]]
    """
    angles = (motion * _scale(motion))[..., :2, :].movedim(-2, -1)
    rods = torch.stack([angles.sin(), -angles.cos()], -1)
    return torch.cat([torch.zeros_like(rods[..., :1, :]), rods.cumsum(-2)], -2)


# Mechanics; states are (*batch, 4)


def derivative(states: Tensor) -> Tensor:
    """Time derivative of states: the Lagrange equations solved for the accelerations."""
    t1, t2, w1, w2 = states.unbind(-1)
    cos, sin = (t1 - t2).cos(), (t1 - t2).sin()
    # [2, cos; cos, 1] (a1, a2) = (f1, f2)
    f1 = -sin * w2.square() - 2 * GRAVITY * t1.sin()
    f2 = sin * w1.square() - GRAVITY * t2.sin()
    det = 2 - cos.square()
    return torch.stack([w1, w2, (f1 - cos * f2) / det, (2 * f2 - cos * f1) / det], -1)


def potential(states: Tensor) -> Tensor:
    """Potential energy, 0 at rest."""
    return GRAVITY * (2 * (1 - states[..., 0].cos()) + 1 - states[..., 1].cos())


def kinetic(states: Tensor) -> Tensor:
    """Kinetic energy."""
    t1, t2, w1, w2 = states.unbind(-1)
    return w1.square() + w2.square() / 2 + w1 * w2 * (t1 - t2).cos()


def integrate(states: Tensor, frames: int) -> Tensor:  # (*batch, 4) -> (*batch, 4, frames)
    """Frames of the motions that start at `states`: Runge-Kutta of fourth order, ten steps per frame."""
    h = STEP / SUBSTEPS
    out = [states]
    for _ in range(frames - 1):
        for _ in range(SUBSTEPS):
            k1 = derivative(states)
            k2 = derivative(states + h / 2 * k1)
            k3 = derivative(states + h / 2 * k2)
            k4 = derivative(states + h * k3)
            states = states + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        out.append(states)
    return torch.stack(out, -1)


def initial_states(styles: Tensor, generator: torch.Generator | None = None) -> Tensor:  # (n) -> (n, 4) float64
    """A state for each style, to start a motion from.

    "slow": the mode in which both rods swing together, with a little of the other; "fast": the one in which they swing
    against each other; "mixed": both; "wild": 10 to 18 J, where the motion is chaotic.
    """
    n = len(styles)
    u = torch.rand(8, n, generator=generator, dtype=torch.float64)
    slow, fast = 0.15 + 0.65 * u[0], 0.1 + 0.4 * u[1]  # radians of the inner rod
    slow = torch.where(styles == 1, 0.05 * u[0], slow)
    fast = torch.where(styles == 0, 0.03 * u[1], fast)
    amplitudes = torch.stack([slow, fast], -1)
    phases = 2 * math.pi * u[2:4].T
    rates = torch.tensor([GRAVITY * (2 - 2**0.5), GRAVITY * (2 + 2**0.5)], dtype=torch.float64).sqrt()
    shapes = torch.tensor([[1.0, 2**0.5], [1.0, -(2**0.5)]], dtype=torch.float64)  # rows: modes
    angles = (amplitudes * phases.cos()) @ shapes
    velocities = (-amplitudes * rates * phases.sin()) @ shapes
    modal = torch.cat([angles, velocities], -1)
    wild = _with_energy(10 + 8 * u[4], 2 * math.pi * u[5], 2 * math.pi * u[6], u[7])
    return torch.where((styles == 3)[:, None], wild, modal)


def _with_energy(total: Tensor, where: Tensor, direction: Tensor, share: Tensor) -> Tensor:
    """States of given total energy: angles as far in a direction as a share of it lifts them, the rest is velocity."""
    angles = torch.stack([where.cos(), where.sin()], -1)
    low, high = torch.zeros_like(total), torch.full_like(total, math.pi)
    for _ in range(50):  # potential energy grows along a ray from rest
        middle = (low + high) / 2
        beyond = potential(middle[:, None] * angles) > share * total
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    angles = low[:, None] * angles
    velocities = torch.stack([direction.cos(), direction.sin()], -1)
    states = torch.cat([angles, velocities], -1)
    factor = ((total - potential(states)) / kinetic(states)).sqrt()
    return torch.cat([angles, factor[:, None] * velocities], -1)


@cache
def _bank(split: str) -> tuple[Tensor, Tensor]:
    count, seed = BANK[split]
    long, styles = motions(count, BANK_FRAMES, generator=torch.Generator().manual_seed(seed))
    return long.float(), styles


def _scale(like: Tensor) -> Tensor:  # (4, 1)
    return torch.tensor(SCALE, dtype=like.dtype, device=like.device)[:, None]
