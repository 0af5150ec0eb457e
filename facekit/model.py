"""The network: two stems meet in one ResNet trunk, from which a keypoint head and expression heads read.

References
----------
.. [1] K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
.. [2] A. Nibali et al., "Numerical Coordinate Regression with Convolutional Neural Networks", 2018
(soft-argmax).
.. [3] S. Lee et al., "Why M Heads are Better than One: Training a Diverse Ensemble of Deep Networks", 2015.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock

from facekit import processor
from facekit.schema import DEFAULT_HEAD, EXPRESSIONS, INPUT_SIZE, KEYPOINTS, SHARED_STAGES

Task = Literal["keypoints", "expression"]
TASKS: tuple[Task, ...] = ("keypoints", "expression")


@dataclass(frozen=True)
class ModelConfig:
    """What a network is built from; it stands in the weights' header.

    Attributes
    ----------
    width : int
        Channels of the trunk's first stage; the following stages double it.
    blocks : tuple of int
        BasicBlocks of each of the four stages.
    map_channels : int
        Channels of the fused maps that the keypoint head reads.
    dropout : float
        Share of the pooled features that expression heads do not see in training.
    heads : mapping of str to tuple of str
        Expression heads and their classes; `DEFAULT_HEAD` is the one that analyses use.
    tasks : tuple of str
        Both tasks, or the only one of a single-task network.
    norm_per_task : bool
        Each task has batch norms of its own in the shared trunk.
    members : int
        Of the ensemble that names expressions [3]_. The trunk is the first; each further one has later stages
        and heads of its own.
    """

    width: int = 32
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    map_channels: int = 64
    dropout: float = 0.2
    heads: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {DEFAULT_HEAD: EXPRESSIONS})
    tasks: tuple[Task, ...] = TASKS
    norm_per_task: bool = True
    members: int = 1


class TaskBatchNorm(nn.Module):
    """Batch norms of the same channels, one a task; `SharedNetwork.forward` sets which one is in use."""

    def __init__(self, channels: int, tasks: tuple[Task, ...]) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({task: nn.BatchNorm2d(channels) for task in tasks})
        self.task: str = tasks[0]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by the statistics of the task in use."""
        return self.norms[self.task](x)  # type: ignore[no-any-return]


class Stem(nn.Sequential):
    """One gray channel to `width` channels of 48x48."""

    def __init__(self, width: int, stride: int) -> None:
        convolution = nn.Conv2d(1, width, 3, stride=stride, padding=1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _stage(config: ModelConfig, stage: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """Build a stage's blocks; every stage but the first halves the side of its maps."""
    width, layers = config.width << stage, []
    channels = config.width << max(0, stage - 1)
    for block in range(config.blocks[stage]):
        stride = 2 if stage and not block else 1
        shortcut = None
        if stride != 1 or channels != width:
            shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), norm(width))
        layers.append(BasicBlock(channels, width, stride, shortcut, norm_layer=norm))
        channels = width
    return nn.Sequential(*layers)


class Trunk(nn.Module):
    """ResNet of four stages [1]_: (B, w, 48, 48) to maps of 48, 24, 12 and 6 a side, w to 8w channels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        per_task = config.norm_per_task and len(config.tasks) > 1

        def norm(channels: int) -> nn.Module:
            return TaskBatchNorm(channels, config.tasks) if per_task else nn.BatchNorm2d(channels)

        self.stages = nn.ModuleList(_stage(config, stage, norm) for stage in range(len(config.blocks)))

    def forward(self, x: Tensor, stages: int | None = None) -> list[Tensor]:
        """Give the maps of every stage, or of the first `stages`."""
        maps = []
        for stage in islice(self.stages, stages):
            x = stage(x)
            maps.append(x)
        return maps


class KeypointHead(nn.Module):
    """Soft-argmax over 24x24 maps fused from strides 4, 8 and 16, with an expected error a point [2]_."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.map_channels
        self.laterals = nn.ModuleList(nn.Conv2d(config.width << stage, channels, 1) for stage in (1, 2, 3))
        self.fuse = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.maps = nn.Conv2d(channels, len(KEYPOINTS), 1)
        self.error_weight = nn.Parameter(torch.zeros(len(KEYPOINTS), channels))
        self.error_bias = nn.Parameter(torch.zeros(len(KEYPOINTS)))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Give points (B, 15, 2) and expected errors (B, 15), both in pixels of the 96x96 crop."""
        side = maps[1].shape[-1]
        fused = self.laterals[0](maps[1])
        for lateral, finer in zip(self.laterals[1:], maps[2:], strict=True):
            fused = fused + F.interpolate(lateral(finer), size=side, mode="bilinear", align_corners=False)
        fused = self.fuse(fused)
        attention = self.maps(fused).flatten(2).float().softmax(-1)  # (B, 15, 576)
        cell = INPUT_SIZE["keypoints"] / side
        centres = (torch.arange(side, device=fused.device, dtype=torch.float32) + 0.5) * cell - 0.5
        square = attention.unflatten(2, (side, side))
        points = torch.stack([square.sum(2) @ centres, square.sum(3) @ centres], -1)
        seen = attention @ fused.flatten(2).transpose(1, 2).float()  # (B, 15, channels)
        sigma = F.softplus((seen * self.error_weight).sum(-1) + self.error_bias) + 0.05
        return points, sigma


def _heads(config: ModelConfig) -> nn.ModuleDict:
    features = config.width << (len(config.blocks) - 1)
    return nn.ModuleDict({name: nn.Linear(features, len(classes)) for name, classes in config.heads.items()})


def _logits(last: Tensor, heads: nn.ModuleDict, dropout: nn.Module) -> dict[str, Tensor]:
    """Give each head's logits (B, C) for the maps of the last stage."""
    pooled = dropout(last.mean((2, 3)))
    return {name: head(pooled) for name, head in heads.items()}


class Member(nn.Module):
    """A further member of the ensemble: later stages and heads of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        later = range(SHARED_STAGES, len(config.blocks))
        self.stages = nn.Sequential(*(_stage(config, stage, nn.BatchNorm2d) for stage in later))
        self.heads = _heads(config)

    def forward(self, shared: Tensor, dropout: nn.Module) -> dict[str, Tensor]:
        """Give each head's logits (B, C) for the maps of the last shared stage."""
        return _logits(self.stages(shared), self.heads, dropout)


def _opinions(
    maps: list[Tensor], heads: nn.ModuleDict, members: Iterable[nn.Module], dropout: nn.Module
) -> dict[str, Tensor]:
    """Give each head's logits (B, members, C); the last maps, if there are all, are the first member's."""
    told = [member(maps[SHARED_STAGES - 1], dropout) for member in members]
    if len(maps) > SHARED_STAGES:
        told.insert(0, _logits(maps[-1], heads, dropout))
    return {name: torch.stack([logits[name] for logits in told], 1) for name in heads}


class SharedNetwork(nn.Module):
    """Both stages of facekit: keypoints of 96x96 crops, expressions of aligned 48x48 crops, one trunk."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.stems = nn.ModuleDict(
            {task: Stem(config.width, INPUT_SIZE[task] // 48) for task in config.tasks}
        )
        self.trunk = Trunk(config)
        if "keypoints" in config.tasks:
            self.keypoint_head = KeypointHead(config)
        if "expression" in config.tasks:
            self.dropout = nn.Dropout(config.dropout)
            self.expression_heads = _heads(config)
            self.members = nn.ModuleList(Member(config) for _ in range(1, config.members))
        self._norms = [module for module in self.trunk.modules() if isinstance(module, TaskBatchNorm)]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def own_parameters(self, task: Task) -> list[nn.Parameter]:
        """Give the parameters that no other task uses: of stem, batch norms, head and further members."""
        own = (self.keypoint_head,) if task == "keypoints" else (self.expression_heads, self.members)
        norms = [norm.norms[task] for norm in self._norms]
        return [parameter for part in (self.stems[task], *norms, *own) for parameter in part.parameters()]

    @torch.no_grad()
    def map_logits(self, head: str, matrix: Tensor, bias: Tensor) -> None:
        """Map a head's logits (C,) by a matrix (C, C) and a bias (C,), in every member, so their mean too."""
        heads = [member.heads for member in self.members if isinstance(member, Member)]
        for linear in (each[head] for each in (self.expression_heads, *heads)):
            assert isinstance(linear, nn.Linear)
            linear.weight.copy_(matrix @ linear.weight)
            linear.bias.copy_(matrix @ linear.bias + bias)

    def features(self, crops: Tensor, task: Task, stages: int | None = None) -> list[Tensor]:
        """Give the maps of the trunk's stages, or of its first ones, for normalised crops (B, 1, S, S)."""
        for norm in self._norms:
            norm.task = task
        return self.trunk(self.stems[task](crops), stages)  # type: ignore[no-any-return]

    def keypoints(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Give points (B, 15, 2) and expected errors (B, 15), crop pixels, of crops (B, 1, 96, 96)."""
        return self.keypoint_head(self.features(crops, "keypoints"))  # type: ignore[no-any-return]

    def expression(self, crops: Tensor) -> dict[str, Tensor]:
        """Give each head's logits (B, members, C) of normalised crops (B, 1, 48, 48).

        Where training leaves the trunk as it is, those of the members that learn.
        """
        if self.training and not _learns(self.expression_heads):
            maps = self.features(crops, "expression", SHARED_STAGES)
            return _opinions(maps, self.expression_heads, filter(_learns, self.members), self.dropout)
        maps = self.features(crops, "expression")
        return _opinions(maps, self.expression_heads, self.members, self.dropout)

    def forward(self, crops: Tensor, task: Task) -> Any:
        """Run one task; see `keypoints` and `expression`."""
        return self.keypoints(crops) if task == "keypoints" else self.expression(crops)


class Branch(nn.Module):
    """One task of a trained network, for inference: its own copy of the trunk with batch norms folded in.

    A branch has no state that a call changes, so threads may share it.
    """

    def __init__(self, network: SharedNetwork, task: Task) -> None:
        super().__init__()
        self.task = task
        self.stem = copy.deepcopy(network.stems[task])
        self.trunk = copy.deepcopy(network.trunk)
        if task == "keypoints":
            self.head: nn.Module = copy.deepcopy(network.keypoint_head)
        else:
            self.head = copy.deepcopy(network.expression_heads)
            self.members = copy.deepcopy(network.members)
        _select_norms(self.trunk, task)
        self.eval()
        fold_batch_norms(self)

    def forward(self, crops: Tensor) -> Any:
        """Give what `SharedNetwork.keypoints` gives, or each head's logits (B, C), the members' mean."""
        maps = self.trunk(self.stem(crops))
        if self.task == "keypoints":
            return self.head(maps)
        opinions = _opinions(maps, self.head, self.members, nn.Identity())  # type: ignore[arg-type]
        return {name: logits.mean(1) for name, logits in opinions.items()}


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _select_norms(module: nn.Module, task: Task) -> None:
    for name, child in module.named_children():
        if isinstance(child, TaskBatchNorm):
            setattr(module, name, child.norms[task])
        else:
            _select_norms(child, task)


def fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution that stands right before it among its parent's children."""
    children = list(module.named_children())
    for (name, child), (next_name, following) in pairwise(children):
        if isinstance(child, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(child, following))
            setattr(module, next_name, nn.Identity())
    for _, child in children:
        fold_batch_norms(child)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 faster than float32.

    Of processors those with AMX do, and AMD's with AVX512-BF16. Intel's with AVX512-BF16 alone, as virtual
    machines show them, take longer.
    """
    if device.type == "cpu":
        by_vectors = torch.cpu._is_avx512_bf16_supported() and "AuthenticAMD" in processor.told()
        return bool(torch.cpu._is_amx_tile_supported() or by_vectors)
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
