"""Metrics of pictures, prompts, edits, surfaces and motions: against scikit-image, scipy and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import spatial, special
from scipy.sparse import csr_array
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import pgm_sync as ps
from pgm_sync.errors import (
    DtypeError,
    NotFiniteError,
    ParameterError,
    ShapeError,
    UnknownNameError,
    UnsupportedError,
)
from pgm_sync.evaluation import (
    alignment,
    concealment,
    diversity,
    embedding_alignment,
    intra_distance,
    off_grid_windows,
    perceptual_distances,
    prompt_accuracy,
    prompt_log_probability,
    psnr,
    residual,
    seam_gradient,
    ssim,
    transition_jump,
    view_disagreement,
    view_scores,
)


def layers(pictures):
    """Two layers: the pixels, and their averages over 2 x 2."""
    return [pictures, torch.nn.functional.avg_pool2d(pictures, 2)]


def same(logits):
    return logits


# Coherence, seams, windows


def test_perceptual_distance_is_twice_the_cosine_distance(generator):
    x, y = (torch.randn(4, 3, 6, 6, generator=generator) for _ in range(2))
    expected = []
    for a, b in zip(x, y, strict=True):
        found = 0.0
        for p, q in zip(layers(a[None]), layers(b[None]), strict=True):
            columns = zip(p.flatten(2)[0].T.numpy(), q.flatten(2)[0].T.numpy(), strict=True)
            found += np.mean([2 * spatial.distance.cosine(u, v) for u, v in columns])
        expected.append(found)
    assert perceptual_distances(x, y, layers, batch=3).tolist() == pytest.approx(expected, rel=1e-5)
    assert perceptual_distances(x, x, layers).tolist() == [0] * 4
    louder = perceptual_distances(5 * x, y, layers)  # unit lengths: only directions count
    assert louder.tolist() == pytest.approx(expected, rel=1e-5)
    none = perceptual_distances(x, y, layers, weights=[torch.ones(3), torch.zeros(3)])
    alone = perceptual_distances(x, y, lambda p: [p])
    assert torch.allclose(none, alone)


def test_coherence_compares_disjoint_crops(generator):
    tile = torch.randn(5, 3, 4, 4, generator=generator)
    repeated = intra_distance(tile.repeat(1, 1, 1, 3), (4, 4), layers)
    assert repeated.value == pytest.approx(0, abs=1e-12)
    parts = [torch.randn(5, 3, 4, 4, generator=generator) for _ in range(3)]
    found = intra_distance(torch.cat([*parts, parts[0][..., :2]], -1), (4, 4), layers)  # 2 columns left over
    pairs = [perceptual_distances(parts[a], parts[b], layers) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert torch.allclose(found.values, torch.stack(pairs).mean(0))
    assert found.samples == 5


def test_off_grid_windows_lie_between():
    pictures = torch.arange(2 * 6 * 20.0).reshape(2, 1, 6, 20)
    windows, groups = off_grid_windows(pictures, (6, 6), 4)
    assert groups.tolist() == [0] * 4 + [1] * 4
    for k, start in enumerate((2, 6, 10, 14)):
        assert torch.equal(windows[4 + k], pictures[1, :, :, start : start + 6])
    both, _ = off_grid_windows(pictures, (3, 6), (2, 4), offset=(1, 0))
    assert torch.equal(both[0], pictures[0, :, 1:4, 0:6])


def test_seams_are_those_of_columns_and_rows(generator):
    smooth = torch.randn(40, 3, 8, 12, generator=generator)
    assert seam_gradient(smooth, [4, 8], [4]).value == pytest.approx(1, abs=0.1)
    assert seam_gradient(smooth.mT, rows=[4]).value == pytest.approx(seam_gradient(smooth, [4]).value)
    ramp = torch.arange(12.0).expand(30, 1, 8, 12).clone()
    ramp[..., 4:] += 2  # the step into column 4 is 3, all others are 1
    found = seam_gradient(ramp, [4])
    assert found[:3] == pytest.approx((3, 3, 3))
    # with rows, whose steps are 0: (3 + 0) / 2 across; 10 ones and 6 zeros elsewhere
    assert seam_gradient(ramp, [4], [4]).value == pytest.approx(1.5 / (10 / 16))


# Prompts


def test_prompt_log_probability_is_scipys(generator):
    logits = torch.randn(6, 4, generator=generator).double()
    classes = [0, 1, 2, 3, 0, 1]
    expected = special.log_softmax(logits.numpy(), axis=1)[range(6), classes]
    found = prompt_log_probability(logits, classes, same)
    assert found.values.tolist() == pytest.approx(expected.tolist())
    hits = prompt_accuracy(logits, classes, same, batch=4)
    assert hits.values.tolist() == (logits.argmax(1) == torch.tensor(classes)).double().tolist()
    assert prompt_log_probability(logits, [2], same).value == pytest.approx(
        special.log_softmax(logits.numpy(), axis=1)[:, 2].mean()
    )


def test_embedding_alignment_is_a_cosine(generator):
    a, b = (torch.randn(5, 3, generator=generator).double() for _ in range(2))
    expected = [1 - spatial.distance.cosine(x, y) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    assert embedding_alignment(a, b).values.tolist() == pytest.approx(expected)
    assert embedding_alignment(a, b[0]).values[1] == pytest.approx(1 - spatial.distance.cosine(a[1], b[0]))


def test_alignment_and_concealment_by_hand():
    """Two views: S has 3 and 1 on the diagonal, 0 and 2 off it."""
    scores = torch.tensor([[[3.0, 0.0], [2.0, 1.0]]]).expand(4, 2, 2)
    assert alignment(scores).value == 1

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    prompts = (sigmoid(3 - 0) + sigmoid(1 - 2)) / 2
    views = (sigmoid(3 - 2) + sigmoid(1 - 0)) / 2
    assert concealment(scores, over="prompts").value == pytest.approx(prompts)
    assert concealment(scores, over="views").value == pytest.approx(views)
    assert concealment(scores).value == pytest.approx((prompts + views) / 2)
    sharp = (sigmoid(30) + sigmoid(-10)) / 2
    assert concealment(scores, 0.1, "prompts").value == pytest.approx(sharp)


@given(st.integers(2, 5), st.integers(0, 10**6))
def test_concealment_is_between_0_and_1_and_its_order_does_not_matter(n, seed):
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, n, n, generator=g).double()
    order = torch.randperm(n, generator=g)
    found = concealment(scores)
    assert 0 <= found.value <= 1
    assert concealment(scores[:, order][:, :, order]).value == pytest.approx(found.value)
    assert alignment(scores[:, order][:, :, order]).value == alignment(scores).value


def test_scores_of_views(generator):
    """A classifier of the first column against the last one, and a flip."""
    pictures = torch.randn(5, 1, 2, 4, generator=generator)

    def classifier(x):
        return torch.stack([x[..., 0].sum((1, 2)), x[..., -1].sum((1, 2)), torch.zeros(len(x))], 1)

    found = view_scores(pictures, [same, ps.Flip((1, 2, 4), (-1,)).apply], [0, 1], classifier)
    a, b = pictures[..., 0].sum((1, 2)), pictures[..., -1].sum((1, 2))
    logits = torch.stack([torch.stack([a, b, 0 * a], 1), torch.stack([b, a, 0 * a], 1)], 1)
    assert torch.allclose(found, logits.double().log_softmax(-1)[..., :2], atol=1e-6)


# Edits


def test_psnr_and_ssim_are_scikit_images(generator):
    x = torch.rand(3, 3, 16, 20, generator=generator).double() * 2 - 1
    y = (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(-1, 1)
    signal = [peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=2) for a, b in zip(x, y, strict=True)]
    assert psnr(x, y).values.tolist() == pytest.approx(signal)
    similar = [
        structural_similarity(a.numpy(), b.numpy(), data_range=2, channel_axis=0)
        for a, b in zip(x, y, strict=True)
    ]
    assert ssim(x, y).values.tolist() == pytest.approx(similar)
    wide = [
        structural_similarity(a.numpy(), b.numpy(), data_range=2, channel_axis=0, win_size=11)
        for a, b in zip(x, y, strict=True)
    ]
    assert ssim(x, y, window=11).values.tolist() == pytest.approx(wide)


def test_what_the_mask_leaves_out_does_not_count(generator):
    x = torch.rand(2, 3, 16, 20, generator=generator).double()
    y = (x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    mask = torch.zeros(16, 20, dtype=torch.bool)
    mask[:, :11] = True
    edited = y.clone()
    edited[..., 11:] = torch.rand(2, 3, 16, 9, generator=generator)
    crops = [
        structural_similarity(a[..., :11].numpy(), b[..., :11].numpy(), data_range=1, channel_axis=0)
        for a, b in zip(x, y, strict=True)
    ]
    assert ssim(edited, x, mask, data_range=1).values.tolist() == pytest.approx(crops)
    signal = [
        peak_signal_noise_ratio(a[..., :11].numpy(), b[..., :11].numpy(), data_range=1)
        for a, b in zip(x, y, strict=True)
    ]
    assert psnr(edited, x, mask[None], data_range=1).values.tolist() == pytest.approx(signal)
    per_picture = mask.expand(2, 1, 16, 20)
    assert ssim(edited, x, per_picture, data_range=1) == ssim(edited, x, mask, data_range=1)
    assert psnr(x, x[0]).values[0] == 100  # identical
    assert ssim(x, x).value == pytest.approx(1)


# Surfaces


def test_views_that_agree_and_that_do_not(generator):
    atlas = torch.randn(4, 1, 3, 6, generator=generator).double()
    maps = {"left": ps.Crop((1, 3, 6), (0, 0), (3, 4)), "right": ps.Crop((1, 3, 6), (0, 2), (3, 4))}
    views = {name: m.apply(atlas) for name, m in maps.items()}
    assert view_disagreement(views, maps).value == pytest.approx(0, abs=1e-15)
    off = {**views, "right": views["right"] + 0.6}
    # two views of equal weight, .6 apart: variance .3 ** 2
    assert view_disagreement(off, maps)[:3] == pytest.approx((0.09, 0.09, 0.09))


def test_view_disagreement_is_a_weighted_variance(generator):
    """Against numpy's weighted moments, per site, for bilinear maps."""
    rng = np.random.default_rng(0)
    matrices = [rng.random((5, 7)) * (rng.random((5, 7)) < 0.4) for _ in range(3)]
    maps = {k: ps.SparseMap.from_scipy(csr_array(m), (7,), (5,)) for k, m in enumerate(matrices)}
    views = {k: torch.randn(2, 5, generator=generator).double() for k in range(3)}
    expected = []
    for sample in range(2):
        total = weights = 0.0
        for site in range(7):
            w = np.array([m[:, site].sum() for m in matrices])
            if (w > 0).sum() < 2:
                continue
            y = np.array(
                [views[k][sample].numpy() @ m[:, site] / w[k] if w[k] else 0 for k, m in enumerate(matrices)]
            )
            total += w.sum() * np.average((y - np.average(y, weights=w)) ** 2, weights=w)
            weights += w.sum()
        expected.append(total / weights)
    assert view_disagreement(views, maps).values.tolist() == pytest.approx(expected)


# Motions


def test_residuals_of_a_law():
    frames = torch.arange(10.0)
    falls = torch.stack([-0.5 * 9.81 * frames**2, -0.5 * 9.81 * frames**2 + 0.1 * frames**3]).double()
    found = residual(falls, lambda x: x.diff(n=2, dim=1) + 9.81)
    third = 0.1 * np.abs(np.diff(np.arange(10.0) ** 3, n=2)).mean()
    assert found.values.tolist() == pytest.approx([0, third], abs=1e-4)


@pytest.mark.parametrize(("order", "power"), [(0, 0), (1, 1), (2, 2)])
def test_jumps_stand_out_in_the_derivative_that_jumps(generator, order, power):
    """A random walk's increments of order + 1 are as large everywhere; adding a kink at frame 20 shows there."""
    walk = torch.randn(50, 40, 3, generator=generator).double()
    for _ in range(order + 1):
        walk = walk.cumsum(1)
    even = transition_jump(walk, [20], order)
    assert even.low < 1.05
    assert even.high > 0.95
    kink = (torch.arange(40.0) - 19).clamp_min(0) ** power if power else (torch.arange(40) >= 20).double()
    assert transition_jump(walk + 30 * kink[:, None], [20], order).low > 3


def test_a_jump_by_hand():
    motion = torch.tensor([0.0, 1.0, 2.0, 7.0, 8.0, 9.0]).expand(4, 6)
    assert transition_jump(motion, [3], order=0).value == pytest.approx(5)
    other = torch.stack([motion, motion], 1)  # (4, 2, 6): time comes last
    assert transition_jump(other, [3], order=0, time=2).value == pytest.approx(5)
    # second differences 0, 4, -4, 0: both that reach over the border are 4, inside there are only zeros
    with pytest.raises(ParameterError, match="nothing to compare with"):
        transition_jump(motion, [3], order=1)


def test_diversity_is_scipys_mean_distance(generator):
    x = torch.randn(12, 2, 3, generator=generator).double()
    expected = spatial.distance.pdist(x.flatten(1).numpy()).mean() / math.sqrt(6)
    assert diversity(x).value == pytest.approx(expected)
    labels = [0] * 5 + [1] * 7
    pairs = [spatial.distance.pdist(part.flatten(1).numpy()) for part in (x[:5], x[5:])]
    assert diversity(x, labels=labels).value == pytest.approx(np.concatenate(pairs).mean() / math.sqrt(6))


def test_diversity_covers_the_truth(generator):
    """Of standard normal numbers, 2 / sqrt(pi): of 200 intervals 190 should hold it."""
    hits = 0
    for _ in range(200):
        found = diversity(torch.randn(40, 1, generator=generator))
        hits += found.low < 2 / math.sqrt(math.pi) < found.high
    assert 179 <= hits <= 199


PICTURES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
CROP, MODES = ps.Crop((2,), (0,), (1,)), ps.DCT((1, 4, 4), 2)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: perceptual_distances(PICTURES, PICTURES[:2], layers), ShapeError, "one shape needed"),
    (lambda: perceptual_distances(PICTURES, PICTURES, lambda p: []), ShapeError, "feature maps"),
    (lambda: perceptual_distances(PICTURES, PICTURES, layers, [torch.ones(3)]), ShapeError, "1 weight vectors for 2"),
    (lambda: perceptual_distances(PICTURES * math.nan, PICTURES, layers), NotFiniteError, "NaN"),
    (lambda: intra_distance(PICTURES, (8, 8), layers), ShapeError, "no two disjoint crops of 8 x 8"),
    (lambda: off_grid_windows(PICTURES, (8, 7), 4), ShapeError, "no window of 8 x 7 fits"),
    (lambda: off_grid_windows(PICTURES, (4, 4), 0), ParameterError, "must be positive"),
    (lambda: seam_gradient(PICTURES), ParameterError, "needs seams"),
    (lambda: seam_gradient(PICTURES, [0, 8]), ShapeError, r"seams \[0, 8\] lie outside pictures of 8 columns"),
    (lambda: seam_gradient(PICTURES, range(1, 8)), ParameterError, "every step"),
    (lambda: seam_gradient(torch.ones(4, 1, 2, 6), [2]), ParameterError, "nothing to compare with"),
    (lambda: prompt_accuracy(PICTURES[:, 0, 0], [8], same), ParameterError, "classes from 8 to 8"),
    (lambda: prompt_accuracy(PICTURES[:, 0, 0], [1, 2], same), ShapeError, "2 classes for 4 pictures"),
    (lambda: prompt_accuracy(PICTURES[:, 0, 0], [0.5], same), DtypeError, "must be integers"),
    (lambda: embedding_alignment(torch.ones(3, 2), torch.ones(2, 2)), ShapeError, "embeddings"),
    (lambda: embedding_alignment(torch.zeros(3, 2), torch.ones(2)), ParameterError, "length 0"),
    (lambda: view_scores(PICTURES, [same], [0, 1], same), ShapeError, "1 views and 2 classes"),
    (lambda: alignment(torch.ones(3, 2)), ShapeError, "one prompt per view"),
    (lambda: concealment(torch.ones(3, 2, 2), 0), ParameterError, "temperature=0"),
    (lambda: concealment(torch.ones(3, 2, 2), over="rows"), ParameterError, "over='rows'"),
    (lambda: concealment(torch.full((3, 2, 2), math.nan)), NotFiniteError, "concealment: 3 of 3"),
    (lambda: psnr(PICTURES, PICTURES[:2]), ShapeError, "originals"),
    (lambda: psnr(PICTURES, PICTURES, torch.zeros(8, 8)), ParameterError, "keeps no pixel"),
    (lambda: psnr(PICTURES, PICTURES, torch.zeros(4, 4)), ShapeError, "a mask of shape"),
    (lambda: ssim(PICTURES, PICTURES, torch.eye(8)), ParameterError, "no window of 7 x 7 pixels"),
    (lambda: ssim(PICTURES, PICTURES, window=9), ParameterError, "window=9"),
    (lambda: ssim(PICTURES, PICTURES, data_range=0), ParameterError, "data_range=0"),
    (lambda: view_disagreement({"a": torch.ones(2, 1), "b": torch.ones(2, 1)}, {"a": CROP}), UnknownNameError, "'b'"),
    (lambda: view_disagreement({"a": torch.ones(2, 2), "b": torch.ones(2, 1)}, {"a": CROP, "b": CROP}), ShapeError,
     "view 'a' has shape"),
    (lambda: view_disagreement({"a": torch.ones(2, 1), "b": torch.ones(2, 1)},
                               {"a": CROP, "b": ps.Crop((2,), (1,), (1,))}), ParameterError, "no site is seen by two"),
    (lambda: view_disagreement({k: torch.ones(2, *MODES.out_shape) for k in "ab"}, dict.fromkeys("ab", MODES)),
     UnsupportedError, "no index or sparse map"),
    (lambda: residual(torch.ones(3, 2), lambda x: x[0]), ShapeError, "a row per motion"),
    (lambda: transition_jump(torch.ones(3, 9), [9]), ShapeError, "from 1 to 8"),
    (lambda: transition_jump(torch.ones(3, 9), [3], order=3), ParameterError, "order=3"),
    (lambda: transition_jump(torch.ones(3, 9), [3], time=2), ShapeError, "no time axis 2"),
    (lambda: transition_jump(torch.ones(3, 4), [2], order=2), ParameterError, "every difference"),
    (lambda: diversity(torch.ones(3, 2), labels=[0, 1, 2]), ParameterError, "share a label"),
    (lambda: diversity(torch.ones(3, 2), labels=[0, 1]), ShapeError, "2 labels for 3"),
])  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
