"""The factor graph of a textured mesh: views of one hidden atlas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch

from ...errors import ParameterError, ShapeError
from ...graph import FactorGraph
from ...graph.builders import FeatureRule, PotentialRule
from ...maps import Features, LinearMap, Lookup, Shape, as_shape
from ...potentials import Equality, JointGaussian
from .atlas import LEAST_COSINE, POWER, Atlas, make_atlas
from .cameras import Camera
from .mesh import load_surface


def texture_graph(
    mesh: Any,
    cameras: Sequence[Camera] | None = None,
    atlas: tuple[int, int] | None = None,
    view: Sequence[int] = (3, 24, 24),
    potential: PotentialRule | None = None,
    features: FeatureRule | None = None,
    neighbours: str = "adjacent",
    least_cosine: float = LEAST_COSINE,
    power: float = POWER,
) -> FactorGraph:
    """Views of a mesh that share its texture, with learned potentials between them.

    The graph has a trajectory ``"view 0"``, ``"view 1"``, ... of shape `view` per camera, a hidden canvas ``"atlas"``
    of shape ``(*channels, sites)``, and an `Equality` factor ``"see view 0"`` each, weighted by the viewing angle.
    Every pixel of a view shows one site, none twice, so noise of the canvas is white noise in every view (section 4 of
    the theory). Sites are the texels that some view shows, then the pixels of each view that show none.

    Parameters
    ----------
    mesh
        what `load_surface` takes, or an `Atlas` with its `cameras`, whose sites are then used and whose `Atlas.texture`
        makes pictures of sampled canvases.
    atlas, least_cosine, power
        as for `make_atlas`.
    view
        shape of a trajectory, ``(*channels, h, w)``: pictures, or latents, whose pixels are then those of the cameras.
    potential, features, neighbours
        as for `wide_canvas`: unless `features` is None there is a factor ``("view 0", "view 1")`` with those features
        between views that show some texel both ("adjacent"), or every two ("all"). Features see the mesh only, not the
        background: pixels that show no texel are cut out of them.

    Raises CameraError naming the view, MeshError, ShapeError, ParameterError.

    >>> import trimesh
    >>> from pgm_sync.tasks.texture import load_surface, ring_cameras
    >>> ball = load_surface(trimesh.creation.icosphere(2))
    >>> texture_graph(ball, ring_cameras(ball, 4, resolution=(8, 8)), view=(3, 8, 8))
    FactorGraph(4 trajectories, 1 hidden variable, 4 factors)
    """
    made = mesh if isinstance(mesh, Atlas) else None
    shape = as_shape(view, "view shape")
    if len(shape) < 3:
        raise ShapeError(f"view={shape} must be (*channels, height, width)", got=shape)
    if made is None:
        if cameras is None:
            raise ParameterError("cameras are missing; ring_cameras(surface, 6) makes some")
        made = make_atlas(load_surface(mesh), cameras, atlas, least_cosine, power)
    if neighbours not in ("adjacent", "all"):
        raise ParameterError(f"neighbours={neighbours!r} is neither 'adjacent' nor 'all'", neighbours=neighbours)
    channels = shape[:-2]
    canvas = (*channels, made.count)
    graph = FactorGraph()
    graph.add_variable("atlas", canvas)
    for name, sites in made.sites.items():
        if sites.shape != shape[-2:]:
            raise ShapeError(
                f"{name!r}: the camera's resolution is {sites.shape}, the view has shape {shape}",
                expected=shape[-2:],
                got=sites.shape,
                name=name,
            )
        graph.add_trajectory(name, shape)
        weight = torch.from_numpy(made.weights[name]).expand(shape).contiguous()
        graph.add_factor(
            f"see {name}", [name, "atlas"], Equality(weight), maps=[None, Lookup(canvas, torch.from_numpy(sites))]
        )
    if features is None and potential is None:
        return graph
    seen = {name: _on_mesh(features, made, name, shape) for name in made.sites}
    for a, b in combinations(made.sites, 2):
        if neighbours == "all" or made.overlap(a, b):
            chosen = potential(a, b) if callable(potential) else potential
            graph.add_factor((a, b), [a, b], JointGaussian() if chosen is None else chosen, maps=[seen[a], seen[b]])
    return graph


def _on_mesh(rule: Callable[[Shape], LinearMap] | None, atlas: Atlas, name: str, shape: Shape) -> LinearMap | None:
    """Features of a view, without the pixels that show no texel."""
    if rule is None:
        return None
    whole, tied = rule(shape), torch.from_numpy(atlas.tied(name))
    if bool(tied.all()):
        return whole
    rows = whole.dense().reshape(-1, *shape) * tied
    return Features.orthonormalise(rows)
