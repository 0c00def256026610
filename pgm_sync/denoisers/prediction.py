"""What a network predicts, and how the clean content follows from it."""

from __future__ import annotations

from torch import Tensor

from ..errors import ParameterError

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "flow_prediction")


def coefficients(
    prediction_type: str, alpha: float | Tensor, sigma: float | Tensor
) -> tuple[float | Tensor, float | Tensor]:
    """``(c_x, c_m)`` with ``denoised = c_x * x_t + c_m * output``, for ``x_t = alpha x_0 + sigma eps``.

    =================  ======================================  ================  ==================
    prediction type    output                                  c_x               c_m
    =================  ======================================  ================  ==================
    epsilon            eps                                     1 / alpha         -sigma / alpha
    sample             x_0                                     0                 1
    v_prediction       (alpha eps - sigma x_0) / r             alpha / r^2       -sigma / r
    flow_prediction    eps - x_0                               1 / (alpha+sigma) -sigma / (alpha+sigma)
    =================  ======================================  ================  ==================

    with ``r^2 = alpha^2 + sigma^2``, so that networks trained in variance preserving coordinates (r = 1)
    serve every other scaling of the same state; likewise ``alpha + sigma = 1`` in flow coordinates.

    Raises ParameterError for another prediction type, and for epsilon at alpha = 0 (pure noise), where the
    output says nothing about x_0.

    >>> coefficients("v_prediction", 0.6, 0.8)
    (0.6, -0.8)
    """
    if prediction_type == "epsilon":
        if not isinstance(alpha, Tensor) and alpha == 0:
            raise ParameterError(
                "a noise (epsilon) prediction does not determine the clean content at alpha = 0; "
                "use a v, sample or flow prediction, or a schedule that starts with some signal",
                prediction_type=prediction_type,
                alpha=alpha,
            )
        return 1 / alpha, -sigma / alpha
    if prediction_type == "sample":
        return 0.0, 1.0
    if prediction_type == "v_prediction":
        r2 = alpha**2 + sigma**2
        return alpha / r2, -sigma / r2**0.5
    if prediction_type == "flow_prediction":
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)
    raise ParameterError(
        f"prediction type {prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}",
        prediction_type=prediction_type,
        supported=PREDICTION_TYPES,
    )


def mean_part(output: Tensor, like: Tensor, channel_axis: int) -> Tensor:
    """The prediction itself, without the variance half that learned-variance networks append.

    A content that is one number, of shape (), has no channels and no such half.
    """
    if channel_axis >= like.ndim:
        return output
    channels = like.shape[channel_axis]
    if output.shape[channel_axis] == 2 * channels:
        return output.narrow(channel_axis, 0, channels)
    return output
