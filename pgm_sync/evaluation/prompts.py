"""Whether pictures show what was asked for: classifiers, embeddings, and pictures with several readings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import DtypeError, ParameterError, ShapeError
from ..metrics import Measurement
from .features import AT_ONCE, embed
from .means import mean, share

Classifier = Callable[[Tensor], Tensor]  # pictures (n, *shape) -> logits (n, K)
View = Callable[[Tensor], Tensor]  # pictures -> pictures
AXES = ("both", "prompts", "views")


def prompt_log_probability(
    pictures: Tensor,  # (n, *shape)
    classes: Tensor | Sequence[int],  # (n), or (1) for all
    classifier: Classifier,
    batch: int = AT_ONCE,
) -> Measurement:
    """Mean log-probability of the intended class under a classifier that returns logits; in nats, 0 is best.

    `pictures` are ``(n, *shape)``, `classes` ``(n)``, or ``(1)`` for all; ``classifier(pictures)`` gives logits, for
    `batch` pictures at a time.

    >>> undecided = lambda x: torch.zeros(len(x), 2)
    >>> round(prompt_log_probability(torch.zeros(4, 1), [1], undecided).value, 4)  # log(1/2)
    -0.6931

    Raises ShapeError, DtypeError, ParameterError on a class the classifier does not have, NotFiniteError.
    """
    logits, wanted = _logits(pictures, classes, classifier, batch)
    return mean(logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0], what="log-probabilities")


def prompt_accuracy(
    pictures: Tensor,  # (n, *shape)
    classes: Tensor | Sequence[int],  # (n), or (1) for all
    classifier: Classifier,
    batch: int = AT_ONCE,
) -> Measurement:
    """Share of pictures that a classifier takes for the intended class, with Wilson's interval; 1 is best.

    `pictures` are ``(n, *shape)``, `classes` ``(n)``, or ``(1)`` for all; ``classifier(pictures)`` gives logits, for
    `batch` pictures at a time.

    >>> by_sign = lambda x: torch.cat([-x, x], 1)  # class 1 for positive numbers
    >>> prompt_accuracy(torch.tensor([[2.0], [1.0], [-1.0], [3.0]]), [1], by_sign).value
    0.75

    Raises as `prompt_log_probability`.
    """
    logits, wanted = _logits(pictures, classes, classifier, batch)
    return share((logits.argmax(-1) == wanted).double())


def embedding_alignment(
    pictures: Tensor,  # (n, d)
    prompts: Tensor,  # (n, d), or (d) for all
) -> Measurement:
    """Mean cosine of two embeddings, of pictures and of their prompts; 1 is best.

    With CLIP's embeddings this is the CLIP similarity that papers call CLIP-S; the CLIPScore of [Hessel2021]_ is 2.5
    times its positive part.

    Raises ShapeError, ParameterError on an embedding of length 0, NotFiniteError.

    >>> pictures, prompt = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([1.0, 0.0])
    >>> round(embedding_alignment(pictures, prompt).value, 4)  # of the cosines 1 and sqrt(1/2)
    0.8536
    """
    x, y = pictures.detach().double(), prompts.detach().to(pictures.device).double()
    if x.ndim != 2 or y.shape[-1:] != x.shape[-1:] or y.ndim > 2 or (y.ndim == 2 and len(y) != len(x)):
        raise ShapeError(
            f"embeddings (n, d) and (n, d) or (d) needed, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if (x.norm(dim=-1) == 0).any() or (y.norm(dim=-1) == 0).any():
        raise ParameterError("an embedding of length 0 has no direction")
    return mean(functional.cosine_similarity(x, y.expand_as(x), dim=-1), what="cosines")


def view_scores(
    pictures: Tensor,  # (n, *shape)
    views: Sequence[View],
    classes: Sequence[int] | Tensor,  # (N), or (n, N) of each picture
    classifier: Classifier,
    batch: int = AT_ONCE,
) -> Tensor:  # (n, N, N)
    """Score of prompt j in view i of each picture, the matrix S of [Geng2024]_; here the classifier's log-probability.

    A view of a graph is its map: ``views=[map.apply, ...]``. `pictures` are ``(n, *shape)``, `classes` ``(N)``, one per
    view, or ``(n, N)``; ``classifier(pictures)`` gives logits, for `batch` pictures at a time. With embeddings instead
    of a classifier, S is their product: ``torch.einsum("nid,jd->nij", pictures, prompts)``.

    >>> by_sign = lambda x: torch.cat([-x, x], 1)  # class 1 for positive numbers
    >>> scores = view_scores(torch.full((1, 1), 5.0), [lambda x: x, torch.neg], [1, 0], by_sign)
    >>> scores.exp().round(decimals=2)  # turned over, the picture shows class 0
    tensor([[[1., 0.],
             [0., 1.]]], dtype=torch.float64)

    Raises as `prompt_log_probability`; ShapeError unless there is one class per view.
    """
    table = torch.as_tensor(classes)
    if table.ndim not in (1, 2) or table.shape[-1] != len(views) or not views:
        raise ShapeError(f"{len(views)} views and {table.shape[-1]} classes; one class per view needed")
    if table.ndim == 2 and len(table) != len(pictures):
        raise ShapeError(f"classes of {len(table)} pictures for {len(pictures)}")
    rows = []
    for view in views:
        logits, wanted = _logits(view(pictures), table, classifier, batch, per_picture=False)
        chosen = wanted.reshape(table.shape).expand(len(logits), -1)
        rows.append(logits.log_softmax(-1).gather(1, chosen))
    return torch.stack(rows, 1)


def alignment(scores: Tensor) -> Measurement:  # (n, N, N)
    """Alignment of [Geng2024]_, section 4.1: the score of the worst view, ``A = min diag(S)``; higher is better.

    The mean over pictures, with its interval, of `scores` ``(n, N, N)`` as `view_scores` gives them.

    >>> print(alignment(torch.eye(2).expand(5, 2, 2)))
    1.0000 [1.0000, 1.0000] (n=5)

    Raises ShapeError, NotFiniteError.
    """
    return mean(_square(scores).diagonal(dim1=-2, dim2=-1).amin(-1), what="alignment")


def concealment(scores: Tensor, temperature: float = 1.0, over: str = "both") -> Measurement:  # (n, N, N)
    """Concealment of [Geng2024]_, section 4.1: ``C = tr(softmax(S / temperature)) / N``; 1 is best, 1/N chance.

    The mean over pictures, with its interval, of `scores` ``(n, N, N)`` as `view_scores` gives them. How well a view
    hides the prompts of the others. The softmax is over prompts (which prompt is this view?), over views (which view
    shows this prompt?), or the mean of both. `temperature` is CLIP's (.01 for its embeddings); for a classifier's
    log-probabilities it is 1.

    >>> print(concealment(torch.zeros(5, 2, 2)))
    .5000 [.5000, .5000] (n=5)

    Raises ShapeError, NotFiniteError, ParameterError.
    """
    if not temperature > 0:
        raise ParameterError(f"temperature={temperature} must be positive", temperature=temperature)
    if over not in AXES:
        raise ParameterError(f"over={over!r} is none of {', '.join(AXES)}", over=over)
    s = _square(scores) / temperature
    axes = {"both": (-1, -2), "prompts": (-1,), "views": (-2,)}[over]
    traces = [s.softmax(axis).diagonal(dim1=-2, dim2=-1).mean(-1) for axis in axes]
    return mean(torch.stack(traces).mean(0), what="concealment")


def _square(scores: Tensor) -> Tensor:
    if scores.ndim != 3 or scores.shape[1] != scores.shape[2] or not scores.shape[1]:
        raise ShapeError(
            f"scores have shape (n, views, prompts), one prompt per view; got {tuple(scores.shape)}"
        )
    return scores.detach().double()


def _logits(
    pictures: Tensor,
    classes: Tensor | Sequence[int],
    classifier: Classifier,
    batch: int,
    per_picture: bool = True,
) -> tuple[Tensor, Tensor]:
    logits = embed(pictures, classifier, batch)
    wanted = torch.as_tensor(classes).to(logits.device)
    if wanted.is_floating_point() or wanted.is_complex() or wanted.dtype == torch.bool:
        raise DtypeError(f"classes must be integers, got {wanted.dtype}", dtype=wanted.dtype)
    wanted = wanted.reshape(-1).long()
    if per_picture:
        if len(wanted) not in (1, len(logits)):
            raise ShapeError(f"{len(wanted)} classes for {len(logits)} pictures")
        wanted = wanted.expand(len(logits))
    if wanted.numel() and not (0 <= int(wanted.min()) and int(wanted.max()) < logits.shape[1]):
        raise ParameterError(
            f"classes from {int(wanted.min())} to {int(wanted.max())}, but the classifier has {logits.shape[1]}"
        )
    return logits, wanted
