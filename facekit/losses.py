"""What training minimises: soft cross entropy of expressions; distance and expected error of keypoints.

Keypoint errors are modelled by an isotropic Laplace density in the plane, p(e) ~ exp(-|e| / b) / (2 pi b^2),
whose radius has mean 2b. A network's `sigma` is that mean: the expected distance from the true point, in
pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def expression_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Give the weighted mean cross entropy.

    Parameters
    ----------
    logits : (B, C) float
    targets : (B, C) float, rows sum to the sample's weight: 0 for samples without this label

    Returns
    -------
    () float32
    """
    return -(targets * F.log_softmax(logits.float(), 1)).sum() / targets.sum().clamp(min=1e-6)


def keypoint_loss(points: Tensor, sigma: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Give the mean distance and the negative log likelihood of sigma, over the labelled points.

    The likelihood teaches sigma alone: it does not move the points, so that a hard point is not given up.

    Parameters
    ----------
    points, targets : (B, 15, 2) float, crop pixels; NaN in `targets` marks a missing point
    sigma : (B, 15) float, crop pixels

    Returns
    -------
    tuple of two () float32: pixels, nats
    """
    present = ~targets.isnan().any(-1)
    count = present.sum().clamp(min=1)
    offset = torch.where(present[..., None], points - targets.nan_to_num(), 0.0)
    distance = (offset.square().sum(-1) + 1e-6).sqrt()
    likelihood = 2 * distance.detach() / sigma + 2 * sigma.log()
    return (distance * present).sum() / count, (likelihood * present).sum() / count
