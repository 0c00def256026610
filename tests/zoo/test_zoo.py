import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import pgm_sync.zoo
from pgm_sync import zoo
from pgm_sync.denoisers import GaussianDenoiser, MixtureDenoiser
from pgm_sync.errors import MissingPackageError, ParameterError, SavedFileError, ShapeError, UnknownNameError
from pgm_sync.levels import NoiseLevel
from pgm_sync.zoo import make_photographs, pictures, train_patches

FOLDER = Path(pgm_sync.zoo.__file__).parent


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def patches():
    return zoo.load("photo-patches")


# Photographs


def test_both_splits_hold_every_photograph():
    for split in ("train", "test"):
        bands = zoo.photographs(split)
        assert {key.rsplit("-", 1)[0] for key in bands} == set(zoo.PHOTOGRAPHS)
        for band in bands.values():
            assert band.dtype == torch.float32
            assert band.shape[0] == 3
            assert band.shape[2] == 384
            assert band.min() >= -1
            assert band.max() <= 1
            assert band.std() > 0.01


def test_the_splits_tile_the_photographs_without_a_shared_pixel():
    train, test = zoo.photographs("train"), zoo.photographs("test")
    assert not set(train) & set(test)
    for name in zoo.PHOTOGRAPHS:
        both = {**train, **test}
        whole = torch.cat([both[f"{name}-{k}"] for k in (1, 2, 3, 4)], dim=1)
        with Image.open(FOLDER / "photographs" / f"{name}.png") as image:
            assert (whole.shape[2], whole.shape[1]) == image.size
            pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(
                image.height, image.width, 3
            )
        torch.testing.assert_close((whole + 1) * 127.5, pixels.permute(2, 0, 1).float(), atol=1e-4, rtol=0)


def test_tops_and_bottoms_are_in_both_splits():
    for split in ("train", "test"):
        bands = {key.rsplit("-", 1)[1] for key in zoo.photographs(split)}
        assert bands == {"1", "2", "3", "4"}


def test_a_caller_cannot_change_the_photographs():
    zoo.photographs("train")["china-1"].zero_()
    assert zoo.photographs("train")["china-1"].abs().sum() > 0


def test_split_names_are_checked():
    with pytest.raises(ParameterError, match="split must be 'train' or 'test', got 'validation'"):
        zoo.photographs("validation")


def test_a_damaged_photograph_is_named(tmp_path, monkeypatch):
    (tmp_path / "china.png").write_bytes(b"no picture")
    monkeypatch.setattr(pictures, "FOLDER", tmp_path)
    pictures._photograph.cache_clear()
    try:
        with pytest.raises(SavedFileError, match=r"cannot read the photograph .*china\.png"):
            zoo.photographs("train")
    finally:
        pictures._photograph.cache_clear()


# Crops


def test_crops_are_balanced_and_reproducible():
    crops, photos = zoo.wide_crops((3, 24, 96), 20, generator=seeded(), return_photos=True)
    assert crops.shape == (20, 3, 24, 96)
    assert crops.abs().max() <= 1 + 1e-5
    assert torch.bincount(photos, minlength=7).tolist() == [3, 3, 3, 3, 3, 3, 2]
    assert torch.equal(crops, zoo.wide_crops((3, 24, 96), 20, generator=seeded()))
    assert not torch.equal(crops, zoo.wide_crops((3, 24, 96), 20, generator=seeded(1)))


def occurs(piece, image):  # (3, h, w), (3, H, W)
    h, w = piece.shape[1:]
    room = image[:, : image.shape[1] - h + 1, : image.shape[2] - w + 1]
    corners = (room == piece[:, :1, :1]).all(0).nonzero().tolist()
    return any(torch.equal(image[:, y : y + h, x : x + w], piece) for y, x in corners)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_crop_at_scale_one_is_a_piece_of_a_band_of_its_photograph(split):
    shape = (3, 24, 40)
    crops, photos = zoo.wide_crops(shape, 14, split, generator=seeded(), scales=(1, 1), return_photos=True)
    bands = zoo.photographs(split)
    mirrored = 0
    for crop, photo in zip(crops, photos.tolist(), strict=True):
        own = [band for key, band in bands.items() if key.startswith(zoo.PHOTOGRAPHS[photo])]
        plain, flipped = (any(occurs(x, band) for band in own) for x in (crop, crop.flip(-1)))
        assert plain or flipped
        mirrored += int(flipped)
    assert 0 < mirrored < 14


def test_a_larger_scale_shows_a_smoother_picture_of_more():
    near = zoo.wide_crops((3, 24, 24), 210, generator=seeded(), scales=(1, 1))
    far = zoo.wide_crops((3, 24, 24), 210, generator=seeded(), scales=(2, 2))
    assert far.flatten(2).std(2).mean() > near.flatten(2).std(2).mean()


def test_every_documented_canvas_fits():
    for shape in ((3, 24, 96), (3, 32, 160)):
        assert zoo.wide_crops(shape, 7, "test", generator=seeded()).shape == (7, *shape)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (((3, 40, 96), 7), {}, ShapeError, "largest scale that fits is 1.6"),
        (((1, 24, 24), 7), {}, ShapeError, r"a crop has shape \(3, H, W\), got \(1, 24, 24\)"),
        (((3, 24), 7), {}, ShapeError, r"got \(3, 24\)"),
        (((3, 24, 24), 0), {}, ParameterError, "n must be at least 1, got 0"),
        (((3, 24, 24), 7), {"scales": (0.5, 1)}, ParameterError, r"got \(0.5, 1\)"),
        (((3, 24, 24), 7), {"scales": (2, 1)}, ParameterError, r"got \(2, 1\)"),
        (((3, 24, 24), 7, "all"), {}, ParameterError, "got 'all'"),
    ],
)
def test_crops_that_cannot_be_had(arguments, options, error, message):
    with pytest.raises(error, match=message):
        zoo.wide_crops(*arguments, generator=seeded(), **options)


# Denoisers


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="called 'faces'; there are photo-patches, photo-kernel, glyph-unet"):
        zoo.load("faces")


@pytest.mark.parametrize("name", ["photo-patches", "photo-kernel"])
def test_every_name_loads_a_denoiser_of_windows_with_a_condition_per_photograph(name):
    denoiser = zoo.load(name)
    assert denoiser.shape == (3, 24, 24)
    assert zoo.classes(name) == zoo.PHOTOGRAPHS
    assert denoiser.conditions == list(range(len(zoo.PHOTOGRAPHS)))
    noisy = torch.randn(2, 3, 24, 24, generator=seeded())
    pure_noise = denoiser.denoise(noisy, NoiseLevel(1e-6, 1.0))
    torch.testing.assert_close(pure_noise, denoiser.mean.float().expand(2, -1, -1, -1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("photo", range(len(zoo.PHOTOGRAPHS)))
def test_a_condition_samples_the_colour_of_its_photograph(patches, photo):
    crops, photos = zoo.wide_crops((3, 24, 24), 2800, generator=seeded(), return_photos=True)
    real = crops[photos == photo].mean((2, 3))
    drawn = patches.sample(400, generator=seeded(), condition=photo).float().mean((2, 3))
    error = ((real.var(0) + drawn.var(0)) / 400).sqrt()
    assert ((drawn.mean(0) - real.mean(0)).abs() < 4 * error).all()


def test_samples_have_the_moments_of_the_crops(patches):
    crops = zoo.wide_crops((3, 24, 24), 2100, generator=seeded(5))
    drawn = patches.sample(2100, generator=seeded(6)).float()
    for measure in (
        lambda x: x.std(),
        lambda x: x.mean((1, 2, 3)).std(),
        lambda x: (x[..., 4:] - x[..., :-4]).std(),
    ):
        assert abs(measure(drawn) / measure(crops) - 1) < 0.06


def card_row(name):
    card = (FOLDER / "photo-patches.md").read_text(encoding="utf-8")
    cells = re.search(rf"^\| {re.escape(name)} \|(.*)\|$", card, re.MULTILINE).group(1).split("|")
    return [tuple(float(number) for number in cell.split("±")) for cell in cells]


@pytest.mark.parametrize("position", range(len(train_patches.LEVELS)))
def test_fresh_held_out_crops_reproduce_the_card(patches, position):
    mean, half = card_row("photo-patches")[position]
    fresh = train_patches.denoising_loss(
        patches, train_patches.held_out(280, seed=77), train_patches.LEVELS[position], seed=3
    )
    # the difference of two means; three rather than two standard errors
    assert abs(fresh.mean - mean) < 1.5 * (half**2 + fresh.half**2) ** 0.5


def test_the_card_beats_one_gaussian_where_it_says_so():
    ours, gaussian = card_row("photo-patches"), card_row("single Gaussian")
    # at sigma / alpha of 1 and 3 the intervals are apart; at 0.3 only the paired difference tells
    assert all(a[0] + a[1] < b[0] - b[1] for a, b in zip(ours[2:], gaussian[2:], strict=True))
    assert ours[0][0] > gaussian[0][0]  # and says where not


def test_the_mixture_beats_one_gaussian_crop_by_crop(patches):
    tested = train_patches.held_out(280, seed=77)
    fitted_on = zoo.wide_crops(train_patches.SHAPE, 3500, generator=seeded())
    baseline = train_patches.single_gaussian(fitted_on)
    gain = train_patches.squared_errors(baseline, tested, 0.3) - train_patches.squared_errors(
        patches, tested, 0.3
    )
    mean, half = train_patches.interval(gain)
    assert mean > half


def test_denoising_loss_of_a_gaussian_is_its_posterior_variance():
    variance = 0.25
    denoiser = GaussianDenoiser(torch.zeros(3, 2, 2), variance * torch.eye(12))
    clean = variance**0.5 * torch.randn(4000, 3, 2, 2, generator=seeded())
    mean, half = train_patches.denoising_loss(denoiser, clean, 0.7, seed=1)
    assert abs(mean - 1 / (1 / variance + 1 / 0.7**2)) < 1.5 * half


def test_log_likelihood_is_that_of_the_dense_mixture():
    shape, n = (3, 2, 2), 9
    factor = torch.randn(2, 12, 12, generator=seeded(), dtype=torch.float64)
    covariances = factor @ factor.mT + torch.eye(12, dtype=torch.float64)
    means = torch.randn(2, *shape, generator=seeded(1), dtype=torch.float64)
    mixture = MixtureDenoiser([0.3, 0.7], means, covariances)
    x = torch.randn(n, *shape, generator=seeded(2), dtype=torch.float64)
    dense = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor([0.3, 0.7], dtype=torch.float64)),
        torch.distributions.MultivariateNormal(means.flatten(1), covariances),
    )
    expected = dense.log_prob(x.flatten(1)).mean() / 12
    assert train_patches.log_likelihood(mixture, x).mean == pytest.approx(float(expected), abs=1e-9)


def test_training_keeps_mean_and_covariance(monkeypatch):
    # With no shrinkage and every direction kept, the mixture has the first two moments of its crops.
    for name, value in {"COMPONENTS": 3, "LATENT": 8, "RANK": 8, "PRIOR": 0.0}.items():
        monkeypatch.setattr(train_patches, name, value)
    crops, photos = zoo.wide_crops((3, 4, 4), 280, generator=seeded(), return_photos=True)
    denoiser = train_patches.train(crops, photos)
    c, flat = denoiser.components, crops.flatten(1).double()
    torch.testing.assert_close(denoiser.mean, crops.double().mean(0), atol=1e-9, rtol=0)
    weights = c.log_weights.exp()
    assert float(weights.sum()) == pytest.approx(1)
    within = torch.einsum("k,kpr,kr,kqr->pq", weights, c.basis, c.variances, c.basis)
    between = torch.einsum("k,kp,kq->pq", weights, c.means, c.means)
    expected = c.frame.T @ torch.cov(flat.T, correction=0) @ c.frame
    torch.testing.assert_close(within + between, expected, atol=1e-9, rtol=0)
    assert denoiser.labels.tolist() == [photo for photo in range(7) for _ in range(3)]


# Files


def test_the_card_of_the_photographs_names_each_with_its_licence():
    card = (FOLDER / "PHOTOGRAPHS.md").read_text(encoding="utf-8")
    for name in zoo.PICTURES:
        row = re.search(rf"^\| {name} \|.*$", card, re.MULTILINE).group(0)
        assert re.search(r"CC BY 2\.0|CC0|public domain|no known copyright restrictions", row)


def test_embedded_files_stay_small():
    folders = (FOLDER, FOLDER / "photographs")
    files = [path for f in folders for path in f.iterdir() if path.suffix in (".png", ".safetensors", ".md")]
    assert {path.stem for path in files if path.suffix == ".png"} == {*zoo.PICTURES, "glyphs"}
    assert max(path.stat().st_size for path in files) < 4e6
    assert sum(path.stat().st_size for path in files if path.suffix == ".png") < 2e6


def test_a_missing_scikit_image_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(make_photographs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"install pgm_sync\[zoo\]"):
        make_photographs.source("coffee")


def test_a_photograph_from_scikit_learn_is_remade_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(make_photographs, "PICTURES", ("china",))
    make_photographs.main([str(tmp_path)])
    pair = []
    for folder in (tmp_path, FOLDER / "photographs"):
        with Image.open(folder / "china.png") as image:
            pair.append(torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float())
    assert (pair[0] - pair[1]).abs().mean() < 2  # JPEG decoders differ in the last bits


def test_the_classifiers_maps_are_its_layers(generator):
    classifier = zoo.classifier("photo-unet")
    pictures = torch.rand(3, 3, 32, 32, generator=generator) * 2 - 1
    maps = classifier.maps(pictures)
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 32, 32), (64, 16, 16), (96, 8, 8), (128, 4, 4)]
    torch.testing.assert_close(classifier.features(pictures), classifier.layers(pictures).mean((2, 3)))
