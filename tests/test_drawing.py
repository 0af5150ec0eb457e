from __future__ import annotations

import numpy as np
import pytest

from facekit import drawing
from facekit.drawing import BOX_COLOR, SHADE, SIDE_COLORS, draw, side_of
from facekit.schema import KEYPOINTS, MEAN_FACE

GRAY = 120


def made_faces(boxes: list[tuple[float, ...]]) -> tuple[np.ndarray, np.ndarray]:
    edges = np.array(boxes, np.float32).reshape(-1, 4)
    side = (edges[:, 2] - edges[:, 0])[:, None, None]
    centre = ((edges[:, :2] + edges[:, 2:]) / 2)[:, None]
    return edges, (centre + np.array(MEAN_FACE, np.float32) * side * 0.6).astype(np.float32)


def drawn(
    width: int, height: int, boxes: list[tuple[float, ...]], label: str = "surprise 100%"
) -> np.ndarray:
    return draw(np.full((height, width, 3), GRAY, np.uint8), *made_faces(boxes), [label] * len(boxes))


def test_points_have_the_colours_of_the_subjects_sides():
    sides = {name: side_of(name) for name in KEYPOINTS}
    assert sum(side == "left" for side in sides.values()) == 6
    assert sum(side == "right" for side in sides.values()) == 6
    assert [name for name, side in sides.items() if side == "middle"] == [
        "nose_tip",
        "mouth_center_top_lip",
        "mouth_center_bottom_lip",
    ]


@pytest.mark.parametrize("side", [60, 200, 1000, 2000])
def test_every_point_is_drawn_at_its_place_in_its_colour(side):
    box = (side * 0.2, side * 0.2, side * 1.2, side * 1.2)
    picture = drawn(int(side * 1.5), int(side * 1.5), [box])
    _, points = made_faces([box])
    for name, (x, y) in zip(KEYPOINTS, points[0], strict=True):
        found = picture[round(float(y)), round(float(x))].astype(int)
        assert np.abs(found - SIDE_COLORS[side_of(name)]).max() < 60, name


def test_the_frame_runs_just_inside_the_box():
    picture = drawn(300, 300, [(100, 100, 200, 200)], label=" ")
    inside = np.all(picture == BOX_COLOR, -1)
    assert inside[100, 100:200].all()
    assert inside[199, 100:200].all()
    assert inside[100:200, 100].all()
    assert inside[100:200, 199].all()
    untouched = picture[:, :99]
    assert (untouched == GRAY).all()
    assert (picture[201:] == GRAY).all()


@pytest.mark.parametrize(
    "box", [(-40, -30, 60, 80), (250, 250, 400, 380), (-50, -50, 350, 350), (400, 10, 450, 60)]
)
def test_a_box_beyond_the_picture_is_drawn_at_its_edge(box):
    picture = drawn(300, 300, [box])
    assert picture.shape == (300, 300, 3)
    assert np.all(picture == BOX_COLOR, -1).any()


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [
        (640, 480, (0, 0, 24, 24)),
        (640, 480, (616, 456, 640, 480)),
        (640, 480, (300, 200, 324, 224)),
        (640, 480, (0, 0, 640, 480)),
        (112, 112, (40, 10, 64, 40)),
        (48, 48, (0, 0, 48, 48)),
        (2400, 2400, (200, 200, 2200, 2200)),
        (3000, 200, (10, 10, 190, 190)),
        (100, 1000, (0, 400, 100, 520)),
    ],
)
def test_a_label_is_readable_and_whole_inside_the_picture(monkeypatch, width, height, box):
    plates, fonts = [], []
    free, fitting = drawing._free_plate, drawing._fitting_font
    monkeypatch.setattr(drawing, "_free_plate", lambda *a: plates.append(free(*a)) or plates[-1])
    monkeypatch.setattr(drawing, "_fitting_font", lambda *a: fonts.append(fitting(*a)) or fonts[-1])
    picture = drawn(width, height, [box])
    ((left, top, right, bottom),) = plates
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    font = fonts[0][0]
    assert font.size >= (13 if width >= 110 else 7)
    assert font.getlength("surprise 100%") <= right - left
    plate = picture[top:bottom, left:right].astype(int)
    letters = np.abs(plate - BOX_COLOR).max(-1) < 60
    assert 0.03 < letters.mean() < 0.5
    assert np.all(np.abs(plate[[0, -1]] - SHADE).max(-1) < 10), "letters touch the plate's edge"


def test_labels_of_neighbours_do_not_hide_one_another(monkeypatch):
    plates = []
    free = drawing._free_plate
    monkeypatch.setattr(drawing, "_free_plate", lambda *a: plates.append(free(*a)) or plates[-1])
    drawn(640, 480, [(100, 100, 160, 160), (140, 105, 200, 165), (120, 102, 180, 162)])
    for place, one in enumerate(plates):
        for other in plates[:place]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_tiny_pictures_and_none_at_all_do_no_harm():
    assert (drawn(30, 30, []) == GRAY).all()
    for side in (1, 2, 5, 20):
        assert drawn(side, side, [(0, 0, side, side)]).shape == (side, side, 3)


def test_the_picture_itself_is_not_drawn_on():
    picture = np.full((100, 100, 3), GRAY, np.uint8)
    picture.flags.writeable = False
    assert draw(picture, *made_faces([(20, 20, 80, 80)]), ["happy 90%"]) is not picture
