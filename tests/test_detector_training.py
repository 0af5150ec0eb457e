"""A small detector learns made faces in seconds, and is then used as the shipped one is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from facekit import geometry
from facekit.detection import Detections, FacekitDetector
from facekit.detection_metrics import sigmoid
from facekit.detector_network import (
    Cells,
    DetectorConfig,
    DetectorNetwork,
    best_cells,
    cell_grid,
    for_inference,
)
from facekit.detector_training import (
    DetectorTrainConfig,
    _last_norm,
    assign,
    pairwise_overlaps,
    train_detector,
)
from facekit.errors import ConfigError, DatasetError, WeightsError
from facekit.fitting import FitConfig, begin_with
from facekit.scene_views import ViewConfig
from facekit.weights import load_detector

CPU = torch.device("cpu")


def made_picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one or two round bright "faces" with dark eyes and mouth on a noisy ground."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(120, 190, 2)
    picture = generator.normal(90, 12, (height, width, 3))
    y, x = np.mgrid[:height, :width] + 0.5
    boxes = []
    for place in range(generator.integers(1, 3)):
        radius = generator.uniform(11, 24)
        centre = generator.uniform([26, 30], [width / 2 - 26 if place else width - 30, height - 30])
        u, v = (x - centre[0]) / radius, (y - centre[1]) / (1.25 * radius)
        reach = np.array([radius, 1.25 * radius])
        box = [*(centre - reach), *(centre + reach)]
        if boxes and geometry.overlaps(np.array([box]), np.array(boxes)).max() > 0:
            continue
        picture[u**2 + v**2 < 1] = generator.uniform(170, 230, 3)
        for side in (-0.4, 0.4):
            picture[(u - side) ** 2 + (v + 0.25) ** 2 < 0.03] = 30
        picture[(np.abs(u) < 0.45) & (np.abs(v - 0.45) < 0.1)] = 50
        boxes.append(box)
    return picture.clip(0, 255).astype(np.uint8), np.array(boxes, np.float32)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    lines = ["image,x0,y0,x1,y1,score"]
    for seed in range(24):
        picture, boxes = made_picture(seed)
        name = f"made/{seed:02}.png"
        (folder / "made").mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / name)
        lines += [f"{name},{','.join(f'{edge:.2f}' for edge in box)},1" for box in boxes]
    (folder / "faces.csv").write_text("\n".join(lines) + "\n")
    return folder


def config(epochs: int, steps: int = 40) -> DetectorTrainConfig:
    return DetectorTrainConfig(
        name="made",
        model=DetectorConfig(stem=16, widths=(24, 32, 32), blocks=(0, 1, 1, 1), head=24),
        fit=FitConfig(epochs=epochs, optimizer="adamw", learning_rate=1e-2, average=0.9, weight_decay=0.01),
        views=ViewConfig(size=96, largest_face=70, pastes=0, mosaic=0.25, dark=0, low_resolution=0),
        batch_size=8,
        steps=steps,
        held_out={"made": 8},
    )


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    records = list(train_detector(config(epochs=6, steps=80), [scenes], out, device="cpu"))
    assert records[-1].losses["detector"] < 0.7 * records[0].losses["detector"]
    assert records[-1].figures["average_precision"] > 0.8
    return out / "weights.safetensors"


@pytest.fixture(scope="module")
def detector(trained: Path) -> FacekitDetector:
    return FacekitDetector(trained, min_score=0.3, device="cpu")


def _same(one: Detections, other: Detections) -> None:
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_it_finds_faces_that_it_never_saw(trained: Path) -> None:
    pictures = [made_picture(seed) for seed in range(100, 120)]
    detector = FacekitDetector(trained, min_score=0.3, least_side=0, device="cpu")
    found = detector([picture for picture, _ in pictures])
    best = [
        geometry.overlaps(truth, one.boxes).max(1, initial=0)
        for one, (_, truth) in zip(found, pictures, strict=True)
    ]
    assert np.mean(np.concatenate(best) > 0.5) > 0.85


def test_a_batch_gives_what_each_picture_gives(detector: FacekitDetector) -> None:
    pictures = [made_picture(seed)[0] for seed in range(40, 52)]
    assert len({picture.shape for picture in pictures}) > 6
    for one, alone in zip(detector(pictures), pictures, strict=True):
        _same(one, detector([alone])[0])


def test_gray_pictures_may_have_one_channel(detector: FacekitDetector) -> None:
    gray = made_picture(7)[0][..., 0]
    _same(detector([gray])[0], detector([np.repeat(gray[..., None], 3, 2)])[0])


def test_threads_share_it(detector: FacekitDetector) -> None:
    pictures = [made_picture(seed)[0] for seed in range(60, 68)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda picture: detector([picture])[0], pictures))
    for one, other in zip(detector(pictures), together, strict=True):
        _same(one, other)


def test_large_pictures_are_shrunk_and_boxes_brought_back(trained: Path) -> None:
    picture, _ = made_picture(3)
    large = np.repeat(np.repeat(picture, 5, 0), 5, 1)
    detector = FacekitDetector(trained, min_score=0.3, longest_side=max(picture.shape), device="cpu")
    (small,), (big,) = detector([picture]), detector([large])
    assert len(small) == len(big) > 0
    np.testing.assert_allclose(big.boxes, small.boxes * 5, atol=10)


def test_small_pictures_are_enlarged_and_boxes_brought_back(trained: Path) -> None:
    picture = made_picture(3)[0][::2, ::2]
    large = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    near, plain = (
        FacekitDetector(trained, min_score=0.3, least_side=side, device="cpu")
        for side in (2 * max(picture.shape), 0)
    )
    (found,), (expected,) = near([picture]), plain([large])
    assert len(found) > 0
    np.testing.assert_allclose(found.boxes * 2, expected.boxes, atol=0.05)


@pytest.mark.parametrize(("logit", "sides"), [(9.0, [400]), (-9.0, [400, 200]), (None, [400, 200])])
def test_without_a_sure_face_a_picture_is_seen_at_half_its_size(
    trained: Path, monkeypatch: pytest.MonkeyPatch, logit: float | None, sides: list[int]
) -> None:
    detector, seen = FacekitDetector(trained, min_score=1e-6, device="cpu"), []

    def run(pictures: list[np.ndarray], _: float) -> list[tuple[np.ndarray, np.ndarray]]:
        seen.extend(max(picture.shape) for picture in pictures)
        cells = [] if logit is None else [logit]
        return [
            (np.array([[10, 10, 130, 130]] * len(cells)).reshape(-1, 4), np.array(cells)) for _ in pictures
        ]

    monkeypatch.setattr(detector, "_run", run)
    (found,) = detector([np.zeros((300, 400, 3), np.uint8)])
    assert seen == sides
    # The half view's box is another face: twice as far off and as large.
    assert len(found) == (0 if logit is None else len(sides))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 900, 3), (900, 2, 3), (3, 5), (2500, 3000, 3)])
def test_pictures_without_faces_give_nothing(detector: FacekitDetector, shape: tuple[int, ...]) -> None:
    (found,) = detector([np.full(shape, 90, np.uint8)])
    assert found.boxes.shape == (0, 4)


def test_the_header_says_what_was_held_out(trained: Path) -> None:
    from facekit.weights import load_weights

    network, header = load_detector(trained)
    assert len(header["data"]["held_out"]) == 8
    assert header["data"]["train"] == 16
    assert header["slope"] > 0
    assert sum(part.numel() for part in network.parameters()) < 20_000
    with pytest.raises(WeightsError, match="kind 'detector'"):
        load_weights(trained)


def test_an_interrupted_run_ends_alike(scenes: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = config(epochs=2, steps=3)
    expected = [record.losses for record in train_detector(settings, [scenes], whole, device="cpu")]
    next(run := train_detector(settings, [scenes], broken, device="cpu"))
    run.close()
    resumed = [r.losses for r in train_detector(settings, [scenes], broken, resume=True, device="cpu")]
    assert resumed == expected[1:]
    assert (whole / "weights.safetensors").read_bytes() == (broken / "weights.safetensors").read_bytes()


def test_a_run_may_begin_with_other_weights(trained: Path, scenes: Path, tmp_path: Path) -> None:
    deeper = replace(config(epochs=1).model, blocks=(1, 1, 1, 1))
    network = DetectorNetwork(deeper)
    begin_with(network, load_detector(trained)[0].state_dict(), "trained", _last_norm)
    pictures = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, said = load_detector(trained)[0](pictures), network.eval()(pictures)
    torch.testing.assert_close(said.logits, expected.logits)
    torch.testing.assert_close(said.boxes, expected.boxes)
    settings = replace(config(epochs=1), start=str(trained), model=DetectorConfig(stem=8))
    with pytest.raises(ConfigError, match="weights of another network"):
        next(train_detector(settings, [scenes], tmp_path, device="cpu"))


def test_scenes_without_held_out_faces_are_refused(scenes: Path, tmp_path: Path) -> None:
    settings = replace(config(epochs=1), held_out={"other": 3})
    with pytest.raises(DatasetError, match="held out"):
        next(train_detector(settings, [scenes], tmp_path, device="cpu"))


def test_an_unknown_precision_is_refused(scenes: Path, tmp_path: Path) -> None:
    settings = config(epochs=1)
    settings = replace(settings, fit=replace(settings.fit, precision="float8"))
    with pytest.raises(ConfigError, match="unknown precision 'float8'"):
        next(train_detector(settings, [scenes], tmp_path, device="cpu"))


def test_the_default_network_is_small() -> None:
    assert sum(part.numel() for part in DetectorNetwork(DetectorConfig()).parameters()) <= 500_000


def test_folding_changes_nothing() -> None:
    torch.manual_seed(0)
    network = DetectorNetwork(DetectorConfig())
    pictures = torch.rand(2, 3, 64, 96)
    network(pictures)  # gives the batch norms statistics
    with torch.inference_mode():
        expected = network.eval()(pictures)
        folded = for_inference(network)(pictures * 255)
    torch.testing.assert_close(folded.logits, expected.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.boxes, expected.boxes, atol=1e-2, rtol=1e-3)
    assert expected.boxes.shape == (2, len(cell_grid(64, 96, CPU)), 4)


def test_the_grid_is_level_by_level() -> None:
    grid = cell_grid(32, 64, CPU)
    assert len(grid) == 4 * 8 + 2 * 4 + 1 * 2
    assert grid[[0, 1, 8, 32, -1]].tolist() == [[4, 4, 8], [12, 4, 8], [4, 12, 8], [8, 8, 16], [48, 16, 32]]


def test_each_face_keeps_its_best_cell_and_the_mean_of_the_boxes_that_agree() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [40, 0, 50, 10]]]).repeat(2, 1, 1)
    logits = torch.tensor([[1.0, 2.0, 0.5], [3.0, 1.0, -9.0]])
    first, second = best_cells(Cells(logits, boxes), -1.0, 0.4)
    assert first[1].tolist() == [2.0, 0.5]
    left = sigmoid(2.0) / (sigmoid(1.0) + sigmoid(2.0))  # of the boxes at 0 and 1, weighed by probability
    np.testing.assert_allclose(first[0], [[left, 0, left + 10, 10], [40, 0, 50, 10]], atol=1e-5)
    assert second[1].tolist() == [3.0]


def test_overlaps_are_geometrys() -> None:
    corners = torch.rand(2, 5, 2, 2, generator=torch.Generator().manual_seed(0)).sort(2).values * 50
    first, second = corners.flatten(2)[:1], corners.flatten(2)[1:]
    expected = geometry.overlaps(first[0].numpy(), second[0].numpy())
    np.testing.assert_allclose(pairwise_overlaps(first, second)[0].numpy(), expected, atol=1e-5)


def test_cells_learn_the_face_they_see_best() -> None:
    grid = cell_grid(64, 64, CPU)
    count = len(grid)
    # Every cell guesses a box of four strides about itself.
    reach = 2 * grid[:, 2:]
    cells = Cells(torch.zeros(1, count), torch.cat([grid[:, :2] - reach, grid[:, :2] + reach], 1)[None])
    boxes = torch.tensor([[[4.0, 4, 36, 36], [40, 40, 60, 60], [0, 0, 0, 0]]])
    kinds = torch.tensor([[1, 2, 0]], dtype=torch.uint8)
    targets = assign(cells, grid, boxes, kinds)
    learned = targets.scores[0] > 0
    assert 1 <= learned.sum() <= 9
    centres = grid[learned, :2]
    assert ((centres > 4) & (centres < 36)).all()
    # The cell in the middle of the face guesses it exactly and gets the highest score.
    best = targets.scores[0].argmax()
    assert grid[best].tolist() == [20, 20, 8]
    assert targets.scores[0, best] == pytest.approx(1, abs=1e-4)
    assert torch.equal(targets.boxes[0, learned], boxes[0, :1].expand(int(learned.sum()), 4))
    in_doubt = ((grid[:, :2] > 40) & (grid[:, :2] < 60)).all(1)
    assert torch.equal(~targets.counts[0], in_doubt)
