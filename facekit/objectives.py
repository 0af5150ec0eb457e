"""What a network is trained for: batches of resident samples, their loss, and held-out figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.distributions import Beta

from facekit.augmentation import (
    STILL,
    AugmentConfig,
    augment_expression,
    augment_keypoints,
    canvas_from_crop,
    sample,
)
from facekit.data.resident import ExpressionSamples, KeypointSamples
from facekit.losses import expression_loss, keypoint_loss
from facekit.metrics import laplace_radius
from facekit.schema import DEFAULT_HEAD, INPUT_SIZE, OUTER_EYE_CORNERS

JITTER = replace(STILL, scale=0.05, shift=0.05)
"""How far detector boxes are off, for figures under label boxes."""


class Objective(Protocol):
    """One thing that a network learns.

    Attributes
    ----------
    name : str
    every : int
        It takes part in each `every`-th step.
    """

    name: str
    every: int

    def batches(self) -> int:
        """Count the batches of an epoch."""
        ...

    def start_epoch(self, cycle: int, done: float, generator: Generator) -> None:
        """Draw the order of an epoch's samples; of this cycle, from 0, the share `done` lies behind."""
        ...

    def loss(self, network: nn.Module, step: int, generator: Generator) -> Tensor:
        """Give the loss () of the step-th batch of the epoch."""
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Give figures on held-out samples; the network is in evaluation mode."""
        ...


class KeypointObjective:
    """Distances of 15 points, with their expected errors.

    Parameters
    ----------
    train, held_out : KeypointSamples on the device
    augment : AugmentConfig
    mean, std : float
        Normalisation of 0..1 gray.
    batch_size : int
    every : int
        It takes part in each `every`-th step.
    weight : float
        Of a pixel of distance, against a nat of expression loss.
    early_share : float
        Share of each cycle that `augment` is for; the rest varies its crops as `late_augment` says.
    late_augment : AugmentConfig
    watched : KeypointSamples on the device, optional
        Training samples whose figures stand beside the held-out ones.
    """

    name = "keypoints"

    def __init__(
        self,
        train: KeypointSamples,
        held_out: KeypointSamples,
        augment: AugmentConfig,
        mean: float,
        std: float,
        batch_size: int,
        every: int = 1,
        weight: float = 0.1,
        early_share: float = 0.0,
        late_augment: AugmentConfig | None = None,
        watched: KeypointSamples | None = None,
    ) -> None:
        self.train, self.held_out, self.augment = train, held_out, augment
        self.watched = watched
        self.mean, self.std = mean, std
        self.batch_size, self.every, self.weight = batch_size, every, weight
        self.early_share, self.late_augment = early_share, late_augment or augment
        self._augment = augment

    def batches(self) -> int:
        """Count the batches of an epoch."""
        return max(1, int(self.train.draws.sum()) // self.batch_size)

    def start_epoch(self, cycle: int, done: float, generator: Generator) -> None:  # noqa: ARG002
        """Choose the augmentation; each batch is drawn with replacement by the samples' weights."""
        self._augment = self.augment if done < self.early_share or not self.early_share else self.late_augment

    def loss(self, network: nn.Module, step: int, generator: Generator) -> Tensor:  # noqa: ARG002
        """Give the loss () of a batch."""
        index = torch.multinomial(self.train.draws, self.batch_size, replacement=True, generator=generator)
        crops, targets = augment_keypoints(
            self.train.canvases[index],
            self.train.points_canvas[index],
            INPUT_SIZE["keypoints"],
            self._augment,
            generator,
        )
        points, sigma = network((crops - self.mean) / self.std, "keypoints")
        distance, likelihood = keypoint_loss(points.float(), sigma.float(), targets)
        return self.weight * (distance + 0.1 * likelihood)

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Give ``nme`` (outer eye corners, label boxes jittered by up to 5%) and ``sigma_factor``.

        The latter is what brings 68% of the errors within the radius that the expected errors give for them.
        """
        figures = self._figures(network, self.held_out)
        if self.watched is not None:
            figures["training_nme"] = self._figures(network, self.watched)["nme"]
        return figures

    def _figures(self, network: nn.Module, samples: KeypointSamples) -> dict[str, float]:
        size, device = INPUT_SIZE["keypoints"], samples.canvases.device
        generator = Generator(device).manual_seed(0)
        errors, ratios = [], []
        for start in range(0, len(samples), 256):
            canvases = samples.canvases[start : start + 256]
            points_canvas = samples.points_canvas[start : start + 256]
            crops, targets = augment_keypoints(canvases, points_canvas, size, JITTER, generator)
            points, sigma = network((crops - self.mean) / self.std, "keypoints")
            distance = (points.float() - targets).norm(dim=-1)
            apart = (targets[:, OUTER_EYE_CORNERS[0]] - targets[:, OUTER_EYE_CORNERS[1]]).norm(dim=-1)
            errors.append(distance.nanmean(1) / apart)
            ratios.append(distance / sigma)
        return {
            "nme": float(torch.cat(errors).nanmean()),
            "sigma_factor": float(torch.cat(ratios).nanquantile(0.68)) / laplace_radius(0.68),
        }


class ExpressionObjective:
    """Cross entropy of every expression head, on samples of all sets.

    Parameters
    ----------
    train : ExpressionSamples on the device
    held_out : mapping of set to ExpressionSamples on the device
        Samples that training never sees; the first set's accuracy chooses the epoch.
    heads : mapping of head to classes
        In the order of the samples' targets.
    augment : AugmentConfig
    mean, std : float
        Normalisation of 0..1 gray.
    batch_size : int
    smoothing : float
        Label smoothing.
    auxiliary : float
        Weight of each head besides the default one.
    early_share : float
        Share of each cycle that `augment` is for; the rest varies its crops as `late_augment` says.
    early_size : int
        Side of the crops in the first cycle's early phase, pixels; small ones cost less.
    late_augment : AugmentConfig
    watched : ExpressionSamples on the device, optional
        Training samples whose figures stand beside the held-out ones.
    mixup : float
        As far as `augment` goes, crops and their targets are mixed in pairs, by shares from a Beta
        distribution with this parameter [1]_; 0: they are not.
    teachers : sequence of nn.Module on the device
        Called as the network is; the mean of their answers to a batch's crops is a share of its targets.
    distill : float
        This share.

    References
    ----------
    .. [1] H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """

    name = "expression"
    every = 1

    def __init__(
        self,
        train: ExpressionSamples,
        held_out: Mapping[str, ExpressionSamples],
        heads: Mapping[str, tuple[str, ...]],
        augment: AugmentConfig,
        mean: float,
        std: float,
        batch_size: int,
        smoothing: float = 0.1,
        auxiliary: float = 0.2,
        early_share: float = 0.0,
        early_size: int = 48,
        late_augment: AugmentConfig | None = None,
        watched: ExpressionSamples | None = None,
        mixup: float = 0.0,
        teachers: Sequence[nn.Module] = (),
        distill: float = 0.0,
    ) -> None:
        self.watched, self.mixup = watched, mixup
        self.teachers, self.distill = teachers, distill
        self.train, self.held_out, self.heads, self.augment = train, held_out, heads, augment
        self.mean, self.std, self.batch_size = mean, std, batch_size
        self.smoothing, self.auxiliary = smoothing, auxiliary
        self.early_share, self.early_size = early_share, early_size
        self.late_augment = late_augment or augment
        self._early = self._small = early_share > 0
        self._order = torch.empty(0, dtype=torch.int64)

    def batches(self) -> int:
        """Count the batches of an epoch."""
        return max(1, int(self.train.draws.sum()) // self.batch_size)

    def start_epoch(self, cycle: int, done: float, generator: Generator) -> None:
        """Draw each sample `draws` times, the fraction by chance, in random order."""
        self._early = done < self.early_share
        self._small = self._early and cycle == 0
        draws = self.train.draws
        chance = torch.rand(len(draws), device=draws.device, generator=generator)
        times = (draws.floor() + (chance < draws.frac())).long()
        index = torch.arange(len(draws), device=draws.device).repeat_interleave(times)
        self._order = index[torch.randperm(len(index), device=draws.device, generator=generator)]

    def loss(self, network: nn.Module, step: int, generator: Generator) -> Tensor:
        """Give the loss () of the step-th batch of the epoch."""
        start = step * self.batch_size % max(1, len(self._order) - self.batch_size + 1)
        index = self._order[start : start + self.batch_size]
        strongly = self._early or not self.early_share
        augment = self.augment if strongly else self.late_augment
        crops = augment_expression(self.train.canvases[index], INPUT_SIZE["expression"], augment, generator)
        if self._small:
            crops = F.interpolate(crops, self.early_size, mode="bilinear", antialias=True)
        targets, weights = self.train.targets[index], self.train.weights[index]
        mixed = self._mixing(len(crops), generator) if self.mixup and strongly else lambda x: x
        seen = (mixed(crops) - self.mean) / self.std
        logits, start = network(seen, "expression"), 0
        total = torch.zeros((), device=targets.device)
        for place, (head, classes) in enumerate(self.heads.items()):
            target = targets[:, start : start + len(classes)]
            smooth = target * (1 - self.smoothing) + self.smoothing / len(classes)
            weighted = mixed(smooth * weights[:, place, None])
            if head == DEFAULT_HEAD and self.teachers:
                weighted = weighted.lerp(self._taught(seen) * weighted.sum(1, keepdim=True), self.distill)
            importance = 1.0 if place == 0 else self.auxiliary
            for opinion in _by_member(logits[head], len(classes)):
                total = total + importance * expression_loss(opinion, weighted)
            start += len(classes)
        return total

    @torch.no_grad()
    def _taught(self, crops: Tensor) -> Tensor:
        """Give the mean of the teachers' probabilities (B, C) for normalised crops."""
        classes = len(self.heads[DEFAULT_HEAD])
        answers = [teacher(crops, "expression")[DEFAULT_HEAD].float() for teacher in self.teachers]
        return torch.stack([_by_member(answer, classes).mean(0) for answer in answers]).softmax(-1).mean(0)

    def _mixing(self, count: int, generator: Generator) -> Callable[[Tensor], Tensor]:
        """Draw pairs and a share; give what mixes the rows of a batch by them."""
        pairs = torch.randperm(count, device=generator.device, generator=generator)
        share = float(Beta(self.mixup, self.mixup).sample())
        return lambda rows: torch.lerp(rows[pairs], rows, share)

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Give each held-out set's accuracy and negative log likelihood, and the watched samples'."""
        figures = {}
        watched = {} if self.watched is None else {"training": self.watched}
        for name, samples in {**self.held_out, **watched}.items():
            logits, truth = self.answers(network, samples)
            figures[f"{name}_accuracy"] = float((logits.argmax(1) == truth).float().mean())
            figures[f"{name}_nll"] = float(F.cross_entropy(logits, truth))
        return figures

    def answers(self, network: nn.Module, samples: ExpressionSamples) -> tuple[Tensor, Tensor]:
        """Give the default head's logits (M, C) and labels (M,) of the samples with one of its classes."""
        targets = samples.targets[:, : len(self.heads[DEFAULT_HEAD])]
        labelled = targets.sum(1) > 0
        return self.logits(network, samples)[labelled], targets[labelled].argmax(1)

    @torch.inference_mode()
    def logits(self, network: nn.Module, samples: ExpressionSamples, head: str = DEFAULT_HEAD) -> Tensor:
        """Give a head's logits (N, C), the mean of an ensemble's members, for samples as they are."""
        size, rows = INPUT_SIZE["expression"], []
        middle = canvas_from_crop(samples.canvases.shape[-1], size).to(samples.canvases.device)
        for canvases in samples.canvases.split(512):  # type: ignore[no-untyped-call]
            crops = sample(canvases, middle.expand(len(canvases), -1, -1), size)
            told = network((crops - self.mean) / self.std, "expression")[head].float()
            rows.append(_by_member(told, len(self.heads[head])).mean(0))
        return torch.cat(rows)


def _by_member(logits: Tensor, classes: int) -> Tensor:
    """Give the logits (members, B, C) of an ensemble's (B, members, C), or of the (B, C) of what is none."""
    return logits.reshape(len(logits), -1, classes).transpose(0, 1)
