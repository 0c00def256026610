"""The texture of a mesh from the denoiser of its views, as a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...evaluation import Clip, far_correlation, view_disagreement
from ...graph.factor_graph import Name
from ...maps import DCT, LinearMap
from ...metrics import Measurement
from ...zoo import PHOTOGRAPHS
from ..base import Measure, Results, Scene, Task, Unfitted, distance_to, generator
from ..models import Model, load_model
from ..photos import check_folder
from ..reading import clip_score
from .atlas import Atlas, make_atlas
from .cameras import Camera, ring_cameras
from .contents import Contents, DecodedViews, Texels
from .export import save_textured
from .extra import trimesh
from .graph import texture_graph
from .mesh import Surface, load_surface
from .render import depth_image, save_turntable, turntable
from .solids import view_samples

MESHES = ("ball", "torus", "capsule")
SIDES = ("front", "side", "back", "side")  # what cameras around a mesh look at
RENDERED = 256  # pixels a side of renders, at most


@dataclass
class Texture(Task):
    """A mesh seen by a ring of cameras, whose views share the texels that they show.

    Potentials couple `modes` cosine modes of all pairs of views, also of those that share no texel, learned from
    simulated textures: photographs wrapped around the mesh.

    Parameters
    ----------
    mesh
        "ball", "torus", "capsule" or a file.
    views
        cameras around it.
    modes
        cosine modes per channel that are coupled.
    prompt
        a class of an embedded `model`, which simulated textures are then of, or a text for a checkpoint, which is told
        the side that every view shows.
    model
        by its name, as `load_model` takes it. Views of a checkpoint are latents, and what potentials are learned from
        are simulated views, encoded.
    control
        a depth ControlNet of that checkpoint, which is shown the depth of every view.
    guidance
        of a network or a checkpoint.
    data
        a folder of pictures to wrap around the mesh; the embedded photographs by default. Needed for a checkpoint.
    clip
        a CLIP checkpoint by its name, which reads what renders show.

    Raises MeshError, CameraError naming the view, MissingPackageError without trimesh and its ray casting,
    ParameterError, UnknownNameError, SavedFileError.
    """

    name: ClassVar[str] = "texture"
    mesh: str = "ball"
    views: int = 6
    modes: int = 4
    prompt: str | None = None
    model: str | Model = "photo-patches"
    control: str | None = None
    guidance: float = 1.0
    data: str | None = None
    clip: str | Clip | None = None
    device: str = "cpu"
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
    def cameras(self) -> list[Camera]:
        """Of the views, with the resolution of what is denoised."""
        return ring_cameras(self.surface, self.views, resolution=self._model.size)

    @cached_property
    def atlas(self) -> Atlas:
        """Which texel every pixel shows."""
        return make_atlas(self.surface, self.cameras)

    @cached_property
    def _model(self) -> Model:
        if isinstance(self.model, Model):
            return self.model
        return load_model(self.model, self.guidance, self.device, self.control)

    @cached_property
    def contents(self) -> Contents:
        """What results are, and how they become textures."""
        check_folder(self._model, self.data)
        classed = self.prompt is not None and self.prompt in self._model.classes
        pictures = (str(self.prompt),) if classed else PHOTOGRAPHS
        kind = Texels if self._model.scale == 1 else DecodedViews
        return kind(self._model, self.surface, self.cameras, self.atlas, pictures, self.data)

    @cached_property
    def scene(self) -> Scene:
        graph = texture_graph(self.atlas, view=self._model.shape)
        learned = self.unfitted.fit(seed=self.seed)
        ours: dict[str, dict[str, Any]] = {"": {}}
        if self._model.denoiser.has_covariance:
            ours = {"": {"posterior_covariance": "denoiser"}, "surrogate C": {}}
        return Scene(graph, self._model.denoiser, self._model.scheduler, learned, ours, self.device)

    @cached_property
    def unfitted(self) -> Unfitted:
        data, photos = self.contents.joint(generator(self.seed, 0))
        graph = texture_graph(
            self.atlas, view=self._model.shape, features=lambda shape: DCT(shape, self.modes), neighbours="all"
        )
        return Unfitted(graph, data, photos)

    def conditions(self, seeds: Sequence[int]) -> Any:
        model = self._model
        if self.prompt is None and not model.controlled:
            return model.condition([None] * len(seeds))
        given: dict[Name, Any] = {n: model.condition([text] * len(seeds)) for n, text in self._texts.items()}
        if model.controlled:
            for name, depth in self._depths.items():
                given[name] = {**given[name], "controlnet_cond": depth.expand(len(seeds), 3, -1, -1)}
        return given

    @cached_property
    def _depths(self) -> dict[str, Tensor]:
        """Of every view, in pixels."""
        return {name: depth_image(view, name) for name, view in self.contents.fine.items()}

    @property
    def _texts(self) -> dict[str, str | None]:
        """The prompt of every view."""
        names = list(self.atlas.sites)
        if self.prompt is None or self._model.classes:
            return dict.fromkeys(names, self.prompt)
        sides = (SIDES[round(4 * k / len(names)) % 4] for k in range(len(names)))
        return {name: f"{self.prompt}, {side} view" for name, side in zip(names, sides, strict=True)}

    def content(self, samples: Mapping[Name, Tensor]) -> Tensor:
        """The texels that some view shows, ``(n, 3, texels)``; of latents decoded views, ``(n, views, 3, H, W)``."""
        return self.contents.of(samples)

    @cached_property
    def _real(self) -> tuple[Tensor, Tensor]:
        texels = self.contents.real(generator(self.seed, 1))
        half = len(texels) // 2
        return texels[:half], texels[half:]

    def reference(self) -> Tensor | None:
        """Simulated textures; None where results are decoded views."""
        return None if isinstance(self.contents, DecodedViews) else self._real[1]

    def measures(self) -> list[Measure]:
        real, texels = self._real[0], self.contents.texels
        read = [] if self.prompt is None else clip_score(self.clip, self.device, self._parts)
        return [
            distance_to(real, "of textures to held-out simulated ones; 0: the same distribution", texels),
            Measure(
                "back and front", "correlation of the mean brightness of opposite views; of simulated textures as in "
                "the last row", self._opposite(real).value, lambda r: self._opposite(texels(r.content)),
            ),
            Measure(
                "disagreement", "variance between views of what they show of one texel, squared units; 0: none",
                "lower", self._disagreement,
            ),
            *read,
        ]  # fmt: skip

    def _parts(self, results: Results) -> list[tuple[Tensor, list[str]]]:
        """Renders from four sides, each to show the prompt."""
        assert self.prompt is not None
        renders = self.pictures(results.content).chunk(len(SIDES), -1)
        return [(render * 2 - 1, [self.prompt] * len(render)) for render in renders]

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
        """Four renders around the mesh, ``(n, 3, size, 4 size)``."""
        return torch.stack([
            torch.cat(list(turntable(self.surface, texture, frames=len(SIDES), resolution=self._rendered)), -1)
            for texture in self.textures(content)
        ])

    @property
    def _rendered(self) -> tuple[int, int]:
        """Height and width of a render."""
        size = min(RENDERED, 2 * self._model.size[0] * self._model.scale)
        return size, size

    def textures(self, content: Tensor) -> Tensor:  # (n, 3, H, W) in [0, 1]
        """Whole atlases, with the texels that nobody sees filled in."""
        return (self.contents.textures(content).float().cpu() * 0.5 + 0.5).clamp(0, 1)

    def files(self, content: Tensor, folder: Path) -> list[Path]:
        """The first result as OBJ and GLB, and a turntable as GIF."""
        texture = self.textures(content[:1])[0]
        paths = [path for name in ("mesh.obj", "mesh.glb")
                 for path in save_textured(self.surface, texture, folder / name)]  # fmt: skip
        size = max(160, self._rendered[0])
        frames = turntable(self.surface, texture, frames=24, resolution=(size, size))
        return [*paths, save_turntable(frames, folder / "turntable.gif")]
