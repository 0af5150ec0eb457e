from __future__ import annotations

import pytest
import torch

from facekit.losses import expression_loss, keypoint_loss


def test_expression_loss_is_cross_entropy_of_the_samples_that_count():
    logits = torch.randn(4, 7)
    labels = torch.tensor([1, 2, 3, 4])
    targets = torch.nn.functional.one_hot(labels, 7).float()
    weights = torch.tensor([1.0, 1.0, 0.0, 0.0])
    expected = torch.nn.functional.cross_entropy(logits[:2], labels[:2])
    torch.testing.assert_close(expression_loss(logits, targets * weights[:, None]), expected)
    assert expression_loss(logits, 0 * targets) == 0


def test_missing_points_count_for_nothing():
    points, sigma = torch.zeros(2, 15, 2, requires_grad=True), torch.ones(2, 15)
    targets = torch.full((2, 15, 2), float("nan"))
    targets[0, 3] = torch.tensor([3.0, 4.0])
    distance, _ = keypoint_loss(points, sigma, targets)
    assert distance.item() == pytest.approx(5.0, abs=1e-4)
    distance.backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()
    assert (points.grad.abs().sum(2) > 0).sum() == 1


def test_likelihood_is_best_where_sigma_is_the_mean_error_and_leaves_the_points_alone():
    targets = torch.full((1, 15, 2), float("nan"))
    targets[0, 0] = torch.tensor([3.0, 4.0])
    points = torch.zeros(1, 15, 2, requires_grad=True)
    sigmas = torch.linspace(2, 10, 81)
    losses = [keypoint_loss(points, torch.full((1, 15), float(s)), targets)[1] for s in sigmas]
    assert sigmas[int(torch.stack(losses).argmin())] == pytest.approx(5.0, abs=0.11)
    assert not losses[0].requires_grad
