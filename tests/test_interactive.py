"""The interactive page: it computes what the package computes, and its controls do what they say."""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import diffusers
import networkx as nx
import pytest
import torch

import pgm_sync as ps
from pgm_sync.inference import belief_propagation as bp
from pgm_sync.metrics import energy_distance
from pgm_sync.peers import Pull, sample_syncsde, step_gain
from pgm_sync.score import JointDenoiser
from pgm_sync.score.exact import NoisyMixture
from tests.browser import browser, console_errors, needs_browser, open_page, overflow, requested

PAGE = Path(__file__).parent.parent / "docs" / "_static" / "interactive"
MODULES = ("linear", "gbp", "diffusion")
NODE = shutil.which("node")
CLOSE = {"rtol": 1e-9, "atol": 1e-9}

# What is asked of the page's modules, the same text in node and in the browser. JSON has no infinity.
EVALUATE = """
function evaluate({ gbp, diffusion }, kind, q) {
  const asked = {
    propagate() {
      const p = gbp.problem(q.graph);
      let messages = gbp.empty(p);
      const trace = [];
      for (let k = 0; k < q.iterations; k++) {
        messages = gbp.iterate(p, messages, q.schedule, q.damping);
        const { mean, variance } = gbp.beliefs(p, messages);
        const said = p.directed.map((_, e) => gbp.said(p, messages, e).precision);
        trace.push({ messages, mean, variance, said, residual: gbp.residual(p, mean) });
      }
      return { trace, edges: p.directed.map((e) => [e.source, e.target]), forest: p.forest };
    },
    exact() {
      const p = gbp.problem(q.graph);
      return { ...gbp.exact(p), radius: gbp.walkSummability(p) };
    },
    run() {
      return gbp.run(gbp.problem(q.graph), q.schedule, q.damping, q.tolerance);
    },
    posterior: () => q.points.map((x) => diffusion.posterior(q.mixture, x, q.level)),
    joint: () => q.points.map((x) =>
      diffusion.denoised({ marginals: q.marginals, joint: q.joint }, x, q.level, q.settings)),
    drift: () => q.points.map((x) => diffusion.drift({ joint: q.joint }, x, q.level, { method: "exact" })),
    density: () => q.points.map((x) => diffusion.density(q.joint, x, q.level)),
    sample: () => diffusion.sample({ marginals: q.marginals }, q.start, q.levels, q.settings).pop(),
    gains: () => q.levels.slice(1).map((next, k) => diffusion.stepGain(q.levels[k], next)),
    measures: () => ({ correlation: diffusion.correlation(q.x), energy: diffusion.energyDistance(q.x, q.y) }),
    matching: () => diffusion.matching(q.joint, q.points),
    drawn: () => ({ noise: diffusion.noise(q.count, q.seed), truth: diffusion.drawTrue(q.joint, q.count, q.seed) }),
  };
  return asked[kind]();
}
"""


@pytest.fixture(scope="module", params=["node", "chromium"])
def ask(request):
    """``ask(kind, **question)`` answers by the page's own modules."""
    if request.param == "node":
        if NODE is None:
            pytest.skip("needs node on the PATH")
        loads = "".join(f"{name}: require({json.dumps(str(PAGE / name))})," for name in MODULES)
        code = f"{EVALUATE}; const [kind, q] = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        code += f"process.stdout.write(JSON.stringify(evaluate({{{loads}}}, kind, q)))"

        def in_node(kind, **question):
            done = subprocess.run(
                [NODE, "-e", code],
                input=json.dumps([kind, question]),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        yield in_node
        return
    with browser() as driver:
        open_page(driver, PAGE / "index.html")

        def in_browser(kind, **question):
            code = f"{EVALUATE}; return JSON.stringify(evaluate(PGM, ...JSON.parse(arguments[0])))"
            return json.loads(driver.execute_script(code, json.dumps([kind, question])))

        yield in_browser


def double(numbers):
    return torch.as_tensor(numbers, dtype=torch.float64)


def same(found, expected):
    torch.testing.assert_close(double(found), double(expected), **CLOSE)


# --- belief propagation


def drawn(edges: nx.Graph, seed: int, low: float, high: float) -> dict:
    """A graph for the page, with evidence at most nodes and correlations in [low, high]."""
    generator = torch.Generator().manual_seed(seed)

    def number(a: float, b: float) -> float:
        return a + (b - a) * torch.rand((), generator=generator, dtype=torch.float64).item()

    nodes = [{"mean": number(-2, 2), "precision": number(0, 4) if number(0, 1) < 0.8 else 0.0} for _ in edges]
    return {
        "nodes": nodes,
        "edges": [{"first": b, "second": a, "rho": number(low, high)} for a, b in edges.edges],
    }


GRAPHS = {
    "chain": drawn(nx.path_graph(5), 0, -0.9, 0.95),
    "tree": drawn(nx.balanced_tree(2, 2), 1, -0.9, 0.9),
    "forest": drawn(nx.disjoint_union(nx.star_graph(3), nx.empty_graph(2)), 2, -0.9, 0.9),
    "loop": drawn(nx.cycle_graph(6), 3, 0.5, 0.9),
    "grid": drawn(nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3)), 4, -0.5, 0.6),
    "loops": drawn(nx.complete_graph(5), 5, -0.4, 0.3),
}
FORESTS = ("chain", "tree", "forest")


def posed(graph: dict) -> tuple[ps.FactorGraph, dict]:
    """The same graph for the package; evidence and the prior N(0, 1) of a node are one unary Gaussian."""
    built = ps.FactorGraph()
    for k in range(len(graph["nodes"])):
        built.add_trajectory(k, shape=1)
    for k, edge in enumerate(graph["edges"]):
        built.add_factor(f"edge {k}", [edge["first"], edge["second"]], ps.Correlation(edge["rho"]))
    evidence = {}
    for k, node in enumerate(graph["nodes"]):
        total = 1 + node["precision"]
        evidence[k] = (node["precision"] * node["mean"] / total, total)
    return built, evidence


def silence(network: bp.Network, graph: dict) -> bp.Messages:
    """Where the page starts: messages that take back what the factors add to their ends, so that they say nothing."""
    own = {}
    for edge in graph["edges"]:
        own[frozenset((edge["first"], edge["second"]))] = edge["rho"] ** 2 / (1 - edge["rho"] ** 2)
    precision = []
    for cells in network.layout.cells:
        ends = zip(cells.owners[cells.source], cells.owners[cells.target], strict=True)
        precision.append(double([-own[frozenset(map(int, pair))] for pair in ends]).reshape(-1, 1))
    return bp.Messages(tuple(precision), bp.init(network).eta)


def flat(by_name: dict, graph: dict) -> torch.Tensor:
    return torch.stack([by_name[k].squeeze() for k in range(len(graph["nodes"]))])


@pytest.mark.parametrize("damping", [0.0, 0.4])
@pytest.mark.parametrize("name", GRAPHS)
def test_messages_and_beliefs_after_every_flooding_step(ask, name, damping):
    graph = GRAPHS[name]
    found = ask("propagate", graph=graph, schedule="flooding", damping=damping, iterations=6)
    network = bp.network(*posed(graph))
    assert [tuple(edge) for edge in found["edges"]] == list(network.edges)
    assert found["forest"] == network.forest == (name in FORESTS)
    messages = bp.init(network, silence(network, graph))
    for row in found["trace"]:
        messages = bp.step(network, messages, damping=damping)
        expected = [bp.message(network, messages, *edge) for edge in network.edges]
        same(row["messages"]["precision"], torch.stack([m.precision.squeeze() for m in expected]))
        same(row["messages"]["eta"], torch.stack([m.eta.squeeze() for m in expected]))
        beliefs = bp.beliefs(network, messages)
        same(row["mean"], flat(beliefs.mean, graph))
        same(row["variance"], flat(beliefs.variance, graph))


@pytest.mark.parametrize(
    ("name", "schedule"), [(n, "sequential") for n in GRAPHS] + [(n, "tree") for n in FORESTS]
)
def test_an_iteration_of_the_other_schedules(ask, name, schedule):
    graph = GRAPHS[name]
    found = ask("propagate", graph=graph, schedule=schedule, damping=0.2, iterations=3)["trace"]
    network = bp.network(*posed(graph))
    for number, row in enumerate(found, 1):
        with pytest.raises(ps.errors.ConvergenceError) as caught:
            bp.run(
                network,
                schedule,
                0.2,
                tolerance=1e-30,
                max_iterations=number,
                messages=silence(network, graph),
            )
        same(row["residual"], caught.value.data["residual"])
        beliefs = bp.beliefs(network, caught.value.data["messages"])
        same(row["mean"], flat(beliefs.mean, graph))
        same(row["variance"], flat(beliefs.variance, graph))


@pytest.mark.parametrize("name", GRAPHS)
def test_the_truth_and_the_warnings(ask, name):
    """The dense solve, the smallest eigenvalue and rho(|R|)."""
    graph = GRAPHS[name]
    found = ask("exact", graph=graph)
    posterior = ps.infer(*posed(graph), method="exact")
    same(found["mean"], flat(posterior.mean, graph))
    same(found["variance"], flat(posterior.variance, graph))
    same(found["smallest"], ps.margin(*posed(graph)).smallest)
    same(found["radius"], ps.walk_summability(*posed(graph), tolerance=1e-13).radius)


def complete(rho: float) -> dict:
    """The presets "frustrated" (rho < 0) and "too strong" of the page."""
    nodes = [{"mean": 1.5, "precision": float(k == 0)} for k in range(5)]
    edges = [{"first": a, "second": b, "rho": rho} for a, b in nx.complete_graph(5).edges]
    return {"nodes": nodes, "edges": edges}


def test_what_is_not_normalisable_has_no_truth(ask):
    found = ask("exact", graph=complete(0.5))
    margin = ps.margin(*posed(complete(0.5)))
    same(found["smallest"], margin.smallest)
    assert found["smallest"] < 0
    assert found["mean"] is None
    assert not found["proper"]
    assert not margin.proper


def test_frustration_diverges_and_damping_helps(ask):
    graph = complete(-0.5)
    assert ask("exact", graph=graph)["proper"]
    network = bp.network(*posed(graph))
    start = silence(network, graph)
    with pytest.raises(ps.errors.ConvergenceError, match="diverges") as caught:
        bp.run(network, messages=start)
    found = ask("run", graph=graph, schedule="flooding", damping=0, tolerance=1e-6)
    assert (found["reason"], found["iteration"]) == ("diverges", len(caught.value.data["trace"]) - 1)
    calm = bp.run(network, damping=0.2, messages=start)
    found = ask("run", graph=graph, schedule="flooding", damping=0.2, tolerance=1e-6)
    assert (found["reason"], found["iteration"]) == ("converged", calm.iterations)


@pytest.mark.parametrize("rho", [-0.95, 0.95])
def test_precisions_settle_even_where_means_do_not(ask, rho):
    """What an edge says has a precision of 0 or more, so that no cavity is lost and only means can diverge."""
    found = ask("propagate", graph=complete(rho), schedule="flooding", damping=0, iterations=40)
    assert min(min(row["said"]) for row in found["trace"]) >= 0
    network = bp.network(*posed(complete(rho)))
    messages = silence(network, complete(rho))
    for row in found["trace"]:
        messages = bp.step(network, messages)
        same(row["variance"], flat(bp.beliefs(network, messages).variance, complete(rho)))


# --- two diffusion trajectories

JOINT = [
    {"weight": 0.4, "mean": [1.3, 0.8], "covariance": [[0.2, 0.05], [0.05, 0.15]]},
    {"weight": 0.25, "mean": [-1.4, -1.0], "covariance": [[0.1, -0.03], [-0.03, 0.3]]},
    {"weight": 0.35, "mean": [-0.5, -0.2], "covariance": [[0.05, 0.0], [0.0, 0.08]]},
]
MARGINALS = [
    [{"weight": k["weight"], "mean": k["mean"][i], "variance": k["covariance"][i][i]} for k in JOINT]
    for i in (0, 1)
]
LEVELS = [
    {"alpha": math.cos(s * math.pi / 2), "sigma": math.sin(s * math.pi / 2)} for s in (0.02, 0.3, 0.6, 0.95)
]


def mixture(parts: list[dict]) -> ps.MixtureDenoiser:
    if "variance" in parts[0]:
        parts = [{**k, "mean": [k["mean"]], "covariance": [[k["variance"]]]} for k in parts]
    columns = [double([k[what] for k in parts]) for what in ("weight", "mean", "covariance")]
    return ps.MixtureDenoiser(*columns)


DENOISERS = {i: mixture(MARGINALS[i]) for i in (0, 1)}


@pytest.fixture
def points(generator):
    return 1.3 * torch.randn(40, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("level", LEVELS)
def test_one_denoiser(ask, points, level):
    found = ask("posterior", mixture=MARGINALS[0], points=points[:, 0].tolist(), level=level)
    mean, covariance = DENOISERS[0].posterior(points[:, :1], ps.NoiseLevel(**level))
    same([row["mean"] for row in found], mean[:, 0])
    same([row["variance"] for row in found], covariance[:, 0, 0])


@pytest.mark.parametrize("c", [0.0, 0.6])
@pytest.mark.parametrize("rho", [-0.8, 0.0, 0.5, 0.95])
@pytest.mark.parametrize("method", ["surrogate", "denoiser"])
def test_the_joint_denoised_contents(ask, points, rho, method, c):
    """Eq. 5, 5' and 6, with what keeps Eq. 8 where the denoisers' own covariances are wide."""
    joint = JointDenoiser(ps.chain_graph(2, 1, ps.Correlation(rho)), method, noise_correlation=c)
    noisy = {i: points[:, i : i + 1] for i in (0, 1)}
    settings = {"method": method, "rho": rho}
    for level in LEVELS:
        at = ps.NoiseLevel(**level)
        means, covariances = joint.ask(DENOISERS, noisy, at)
        expected = joint(noisy, means, at, covariances)
        if method == "denoiser" and rho == 0.95 and level == LEVELS[2]:
            assert expected.capped > 0  # the case is there
        question = {"points": points.tolist(), "marginals": MARGINALS, "level": {**level, "r": c * rho}}
        found = ask("joint", settings=settings, **question)
        same(found, torch.cat([expected.mean[0], expected.mean[1]], 1))


@pytest.mark.parametrize("r", [0.0, -0.7])
@pytest.mark.parametrize("level", LEVELS)
def test_the_true_joint(ask, points, level, r):
    at, noise = ps.NoiseLevel(**level), double([[1, r], [r, 1]])
    question = {"points": points.tolist(), "joint": JOINT, "level": {**level, "r": r}}
    mean = NoisyMixture(mixture(JOINT), noise).denoise(points, at)
    same(ask("joint", marginals=MARGINALS, settings={"method": "exact"}, **question), mean)
    covariances = torch.stack([at.alpha**2 * double(k["covariance"]) + at.sigma**2 * noise for k in JOINT])
    means = at.alpha * double([k["mean"] for k in JOINT])
    x = points.clone().requires_grad_()
    parts = torch.distributions.MultivariateNormal(means, covariances)
    density = (parts.log_prob(x[:, None]).exp() * double([k["weight"] for k in JOINT])).sum(1)
    same(ask("density", **question), density.detach())
    (score,) = torch.autograd.grad(density.log().sum(), x)
    same(ask("drift", **question), at.sigma**2 * score @ noise)


STEPS = 12


def scheduler() -> diffusers.DDIMScheduler:
    """DDIM whose table of levels is in double precision."""
    found = diffusers.DDIMScheduler(clip_sample=False)
    found.alphas_cumprod = found.alphas_cumprod.double()
    found.final_alpha_cumprod = found.final_alpha_cumprod.double()
    return found


def path() -> list[dict]:
    own = scheduler()
    own.set_timesteps(STEPS)
    rows = [(own.alphas_cumprod[t].item(), t.item() / 1000) for t in own.timesteps] + [(1.0, 0.0)]
    return [{"alpha": a**0.5, "sigma": (1 - a) ** 0.5, "time": t} for a, t in rows]


def test_whole_runs_of_every_method(ask, points):
    """From the same noise, by the package's samplers: independent, learned, with correlated noises, and SyncSDE."""
    start = {i: points[:, i : i + 1] for i in (0, 1)}
    arguments = (scheduler(), STEPS, len(points))
    options = {"initial_noise": start, "dtype": torch.float64}
    graph = ps.chain_graph(2, 1, ps.Correlation(0.7))
    drawn = {}
    for method in ("surrogate", "denoiser"):
        drawn[method] = ps.sample(
            graph, DENOISERS, *arguments, posterior_covariance=method, progress=False, **options
        ).samples
    question = {"start": points.tolist(), "marginals": MARGINALS, "levels": path()}
    correlated = ps.sample(
        graph,
        DENOISERS,
        *arguments,
        posterior_covariance="denoiser",
        noise_correlation=0.6,
        progress=False,
        **options,
    ).samples
    found = ask("sample", settings={"method": "denoiser", "rho": 0.7, "c": 0.6}, **question)
    same(found, torch.cat([correlated[0], correlated[1]], 1))
    drawn["independent"] = ps.sample(
        graph, DENOISERS, *arguments, couple=False, progress=False, **options
    ).samples
    drawn["attraction"] = sample_syncsde(
        DENOISERS, {1: Pull(0)}, *arguments, strength=5.0, form="implicit", **options
    )
    for method, expected in drawn.items():
        found = ask("sample", settings={"method": method, "rho": 0.7, "strength": 5.0}, **question)
        same(found, torch.cat([expected[0], expected[1]], 1))


def test_averaging_is_that_of_clean_contents(ask, points):
    """SyncTweedies case 2, with a noise of its own for each."""
    settings = {"method": "averaging"}
    found = ask("joint", points=points.tolist(), marginals=MARGINALS, level=LEVELS[1], settings=settings)
    at = ps.NoiseLevel(**LEVELS[1])
    mean = torch.cat([DENOISERS[i].denoise(points[:, i : i + 1], at) for i in (0, 1)], 1).mean(
        1, keepdim=True
    )
    same(found, mean.expand(-1, 2))


def test_gains_and_measures(ask, points):
    levels = path()
    expected = [step_gain(a["alpha"] ** 2, b["alpha"] ** 2) for a, b in zip(levels, levels[1:], strict=False)]
    same(ask("gains", levels=levels), expected)
    x, y = points[:25], points[25:] + 0.3
    found = ask("measures", x=x.tolist(), y=y.tolist())
    same(found["correlation"], torch.corrcoef(x.T)[0, 1])
    same(found["energy"], energy_distance(x, y).value)


def test_draws_are_those_of_the_distributions_and_of_the_seed(ask):
    first, again, other = (ask("drawn", count=4000, seed=seed, joint=JOINT) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    noise, truth = (double(first[what]) for what in ("noise", "truth"))
    assert torch.allclose(torch.cov(noise.T), torch.eye(2, dtype=torch.float64), atol=0.08)
    weights, means, covariances = (
        double([k[what] for k in JOINT]) for what in ("weight", "mean", "covariance")
    )
    mean = weights @ means
    second = torch.einsum("k,kij->ij", weights, covariances + means[:, :, None] * means[:, None, :])
    assert torch.allclose(truth.mean(0), mean, atol=0.06)
    assert torch.allclose(torch.cov(truth.T), second - torch.outer(mean, mean), atol=0.06)


def test_matching_modes_by_their_definition(ask, points):
    """The share of pairs whose nearest modes are those of a component with more than a tenth of the weight."""
    components = [[0.45, 1, 1], [0.45, -1, -0.5], [0.05, 1, -0.5], [0.05, -1, 1]]
    joint = [{"weight": w, "mean": [a, b], "covariance": [[0.1, 0], [0, 0.1]]} for w, a, b in components]
    first = points[:, 0] > 0
    second = points[:, 1] > 0.25
    same(ask("matching", joint=joint, points=points.tolist()), (first == second).double().mean())


# --- the page in the browser


@pytest.fixture(scope="module")
def driver():
    with browser() as found:
        yield found


@pytest.fixture
def page(driver):
    """The page as it opens; at the end its console has to be silent."""
    open_page(driver, PAGE / "index.html")
    # A page that still scrolls when it is clicked is clicked somewhere else
    driver.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
    yield driver
    assert console_errors(driver) == []


def element(page, selector):
    from selenium.webdriver.common.by import By

    return page.find_element(By.CSS_SELECTOR, selector)


def click(page, selector):
    from selenium.webdriver.common.action_chains import ActionChains

    found = element(page, selector)
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
    ActionChains(page).move_to_element(found).click().perform()


def press(page, selector, *keys):
    """Keys for an element that has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    page.execute_script("arguments[0].focus()", element(page, selector))
    ActionChains(page).send_keys(*keys).perform()


def slide(page, name, value):
    page.execute_script(
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input'))",
        name, value,
    )  # fmt: skip


def graph(page):
    return json.loads(page.execute_script("return JSON.stringify(PGM.graph())"))


def finished(page, seconds=90):
    """The graph once nothing moves any more."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, seconds, poll_frequency=0.05).until(
        lambda p: p.execute_script("return PGM.graph().still")
    )
    return graph(page)


def preset(page, key):
    click(page, f"#presets [data-key={key}]")


def status(page):
    return element(page, "#status").text


def posed_on_the_page(found):
    """What the package makes of the graph that stands on the page."""
    return posed({"nodes": found["graph"]["nodes"], "edges": found["graph"]["edges"]})


def test_a_graph_that_is_edited_by_hand(page):
    """Add a node, add edges, set rho, run: the beliefs are those of the package, and the table shows them."""
    preset(page, "chain")
    click(page, "#add-node")
    found = graph(page)
    assert [node["name"] for node in found["graph"]["nodes"]] == list("abcdef")
    for other in (0, 2):
        click(page, "[data-key=node-5]")
        click(page, "#connect")
        click(page, f"[data-key=node-{other}]")
        slide(page, "edge-rho", -0.4)
    click(page, "[data-key=node-5]")
    slide(page, "seen-precision", 3)
    slide(page, "seen-mean", -2)
    found = graph(page)
    assert found["graph"]["edges"][-2:] == [{"first": 5, "second": k, "rho": -0.4} for k in (0, 2)]
    assert found["graph"]["nodes"][5]["precision"] == 3
    assert "Loops." in status(page)
    click(page, "#run")
    found = finished(page)
    assert found["outcome"] == "converged"
    exact = ps.infer(*posed_on_the_page(found), method="exact")
    mean = flat(exact.mean, found["graph"])
    assert torch.allclose(double(found["beliefs"]["mean"]), mean, atol=1e-5)
    same(found["truth"]["mean"], mean)
    row = element(page, "#beliefs tbody tr:last-child").text.replace("−", "-")
    assert row.startswith(f"f {mean[5].item():.2f} ±")


def test_one_message_at_a_time_on_a_tree(page):
    """Two messages for every edge, and every belief is exact."""
    click(page, "#graph [data-setup=chain]")
    for number in range(1, 9):
        assert graph(page)["sweeps"] == 0
        click(page, "#send-one")
        assert graph(page)["sent"] == number % 8
    found = finished(page)
    assert found["sweeps"] == 1
    same(found["beliefs"]["mean"], found["truth"]["mean"])
    same(found["beliefs"]["variance"], found["truth"]["variance"])
    assert "No loops." in status(page)


def test_a_message_in_flight_says_what_it_says(page):
    preset(page, "chain")
    page.execute_script("document.getElementById('send-one').click()")
    label = element(page, "[data-layer=flying] text").get_attribute("textContent")
    mean, precision = map(float, re.fullmatch(r"mean (\S+), precision (\S+)", label).groups())
    assert mean == pytest.approx(
        1.5 / 0.8, abs=0.006
    )  # 1.5 was seen of the first, which is 0.8 of the second
    found = finished(page)
    assert found["sent"] == 1
    network = bp.network(*posed_on_the_page(found))
    messages = bp.step(network, bp.init(network, silence(network, found["graph"])), (0, 1))
    said = 0.8**2 / (1 - 0.8**2) + bp.message(network, messages, 0, 1).precision.item()
    assert precision == pytest.approx(said, abs=0.006)


@pytest.mark.parametrize(("setup", "ratio"), [("loop", "below"), ("twisted", "above")])
def test_variances_on_loops_as_the_answers_say(page, setup, ratio):
    click(page, f"#graph [data-setup={setup}]")
    click(page, "#run")
    found = finished(page)
    assert found["outcome"] == "converged"
    ratios = double(found["beliefs"]["variance"]) / double(found["truth"]["variance"])
    assert bool((ratios < 0.9).all() if ratio == "below" else (ratios > 1.1).all())
    assert torch.allclose(double(found["beliefs"]["mean"]), double(found["truth"]["mean"]), atol=1e-5)
    assert "means are exact, variances are" in status(page)
    compared = bp.compare_with_exact(bp.run(bp.network(*posed_on_the_page(found)), tolerance=1e-8))
    assert torch.allclose(ratios, double([row.variance_ratio for row in compared]), atol=1e-5)


def test_warnings_by_name(page):
    click(page, "#graph [data-setup=frustrated]")
    assert "Normalisable" in status(page)
    assert "Not walk-summable" in status(page)
    click(page, "#run")
    assert finished(page)["outcome"] == "diverges"
    assert "Diverges" in status(page)
    assert not element(page, "#run").is_enabled()
    slide(page, "damping", 0.3)
    click(page, "#restart")
    click(page, "#run")
    assert finished(page)["outcome"] == "converged"
    click(page, "#graph [data-setup=strong]")
    assert "Not normalisable" in status(page)
    assert graph(page)["truth"]["mean"] is None


@pytest.mark.parametrize("key", ["chain", "tree", "loop", "grid"])
def test_presets_converge(page, key):
    preset(page, key)
    assert element(page, f"#presets [data-key={key}]").get_attribute("aria-pressed") == "true"
    click(page, "#run")
    assert finished(page)["outcome"] == "converged"
    assert "Converged" in status(page)


def test_moving_evidence_leaves_every_spread(page):
    click(page, "#graph [data-setup=tree]")
    before = graph(page)
    slide(page, "seen-mean", -2)
    after = graph(page)
    same(after["beliefs"]["variance"], before["beliefs"]["variance"])
    assert after["beliefs"]["mean"] != before["beliefs"]["mean"]
    assert torch.allclose(double(after["beliefs"]["mean"]), double(after["truth"]["mean"]), atol=1e-5)


def test_nodes_are_dragged(page):
    from selenium.webdriver.common.action_chains import ActionChains

    preset(page, "chain")
    before = graph(page)["graph"]["nodes"][2]
    ActionChains(page).drag_and_drop_by_offset(element(page, "[data-key=node-2]"), 40, -60).perform()
    after = graph(page)["graph"]["nodes"][2]
    assert after["x"] > before["x"]
    assert after["y"] < before["y"]


def test_a_double_click_adds_a_node_there(page):
    from selenium.webdriver.common.action_chains import ActionChains

    preset(page, "chain")
    stage = element(page, "#graph-svg")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", stage)
    size = stage.size
    ActionChains(page).move_to_element_with_offset(stage, 0, -(size["height"] // 3)).double_click().perform()
    node = graph(page)["graph"]["nodes"][-1]
    assert node["name"] == "f"
    box = element(page, "[data-key=node-5] .card").rect
    middle = stage.rect["y"] + size["height"] / 2 - size["height"] // 3
    assert box["x"] + box["width"] / 2 == pytest.approx(stage.rect["x"] + size["width"] / 2, abs=3)
    assert box["y"] + box["height"] / 2 == pytest.approx(middle, abs=3)


def test_by_keyboard_alone(page):
    from selenium.webdriver.common.keys import Keys

    preset(page, "chain")
    x = graph(page)["graph"]["nodes"][1]["x"]
    press(page, "[data-key=node-1]", Keys.ARROW_RIGHT)
    assert graph(page)["graph"]["nodes"][1]["x"] > x
    press(page, "[data-key=edge-0]", Keys.ARROW_UP)
    assert graph(page)["graph"]["edges"][0]["rho"] == 0.85
    assert element(page, "[data-key=edge-0]").get_attribute("aria-valuenow") == "0.85"
    press(page, "[data-key=node-0]", Keys.ENTER)
    press(page, "#seen-mean", Keys.ARROW_RIGHT)
    assert graph(page)["graph"]["nodes"][0]["mean"] == 1.6
    press(page, "#connect", Keys.ENTER)
    press(page, "[data-key=node-2]", Keys.SPACE)
    assert len(graph(page)["graph"]["edges"]) == 5
    press(page, "[data-key=node-4]", Keys.DELETE)
    assert [node["name"] for node in graph(page)["graph"]["nodes"]] == list("abcd")
    press(page, "#connect", Keys.ENTER)
    assert "first node" in element(page, "#stage-hint").text
    press(page, "[data-key=node-0]", Keys.ESCAPE)
    assert "first node" not in element(page, "#stage-hint").text


def test_tab_reaches_every_control(page):
    """And each has a name that a screen reader can say."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    wanted = page.execute_script(
        "return [...document.querySelectorAll('button, input, select, summary, a, [tabindex]')]"
        ".filter((e) => !e.disabled && e.type !== 'radio').length"
    )
    page.execute_script("document.body.focus()")
    reached = set()
    for _ in range(wanted + 10):
        ActionChains(page).send_keys(Keys.TAB).perform()
        active = page.switch_to.active_element
        if active.tag_name != "body":
            reached.add(active.id)
            assert active.accessible_name, active.get_attribute("outerHTML")
    assert len(reached) >= wanted


def diffusion(page):
    return json.loads(page.execute_script("return JSON.stringify(PGM.diffusionState())"))


def test_the_sampled_pair_as_the_answers_say(page):
    click(page, "#diffusion [data-setup=differ]")
    found = diffusion(page)["measures"]
    assert found["attraction"]["correlation"] > 0.95
    assert found["attraction"]["energy"] > 3 * found["independent"]["energy"]
    assert found["averaging"]["energy"] > 3 * found["independent"]["energy"]
    assert found["surrogate"]["correlation"] < -0.6
    click(page, "#diffusion [data-setup=posterior]")
    found = diffusion(page)["measures"]
    assert found["denoiser"]["matching"] > found["surrogate"]["matching"] + 0.05
    assert found["denoiser"]["energy"] < found["surrogate"]["energy"] < found["attraction"]["energy"]
    click(page, "#diffusion [data-setup=attraction]")
    closest = None
    for power in [-1.5 + 0.05 * k for k in range(30)]:
        slide(page, "strength", power)
        found = diffusion(page)["measures"]
        if closest is None or abs(found["attraction"]["correlation"] - 0.73) < abs(closest[1] - 0.73):
            closest = (10**power, found["attraction"]["correlation"], found["attraction"]["energy"])
    assert closest[0] == pytest.approx(0.2, abs=0.05)
    assert closest[2] > found["surrogate"]["energy"]
    spread = page.execute_script("""
        const { diffusion } = PGM, joint = diffusion.worlds.agree;
        const parts = { joint, marginals: diffusion.marginals(joint) };
        const settings = { method: "attraction", strength: 0.2 };
        const end = diffusion.sample(parts, diffusion.noise(400, 1), diffusion.levels(40), settings).pop();
        return Math.sqrt(end.reduce((sum, x) => sum + x[1] ** 2, 0) / end.length)""")
    assert spread == pytest.approx(0.8, abs=0.03)
    click(page, "#diffusion [data-setup=bend]")
    found = diffusion(page)
    assert abs(found["fitted"]) < 0.1
    assert found["measures"]["surrogate"]["energy"] > 0.8 * found["measures"]["independent"]["energy"]


def test_the_gaussian_pair_has_the_exact_score(page):
    click(page, "#diffusion [data-setup=exact]")
    for level in (0, 10, 20, 30, 39):
        slide(page, "level", level)
        slide(page, "rho", 0.8)
        assert "differs from the true one by 0.0 %" in element(page, "#level-status").text


def test_correlated_noises_help_the_surrogate(page):
    click(page, "#diffusion [data-setup=noises]")
    before = diffusion(page)["measures"]["surrogate"]
    slide(page, "noises", 0.9)
    after = diffusion(page)["measures"]["surrogate"]
    assert before["energy"] == pytest.approx(0.012, abs=0.001)
    assert after["energy"] < 0.004
    assert after["matching"] > before["matching"] + 0.05


def test_the_samples_are_those_of_the_seed(page):
    first = diffusion(page)
    click(page, "#reseed")
    second = diffusion(page)
    assert second["measures"] != first["measures"]
    page.refresh()
    assert diffusion(page) == first


def test_scrubbing_and_playing_through_the_noise(page):
    picture = "return document.getElementById('plane').toDataURL()"
    clean = page.execute_script(picture)
    slide(page, "level", 5)
    assert page.execute_script(picture) != clean
    assert element(page, "#level-value").text.startswith("σ")
    slide(page, "level", 37)
    click(page, "#play")
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 20).until(lambda p: not diffusion(p)["playing"])
    assert diffusion(page)["level"] == 40
    assert page.execute_script(picture) == clean


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_and_is_silent(dark):
    """On a phone, inside the documentation, and on a screen of its own."""
    small_text = """return [...document.querySelectorAll('p, li, td, th, label, button, text')]
        .filter((e) => e.textContent.trim() && parseFloat(getComputedStyle(e).fontSize) < 11.5).length"""
    with browser(390, dark) as driver:
        for width in (390, 736, 1280):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            open_page(driver, PAGE / "index.html")
            for key in ("grid", "strong"):
                driver.execute_script(f"document.querySelector('[data-key={key}]').click()")
                assert overflow(driver) == 0
            driver.execute_script(
                "document.querySelectorAll('details').forEach((each) => (each.open = true))"
            )
            assert overflow(driver) == 0
            background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert background == ("rgb(19, 20, 22)" if dark else "rgb(255, 255, 255)")
            assert driver.execute_script(small_text) == 0
            assert console_errors(driver) == []
            assert all(name.startswith(PAGE.as_uri()) for name in requested(driver))


@needs_browser
def test_nodes_are_dragged_by_a_finger():
    with browser(390) as driver:
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        open_page(driver, PAGE / "index.html")
        card = element(driver, "[data-key=node-2] .card")
        driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", card)
        box = driver.execute_script("return arguments[0].getBoundingClientRect()", card)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        before, scrolled = graph(driver)["graph"]["nodes"][2], driver.execute_script("return window.scrollY")
        for kind, points in (
            ("touchStart", [{"x": x, "y": y}]),
            ("touchMove", [{"x": x + 10, "y": y - 30}]),
            ("touchMove", [{"x": x + 20, "y": y - 60}]),
            ("touchEnd", []),
        ):
            driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        after = graph(driver)["graph"]["nodes"][2]
        assert after["y"] < before["y"] - 0.1
        assert after["x"] > before["x"]
        assert driver.execute_script("return window.scrollY") == scrolled
        assert console_errors(driver) == []


@needs_browser
@pytest.mark.parametrize("served", [True, False], ids=["server", "files"])
def test_inside_a_page_it_follows_the_chosen_scheme(tmp_path, served):
    """As far as it may: a page of files cannot look at the one around it, and stays silent about that."""
    shutil.copytree(PAGE, tmp_path / "interactive")
    around = tmp_path / "around.html"
    around.write_text(
        '<link rel="icon" href="data:,"><body data-theme="dark"><iframe src="interactive/index.html">'
    )
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, browser(offline=False) as driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        driver.get(f"http://127.0.0.1:{server.server_port}/around.html" if served else around.as_uri())
        background = "return getComputedStyle(document.body).backgroundColor"
        seen = []
        for theme in ("dark", "light"):
            driver.execute_script("document.body.dataset.theme = arguments[0]", theme)
            driver.switch_to.frame(0)
            seen.append(driver.execute_script(background))
            assert not element(driver, "header").is_displayed()  # the page around has a heading
            driver.switch_to.default_content()
        server.shutdown()
        assert seen == ["rgb(19, 20, 22)" if served else "rgb(255, 255, 255)", "rgb(255, 255, 255)"]
        assert console_errors(driver) == []


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_the_page_needs_nothing_from_elsewhere():
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file.name
        assert "https://" not in text, file.name
