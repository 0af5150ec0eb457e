"""The small networks that FER projects draw up themselves, layer by layer as they are described.

All were written in Keras, so convolutions are unpadded where nothing is said, and weights start as Keras
starts them (Glorot).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from facekit.errors import ConfigError

if TYPE_CHECKING:
    from facekit.baselines import BaselineConfig

STACK = (2, 3, 2)
"""stacked_cnn's n, m, k as its project ended with them."""


def simple_cnn(config: BaselineConfig, outputs: int) -> nn.Sequential:  # noqa: ARG001
    """Build three convolutions with ReLU and max pooling, a dense layer and the classifier.

    The description says no more; 32, 64 and 128 channels and 128 units are chosen here.
    """
    layers: list[nn.Module] = []
    for inputs, channels in ((1, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, channels, 3), nn.ReLU(), nn.MaxPool2d(2)]
    head = (nn.Flatten(), nn.Linear(128 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, outputs))
    return started_as_keras(nn.Sequential(*layers, *head))


def stacked_cnn(config: BaselineConfig, outputs: int) -> nn.Sequential:
    """Build [[conv-relu]*n - pool]*m - [fc-relu]*k - fc, each stage twice as wide as the one before.

    As in the project's last notebook: 16 channels first, 2x2 convolutions, dense layers at each place of the
    last map and the mean over the places before the classifier.
    """
    n, m, k = _stack(config.stack)
    layers: list[nn.Module] = []
    inputs, channels = 1, 16
    for _ in range(m):
        for _ in range(n):
            layers += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(inputs, channels, 2), nn.ReLU()]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
        channels *= 2
    for _ in range(k):
        layers += [nn.Conv2d(inputs, channels, 1), nn.ReLU()]
        inputs, channels = channels, channels * 2
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))
    return started_as_keras(nn.Sequential(*layers, *head))


def _stack(stack: tuple[int, ...]) -> tuple[int, int, int]:
    if len(stack) != 3 or not (stack[0] >= 1 and 1 <= stack[1] <= 5 and stack[2] >= 0):
        raise ConfigError(
            f"stack is {list(stack)}: expected n of at least 1, m of 1 to 5 (48 pixels halve five times), k "
            "of at least 0"
        )
    return stack[0], stack[1], stack[2]


def cnn_222k(config: BaselineConfig, outputs: int) -> nn.Sequential:  # noqa: ARG001
    """Build the network of 222,702 parameters for four classes.

    It was made for pictures of 350x350: six stages of two convolutions and a pooling, 2 to 64 channels, leave
    3x3 places. Crops are enlarged to that size, so that the layers stay what they were.
    """
    layers: list[nn.Module] = [nn.Upsample(size=(350, 350), mode="bilinear")]
    inputs = 1
    for channels in (2, 4, 8, 16, 32, 64):
        layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(channels, channels, 3), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = channels
    head = (nn.Flatten(), nn.Linear(64 * 3 * 3, 256), nn.ReLU(), nn.Linear(256, outputs))
    return started_as_keras(nn.Sequential(*layers, *head))


def oheix_cnn(config: BaselineConfig, outputs: int) -> nn.Sequential:  # noqa: ARG001
    """Build two 3x3 convolutions of 128 channels with batch norm, pooling and dropout, dense 512 and 256."""
    layers: list[nn.Module] = []
    for inputs in (1, 128):
        layers += [
            nn.Conv2d(inputs, 128, 3),
            nn.ReLU(),
            nn.BatchNorm2d(128),
            nn.MaxPool2d(2),
            nn.Dropout(0.5),
        ]
    layers.append(nn.Flatten())
    for inputs, units in ((128 * 10 * 10, 512), (512, 256)):
        layers += [nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(0.5)]
    return started_as_keras(nn.Sequential(*layers, nn.Linear(256, outputs)))


def started_as_keras(network: nn.Sequential) -> nn.Sequential:
    """Draw weights of convolutions and dense layers by Glorot's uniform rule, biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
