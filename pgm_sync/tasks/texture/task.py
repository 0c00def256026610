"""The texture of a mesh from the denoiser of its views, as a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...evaluation import far_correlation, view_disagreement
from ...graph.factor_graph import Name
from ...maps import DCT, LinearMap
from ...metrics import Measurement
from ..base import Measure, Results, Scene, Task, Unfitted, distance_to, generator
from ..models import Model, load_model
from .atlas import Atlas, make_atlas
from .cameras import ring_cameras
from .export import save_textured
from .extra import trimesh
from .graph import texture_graph
from .mesh import Surface, load_surface
from .render import save_turntable, turntable
from .solids import joint_samples, view_samples

LEARN_FROM = 2000  # simulated textures
HELD_OUT = 400
MESHES = ("ball", "torus", "capsule")


@dataclass
class Texture(Task):
    """A mesh seen by a ring of cameras, whose views share the texels that they show.

    Potentials couple `modes` cosine modes of all pairs of views, also of those that share no texel, learned from
    simulated textures: photographs wrapped around the mesh. `mesh` is "ball", "torus", "capsule" or a file.

    Raises MeshError, CameraError naming the view, MissingPackageError without trimesh and its ray casting.
    """

    name: ClassVar[str] = "texture"
    mesh: str = "ball"
    views: int = 6
    modes: int = 4
    seed: int = 0

    @cached_property
    def surface(self) -> Surface:
        """The mesh, unwrapped where it has no texture coordinates."""
        if self.mesh not in MESHES:
            return load_surface(self.mesh)
        creation = trimesh().creation
        made = {
            "ball": lambda: creation.icosphere(3),
            "torus": lambda: creation.torus(1.0, 0.45),
            "capsule": lambda: creation.capsule(1.0, 0.5),
        }
        return load_surface(made[self.mesh]())

    @cached_property
    def atlas(self) -> Atlas:
        """Which texel every pixel shows."""
        return make_atlas(self.surface, ring_cameras(self.surface, self.views, resolution=self._model.size))

    @cached_property
    def _model(self) -> Model:
        return load_model("photo-patches")

    @cached_property
    def scene(self) -> Scene:
        graph = texture_graph(self.atlas, view=self._model.shape)
        learned = self.unfitted.fit(seed=self.seed)
        ours: dict[str, dict[str, Any]] = {"": {"posterior_covariance": "denoiser"}, "surrogate C": {}}
        return Scene(graph, self._model.denoiser, self._model.scheduler, learned, ours)

    @cached_property
    def unfitted(self) -> Unfitted:
        canvases, photos = joint_samples(self.atlas, LEARN_FROM, "train", generator(self.seed, 0))
        graph = texture_graph(
            self.atlas, view=self._model.shape, features=lambda shape: DCT(shape, self.modes), neighbours="all"
        )
        return Unfitted(graph, {"atlas": canvases}, photos)

    def content(self, samples: Mapping[Name, Tensor]) -> Tensor:
        """The texels that some view shows, ``(n, 3, texels)``."""
        return samples["atlas"][..., : len(self.atlas.shown)]

    @cached_property
    def _real(self) -> tuple[Tensor, Tensor]:
        canvases = joint_samples(self.atlas, 2 * HELD_OUT, "test", generator(self.seed, 1))[0]
        texels = canvases[..., : len(self.atlas.shown)]
        return texels[:HELD_OUT], texels[HELD_OUT:]

    def reference(self) -> Tensor:
        return self._real[1]

    def measures(self) -> list[Measure]:
        real = self._real[0]
        return [
            distance_to(real, "of textures to held-out simulated ones; 0: the same distribution"),
            Measure(
                "back and front", "correlation of the mean brightness of opposite views; of simulated textures as in "
                "the last row", self._opposite(real).value, lambda r: self._opposite(r.content),
            ),
            Measure(
                "disagreement", "variance between views of what they show of one texel, squared units; 0: none",
                "lower", self._disagreement,
            ),
        ]  # fmt: skip

    def _opposite(self, texels: Tensor) -> Measurement:
        """By the texels that each of two opposite views shows."""
        names = list(self.atlas.sites)
        means = []
        for name in (names[0], names[len(names) // 2]):
            shown = torch.from_numpy(self.atlas.sites[name][self.atlas.tied(name)])
            means.append(texels[..., shown].mean(-1))
        return far_correlation(torch.stack(means, -1)[:, :, None], 1, 1)

    def _disagreement(self, results: Results) -> Measurement:
        maps: dict[Name, LinearMap] = {}
        graph = self.scene.graph
        for name in graph.trajectories:
            maps[name] = graph.maps(f"see {name}")[1]
        shown: dict[Name, Tensor] = {name: results.samples[name] for name in maps if results.samples}
        if not shown:  # real textures: every view shows the same
            full = results.content.new_zeros(len(results.content), 3, self.atlas.count)
            full[..., : results.content.shape[-1]] = results.content
            shown.update(view_samples(self.atlas, full))
        return view_disagreement(shown, maps)

    def pictures(self, content: Tensor) -> Tensor:
        """Four renders around the mesh, ``(n, 3, 48, 192)``."""
        return torch.stack([
            torch.cat(list(turntable(self.surface, texture, frames=4, resolution=(48, 48))), -1)
            for texture in self.textures(content)
        ])

    def textures(self, content: Tensor) -> Tensor:  # (n, 3, texels) -> (n, 3, H, W) in [0, 1]
        """Whole atlases, with the texels that nobody sees filled in."""
        canvas = content.new_zeros(len(content), 3, self.atlas.count)
        canvas[..., : content.shape[-1]] = content
        return (self.atlas.texture(canvas).float().cpu() * 0.5 + 0.5).clamp(0, 1)

    def files(self, content: Tensor, folder: Path) -> list[Path]:
        """The first result as OBJ and GLB, and a turntable as GIF."""
        texture = self.textures(content[:1])[0]
        paths = [path for name in ("mesh.obj", "mesh.glb")
                 for path in save_textured(self.surface, texture, folder / name)]  # fmt: skip
        frames = turntable(self.surface, texture, frames=24, resolution=(160, 160))
        return [*paths, save_turntable(frames, folder / "turntable.gif")]
