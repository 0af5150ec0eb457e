"""The classic models of five kinds of FER project, as networks that train and run like the shared one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facekit.baselines import small, standard
from facekit.errors import ConfigError
from facekit.schema import DEFAULT_HEAD, KEYPOINTS, LABEL_SETS


@dataclass(frozen=True)
class Baseline:
    """A classic model and where it comes from.

    Attributes
    ----------
    reference : str
        The project that describes it.
    figure : str
        What that project reports.
    build : callable
        Gives the layers for a BaselineConfig and a number of outputs.
    task : "expression" or "keypoints"
    class_set : str
        The classes it tells apart unless told otherwise, of schema.LABEL_SETS.
    imagenet : str or None
        Name of torchvision's ImageNet weights, as torchvision.models.get_weight takes it.
    learning_rate : float
        Peak of AdamW at which it trains here from random weights.
    """

    reference: str
    figure: str
    build: Callable[[BaselineConfig, int], nn.Module]
    task: Literal["expression", "keypoints"] = "expression"
    class_set: str = "fer2013"
    imagenet: str | None = None
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class BaselineConfig:
    """What a baseline is built from; it stands in the weights' header.

    Attributes
    ----------
    arch : str
        A name of BASELINES.
    class_set : str or None
        Classes, a name of schema.LABEL_SETS; None: the model's own, see Baseline.
    pretrained : bool
        Start from torchvision's ImageNet weights, where there are any.
    stack : tuple of three int
        n, m and k of stacked_cnn: convolutions before a pooling, poolings, dense layers.
    """

    arch: str = "simple_cnn"
    class_set: str | None = None
    pretrained: bool = False
    stack: tuple[int, ...] = small.STACK

    def __post_init__(self) -> None:
        """Raise ConfigError for an unknown name, or for an option that the model does not have."""
        if self.arch not in BASELINES:
            raise ConfigError(f"unknown baseline {self.arch!r}: expected one of {', '.join(BASELINES)}")
        if self.class_set is not None and self.class_set not in LABEL_SETS:
            raise ConfigError(f"unknown class set {self.class_set!r}: expected {', '.join(LABEL_SETS)}")
        if self.class_set is not None and self.baseline.task == "keypoints":
            raise ConfigError(f"{self.arch} places keypoints and has no classes; leave class_set out")
        if self.pretrained and self.baseline.imagenet is None:
            known = ", ".join(name for name, entry in BASELINES.items() if entry.imagenet)
            raise ConfigError(f"there are no ImageNet weights of {self.arch}, only of {known}")
        if self.stack != small.STACK and self.arch != "stacked_cnn":
            raise ConfigError(f"stack is an option of stacked_cnn; leave it out for {self.arch}")

    @property
    def baseline(self) -> Baseline:
        """The registered model."""
        return BASELINES[self.arch]

    @property
    def classes(self) -> tuple[str, ...]:
        """The expressions that it tells apart; none if it places keypoints."""
        if self.baseline.task == "keypoints":
            return ()
        return LABEL_SETS[self.class_set or self.baseline.class_set]


class BaselineNetwork(nn.Module):
    """A baseline of one task; called as the shared network is: ``network(crops, task)``."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config
        self.task = config.baseline.task
        self.layers = config.baseline.build(config, len(config.classes) or 3 * len(KEYPOINTS))

    def forward(self, crops: Tensor, task: str) -> Any:
        """Give what `SharedNetwork` gives of normalised crops (B, 1, 96, 96) or (B, 1, 48, 48).

        Returns
        -------
        dict of DEFAULT_HEAD to logits (B, C), or points (B, 15, 2) and expected errors (B, 15) in crop pixels
        """
        if task != self.task:
            raise ValueError(f"{self.config.arch} is a network for {self.task}; asked for {task}")
        out = self.layers(crops)
        if task == "expression":
            return {DEFAULT_HEAD: out}
        offsets, spread = out.float().split((2 * len(KEYPOINTS), len(KEYPOINTS)), 1)
        half = crops.shape[-1] / 2  # a coordinate of 1 is the crop's edge, 0 its middle
        points = offsets.unflatten(1, (len(KEYPOINTS), 2)) * half + (half - 0.5)
        return points, F.softplus(spread) + 0.05


def baseline_record(config: BaselineConfig) -> dict[str, Any]:
    """Give a baseline's configuration as it stands in a header."""
    heads = {DEFAULT_HEAD: list(config.classes)} if config.classes else {}
    return {**asdict(config), "heads": heads, "tasks": [config.baseline.task]}


def describe_baselines() -> list[dict[str, Any]]:
    """Tell of each baseline its name, task, parameters, class set, reference, figure and weights."""
    descriptions = []
    for name, entry in BASELINES.items():
        config = BaselineConfig(name)
        with torch.device("meta"):
            network = BaselineNetwork(config)
        descriptions.append(
            {
                "name": name,
                "tasks": [entry.task],
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
                "class_set": entry.class_set if config.classes else None,
                "classes": list(config.classes),
                "reference": entry.reference,
                "reference_figure": entry.figure,
                "weights": None,
                "imagenet": entry.imagenet,
            }
        )
    return descriptions


_TRANSFER = "Emotional-AI (A. Alvini)"
_RECOGNIZER = "Facial-Emotional-Recognizer (D. Downey)"
_FOUR = "emotion_recognition_neural_network (S. Khan)"
_EMOTION_AI = "DSCI-6612 Emotion AI"
_OHEIX = "ML-Emotion-Recognition-Project (J. Li)"

BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "simple_cnn": Baseline(_RECOGNIZER, "52.56% test, 94.85% training", small.simple_cnn),
        "vgg16": Baseline(
            _RECOGNIZER,
            'no figure; mostly "happy"',
            standard.vgg16,
            imagenet="VGG16_Weights.IMAGENET1K_V1",
            learning_rate=2e-4,
        ),
        "vgg19": Baseline(
            _TRANSFER,
            "none: too costly to train there",
            standard.vgg19,
            imagenet="VGG19_Weights.IMAGENET1K_V1",
            learning_rate=2e-4,
        ),
        "vgg16_features": Baseline(
            _TRANSFER, "38%", standard.vgg16_features, imagenet="VGG16_Weights.IMAGENET1K_V1"
        ),
        "vgg19_features": Baseline(
            _TRANSFER, "38%", standard.vgg19_features, imagenet="VGG19_Weights.IMAGENET1K_V1"
        ),
        "stacked_cnn": Baseline(_TRANSFER, "55% validation", small.stacked_cnn),
        "resnet101": Baseline(
            _RECOGNIZER,
            "48% test",
            standard.resnet101,
            imagenet="ResNet101_Weights.IMAGENET1K_V2",
            learning_rate=5e-4,
        ),
        "mobilenet_v2": Baseline(
            _RECOGNIZER, "51% test", standard.mobilenet_v2, imagenet="MobileNet_V2_Weights.IMAGENET1K_V2"
        ),
        "densenet169": Baseline(
            _RECOGNIZER, "61% test", standard.densenet169, imagenet="DenseNet169_Weights.IMAGENET1K_V1"
        ),
        "cnn_222k": Baseline(
            _FOUR,
            "recall: neutral 96%, happy 78%; 83% of angry and 86% of sad come out neutral",
            small.cnn_222k,
            class_set="four",
        ),
        "keypoint_resnet": Baseline(_EMOTION_AI, "none", standard.bottleneck_resnet, task="keypoints"),
        "expression_resnet": Baseline(_EMOTION_AI, "none", standard.bottleneck_resnet),
        "oheix_cnn": Baseline(_OHEIX, "60% validation, 90% training", small.oheix_cnn),
    }
)
"""Every baseline by name; one line and a function that builds its layers make a new one."""
