"""PyTorch runs the arithmetic: on CPU with NumPy's warp, on an accelerator with everything on the device."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from facekit import geometry
from facekit.backends import cut_crops
from facekit.errors import ConfigError
from facekit.model import TASKS, Branch, Task, fold_batch_norms, multiplies_bfloat16
from facekit.schema import INPUT_SIZE
from facekit.weights import Weights

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(device: str = "auto") -> torch.device:
    """Give the device of that name; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    ConfigError
        Unknown, or not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}: expected auto, cpu, cuda, cuda:N or mps") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(chosen.type, False):
        raise ConfigError(f"device {device!r} is not available here; see `facekit doctor`")
    return chosen


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Give the number type; "auto" takes bfloat16 where the processor multiplies it natively, else float32.

    Raises
    ------
    ConfigError
        Unknown.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise ConfigError(f"unknown precision {precision!r}: expected auto, {known}, or int8 with onnx")
        return PRECISIONS[precision]
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


class TorchBackend:
    """Both branches of a network on one device; threads may share it.

    Parameters
    ----------
    weights : Weights
    device : str
        auto, cpu, cuda, cuda:N or mps.
    precision : str
        auto, fp32, bf16 or fp16.

    Raises
    ------
    ConfigError
        The device or precision is unknown or not there.
    """

    def __init__(self, weights: Weights, device: str = "auto", precision: str = "auto") -> None:
        self.name, self.header = weights.name, weights.header
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.arithmetic = f"torch {next(name for name, dtype in PRECISIONS.items() if dtype == self.dtype)}"
        self._branches = {
            task: branch.to(self.device, self.dtype).to(memory_format=torch.channels_last)
            for task in TASKS
            if (branch := _branch(weights, task)) is not None
        }

    def warp(
        self,
        grays: Sequence[NDArray[np.uint8]],
        picture_of_face: NDArray[np.int64],
        image_from_crop: NDArray[np.float64],
        size: int,
    ) -> Tensor:
        """Cut crops out of gray pictures.

        Parameters
        ----------
        grays : sequence of (H, W) uint8
        picture_of_face : (N,) int, which picture each crop is cut from
        image_from_crop : (N, 2, 3) float64
        size : int

        Returns
        -------
        (N, 1, size, size) float32, 0..1, on the device
        """
        if self.device.type == "cpu":
            return torch.from_numpy(cut_crops(grays, picture_of_face, image_from_crop, size))
        crops = torch.empty(len(picture_of_face), 1, size, size, device=self.device)
        for picture in np.unique(picture_of_face):
            gray = torch.from_numpy(grays[picture]).to(self.device, non_blocking=True)
            faces = np.flatnonzero(picture_of_face == picture)
            crops[faces] = warp_on_device(gray, image_from_crop[faces], size)
        return crops

    @torch.inference_mode()
    def keypoints(self, crops: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give points (N, 15, 2) and expected errors (N, 15), crop pixels, of 96x96 crops."""
        points, sigma = self._branches["keypoints"](self._normalised(crops, "keypoints"))
        sigma = sigma * self.header["sigma_factor"]
        return points.float().cpu().numpy(), sigma.float().cpu().numpy()

    @torch.inference_mode()
    def expression(self, crops: Tensor, heads: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Give the logits (N, C), as trained, of 48x48 crops by each of some heads."""
        logits: dict[str, Tensor] = self._branches["expression"](self._normalised(crops, "expression"))
        return {head: logits[head].float().cpu().numpy() for head in heads}

    def _normalised(self, crops: Tensor, task: Task) -> Tensor:
        expected = INPUT_SIZE[task]
        if crops.shape[1:] != (1, expected, expected):
            raise ValueError(f"crops of shape {tuple(crops.shape)}; expected (N, 1, {expected}, {expected})")
        normalised: Tensor = (crops - self.header["mean"]) / self.header["std"]
        return normalised.to(self.dtype).contiguous(memory_format=torch.channels_last)


class BaselineBranch(nn.Module):
    """A baseline for inference, its batch norms folded in; called without the task, as a Branch is."""

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.task, self.network = task, copy.deepcopy(network).eval()
        fold_batch_norms(self.network)

    def forward(self, crops: Tensor) -> Any:
        """Give what the network gives."""
        return self.network(crops, self.task)


def _branch(weights: Weights, task: Task) -> nn.Module | None:
    """Give what does a task, None where nothing does."""
    if weights.baseline is not None and weights.baseline.task == task:
        return BaselineBranch(weights.baseline, task)
    network = weights.network if task in weights.network.config.tasks else weights.other
    return None if network is None else Branch(network, task)


def warp_on_device(gray: Tensor, image_from_crop: NDArray[np.float64], size: int) -> Tensor:
    """Cut crops out of one gray picture where it lies, as geometry.warp does, by ``grid_sample``.

    Parameters
    ----------
    gray : (H, W) uint8 tensor
    image_from_crop : (N, 2, 3) float64
    size : int

    Returns
    -------
    (N, 1, size, size) float32, 0..1
    """
    height, width = gray.shape
    crops = torch.empty(len(image_from_crop), 1, size, size, device=gray.device)
    factors = np.array([geometry.reduction(matrix, (height, width)) for matrix in image_from_crop])
    for factor in np.unique(factors).tolist():
        faces = np.flatnonzero(factors == factor)
        reduced = F.avg_pool2d((gray.float() / 255)[None, None], factor)
        matrices = geometry.reduced_from_crop(image_from_crop[faces], factor)
        theta = geometry.theta(matrices, (width // factor, height // factor), (size, size))
        grid = F.affine_grid(
            torch.from_numpy(theta).to(gray.device, torch.float32),
            [len(faces), 1, size, size],
            align_corners=False,
        )
        crops[faces] = F.grid_sample(
            reduced.expand(len(faces), -1, -1, -1),
            grid,
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
    return crops
