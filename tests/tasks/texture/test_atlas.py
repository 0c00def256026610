"""The hidden canvas of a mesh: one texel per pixel, shared noise, data for fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync.denoisers import GaussianDenoiser
from pgm_sync.errors import CameraError, ParameterError, ShapeError
from pgm_sync.score import find_carriers
from pgm_sync.tasks.texture import (
    Camera,
    bake,
    bilinear_texture_graph,
    dilate,
    joint_samples,
    make_atlas,
    ring_cameras,
    solid_colours,
    texture_graph,
    view_samples,
)

SCHEDULER = DDIMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False, timestep_spacing="trailing")
SHAPE = (3, 12, 12)


@pytest.fixture(scope="module")
def denoiser() -> GaussianDenoiser:
    place = torch.cartesian_prod(torch.arange(12.0), torch.arange(12.0)).double()
    kernel = 0.2 * torch.exp(-torch.cdist(place, place) / 6) + 1e-3 * torch.eye(144)
    return GaussianDenoiser(torch.zeros(SHAPE).double(), torch.block_diag(kernel, kernel, kernel))


def test_a_plane_seen_from_straight_above_is_its_own_picture(sheet):
    camera = Camera((0, 0, 3), (0, 0, 0), resolution=(12, 12), extent=2.0)
    atlas = make_atlas(sheet, [camera], (12, 12))
    np.testing.assert_array_equal(atlas.sites["view 0"], np.arange(144).reshape(12, 12))
    np.testing.assert_array_equal(atlas.weights["view 0"], 1)
    assert atlas.shares() == {"tied": 1.0, "shared": 0.0, "covered": 1.0}
    picture = torch.rand(3, 12, 12)
    assert torch.equal(atlas.texture(atlas.canvas(picture)), picture)
    assert make_atlas(sheet, [camera]).size == (12, 12)  # texels as far apart as pixels
    # the same, turned upside down and moved by three pixels
    turned = Camera((0.5, 0, 3), (0.5, 0, 0), resolution=(12, 12), extent=2.0, up=(0, -1, 0))
    both = make_atlas(sheet, [camera, turned], (12, 12))
    tied = both.tied("view 1")
    np.testing.assert_array_equal(tied[:, :3], False)
    expected = np.arange(144).reshape(12, 12)[::-1, ::-1][:, :9]
    np.testing.assert_array_equal(both.sites["view 1"][:, 3:], expected)


def test_no_view_shows_a_site_twice_and_weights_are_a_partition_of_unity(around):
    total = torch.zeros(around.count, dtype=torch.float64)
    for name, sites in around.sites.items():
        assert len(np.unique(sites)) == sites.size
        total.index_add_(0, torch.from_numpy(sites).flatten(), torch.from_numpy(around.weights[name]).flatten())
    torch.testing.assert_close(total, torch.ones_like(total))
    shares = around.shares()
    assert shares["shared"] > 0.4
    assert shares["tied"] > 0.7
    for name, view in around.views.items():  # texels lie near the points that pixels hit
        tied = around.tied(name)
        texel = around.texels.position.reshape(-1, 3)[around.shown[around.sites[name][tied]]]
        off = np.linalg.norm(texel - view.position[tied], axis=1) / around.spacing
        assert off.max() < 2.01
        assert np.median(off) < 0.6
        assert not tied[view.cosine < 0.3].any()


def test_two_views_of_a_texel_count_by_the_viewing_angle(sheet):
    cameras = [
        Camera((0, 0, 3), resolution=(12, 12), extent=2.0),
        Camera((0, -3, 3), resolution=(12, 12), extent=2.0),
    ]
    atlas = make_atlas(sheet, cameras, (12, 12), power=2.0)
    one, two = atlas.sites["view 0"], atlas.sites["view 1"]
    both = np.intersect1d(one, two[atlas.tied("view 1")])
    assert len(both) > 50
    np.testing.assert_allclose(atlas.weights["view 0"][np.isin(one, both)], 2 / 3, atol=1e-6)
    np.testing.assert_allclose(atlas.weights["view 1"][np.isin(two, both)], 1 / 3, atol=1e-6)


def test_the_graph_shares_noise_and_texels_bit_for_bit(around, denoiser):
    graph = texture_graph(around, view=SHAPE)
    assert graph.trajectories == [f"view {k}" for k in range(6)]
    assert graph.hidden == ["atlas"]
    assert [c.name for c in find_carriers(graph).carriers] == ["atlas"]
    noise = torch.randn(500, 3, around.count, generator=torch.Generator().manual_seed(0))
    first = {}
    for state in ps.sampling_steps(graph, denoiser, SCHEDULER, 4, 500, initial_noise={"atlas": noise}):
        first = first or state.noisy
        last = state.next
    scale = first["view 0"].flatten(1)
    covariance = scale.T @ scale / 500
    assert abs(covariance.diagonal().mean() - 1) < 0.02
    off = covariance - torch.diag(covariance.diagonal())
    # of 93,096 independent correlations with standard error 500^-0.5, none is beyond six of them
    assert off.abs().max() < 6 / 500**0.5
    for states, canvas in ((first, noise), (last, last["atlas"])):
        for name, seen in view_samples(around, canvas).items():
            assert torch.equal(seen, states[name])
    a, b = around.sites["view 0"], around.sites["view 1"]
    common = np.intersect1d(a[around.tied("view 0")], b[around.tied("view 1")])
    assert len(common) == around.overlap("view 0", "view 1") > 10
    place = [torch.from_numpy(np.argsort(s.ravel())[np.searchsorted(np.sort(s.ravel()), common)]) for s in (a, b)]
    assert torch.equal(last["view 0"].flatten(2)[..., place[0]], last["view 1"].flatten(2)[..., place[1]])


def test_without_common_texels_views_are_independent(ball, denoiser):
    opposite = make_atlas(ball, ring_cameras(ball, 2, resolution=(12, 12)), least_cosine=0.5)
    assert opposite.overlap("view 0", "view 1") == 0
    graph = texture_graph(opposite, view=SHAPE, features=lambda shape: ps.DCT(shape, 1))
    assert graph.factors == ["see view 0", "see view 1"]
    every = texture_graph(opposite, view=SHAPE, features=lambda shape: ps.DCT(shape, 1), neighbours="all")
    assert every.factors[-1] == ("view 0", "view 1")


def test_correlations_between_views_are_learned_from_textures(around, denoiser, tmp_path):
    canvas, photos = joint_samples(around, 140, generator=torch.Generator().manual_seed(0))
    graph = texture_graph(around, view=SHAPE, features=lambda shape: ps.DCT(shape, 1), neighbours="all")
    fitted = ps.fit(graph, {"atlas": canvas}, groups=photos)
    potential, (seen, _) = fitted.potential(("view 0", "view 3")), fitted.maps(("view 0", "view 3"))
    data = view_samples(around, canvas)
    mean = data["view 0"][..., torch.from_numpy(around.tied("view 0"))].double().mean(-1)
    # the constant cosine on the mesh alone is the mean of the pixels that show a texel, up to a rotation of channels
    features = seen.apply(data["view 0"].double())
    root = around.tied("view 0").sum() ** 0.5
    torch.testing.assert_close(features.square().sum(1), (root * mean).square().sum(1))
    correlation = torch.corrcoef(torch.stack([mean[:, 0], data["view 3"].double().mean((1, 2, 3))]))[0, 1]
    assert correlation > 0.3  # opposite sides of one photograph
    assert potential.covariance[:3, 3:].norm() > 0.1 * potential.covariance[:3, :3].norm()
    by_view = ps.fit(graph, data, groups=photos)
    torch.testing.assert_close(by_view.potential(("view 0", "view 3")).covariance, potential.covariance)
    result = ps.sample(fitted, denoiser, SCHEDULER, 4, 3, progress=False)
    assert torch.isfinite(result.samples["atlas"]).all()
    fitted.save(tmp_path / "graph.safetensors")
    again = ps.sample(ps.FactorGraph.load(tmp_path / "graph.safetensors"), denoiser, SCHEDULER, 4, 3, progress=False)
    assert torch.equal(again.samples["atlas"], result.samples["atlas"])


def test_textures_and_canvases_are_inverse_where_texels_are_shown(around):
    textures = torch.rand(2, 3, *around.size)
    background = {name: torch.rand(2, 3, 12, 12) for name in around.sites}
    canvas = around.canvas(textures, background)
    back = around.texture(canvas)
    shown = torch.zeros(around.size, dtype=torch.bool)
    shown.view(-1)[torch.from_numpy(around.shown)] = True
    assert torch.equal(back[..., shown], textures[..., shown])
    assert torch.equal(around.canvas(back, background), canvas)
    for name, seen in view_samples(around, canvas).items():
        own = torch.from_numpy(~around.tied(name))
        assert torch.equal(seen[..., own], background[name][..., own])
    flat = around.texture(torch.full((around.count,), 0.25, dtype=torch.float64))
    torch.testing.assert_close(flat, torch.full_like(flat, 0.25))


def test_dilation_takes_the_nearest_known_pixel():
    known = torch.rand(9, 11, generator=torch.Generator().manual_seed(0)) < 0.1
    picture = torch.arange(99.0).reshape(9, 11)
    grown = dilate(picture, known)
    inside = known.nonzero().double()
    for y, x in torch.cartesian_prod(torch.arange(9), torch.arange(11)).tolist():
        distances = (inside - torch.tensor([y, x])).norm(dim=1)
        source = torch.tensor(divmod(int(grown[y, x]), 11))
        assert (source - torch.tensor([y, x])).double().norm() == distances.min()


def test_solid_colours_depend_on_the_place_alone():
    points = np.random.default_rng(0).normal(size=(40, 3))
    normals = np.tile([0.0, 0.0, 1.0], (40, 1))
    colours, photos = solid_colours(points, normals, 0.1, 9, generator=torch.Generator().manual_seed(0))
    assert colours.shape == (9, 3, 40)
    assert colours.abs().max() <= 1
    assert len(photos.unique()) >= 5
    again, _ = solid_colours(points[::-1], normals, 0.1, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.flip(-1), colours)


def test_bilinear_springs_agree_with_weighted_least_squares(ball, denoiser):
    cameras = ring_cameras(ball, 4, resolution=(12, 12))
    graph = bilinear_texture_graph(ball, cameras, view=SHAPE)
    samples = ps.sample(graph, denoiser, SCHEDULER, 8, 2, progress=False, posterior_covariance=0.2).samples
    free = bilinear_texture_graph(ball, cameras, view=SHAPE, precision=1e-6)
    loose = ps.sample(free, denoiser, SCHEDULER, 8, 2, progress=False, posterior_covariance=0.2).samples
    residuals = [_misfit(graph, given) for given in (samples, loose)]
    assert residuals[0] < 0.1 * residuals[1]
    # the same texture from dense normal equations
    size = graph.shape("atlas")
    precision, eta = 1e-2 * torch.eye(int(np.prod(size))).double(), 0
    for name in graph.trajectories:
        pixels, look = graph.maps(f"see {name}")
        rows, strength = look.dense(), graph.potential(f"see {name}").precision
        precision = precision + rows.T @ (strength[:, None] * rows)
        eta = eta + rows.T @ (strength * pixels.apply(samples[name][0].double()))
    expected = torch.linalg.solve(precision, eta).reshape(size)
    torch.testing.assert_close(bake(graph, samples)[0].double(), expected, atol=1e-3, rtol=0)


def _misfit(graph, samples):
    texture, total = bake(graph, samples), 0.0
    for name in graph.trajectories:
        pixels, look = graph.maps(f"see {name}")
        total += (look.apply(texture) - pixels.apply(samples[name])).square().mean().item()
    return total


def test_bad_input_is_named(ball, sheet, around):
    edge_on = Camera((0, -3, 0.2), resolution=(12, 12))
    for make, settings in ((make_atlas, {}), (bilinear_texture_graph, {"view": SHAPE})):
        with pytest.raises(CameraError, match="'view 1'.*graze") as caught:
            make(sheet, [Camera((0, 0, 3), resolution=(12, 12)), edge_on], **settings)
        assert caught.value.name == "view 1"
    with pytest.raises(ShapeError, match="'view 0'.*resolution"):
        texture_graph(around, view=(3, 24, 24))
    with pytest.raises(ShapeError, match="channels, height, width"):
        texture_graph(around, view=(12, 12))
    with pytest.raises(ParameterError, match="cameras are missing"):
        texture_graph(ball)
    with pytest.raises(ParameterError, match="is no Camera"):
        texture_graph(ball, ["front"])
    with pytest.raises(ParameterError, match="neighbours"):
        texture_graph(around, view=SHAPE, neighbours="some")
    with pytest.raises(ShapeError, match="too coarse"):
        make_atlas(replace(sheet, uv=0.2 * sheet.uv), [Camera((0, 0, 3))], (1, 1))
    with pytest.raises(ShapeError, match=r"atlas=\(0, 4\)"):
        make_atlas(ball, ring_cameras(ball, 2), (0, 4))
    with pytest.raises(ParameterError, match="least_cosine"):
        make_atlas(ball, ring_cameras(ball, 2), least_cosine=1.0)
    with pytest.raises(ShapeError, match="sites"):
        around.texture(torch.zeros(3, 5))
    with pytest.raises(ShapeError, match="texels"):
        around.canvas(torch.zeros(3, 5, 5))
    with pytest.raises(ParameterError, match="nothing to fill"):
        dilate(torch.zeros(4, 4), torch.zeros(4, 4, dtype=torch.bool))
