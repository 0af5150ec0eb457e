from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from facekit.augmentation import STILL, AugmentConfig
from facekit.data.resident import ExpressionSamples, KeypointSamples
from facekit.objectives import JITTER, ExpressionObjective, KeypointObjective
from facekit.schema import EXPRESSIONS, MEAN_FACE

HEADS = {"fer2013": EXPRESSIONS, "three": ("happy", "sad", "neutral")}


class Recorder(nn.Module):
    """Answers each crop by a table of logits and remembers the crops it saw."""

    def __init__(self, label: int = 0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(7))
        with torch.no_grad():
            self.logits[label] = 2.0
        self.seen: list[Tensor] = []

    def forward(self, crops: Tensor, task: str) -> dict[str, Tensor]:
        assert task == "expression"
        self.seen.append(crops)
        rows = self.logits.expand(len(crops), -1)
        return {"fer2013": rows, "three": rows[:, :3]}


def expressions(count: int, draw: float = 1.0) -> ExpressionSamples:
    """Make samples whose canvases are of one gray that is their number."""
    labels = torch.arange(count) % 7
    targets = torch.cat([torch.eye(7)[labels], torch.tensor([[1.0, 0.0, 0.0]]).expand(count, -1)], 1)
    weights = torch.stack([torch.ones(count), (labels == 3).float()], 1)
    grays = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 64, 64)
    return ExpressionSamples(grays.clone(), torch.full((count,), draw), targets, weights)


def expression_objective(samples: ExpressionSamples, **settings: object) -> ExpressionObjective:
    defaults = {"augment": JITTER, "mean": 0.0, "std": 1.0, "batch_size": 7, "smoothing": 0.0}
    return ExpressionObjective(samples, {"made": samples}, HEADS, **(defaults | settings))


def generator() -> Generator:
    return Generator().manual_seed(0)


def test_an_epoch_shows_every_sample_once_in_another_order_each_time():
    objective, network = expression_objective(expressions(28)), Recorder()
    orders = []
    for _ in range(2):
        network.seen.clear()
        rng = generator().manual_seed(len(orders))
        objective.start_epoch(0, 0.0, rng)
        for step in range(objective.batches()):
            objective.loss(network, step, rng)
        grays = (torch.cat(network.seen).mean((1, 2, 3)) * 255).round().int().tolist()
        assert sorted(grays) == list(range(28))
        orders.append(grays)
    assert orders[0] != orders[1]


def test_samples_are_drawn_as_often_as_they_say():
    objective = expression_objective(expressions(200, draw=1.5))
    objective.start_epoch(0, 0.0, generator())
    times = np.bincount(objective._order.numpy(), minlength=200)
    assert set(times) == {1, 2}
    assert 0.4 < (times == 2).mean() < 0.6


def test_heads_learn_from_the_samples_that_speak_to_them():
    objective, network = expression_objective(expressions(7), auxiliary=0.5), Recorder(3)
    objective.start_epoch(0, 0.0, generator())
    loss = objective.loss(network, 0, generator())
    probabilities = torch.tensor([0.0, 0, 0, 2, 0, 0, 0]).log_softmax(0)
    three = torch.zeros(3).log_softmax(0)
    assert loss.item() == pytest.approx(float(-probabilities.mean() - 0.5 * three[0]), abs=1e-5)


class Ensemble(nn.Module):
    """Lets recorders tell their opinions side by side."""

    def __init__(self, *members: Recorder) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, crops: Tensor, task: str) -> dict[str, Tensor]:
        told = [member(crops, task) for member in self.members]
        return {head: torch.stack([logits[head] for logits in told], 1) for head in told[0]}


def test_members_learn_for_themselves_and_answer_together():
    samples, members = expressions(14), (Recorder(0), Recorder(5))
    objective = expression_objective(samples, batch_size=14)
    objective.start_epoch(0, 0.0, generator())
    together = objective.loss(Ensemble(*members), 0, generator())
    alone = sum(objective.loss(member, 0, generator()) for member in members)
    torch.testing.assert_close(together, alone)
    mean = (members[0].logits + members[1].logits).detach() / 2
    torch.testing.assert_close(objective.logits(Ensemble(*members), samples), mean.expand(14, -1))


def test_the_early_phase_has_small_crops_and_the_late_one_its_own_augmentation():
    loud = replace(JITTER, cutout=0.9)
    objective = expression_objective(
        expressions(70), augment=loud, early_share=0.5, early_size=32, late_augment=JITTER, batch_size=70
    )
    network = Recorder()
    for cycle, done in ((0, 0.0), (0, 0.49), (0, 0.5), (0, 0.9), (1, 0.0), (1, 0.5)):
        objective.start_epoch(cycle, done, generator())
        objective.loss(network, 0, generator())
    assert [crops.shape[-1] for crops in network.seen] == [32, 32, 48, 48, 48, 48]
    varied = [float(crops.std((1, 2, 3)).max()) > 0.01 for crops in network.seen]
    assert varied == [True, True, False, False, True, False]


class Brightness(nn.Module):
    """Tells bright crops from dark ones, more surely the brighter they are."""

    def forward(self, crops: Tensor, task: str) -> dict[str, Tensor]:
        assert task == "expression"
        self.seen = crops.mean((1, 2, 3))
        logits = torch.zeros(len(crops), 7)
        logits[:, 1] = 3 * self.seen
        return {"fer2013": logits, "three": logits[:, :3]}


def test_mixup_mixes_targets_as_it_mixes_crops():
    pair = expressions(2)
    pair.canvases[1] = 255
    pair.weights[:, 1] = 0
    objective = expression_objective(pair, augment=STILL, batch_size=2, mixup=0.5)
    network, shares = Brightness(), []
    for seed in range(8):
        torch.manual_seed(seed)
        rng = generator().manual_seed(seed)
        objective.start_epoch(0, 0.0, rng)
        loss = objective.loss(network, 0, rng)
        answers = (torch.tensor([0.0, 3, 0, 0, 0, 0, 0]) * network.seen[:, None]).log_softmax(1)
        expected = -((1 - network.seen) * answers[:, 0] + network.seen * answers[:, 1]).mean()
        assert loss.item() == pytest.approx(float(expected), abs=1e-4)
        shares += network.seen.tolist()
    assert any(0.02 < share < 0.98 for share in shares)


def test_mixup_ends_with_the_early_phase():
    objective = expression_objective(
        expressions(70), augment=STILL, late_augment=STILL, early_share=0.5, batch_size=70, mixup=0.5
    )
    network = Recorder()
    for done in (0.0, 0.5):
        objective.start_epoch(0, done, generator())
        objective.loss(network, 0, generator())
    grays = [crops.mean((1, 2, 3)) * 255 for crops in network.seen]
    assert [bool((gray - gray.round()).abs().max() > 0.1) for gray in grays] == [True, False]


def test_teachers_answer_for_the_very_crops_that_the_student_sees():
    teachers, network = [Recorder(1), Recorder(5)], Recorder(3)
    loud = AugmentConfig()
    objective = expression_objective(
        expressions(7), augment=loud, batch_size=7, mixup=0.5, auxiliary=0.0, teachers=teachers, distill=0.75
    )
    objective.start_epoch(0, 0.0, generator())
    torch.manual_seed(0)
    loss = objective.loss(network, 0, generator())
    for teacher in teachers:
        assert torch.equal(teacher.seen[0], network.seen[0])
    likelihood = -network.logits.detach().log_softmax(0)
    taught = torch.stack([teacher.logits.softmax(0) for teacher in teachers]).mean(0)
    expected = 0.25 * likelihood.mean() + 0.75 * (taught * likelihood).sum()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    assert all(teacher.logits.grad is None for teacher in teachers)


def test_validation_counts_right_answers():
    figures = expression_objective(expressions(70)).validate(Recorder(2))
    assert figures["made_accuracy"] == pytest.approx(1 / 7)
    expected = -torch.tensor([2.0, 0, 0, 0, 0, 0, 0]).log_softmax(0)
    assert figures["made_nll"] == pytest.approx(float(expected.mean()), abs=1e-5)


class Oracle(nn.Module):
    """Gives the mean face's points a fixed distance to the right, and an expected error."""

    def __init__(self, off: float) -> None:
        super().__init__()
        self.off = nn.Parameter(torch.tensor(off))

    def forward(self, crops: Tensor, task: str) -> tuple[Tensor, Tensor]:
        assert task == "keypoints"
        points = torch.tensor(MEAN_FACE) * 60 + 47.5
        points = points.expand(len(crops), -1, -1) + torch.tensor([1.0, 0.0]) * self.off
        return points, torch.full((len(crops), 15), 2.0)


def keypoints(count: int) -> KeypointSamples:
    points = (torch.tensor(MEAN_FACE) * 60 + 79.5).expand(count, -1, -1)
    canvases = torch.zeros(count, 1, 160, 160, dtype=torch.uint8)
    return KeypointSamples(canvases, points.float(), torch.ones(count))


def test_keypoint_loss_is_the_weighted_distance_and_likelihood():
    objective = KeypointObjective(keypoints(8), keypoints(8), STILL, 0.0, 1.0, batch_size=8, weight=0.5)
    objective.start_epoch(0, 0.0, generator())
    loss = objective.loss(Oracle(3.0), 0, generator())
    likelihood = 2 * 3.0 / 2.0 + 2 * np.log(2.0)
    assert loss.item() == pytest.approx(0.5 * (3.0 + 0.1 * likelihood), abs=1e-3)


def test_keypoint_augmentation_changes_with_the_phase():
    wild = AugmentConfig(rotation=40.0)
    objective = KeypointObjective(
        keypoints(8), keypoints(8), wild, 0.0, 1.0, batch_size=8, early_share=0.5, late_augment=STILL
    )
    losses = []
    for done in (0.0, 0.6):
        objective.start_epoch(0, done, generator())
        losses.append(objective.loss(Oracle(0.0), 0, generator()).item())
    assert losses[0] > 0.3
    assert losses[1] < 0.2


def test_held_out_figures_under_jittered_boxes():
    objective = KeypointObjective(keypoints(200), keypoints(200), STILL, 0.0, 1.0, batch_size=8)
    figures = objective.validate(Oracle(0.0))
    # boxes off by up to 5% of 96 pixels each way: 2.4 pixels on average, on a distance of 45 between the eyes
    assert 0.04 < figures["nme"] < 0.12
    assert figures["sigma_factor"] > 0.8
