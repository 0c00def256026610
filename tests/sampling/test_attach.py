"""`attach` on pipelines of diffusers with tiny random weights, against the stock pipelines and closed forms.

The matrix of all pipelines and schedulers is marked slow: ``tox -e pipelines``. Untrained networks blow contents up, so
differences are stated relative to the largest number that a run met, where that is above 1.
"""

from __future__ import annotations

import copy
import functools
import inspect

import diffusers
import pytest
import torch
from diffusers.pipelines.deprecated import StableDiffusionPanoramaPipeline

import pgm_sync as ps
from pgm_sync.errors import (
    BatchError,
    NotFiniteError,
    ParameterError,
    ShapeError,
    UnsupportedError,
    UnsupportedSchedulerError,
)
from pgm_sync.sampling.coordinates import coordinates, initial_scale
from pgm_sync.sampling.hook import HOOK
from tests.pipelines import PIPELINES, SHAPE, VARIANTS, scheduler
from tests.sampling.test_coordinates import NOISY_END, RUNS, make, take

pytestmark = [
    # torch, when diffusers hands its tensors to numpy.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    # diffusers, on DPMSolverMultistep(algorithm_type="dpmsolver"), and on LMS in pipelines made for flow schedulers.
    pytest.mark.filterwarnings("ignore:`algorithm_types dpmsolver:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The `scale_model_input` function should be called:UserWarning"),
    # torchsde, on the rounding of the levels that DPMSolverSDE asks it for.
    pytest.mark.filterwarnings("ignore:Should have :UserWarning"),
]
FIRST = [(name, tiny.schedulers[0]) for name, tiny in PIPELINES.items()]
FAMILIES = [
    *[("PixArt", v) for v in ("DDPM clip", "LCM", "Heun", "DPM++ SDE", "DPM++ 2M thresholding", "EDM DPM++ 2M")],
    *[("SD3", v) for v in ("flow Euler stochastic", "flow Heun")],
]
MATRIX = [(name, v) for name, tiny in PIPELINES.items() for v in tiny.schedulers]
QUICK = [*FIRST, *FAMILIES]
REST = [pytest.param(*case, marks=pytest.mark.slow) for case in MATRIX if case not in QUICK]


def prepared(name, variant, dtype=torch.float32):
    tiny = PIPELINES[name]
    pipe = tiny.build().to(dtype)
    pipe.scheduler = scheduler(variant)
    return tiny, pipe


def shares(variant):
    """Whether trajectories can share the step noise: a Brownian tree is out of reach."""
    return VARIANTS[variant][0] != "DPMSolverSDE"


def spread(attachment, out):
    rows = [row.double() for row in attachment.rows.split(out).values()]
    return max((row - rows[0]).abs().max().item() for row in rows)


class Scale:
    """The largest number that a run met, for rounding errors to be measured by."""

    def __init__(self):
        self.value = 1.0

    def __call__(self, state):
        for contents in (state.noisy, state.next):
            self.value = max(self.value, *(x.abs().max().item() for x in contents.values()))


# ------------------------------------------------------------------------------------------------ the matrix


@pytest.mark.parametrize(("name", "variant"), [*QUICK, *REST])
def test_without_factors_the_stock_result_bit_for_bit(name, variant):
    tiny, pipe = prepared(name, variant)
    stock = tiny.run(pipe)
    assert torch.isfinite(stock).all()
    with tiny.attach(pipe, tiny.graph(coupled=False)) as attachment:
        assert torch.equal(tiny.run(pipe), stock)
    assert attachment.steps > 0


@pytest.mark.parametrize(("name", "variant"), [*QUICK, *REST])
def test_equal_rows_end_equal(name, variant):
    tiny, pipe = prepared(name, variant)
    stock = tiny.run(pipe)
    scale = Scale()
    with tiny.attach(pipe, tiny.graph(coupled=True), shared_noise=shares(variant), on_step=scale) as attachment:
        out = tiny.run(pipe)
    # PNDM extrapolates predictions of the noise, whose corrections are rounded at |x| / sigma.
    tolerance = 2e-5 if VARIANTS[variant][0] == "PNDM" else 1e-5
    assert spread(attachment, out) <= tolerance * scale.value
    assert spread(attachment, stock) > 1e-2  # they were far from it


QUICK_HALF = [("SD", torch.bfloat16), ("SD3", torch.float16), ("IF", torch.bfloat16), ("Wan", torch.float16)]
HALF = [
    pytest.param(name, variant, dtype, marks=() if (name, dtype) in QUICK_HALF else pytest.mark.slow)
    for name, variant in FIRST
    for dtype in (torch.bfloat16, torch.float16)
]


@pytest.mark.parametrize(("name", "variant", "dtype"), HALF)
def test_half_precision(name, variant, dtype):
    """Corrected and stepped in float32 and cast once: rows that are equal before they are rounded are after it."""
    tiny, pipe = prepared(name, variant, dtype)
    try:
        stock = tiny.run(pipe)
        with tiny.attach(pipe, tiny.graph(coupled=False)):
            assert torch.equal(tiny.run(pipe), stock)
        with tiny.attach(pipe, tiny.graph(coupled=True)) as attachment:
            out = tiny.run(pipe)
    finally:
        pipe.to(torch.float32)
    assert out.dtype == stock.dtype
    # Wan steps in float32 in any case.
    assert spread(attachment, out) <= (1e-5 * max(1, out.abs().max()) if out.dtype == torch.float32 else 0)
    assert spread(attachment, stock) > 1e-2


# --------------------------------------------------------------------------------------- point-mass oracles


class Loop:
    """The least that `attach` takes for a pipeline: a scheduler, and a run that hands its `step` what it is told."""

    def __init__(self, scheduler):
        self.scheduler = scheduler

    def __call__(self, points, noise):
        """Denoisers that know their contents: the output at every step means `points`."""
        self.scheduler.set_timesteps(20)
        sample = noise * initial_scale(self.scheduler)
        sigmas, memory, timesteps = [], {}, list(self.scheduler.timesteps)
        for index, t in enumerate(timesteps):
            if hasattr(self.scheduler, "scale_model_input"):
                self.scheduler.scale_model_input(sample, t)
            at = coordinates(self.scheduler, t)
            sigmas.append(at.sigma / (at.alpha**2 + at.sigma**2) ** 0.5)
            output = at.output_from_denoised(points, sample)
            sample, memory["old"] = take(self.scheduler, timesteps, index, output, sample, memory)
        return sample, sigmas[-1]


def pair(weight):
    """Two trajectories that show one canvas, of which the first says `weight` and the second the rest."""
    graph = ps.FactorGraph()
    graph.add_variable("canvas", (3, 4, 4))
    for name, share in (("a", weight), ("b", 1 - weight)):
        graph.add_trajectory(name, (3, 4, 4))
        graph.add_factor(f"see {name}", [name, "canvas"], ps.Equality(share))
    return graph


CASES = [*RUNS, *NOISY_END, ("DPMSolverSDE", "epsilon", {"noise_sampler_seed": 0})]
FIRST_CASE = {name: k for k, (name, *_) in reversed(list(enumerate(CASES)))}
ORACLES = [
    pytest.param(*case, w, marks=() if (FIRST_CASE[case[0]], 0.3) == (k, w) else pytest.mark.slow)
    for k, case in enumerate(CASES)
    for w in (0.3, 1.0)
]


@pytest.mark.parametrize(("name", "kind", "config", "weight"), ORACLES)
def test_denoisers_that_know_their_contents_end_on_the_weighted_mean(name, kind, config, weight):
    points = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pipe = Loop(make(name, kind, **config))
    with ps.attach(pipe, pair(weight), shared_noise=name != "DPMSolverSDE") as attachment:
        out, last = pipe(points, attachment.noise(seed=1, dtype=torch.float64))
    expected = weight * points[0] + (1 - weight) * points[1]
    tolerance = 1e-5 if name in ("LCM", "CMStochasticIterative") else 1e-6  # see test_coordinates
    if (name, kind, config) in NOISY_END:
        tolerance = 5 * last  # standard deviations of the noise that is left
        assert last < 0.3
    assert (out - expected).abs().max() <= tolerance


# --------------------------------------------------------------- guidance, callbacks, interrupts, batches


def leader(tiny):
    """All rows show what the first says."""
    graph = ps.FactorGraph()
    graph.add_variable("canvas", tiny.shape)
    for k in range(tiny.rows):
        graph.add_trajectory(f"row {k}", tiny.shape)
        graph.add_factor(f"see {k}", [f"row {k}", "canvas"], ps.Equality(float(k == 0)))
    return graph


def count_to(last):
    def callback(pipe, step, timestep, kwargs):
        pipe._interrupt = step >= last
        return kwargs

    return callback


def damp(pipe, step, timestep, kwargs):
    return {"latents": 0.9 * kwargs["latents"]}


@pytest.mark.parametrize(
    "more",
    [
        {"guidance_scale": 1.0},
        {"guidance_scale": 7.5},
        {"guidance_scale": 7.5, "guidance_rescale": 0.7},
        {"callback_on_step_end": damp},
        {"callback_on_step_end": count_to(1)},
        {"eta": 1.0},
    ],
    ids=["no guidance", "guidance", "rescale", "callback", "interrupt", "eta"],
)
def test_rows_that_follow_the_first_leave_it_as_the_stock_pipeline_has_it(more):
    """What the engine replaces is the output after guidance and rescaling, or the rows would not end together."""
    tiny, pipe = prepared("SD", "DDIM")
    with tiny.attach(pipe, leader(tiny), shared_noise=True) as attachment:
        latents = attachment.noise(seed=2)
        out = tiny.run(pipe, latents=latents.clone(), **more)
    assert attachment.steps == (2 if more.get("callback_on_step_end") not in (None, damp) else 4)
    if "eta" not in more:  # whose noise differs from row to row in the stock pipeline
        stock = tiny.run(pipe, latents=latents.clone(), **more)
        assert torch.equal(out[0], stock[0])
        assert (stock - stock[0]).abs().max() > 1e-2
    assert (out - out[0]).abs().max() <= 1e-5 * max(1, out.abs().max())


@pytest.mark.parametrize("more", [{"guidance_rescale": 0.7}, {"callback_on_step_end": damp}, {"eta": 1.0}])
def test_without_factors_the_same_with_the_pipelines_own_options(more):
    tiny, pipe = prepared("SD", "DDIM")
    stock = tiny.run(pipe, **more)
    with tiny.attach(pipe, tiny.graph(coupled=False)):
        assert torch.equal(tiny.run(pipe, **more), stock)


def test_several_joint_samples_in_one_batch():
    tiny, pipe = prepared("SD", "DDIM")
    with tiny.attach(pipe, tiny.graph(coupled=True)):
        out = tiny.run(pipe, num_images_per_prompt=2).unflatten(0, (3, 2))
    assert (out - out[:1]).abs().max() <= 1e-5 * out.abs().max()
    assert (out[0, 0] - out[0, 1]).abs().max() > 1e-2


def test_step_noise_is_shared():
    """Otherwise the average of three rows' noise would have a third of its variance."""
    pipe = Loop(make("DDPM"))
    pipe.scheduler.set_timesteps(10)
    graph = PIPELINES["SD"].graph(coupled=True)
    sample = torch.zeros(3, *SHAPE)
    with ps.attach(pipe, graph):
        pipe.scheduler.set_timesteps(10)
        out = pipe.scheduler.step(torch.zeros_like(sample), pipe.scheduler.timesteps[2], sample).prev_sample
    assert torch.equal(out[0], out[1])
    assert out.std() > 0.1


@pytest.mark.parametrize("variant", ["DDIM", "DDPM thresholding", "DPM++ 2M SDE"])
def test_rows_that_nothing_couples_keep_the_stock_result(variant):
    tiny, pipe = prepared("SD", variant)
    stock = tiny.run(pipe)
    graph = tiny.graph(coupled=False)
    graph.add_factor("same", ["row 0", "row 1"], ps.Equality())
    with tiny.attach(pipe, graph):
        out = tiny.run(pipe)
    assert torch.equal(out[2], stock[2])
    assert not torch.equal(out[1], stock[1])
    assert (out[1] - out[0]).abs().max() <= 1e-5 * max(1, out.abs().max())


def test_correlated_gaussians():
    """Standard normal rows with exact denoisers, coupled by rho: samples of their joint distribution."""
    rho, n = 0.8, 4000
    graph = ps.chain_graph(2, (1, 1, 1), ps.Correlation(rho))
    pipe = Loop(scheduler("DDIM", timestep_spacing="trailing"))
    with ps.attach(pipe, graph) as attachment:
        pipe.scheduler.set_timesteps(50)
        sample = attachment.noise(n, seed=1, dtype=torch.float64)
        for t in pipe.scheduler.timesteps:
            at = coordinates(pipe.scheduler, t)
            denoised = at.alpha * sample  # alpha^2 + sigma^2 = 1
            sample = pipe.scheduler.step(at.output_from_denoised(denoised, sample), t, sample).prev_sample
    covariance = torch.cov(sample.reshape(2, n))
    expected = torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)
    assert (covariance - expected).abs().max() <= 3 * (2 / n) ** 0.5  # three standard errors of a variance


def test_every_run_counts_its_own_steps():
    tiny, pipe = prepared("img2img", "DDIM")  # starts in the middle of its schedule
    seen = []
    with tiny.attach(pipe, tiny.graph(coupled=True), on_step=lambda state: seen.append(state.step)) as attachment:
        for _ in range(2):
            tiny.run(pipe)
            assert attachment.steps == len(attachment.capped) == 4
    assert seen == [0, 1, 2, 3] * 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch, of itself
def test_compiled_networks():
    tiny, pipe = prepared("SD", "DDIM")
    network = pipe.unet
    pipe.unet = torch.compile(network, backend="aot_eager")
    try:
        stock = tiny.run(pipe)
        with tiny.attach(pipe, tiny.graph(coupled=False)):
            assert torch.equal(tiny.run(pipe), stock)
        with tiny.attach(pipe, tiny.graph(coupled=True)) as attachment:
            assert spread(attachment, out := tiny.run(pipe)) <= 1e-5 * out.abs().max()
    finally:
        pipe.unet = network


# ------------------------------------------------------------------------------ the scheduler that is hooked


def test_the_hooked_scheduler_passes_for_the_stock_one():
    tiny, pipe = prepared("SD", "DDIM")
    stock = pipe.scheduler
    with tiny.attach(pipe, tiny.graph(coupled=True)):
        hooked = pipe.scheduler
        assert hooked is not stock
        assert isinstance(hooked, diffusers.DDIMScheduler)
        assert type(hooked).__name__ == "DDIMScheduler"
        assert inspect.signature(hooked.step) == inspect.signature(stock.step)
        assert inspect.signature(hooked.set_timesteps) == inspect.signature(stock.set_timesteps)
        assert pipe.scheduler.config == stock.config
    assert pipe.scheduler is stock
    assert HOOK not in vars(stock)


def test_copies_are_not_synchronised():
    tiny, pipe = prepared("SD", "DDIM")
    output, sample = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(0))
    reference = scheduler("DDIM")
    reference.set_timesteps(4)
    t = reference.timesteps[1]
    expected = reference.step(output, t, sample).prev_sample
    with tiny.attach(pipe, tiny.graph(coupled=True)):
        pipe.scheduler.set_timesteps(4)
        assert not torch.equal(pipe.scheduler.step(output, t, sample).prev_sample, expected)
        copied = copy.deepcopy(pipe.scheduler)
        assert type(copied) is diffusers.DDIMScheduler
        made = type(pipe.scheduler).from_config(pipe.scheduler.config)
        for other in (copied, made):
            other.set_timesteps(4)
            assert torch.equal(other.step(output, t, sample).prev_sample, expected)


def test_saved_while_attached_loads_as_a_stock_pipeline(tmp_path):
    tiny, pipe = prepared("SD", "DDIM")
    pipe.scheduler = scheduler("DDIM", steps_offset=1)
    stock = tiny.run(pipe)
    with tiny.attach(pipe, tiny.graph(coupled=True)):
        pipe.save_pretrained(tmp_path)
    absent = ("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder")
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, **dict.fromkeys(absent))
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.scheduler) is diffusers.DDIMScheduler
    assert loaded.scheduler.config.clip_sample is False
    assert torch.equal(tiny.run(loaded), stock)


def test_the_scheduler_comes_back_after_an_exception():
    tiny, pipe = prepared("SD", "DDIM")
    stock = pipe.scheduler
    with pytest.raises(RuntimeError, match="outside"), tiny.attach(pipe, tiny.graph(coupled=True)):
        raise RuntimeError("outside")
    assert pipe.scheduler is stock


@pytest.mark.parametrize("coupled", [True, False])
def test_attaching_again_replaces(coupled):
    tiny, pipe = prepared("SD", "DDPM")
    with tiny.attach(pipe, tiny.graph(coupled=coupled)):
        alone = tiny.run(pipe)
    with tiny.attach(pipe, tiny.graph(coupled=not coupled)) as outer:
        around = tiny.run(pipe)
        with tiny.attach(pipe, tiny.graph(coupled=coupled)) as inner:
            assert torch.equal(tiny.run(pipe), alone)  # shared noise or not, whatever is around
        assert (outer.steps, inner.steps) == (4, 4)
        assert torch.equal(tiny.run(pipe), around)


@pytest.mark.parametrize("names", [("SD", "IF"), ("IF", "SD")])
def test_two_stages_attached_at_once(names):
    """Both schedulers draw from one module; each gets the noise of its own graph."""
    (first, one), (second, two) = (prepared(name, "DDPM learned" if name == "IF" else "DDPM") for name in names)
    with first.attach(one, first.graph(coupled=True)) as outer, second.attach(two, second.graph(coupled=True)) as inner:
        for tiny, pipe, attachment in ((first, one, outer), (second, two, inner)):
            out = tiny.run(pipe)
            assert spread(attachment, out) <= 1e-5 * max(1, out.abs().max())
            assert (out[0] - out[0].mean()).abs().max() > 1e-2


# ------------------------------------------------------------------------------------------------- bad input


def test_what_is_not_finite_is_named():
    tiny, pipe = prepared("SD", "DDIM")

    def spoil(pipe, step, timestep, kwargs):
        latents = kwargs["latents"].clone()
        if step == 1:
            latents[1, 0, 0, 0] = float("nan")
        return {"latents": latents}

    stock = pipe.scheduler
    with tiny.attach(pipe, tiny.graph(coupled=True)):  # noqa: SIM117
        with pytest.raises(NotFiniteError, match=r"'row 1' has \d+ NaN .* at step 2") as error:
            tiny.run(pipe, callback_on_step_end=spoil)
    assert (error.value.name, error.value.step) == ("row 1", 2)
    assert pipe.scheduler is stock


def test_batches_and_shapes_that_do_not_fit():
    tiny, pipe = prepared("SD", "DDIM")
    two = tiny._replace(rows=2).graph(coupled=True)
    with ps.attach(pipe, two), pytest.raises(BatchError, match="steps 3 rows, .* 2 trajectories"):
        tiny.run(pipe)
    with tiny.attach(pipe, tiny.graph(coupled=True)):  # noqa: SIM117
        with pytest.raises(ShapeError, match=r"shape \(3, 4, 12, 8\)"):
            tiny.run(pipe, height=96)
    video, pipe = prepared("AnimateDiff", "DDIM")
    with ps.attach(pipe, video.graph(coupled=True)), pytest.raises(ShapeError, match="axis="):
        video.run(pipe)


@pytest.mark.parametrize("rule", ["denoiser", "jacobian"])
def test_covariances_that_a_pipeline_cannot_give(rule):
    pipe = Loop(scheduler("DDIM"))
    graph = ps.chain_graph(2, SHAPE, ps.Correlation(0.5))
    with pytest.raises(UnsupportedError, match=f"posterior_covariance='{rule}'"), ps.attach(
        pipe, graph, posterior_covariance=rule
    ):
        pass


REFUSED = {
    "IPNDM": "no signal",
    "DDIMInverse": "adds noise",
    "DPMSolverMultistepInverse": "adds noise",
    "ScoreSdeVe": "no step",
    "VQDiffusion": "tokens",
    "DDPMWuerstchen": "ratios",
}


@pytest.mark.parametrize("name", REFUSED)
def test_schedulers_that_cannot_be_synchronised(name):
    more = {"num_vec_classes": 4} if name == "VQDiffusion" else {}
    pipe = Loop(getattr(diffusers, f"{name}Scheduler")(**more))
    with pytest.raises((UnsupportedSchedulerError, ParameterError), match=f"{name}.*{REFUSED[name]}"):  # noqa: SIM117
        with ps.attach(pipe, pair(0.5)):
            pass


def test_levels_that_differ_within_a_step():
    pipe = Loop(scheduler("flow Euler"))
    with ps.attach(pipe, pair(0.5)):
        pipe.scheduler.set_timesteps(4)
        sample, t = torch.zeros(2, 3, 4, 4), pipe.scheduler.timesteps[0]
        with pytest.raises(UnsupportedError, match="FlowMatchEulerDiscreteScheduler.*per_token_timesteps"):
            pipe.scheduler.step(sample, t, sample, per_token_timesteps=torch.ones(2, 4))


def test_noise_of_its_own():
    pipe = Loop(scheduler("DPM++ SDE"))
    with pytest.raises(UnsupportedSchedulerError, match="Brownian tree"), ps.attach(pipe, pair(0.5)):
        pass


def test_no_scheduler():
    with pytest.raises(ParameterError, match="SimpleNamespace.scheduler is no scheduler"):  # noqa: SIM117
        with ps.attach(type("SimpleNamespace", (), {})(), pair(0.5)):
            pass


# -------------------------------------------------------------------------------------------------- panorama


QUICK_PANORAMA = [
    ("DDIM", False, torch.float64),
    ("DPM++ 2M", False, torch.float64),
    ("UniPC", True, torch.float64),
    ("Euler", True, torch.float32),
]
PANORAMA = [
    pytest.param(v, wrap, dtype, marks=() if (v, wrap, dtype) in QUICK_PANORAMA else pytest.mark.slow)
    for v in ("DDIM", "Euler", "DPM++ 2M", "UniPC")
    for wrap in (False, True)
    for dtype in (torch.float64, torch.float32)
] + [
    pytest.param(v, wrap, torch.float64, marks=pytest.mark.slow)
    for v in ("PNDM skip", "LMS", "Heun", "DPM++ 3M Karras", "DEIS")
    for wrap in (False, True)
]


@pytest.mark.parametrize(("variant", "wrap", "dtype"), PANORAMA)
def test_panorama(variant, wrap, dtype):
    """diffusers averages x_{t-1} where windows overlap (MultiDiffusion); here it is the content, Eq. 12."""
    tiny, pipe = prepared("SD", variant, dtype)
    reference = StableDiffusionPanoramaPipeline(
        None, None, None, pipe.unet, scheduler(variant, steps_offset=1), None, None, requires_safety_checker=False
    )
    reference.set_progress_bar_config(disable=True)
    reference.get_views = functools.partial(reference.get_views, window_size=8, stride=4)
    pipe.scheduler = scheduler(variant, steps_offset=1)
    graph = ps.wide_canvas((4, 8, 20), (8, 8), 4, wrap=wrap)
    canvas = torch.randn(1, 4, 8, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    views = [graph.maps(f"see {name}")[1] for name in graph.trajectories]
    assert len(views) == len(reference.get_views(64, 160, circular_padding=wrap)) == (5 if wrap else 4)
    try:
        with torch.inference_mode():
            embeds = {
                name: torch.randn(1, 7, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)
                for seed, name in enumerate(("prompt_embeds", "negative_prompt_embeds"))
            }
            given = {"num_inference_steps": 6, "output_type": "latent", "return_dict": False, "guidance_scale": 2.0}
            expected = reference(
                height=64, width=160, latents=canvas.clone(), circular_padding=wrap, **embeds, **given
            )[0]
            rows = {name: value.expand(len(views), -1, -1) for name, value in embeds.items()}
            with ps.attach(pipe, graph):
                latents = torch.cat([view.apply(canvas) for view in views])
                out = pipe(height=64, width=64, latents=latents, **rows, **given)[0]
    finally:
        pipe.to(torch.float32)
    error = max((row - view.apply(expected)[0]).abs().max() for row, view in zip(out, views, strict=True))
    # Latents reach 100 to 800 here.
    assert error <= (1e-12 if dtype == torch.float64 else 1e-6 * expected.abs().max())
