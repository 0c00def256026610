"""The page in a browser: that it says what Python computed, by mouse, keyboard and touch, light and dark."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps
from pgm_sync.denoisers import GaussianDenoiser
from pgm_sync.inspection.counterfactual import changes, drawn_states, strength_range
from pgm_sync.potentials import Attraction, JointGaussian
from tests.browser import browser, console_errors, needs_browser, open_page, overflow, requested

from .test_joint_model import GRAPHS, chain

pytestmark = needs_browser


@pytest.fixture(scope="module")
def wide() -> ps.FactorGraph:
    generator = torch.Generator().manual_seed(0)
    graph = ps.wide_canvas((1, 6, 18), (6, 6), 4, features=lambda shape: ps.DCT(shape, 3), neighbours="all")
    smooth = torch.randn(300, 1, 1, 4, generator=generator)
    canvas = torch.nn.functional.interpolate(smooth, (6, 18), mode="bilinear")
    return ps.fit(graph, {"canvas": canvas + 0.3 * torch.randn(300, 1, 6, 18, generator=generator)})


@pytest.fixture(scope="module")
def recorded(wide) -> ps.Recording:
    kinds = ("noisy", "denoised", "joint", "correction", "disagreement")
    recorder = ps.Recorder(wide, images={"kinds": kinds, "steps": 3})
    denoiser = GaussianDenoiser(torch.zeros(1, 6, 6), 0.5 * torch.eye(36))
    ps.sample(wide, denoiser, DDIMScheduler(clip_sample=False), 6, progress=False, on_step=recorder)
    return recorder.recording


@pytest.fixture(scope="module")
def page(wide, recorded, tmp_path_factory) -> Path:
    other = wide.with_potentials({("w0", "w1"): wide.potential(("w1", "w2"))})
    other.remove_node(("w0", "w3"))
    seen = ps.inspect(recorded, other, command="pgm-sync inspect run")
    return seen.save(tmp_path_factory.mktemp("pages") / "page.html")


@pytest.fixture(scope="module")
def driver(page):
    with browser() as found:
        open_page(found, page)
        yield found


@pytest.fixture
def fresh(driver, page):
    open_page(driver, page)
    yield driver
    assert console_errors(driver) == []


def click(driver, selector: str) -> None:
    driver.execute_script(
        "document.querySelector(arguments[0]).dispatchEvent(new MouseEvent('click', {bubbles: true}))",
        selector,
    )


def move(driver, key: str, value: float) -> None:
    """A slider or a list, as a user would."""
    driver.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true})); e.dispatchEvent(new Event('change', {bubbles: true}))",
        key, value,
    )  # fmt: skip


def text(driver, selector: str) -> str:
    return driver.execute_script("return document.querySelector(arguments[0]).textContent", selector)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_asks_for_nothing_and_says_nothing_to_the_console(page, width, dark):
    with browser(width, dark) as driver:
        open_page(driver, page)
        driver.execute_script("pgmSync.choose(pgmSync.data.edges.findIndex((e) => e.modes.length))")
        assert overflow(driver) <= 0
        assert requested(driver) == []
        assert console_errors(driver) == []
        paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(19, 19, 18)") == dark


def test_the_scheme_can_be_switched(fresh):
    def paper():
        return fresh.execute_script("return getComputedStyle(document.body).backgroundColor")

    before = paper()
    fresh.find_element("id", "theme").click()
    assert paper() != before
    fresh.find_element("id", "theme").click()
    assert paper() == before


def test_an_edge_is_chosen_by_mouse_and_by_keyboard(fresh, wide):
    from selenium.webdriver.common.keys import Keys

    table = [row for row in ps.correlations(wide) if row.factor == ("w0", "w1")]
    place = wide.factors.index(("w0", "w1"))
    click(fresh, f'g.square[data-edge="{place}"]')
    shown = text(fresh, "#details")
    assert "w0 – w1" in shown
    assert "learned" in shown
    for row in table:
        assert f"{row.rho:.2f}".replace("-", "−") in shown
        assert f"{row.low:.2f} to {row.high:.2f}".replace("-", "−") in shown
    assert fresh.execute_script("return document.querySelectorAll('#details img').length") == len(table)
    first = fresh.find_element("css selector", "svg.graph[role=group] [data-node]")
    first.send_keys(Keys.ENTER)
    assert "trajectory" in text(fresh, "#details") or "hidden variable" in text(fresh, "#details")
    structural = next(k for k, f in enumerate(wide.factors) if "canvas" in wide.scope(f))
    fresh.find_element("css selector", f'g.square[data-edge="{structural}"]').send_keys(" ")
    assert "structural" in text(fresh, "#details")


def test_the_noise_level_recolours_the_edges(fresh, wide):
    seen = ps.inspect(wide)
    place = wide.factors.index(("w0", "w1"))
    for level in (0, 20, 40):
        move(fresh, "level", level)
        rho = seen.levels.of(("w0", "w1"))[level].rho
        label = fresh.execute_script(
            "return document.querySelector(arguments[0]).getAttribute('aria-label')",
            f'g.square[data-edge="{place}"]',
        )
        assert label.endswith(f"correlation {rho:.2f}".replace("-", "−"))
        assert text(fresh, "#level-value") == f"log snr {seen.levels.log_snr[level]:+.1f}".replace("-", "−")
    assert fresh.execute_script("return document.querySelectorAll('#curves path.curve').length") == len(
        seen.levels.modes
    )


def test_the_table_sorts(fresh, wide):
    information = [e for e in ps.inspect(wide).tables["factors"] if e.mutual_information > 0]
    order = [
        f"{r.factor[0]} – {r.factor[1]}" for r in sorted(information, key=lambda r: -r.mutual_information)
    ]
    fresh.execute_script(
        "[...document.querySelectorAll('table.heat thead button')].find(b => /nats/.test(b.textContent)).click()"
    )
    shown = fresh.execute_script(
        "return [...document.querySelectorAll('table.heat')][0].tBodies[0].innerText.split('\\n')"
    )
    names = [line.split("\t")[0] for line in shown]
    assert names == order
    assert (
        fresh.execute_script("return document.querySelector('table.heat th[aria-sort]').ariaSort")
        == "descending"
    )


SOLVE = """
const {engine, data} = pgmSync, [logSnr, own, noisy, strengths] = arguments;
const found = engine.solve(logSnr, Float64Array.from(own), Float64Array.from(noisy), new Map(strengths));
return found && Array.from(found);
"""


@pytest.mark.parametrize("name", [*GRAPHS, "springs"])
def test_the_page_solves_what_python_solves(driver, name, tmp_path):
    graph = GRAPHS[name]() if name in GRAPHS else ps.chain_graph(3, (4,), Attraction(2.0))
    if name == "springs":  # and one that sees modes of its end that no other factor sees
        graph.add_factor("modes", [0, 2], Attraction(1.0), [ps.DCT((4,), 2), ps.DCT((4,), 2)])
    seen = ps.inspect(graph, posterior_covariance=1.5 if name == "springs" else "surrogate")
    model = seen.model
    assert model is not None
    open_page(driver, seen.save(tmp_path / "page.html"))
    for snr, strength in ((0.02, 0.0), (1.0, 0.5), (30.0, 1.0)):
        states = drawn_states(model, snr, seed=3)
        for factor in list(model.terms)[:2]:
            place = graph.factors.index(factor)
            found = driver.execute_script(
                SOLVE, math.log(snr), states.own.tolist(), states.noisy.tolist(), [[place, strength]]
            )
            expected = model.solve(*states, {factor: strength})
            torch.testing.assert_close(
                torch.tensor(found, dtype=torch.float64), expected, rtol=1e-6, atol=1e-6
            )
    drawn = driver.execute_script(
        "const s = pgmSync.engine.stateAt(1, arguments[0]); return [Array.from(s.own), Array.from(s.noisy)]",
        -0.5,
    )
    expected = drawn_states(model, math.exp(-0.5), seed=1)
    torch.testing.assert_close(torch.tensor(drawn[0]).double(), expected.own, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.tensor(drawn[1]).double(), expected.noisy, rtol=1e-6, atol=1e-6)
    assert console_errors(driver) == []


def test_an_improper_strength_is_said(driver, tmp_path):
    open_page(driver, ps.inspect(chain()).save(tmp_path / "page.html"))
    found = driver.execute_script(
        "const e = pgmSync.engine, s = e.stateAt(0, 0); return e.solve(0, s.own, s.noisy, new Map([[0, 2]]))"
    )
    assert found is None


def test_cutting_moves_the_means_by_what_python_says(fresh, wide, recorded):
    model = ps.inspect(recorded).model
    factor = next(f for f in model.terms if strength_range(model, f)[0] == 0)
    place = wide.factors.index(factor)
    click(fresh, f'g.square[data-edge="{place}"]')
    fresh.find_element("css selector", "#details .action").click()
    assert text(fresh, "#what-strength-value") == "cut"
    level = int(fresh.execute_script("return document.getElementById('what-level').value"))
    snr = math.exp(ps.inspect(recorded).levels.log_snr[level])
    rows = changes(model, drawn_states(model, snr), {factor: 0.0})
    shown = fresh.execute_script(
        "return [...document.querySelectorAll('#what-bars td.number:not(.soft)')].map(e => e.textContent)"
    )
    assert [float(v.replace("−", "-")) for v in shown] == pytest.approx(
        [r.change for r in rows], rel=0.01, abs=1e-3
    )
    move(fresh, "what-strength", 1)
    assert set(fresh.execute_script(
        "return [...document.querySelectorAll('#what-bars td.number:not(.soft)')].map(e => Number(e.textContent))"
    )) == {0}  # fmt: skip
    assert fresh.execute_script("return document.querySelectorAll('#what-modes canvas').length") == 4


def test_recorded_states_can_be_tried_on(fresh, recorded):
    labels = fresh.execute_script(
        "return [...document.getElementById('what-state').options].map(o => o.textContent)"
    )
    assert labels[3:] == [f"recorded step {k + 1} of 6" for k in (0, 2, 5)] or len(labels) == 6
    move(fresh, "what-state", 4)
    assert fresh.execute_script("return document.getElementById('what-level').disabled")
    step = int(labels[4].split()[2]) - 1
    assert text(fresh, "#what-level-value") == f"log snr {math.log(recorded.records[step].snr):+.1f}".replace(
        "-", "−"
    )


def test_steps_are_shown_one_by_one(fresh, recorded):
    for k, record in enumerate(recorded.records):
        move(fresh, "step", k)
        assert text(fresh, "#step-value").startswith(
            f"{k + 1} of 6, log snr {math.log(record.snr):+.1f}".replace("-", "−")
        )
    rows = fresh.execute_script(
        "return [...document.querySelectorAll('.frames tbody tr')]"
        ".map(r => [r.cells[0].textContent, r.querySelectorAll('img').length])"
    )
    assert [name for name, _ in rows] == ["canvas", "w0", "w1", "w2", "w3"]
    assert all(count >= 3 for _, count in rows)
    loaded = fresh.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert loaded
    titles = fresh.execute_script(
        "return [...document.querySelectorAll('#step-switch label')].map(e => e.textContent)"
    )
    assert titles[:4] == ["correction", "pull of factors", "effective strength", "variance left"]
    for key in ("flow", "variance", "disagreement"):
        fresh.execute_script("document.querySelector(`input[value=${arguments[0]}]`).click()", key)
        assert fresh.execute_script("return document.querySelectorAll('#step-curves path.curve').length") >= 2


@pytest.mark.slow
def test_a_large_graph_comes_with_what_was_computed_before(driver, tmp_path):
    graph = ps.grid_graph(6, 6, (1, 8, 8), JointGaussian(), lambda shape: ps.DCT(shape, 6))
    covariance = torch.kron(torch.tensor([[1.0, 0.2], [0.2, 1.0]]), torch.eye(6)).double()
    seen = ps.inspect(graph.with_potentials({f: JointGaussian(covariance=covariance) for f in graph.factors}))
    open_page(driver, seen.save(tmp_path / "page.html"))
    assert driver.execute_script("return pgmSync.engine === null")
    before = text(driver, "#what-bars")
    move(driver, "what-level", 3)
    assert text(driver, "#what-bars") != before
    assert console_errors(driver) == []
