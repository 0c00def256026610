"""Characters and motion: splits share nothing, draws are reproducible, the mechanics agree with scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.integrate import solve_ivp

from pgm_sync import zoo
from pgm_sync.errors import MissingPackageError, ParameterError, SavedFileError, ShapeError, UnknownNameError
from pgm_sync.zoo import make_glyphs
from pgm_sync.zoo.data import characters, motion

CHARACTERS, glyphs = characters.CHARACTERS, characters.glyphs


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Pictures with textures


def test_textures_are_in_both_splits_without_a_shared_pixel():
    train, test = (zoo.photographs(split, zoo.PICTURES) for split in ("train", "test"))
    for name in zoo.PICTURES:
        rows = [sorted(int(k[-1]) for k in bands if k.startswith(name + "-")) for bands in (train, test)]
        assert sorted(map(tuple, rows)) == [(1, 3), (2, 4)]
    assert not set(train) & set(test)


def test_naming_more_pictures_leaves_the_split_of_the_photographs():
    alone, among = zoo.photographs("train"), zoo.photographs("train", zoo.PICTURES)
    assert set(alone) < set(among)
    assert list(zoo.photographs("test", ["gravel"])) == ["gravel-1", "gravel-3"]


def test_crops_of_named_pictures_are_labelled_by_their_place_in_the_names():
    crops, labels = zoo.wide_crops(
        (3, 32, 32), 20, generator=seeded(), pictures=("brick", "chelsea"), return_photos=True
    )
    grey = (crops - crops[:, :1]).abs().amax((1, 2, 3)) < 1e-5
    assert torch.equal(grey, labels == 0)


def test_an_unknown_picture_is_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="called 'mona'; there are china, .*gravel"):
        zoo.photographs("train", ["mona"])
    with pytest.raises(UnknownNameError, match="called None"):
        zoo.wide_crops((3, 8, 8), 2, pictures=())


# Characters


def test_characters_are_balanced_and_reproducible():
    pictures, labels = glyphs(72, generator=seeded())
    assert pictures.shape == (72, 1, 32, 32)
    assert pictures.abs().max() <= 1
    assert torch.bincount(labels).tolist() == [2] * 36
    again, _ = glyphs(72, generator=seeded())
    assert torch.equal(pictures, again)
    assert not torch.equal(pictures, glyphs(72, generator=seeded(1))[0])


def test_small_batches_reach_every_character():
    labels = torch.cat([glyphs(5, generator=seeded(k))[1] for k in range(60)])
    assert set(labels.tolist()) == set(range(36))


def test_characters_can_be_chosen():
    _, labels = glyphs(30, generator=seeded(), characters="XO8")
    assert {CHARACTERS[k] for k in labels.tolist()} == set("XO8")


def test_a_character_is_bright_on_dark_and_inside_the_picture():
    pictures, _ = glyphs(360, generator=seeded())
    border = torch.cat([pictures[..., 0, :], pictures[..., -1, :]], -1)
    assert border.median() == -1
    assert border.mean() < -0.98
    assert (pictures.amax((1, 2, 3)) > 0.5).all()
    bright = (pictures > 0).float().mean((1, 2, 3))
    assert bright.min() > 0.02
    assert bright.median() < 0.3


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_draws_from_its_own_faces_and_digits(split):
    labels = torch.arange(36).repeat(20)
    masters = characters._masters(labels, split, seeded())[:, 0]
    own = [k for k, face in enumerate(characters.FACES) if (face in characters.HELD_OUT_FACES) == (split == "test")]
    digits, digit_labels = characters.written(split)
    handwritten = 0
    for master, label in zip(masters, labels.tolist(), strict=True):
        printed = any(torch.equal(master, characters.printed()[face, label]) for face in own)
        written = label < 10 and any(torch.equal(master, d) for d in digits[digit_labels == label])
        assert printed or written
        handwritten += written
    assert 60 < handwritten < 140  # half of 200


def test_the_splits_share_neither_a_face_nor_a_handwritten_digit():
    train, test = characters.written("train")[0], characters.written("test")[0]
    assert (len(train), len(test)) == (1437, 360)
    assert not {x.numpy().tobytes() for x in train} & {x.numpy().tobytes() for x in test}
    printed = characters.printed()
    assert len({x.numpy().tobytes() for x in printed.flatten(0, 1)}) == printed.shape[0] * printed.shape[1]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [((0,), {}, "n must be"), ((1, "all"), {}, "got 'all'"), ((1,), {"characters": "a?"}, "must be some of 0123")],
)
def test_characters_that_cannot_be_had(arguments, options, message):
    with pytest.raises(ParameterError, match=message):
        glyphs(*arguments, **options)


def test_a_damaged_sheet_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(characters, "SHEET", tmp_path / "none.png")
    characters.printed.cache_clear()
    try:
        with pytest.raises(SavedFileError, match=r"cannot read the characters .*none\.png"):
            characters.printed()
    finally:
        characters.printed.cache_clear()


def test_the_sheet_is_drawn_alike_again(tmp_path):
    make_glyphs.main([str(tmp_path / "glyphs.png")])
    with Image.open(tmp_path / "glyphs.png") as image, Image.open(characters.SHEET) as kept:
        assert image.size == kept.size == (36 * 48, 16 * 48)
        difference = np.asarray(image, float) - np.asarray(kept, float)
    assert abs(difference).mean() < 8  # rasterisers differ at edges


def test_a_missing_matplotlib_is_named_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(make_glyphs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"install pgm_sync\[plots\]"):
        make_glyphs.main([str(tmp_path / "glyphs.png")])


# Motion


@pytest.fixture
def few_motions(monkeypatch):
    """Banks of 64 motions, with the same seeds."""
    monkeypatch.setattr(motion, "BANK", {split: (64, seed) for split, (_, seed) in motion.BANK.items()})
    motion._bank.cache_clear()
    yield
    motion._bank.cache_clear()


def scipy_motion(state, frames):
    """The double pendulum from its mass matrix, solved numerically at every instant: nothing of ours."""

    def rates(_, y):
        t1, t2, w1, w2 = y
        mass = [[2, np.cos(t1 - t2)], [np.cos(t1 - t2), 1]]
        force = [
            -np.sin(t1 - t2) * w2**2 - 2 * 9.81 * np.sin(t1),
            np.sin(t1 - t2) * w1**2 - 9.81 * np.sin(t2),
        ]
        return [w1, w2, *np.linalg.solve(mass, force)]

    times = 0.1 * np.arange(frames)
    return solve_ivp(rates, (0, times[-1]), state, "DOP853", times, rtol=1e-11, atol=1e-11).y


@pytest.mark.parametrize("style", [0, 3])
def test_a_window_is_what_scipy_integrates(style):
    state = motion.initial_states(torch.tensor([style]), seeded(style))[0]
    ours = motion.integrate(state, motion.FRAMES)
    theirs = torch.from_numpy(scipy_motion(state.numpy(), motion.FRAMES))
    torch.testing.assert_close(ours, theirs, atol=3e-5, rtol=0)


def test_energy_is_conserved_and_below_what_turning_over_takes():
    long, styles = motion.motions(40, 200, generator=seeded())
    energy = motion.energy(long)
    assert (energy - energy[:, :1]).abs().max() < 1e-3  # of 18 J, over 20 s
    assert energy.max() < motion.FLIP
    wild = energy[styles == motion.STYLES.index("wild")]
    assert 10 - 1e-3 < wild.min()
    assert wild.max() < 18 + 1e-3


def test_kinetic_energy_is_that_of_the_moving_masses():
    long, _ = motion.motions(4, 3, generator=seeded())
    dt = 1e-5
    states = (long * motion._scale(long))[..., 0]
    later = states.clone()
    later[:, :2] += dt * states[:, 2:]
    places = [motion.joints((s / torch.tensor(motion.SCALE))[..., None])[:, 0, 1:] for s in (states, later)]
    speed2 = ((places[1] - places[0]) / dt).square().sum((1, 2))
    torch.testing.assert_close(motion.kinetic(states), speed2 / 2, rtol=1e-3, atol=1e-4)
    rest = motion.joints(torch.zeros(4, 1))[0]
    assert rest.tolist() == [[0, 0], [0, -1], [0, -2]]
    heights = places[0][..., 1] - rest[1:, 1]
    torch.testing.assert_close(motion.potential(states), 9.81 * heights.sum(1).double())


def test_the_residual_is_nothing_for_motion_and_much_for_anything_else(few_motions):
    windows, _ = motion.motion_windows(64, "test", generator=seeded())
    assert windows.dtype == torch.float32
    assert motion.physics_residual(windows).max() < 1e-5
    noise = 0.4 * torch.randn(64, 4, 32, generator=seeded())
    assert motion.physics_residual(noise).min() > 0.2
    frozen = windows.clone()
    frozen[..., 16:] = windows[..., 15:16]
    assert (motion.physics_residual(frozen) > 1e-2).all()


def test_windows_of_the_two_splits_come_from_different_motions(few_motions):
    train, test = (motion._bank(split)[0] for split in ("train", "test"))
    energies = motion.energy(torch.cat([train, test])[..., :1]).flatten()
    assert len(energies.unique()) == len(train) + len(test)


def test_windows_are_pieces_of_motions_or_their_mirror_images(few_motions):
    windows, styles = motion.motion_windows(12, "test", generator=seeded())
    assert torch.bincount(styles).tolist() == [3] * 4
    bank, _ = motion._bank("test")
    pieces = motion.cut(bank, stride=1)
    mirrored = 0
    for window in windows:
        plain, flipped = ((pieces == x).all(-1).all(-1).any() for x in (window, -window))
        assert plain or flipped
        mirrored += int(flipped)
    assert 0 < mirrored < 12


def test_long_motions_are_cut_at_the_stride():
    long, styles = motion.motions(3, 80, styles=torch.tensor([0, 0, 2]), generator=seeded())
    windows = motion.cut(long, stride=24)
    assert windows.shape == (3, 3, 4, 32)
    assert torch.equal(windows[1, 2], long[1, :, 48:80])
    assert styles.tolist() == [0, 0, 2]
    # what distant windows of one motion share
    mean = motion.energy(windows).mean(-1)
    assert (mean - mean[:, :1]).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: motion.motions(0, 3), ParameterError, "n=0"),
        (lambda: motion.motions(2, 3, styles=torch.zeros(3).long()), ShapeError, "there are 2 motions"),
        (lambda: motion.motions(1, 3, styles=torch.tensor([4])), ParameterError, r"got \[4\]"),
        (lambda: motion.motion_windows(0), ParameterError, "got 0"),
        (lambda: motion.motion_windows(1, "all"), ParameterError, "got 'all'"),
        (lambda: motion.cut(torch.zeros(4, 31)), ShapeError, r"got \(4, 31\)"),
        (lambda: motion.cut(torch.zeros(4, 64), stride=0), ParameterError, "got 0"),
        (lambda: motion.physics_residual(torch.zeros(3, 32)), ShapeError, r"got \(3, 32\)"),
    ],
)
def test_motion_that_cannot_be_had(call, error, message):
    with pytest.raises(error, match=message):
        call()
