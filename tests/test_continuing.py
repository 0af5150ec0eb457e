from __future__ import annotations

from dataclasses import replace

import torch
from made import HEADS

from facekit.configuration import TrainConfig
from facekit.continuing import go_on_with, of_tasks
from facekit.model import ModelConfig, SharedNetwork
from facekit.weights import Weights

MODEL = ModelConfig(width=8, blocks=(1, 1, 1, 1), map_channels=8, heads=HEADS)


def test_blocks_that_the_weights_lack_change_nothing_at_first():
    torch.manual_seed(1)
    first = SharedNetwork(MODEL).eval()
    deeper = TrainConfig(start="first", model=replace(MODEL, blocks=(1, 2, 1, 3)))
    grown = go_on_with(Weights("first", first, {}, ""), deeper).eval()
    crops = torch.rand(2, 1, 96, 96)
    with torch.inference_mode():
        for before, after in zip(first.keypoints(crops), grown.keypoints(crops), strict=True):
            torch.testing.assert_close(after, before)
        answers = [network.expression(crops[..., ::2, ::2])["fer2013"] for network in (first, grown)]
    torch.testing.assert_close(*answers)


def test_one_task_of_two_is_taken_alone():
    torch.manual_seed(1)
    both = SharedNetwork(MODEL).eval()
    crops = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        both.expression(crops)
        alone = of_tasks(Weights("both", both, {}, ""), ("expression",)).network.eval()
        assert torch.equal(alone.expression(crops)["fer2013"], both.expression(crops)["fer2013"])
