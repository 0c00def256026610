"""The exact denoiser of a Gaussian mixture."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError, SavedFileError, ShapeError, WeightError
from ..maps.base import as_shape
from .checks import as_data, as_labels, eigendecompose
from .components import ComponentDenoiser, Components

FORMAT = "pgm_sync.MixtureDenoiser"
FORMAT_VERSION = 1


class MixtureDenoiser(ComponentDenoiser):
    """Clean content ``x_0 ~ sum_k weights[k] N(means[k], covariances[k])``.

    Posterior mean and covariance are exact at any (alpha, sigma). `labels`, one integer per component, make
    it class-conditional: ``condition=c`` (a label, or a ``(*batch)`` tensor of labels) keeps the components
    of class c, ``condition=None`` keeps all.

    Parameters: `weights` ``(K)``, positive, summing to one; `means` ``(K, *shape)``, or ``(K, D)`` with
    `shape`; `covariances` ``(K, D, D)``, symmetric positive semidefinite.

    Raises ShapeError, NotFiniteError, DtypeError, WeightError, CovarianceError on parameters that do not fit.

    >>> import torch, pgm_sync as ps
    >>> denoiser = ps.MixtureDenoiser([0.5, 0.5], [[-1.0], [1.0]], [[[0.01]], [[0.01]]])
    >>> denoiser.denoise(torch.tensor([2.0]), ps.NoiseLevel(alpha=1.0, sigma=0.1))  # halfway to the nearer mode
    tensor([1.5000])
    """

    def __init__(
        self,
        weights: Any,
        means: Any,
        covariances: Any,
        shape: tuple[int, ...] | None = None,
        labels: Any = None,
    ):
        weights, means = as_data(weights, "weights"), as_data(means, "means")
        covariances = as_data(covariances, "covariances")
        if means.ndim < 2 or len(means) == 0:
            raise ShapeError(f"means must be (K, *shape) with K >= 1, got {tuple(means.shape)}")
        shape = as_shape(means.shape[1:] if shape is None else shape)
        k, size = len(means), means[0].numel()
        if torch.Size(shape).numel() != size:
            raise ShapeError(f"shape {shape} does not hold the {size} numbers of each mean", shape=shape)
        if tuple(covariances.shape) != (k, size, size):
            raise ShapeError(f"covariances have shape {tuple(covariances.shape)}, expected {(k, size, size)}")
        variances, basis = eigendecompose(covariances, "covariances")
        super().__init__(
            shape,
            Components(
                log_weights=log_weights(weights, k),
                means=means.double().flatten(1),
                basis=basis,
                variances=variances,
                residual=variances.new_zeros(k),
                center=variances.new_zeros(size),
                frame=None,
                outside=variances.new_zeros(()),
            ),
            as_labels(labels, k, "components"),
        )

    @classmethod
    def from_components(
        cls, shape: tuple[int, ...], components: Components, labels: Tensor | None = None
    ) -> MixtureDenoiser:
        """A mixture from parameters already in the form that is computed with."""
        self = cls.__new__(cls)
        ComponentDenoiser.__init__(self, shape, components, labels)
        return self

    @classmethod
    def from_sklearn(
        cls, mixture: Any, shape: tuple[int, ...] | None = None, labels: Any = None
    ) -> MixtureDenoiser:
        """A fitted `sklearn.mixture.GaussianMixture` of any covariance type, on flattened data of `shape`.

        Raises ParameterError where it is not fitted.
        """
        if not hasattr(mixture, "means_"):
            raise ParameterError(f"{type(mixture).__name__} is not fitted; call its fit(data) first")
        shape = mixture.means_.shape[1:] if shape is None else shape
        return cls(mixture.weights_, mixture.means_, full_covariances(mixture), shape, labels)

    @classmethod
    def fit(
        cls,
        data: Any,  # (n, *shape)
        components: int,
        rank: int | None = None,
        labels: Any = None,  # (n)
        *,
        seed: int = 0,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
    ) -> MixtureDenoiser:
        """Fit by expectation maximisation (scikit-learn) in the leading `rank` principal components.

        `data` is ``(n, *shape)``. Outside that space the content is Gaussian and isotropic, with the variance that was
        left out. With `labels` ``(n)``, every class gets `components` components of its own and its share of the
        weight. `reg_covar` is added to every variance; it is the grain that samples keep. At most `max_iter`
        iterations, from `seed`.

        >>> import torch, pgm_sync as ps
        >>> data = torch.tensor([[-1.1], [-0.9], [0.8], [1.0], [1.2]])
        >>> fitted = ps.MixtureDenoiser.fit(data, components=2)
        >>> fitted.denoise(torch.tensor([0.5]), ps.NoiseLevel(alpha=1.0, sigma=1000.0))  # the mean of the data
        tensor([0.2000])

        Raises ParameterError, ShapeError, NotFiniteError on the data.
        """
        from sklearn.mixture import GaussianMixture

        data = as_data(data, "data")
        if data.ndim < 2:
            raise ShapeError(f"data must be (n, *shape), got {tuple(data.shape)}")
        flat = data.detach().cpu().double().flatten(1)
        n, size = flat.shape
        classes = as_labels(labels, n, "rows of data")
        if rank is not None and not 1 <= rank <= size:
            raise ParameterError(f"rank must lie in 1..{size} for shape {tuple(data.shape[1:])}, got {rank}")
        center = flat.mean(0)
        frame, outside = None, flat.new_zeros(())
        if rank is not None and rank < size:
            centered = flat - center
            variances, directions = torch.linalg.eigh(centered.T @ centered / n)
            frame, outside = directions[:, -rank:].flip(1), variances[:-rank].mean().clamp_min(0)
        latent = (flat - center) if frame is None else (flat - center) @ frame
        parts, part_labels = [], []
        for c in [None] if classes is None else classes.unique().tolist():
            rows = latent if c is None else latent[classes == c]
            if not 1 <= components <= len(rows):
                which = "" if c is None else f" of class {c}"
                raise ParameterError(
                    f"components must lie in 1..{len(rows)}, the rows{which}, got {components}"
                )
            mixture = GaussianMixture(components, reg_covar=reg_covar, max_iter=max_iter, random_state=seed)
            mixture.fit(rows.numpy())
            parts.append(cls.from_sklearn(mixture).components)
            parts[-1] = parts[-1]._replace(
                log_weights=parts[-1].log_weights + torch.tensor(len(rows) / n).log()
            )
            part_labels += [c] * components
        merged = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("log_weights", "means", "basis", "variances", "residual")
        }
        return cls.from_components(
            tuple(data.shape[1:]),
            Components(**merged, center=center, frame=frame, outside=outside),
            None if classes is None else torch.tensor(part_labels),
        )

    def save(self, path: str | os.PathLike, dtype: torch.dtype = torch.float32) -> None:
        """Write one safetensors file at `path`, numbers in `dtype` (float16 halves it); `load` reads it back."""
        from safetensors.torch import save

        # Variances go in as standard deviations: 1e-8 underflows in half precision, its root does not.
        c = self.components
        roots = {name: getattr(c, name).sqrt() for name in ("variances", "residual", "outside")}
        tensors = {
            name: value.to(dtype).contiguous().cpu()
            for name, value in c._replace(**roots)._asdict().items()
            if value is not None
        }
        if self.labels is not None:
            tensors["labels"] = self.labels.cpu()
        metadata = {"format": FORMAT, "version": str(FORMAT_VERSION), "shape": json.dumps(self.shape)}
        path = Path(path)
        scratch = path.with_name(path.name + ".part")
        scratch.write_bytes(save(tensors, metadata))
        os.replace(scratch, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> MixtureDenoiser:
        """Read what `save` wrote at `path`.

        Raises SavedFileError where the file is no saved mixture, or of another format version.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise SavedFileError(f"cannot read {path}: {error}", path=str(path)) from error
        found = (metadata.get("format"), metadata.get("version"))
        if found != (FORMAT, str(FORMAT_VERSION)):
            raise SavedFileError(
                f"{path} holds format {found[0]!r} version {found[1]}, "
                f"expected {FORMAT!r} version {FORMAT_VERSION}",
                path=str(path),
            )
        labels = tensors.pop("labels", None)
        needed = set(Components._fields) - {"frame"}
        if not needed <= tensors.keys() <= set(Components._fields) or "shape" not in metadata:
            raise SavedFileError(
                f"{path} lacks parts of a mixture: it holds {', '.join(sorted(tensors)) or 'no tensors'}",
                path=str(path),
            )
        tensors = {
            name: value.to(torch.promote_types(value.dtype, torch.float32)) for name, value in tensors.items()
        }
        for name in ("variances", "residual", "outside"):
            tensors[name] = tensors[name] ** 2
        tensors["basis"] = orthonormalize(tensors["basis"])
        tensors["frame"] = orthonormalize(tensors["frame"]) if "frame" in tensors else None
        return cls.from_components(tuple(json.loads(metadata["shape"])), Components(**tensors), labels)


def log_weights(weights: Tensor, count: int) -> Tensor:
    """Logarithms of component weights, after the checks."""
    if tuple(weights.shape) != (count,):
        raise ShapeError(f"weights have shape {tuple(weights.shape)}, but there are {count} components")
    total = float(weights.sum())
    if (weights <= 0).any() or abs(total - 1) > 1e-4:
        raise WeightError(
            f"weights must be positive and sum to 1, got a smallest of {weights.min():.3g}, sum {total:.6g}"
        )
    return (weights.double() / total).log()


def full_covariances(mixture: Any) -> Tensor:  # (K, D, D)
    """The covariance of every component of a scikit-learn mixture, whatever its covariance type."""
    k, size = mixture.means_.shape
    covariances = torch.as_tensor(mixture.covariances_)
    kind = mixture.covariance_type
    if kind == "full":
        return covariances
    if kind == "tied":
        return covariances.expand(k, size, size)
    return torch.diag_embed(covariances if kind == "diag" else covariances[:, None].expand(k, size))


def orthonormalize(basis: Tensor) -> Tensor:  # (..., p, r)
    """The nearest orthonormal columns, by Newton-Schulz steps: rounding to half precision skews a basis."""
    for _ in range(3):
        error = basis.mT @ basis - torch.eye(basis.shape[-1], dtype=basis.dtype, device=basis.device)
        basis = basis - basis @ error / 2
    return basis
