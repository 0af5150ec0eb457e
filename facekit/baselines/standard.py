"""Networks of the literature at FER2013's 48x48 pixels, from torchvision's own parts.

References
----------
.. [1] K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015.
.. [2] K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
.. [3] M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
.. [4] G. Huang et al., "Densely Connected Convolutional Networks", CVPR 2017.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck
from torchvision.models.vgg import cfgs, make_layers

from facekit.errors import WeightsError
from facekit.schema import PIXEL_MEAN, PIXEL_STD

if TYPE_CHECKING:
    from collections.abc import Callable

    from facekit.baselines import BaselineConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_CLASSIFIER = ("classifier.", "fc.")
_OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


class Standard(nn.Module):
    """A network for ImageNet's pictures that is given gray crops, normalised as facekit's are."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("scale", (PIXEL_STD / std)[:, None, None], persistent=False)
        self.register_buffer("shift", ((PIXEL_MEAN - mean) / std)[:, None, None], persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        """Give the network's outputs of crops (B, 1, S, S), in three channels of ImageNet's normalisation."""
        return self.network(crops * self.scale + self.shift)  # type: ignore[no-any-return]

    def take_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take over the weights of all layers but the classifier's, which has other classes.

        Raises
        ------
        WeightsError
            They are those of another network.
        """
        renamed = {_OLD_DENSENET_NAME.sub(r"\1\2", key): tensor for key, tensor in state.items()}
        own = self.network.state_dict()
        taken = {
            key: renamed[key]
            for key in own
            if not key.startswith(_CLASSIFIER) and key in renamed and own[key].shape == renamed[key].shape
        }
        missing = [
            key
            for key in own
            if key not in taken and not key.startswith(_CLASSIFIER) and not key.endswith("batches_tracked")
        ]
        if missing:
            raise WeightsError(f"the ImageNet weights do not fit: {len(missing)} tensors, first {missing[0]}")
        self.network.load_state_dict(taken, strict=False)


class Vgg(nn.Module):
    """VGG's convolutions [1]_, the single 512 values that they make of 48x48 pixels, and two dense layers.

    torchvision's own classifier would repeat that one place 49 times to fill its 7x7.
    """

    def __init__(self, layout: str, outputs: int, frozen: bool) -> None:
        super().__init__()
        self.features = make_layers(cfgs[layout])
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        self.features.requires_grad_(not frozen)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, outputs)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Give outputs (B, C) of (B, 3, 48, 48)."""
        return self.classifier(self.features(pictures))  # type: ignore[no-any-return]


def _vgg(config: BaselineConfig, outputs: int, layout: str, frozen: bool = False) -> Standard:  # noqa: ARG001
    return Standard(Vgg(layout, outputs, frozen))


vgg16, vgg19 = partial(_vgg, layout="D"), partial(_vgg, layout="E")
vgg16_features = partial(_vgg, layout="D", frozen=True)
vgg19_features = partial(_vgg, layout="E", frozen=True)


def _torchvision(config: BaselineConfig, outputs: int, make: Callable[..., nn.Module]) -> Standard:  # noqa: ARG001
    return Standard(make(num_classes=outputs))


resnet101 = partial(_torchvision, make=models.resnet101)
mobilenet_v2 = partial(_torchvision, make=models.mobilenet_v2)
densenet169 = partial(_torchvision, make=models.densenet169)


def bottleneck_resnet(config: BaselineConfig, outputs: int) -> nn.Sequential:
    """Build a residual network [2]_ of a 7x7 stem and two stages of three bottlenecks.

    The project's description names residual networks for 96x96 keypoints and for 48x48 expressions and says
    no more; the last map, halved, is read place by place: a mean over it would lose where the points are.
    """
    stem = (nn.Conv2d(1, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    places = 6 if config.baseline.task == "keypoints" else 3
    head = (nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(512 * places**2, outputs))
    return nn.Sequential(*stem, _stage(64, 64, 1), _stage(256, 128, 2), *head)


def _stage(inputs: int, channels: int, stride: int) -> nn.Sequential:
    wide = channels * Bottleneck.expansion
    shortcut = nn.Sequential(nn.Conv2d(inputs, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))
    first = Bottleneck(inputs, channels, stride, shortcut)
    return nn.Sequential(first, Bottleneck(wide, channels), Bottleneck(wide, channels))
