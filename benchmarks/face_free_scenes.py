"""Make pictures without faces for the detector's training: textures, things, text, shapes, and photos.

    python benchmarks/face_free_scenes.py --out runs/scenes

Photos are those of scikit-image and scikit-learn that come with them, show no face, and are not among the
samples on which benchmarks/detection.py counts false alarms. The pictures become the subfolder face_free of
the folder that benchmarks/label_scenes.py wrote, where a picture without a label has no face.
"""

from __future__ import annotations

import argparse
import string
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

WIDTH, HEIGHT = 480, 360

Picture = NDArray[np.uint8]
Drawn = np.random.Generator


def noise(drawn: Drawn, roughness: float) -> NDArray[np.float32]:
    """Give a field (HEIGHT, WIDTH) in 0..1 whose spectrum falls with frequency to the power `roughness`."""
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)) + 1 / WIDTH
    phase = drawn.uniform(0, 2 * np.pi, frequency.shape)
    field = np.fft.irfft2(frequency**-roughness * np.exp(1j * phase), (HEIGHT, WIDTH))
    low, high = np.percentile(field, [1, 99])
    return ((field - low) / (high - low)).clip(0, 1).astype(np.float32)


def coloured(field: NDArray[np.float32], drawn: Drawn) -> Picture:
    """Bring 0..1 to the way between two random colours, one of them dark."""
    dark, light = drawn.uniform(0, 110, 3), drawn.uniform(120, 255, 3)
    if drawn.random() < 0.5:
        dark, light = np.full(3, dark.mean()), np.full(3, light.mean())
    return (dark + field[..., None] * (light - dark)).clip(0, 255).astype(np.uint8)


def texture(drawn: Drawn) -> Picture:
    """Draw grain, clouds, or stripes bent by clouds."""
    field = noise(drawn, drawn.uniform(0.3, 2.0))
    if drawn.random() < 0.4:
        y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
        angle = drawn.uniform(0, np.pi)
        period = np.exp(drawn.uniform(np.log(6), np.log(80)))
        along = x * np.cos(angle) + y * np.sin(angle) + drawn.uniform(0, 60) * field
        field = (0.5 + 0.5 * np.sin(along * 2 * np.pi / period)).astype(np.float32)
    return coloured(field, drawn)


def stones(drawn: Drawn) -> Picture:
    """Draw the cells around random points, each of its own brightness, darker towards their borders."""
    count = int(np.exp(drawn.uniform(np.log(40), np.log(1500))))
    seeds = np.full((HEIGHT, WIDTH), 255, np.uint8)
    seeds[drawn.integers(0, HEIGHT, count), drawn.integers(0, WIDTH, count)] = 0
    distance, cell = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    brightness = drawn.uniform(0.3, 1.0, int(cell.max()) + 1).astype(np.float32)
    shade = np.exp(-distance / drawn.uniform(0.4, 1.5) / np.sqrt(HEIGHT * WIDTH / count)).astype(np.float32)
    grain = noise(drawn, drawn.uniform(0.3, 1.2))
    return coloured((brightness[cell] * shade * (0.6 + 0.4 * grain)).clip(0, 1), drawn)


def round_things(drawn: Drawn) -> Picture:
    """Draw ellipses that bear a relief, in rows or strewn about, lit from one side."""
    field = 0.25 * noise(drawn, drawn.uniform(0.5, 2.0)) + drawn.uniform(0, 0.5)
    relief = noise(drawn, drawn.uniform(0.9, 1.6))
    slope = np.gradient(relief)
    angle = drawn.uniform(0, 2 * np.pi)
    lit = np.cos(angle) * slope[0] + np.sin(angle) * slope[1]
    surface = 0.5 + 0.22 * (lit - lit.mean()) / (lit.std() + 1e-6)
    side = int(np.exp(drawn.uniform(np.log(24), np.log(140))))
    ordered = drawn.random() < 0.5
    for row in range(HEIGHT // side + 1):
        for column in range(WIDTH // side + 1):
            place = np.array([column, row]) + (0.5 if ordered else drawn.uniform(0, 1, 2))
            centre = np.round(place * side).astype(int)
            reach = np.round(side * drawn.uniform(0.3, 0.55) * drawn.uniform(0.8, 1.2, 2)).astype(int)
            inside = np.zeros((HEIGHT, WIDTH), np.uint8)
            cv2.ellipse(inside, centre.tolist(), reach.tolist(), drawn.uniform(0, 180), 0, 360, 255, -1)
            soft = cv2.GaussianBlur(inside, (0, 0), drawn.uniform(0.5, 2.5)).astype(np.float32) / 255
            field += soft * (surface * drawn.uniform(0.6, 1.2) + drawn.uniform(-0.1, 0.2) - field)
    return coloured(field.clip(0, 1).astype(np.float32), drawn)


def balls(drawn: Drawn) -> Picture:
    """Draw one to twelve balls, lit from one side, with spots and grain, before a plain or a rough ground."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    field = drawn.uniform(0, 0.6) * noise(drawn, drawn.uniform(0.5, 2.0)) * (drawn.random() < 0.6)
    for _ in range(int(drawn.integers(1, 13))):
        radius = np.exp(drawn.uniform(np.log(10), np.log(170)))
        across, down = (x - drawn.uniform(0, WIDTH)) / radius, (y - drawn.uniform(0, HEIGHT)) / radius
        height = np.sqrt((1 - across**2 - down**2).clip(0))
        light = drawn.normal(0, 1, 3)
        light /= np.linalg.norm(light)
        shade = (across * light[0] + down * light[1] + height * abs(light[2])).clip(0)
        spots = noise(drawn, drawn.uniform(0.8, 2.0)) * noise(drawn, drawn.uniform(0.8, 2.0))
        surface = drawn.uniform(0.05, 0.5) + shade * (1 - drawn.uniform(0.2, 0.9) * spots)
        edge = ((1 - np.hypot(across, down)) * radius / drawn.uniform(1, 4)).clip(0, 1)
        field += edge * (surface - field)
    return coloured(field.clip(0, 1).astype(np.float32), drawn)


def text(drawn: Drawn) -> Picture:
    """Write lines of random letters, of several sizes and colours."""
    picture = coloured(0.3 * noise(drawn, 1.5) + drawn.choice([0.0, 0.7]), drawn)
    y = 0
    while y < HEIGHT:
        scale = np.exp(drawn.uniform(np.log(0.3), np.log(4)))
        font = int(drawn.integers(0, 8))
        line = "".join(drawn.choice(list(string.printable[:94] + " " * 12), 60))
        y += int(30 * scale)
        colour = drawn.integers(0, 256, 3).tolist()
        cv2.putText(
            picture, line, (int(drawn.integers(-80, 20)), y), font, scale, colour,
            max(1, round(scale * drawn.uniform(0.7, 2.5))), cv2.LINE_AA,
        )  # fmt: skip
    return picture


def shapes(drawn: Drawn) -> Picture:
    """Strew rectangles, triangles and lines about, plain or with a texture shining through."""
    picture = texture(drawn)
    for _ in range(int(drawn.integers(10, 120))):
        colour = drawn.integers(0, 256, 3).tolist()
        centre = drawn.uniform([0, 0], [WIDTH, HEIGHT])
        corners = centre + drawn.normal(0, np.exp(drawn.uniform(1.5, 4.3)), (int(drawn.integers(2, 6)), 2))
        points = [np.round(corners).astype(np.int32)]
        seen = picture.copy()
        if len(corners) == 2:
            cv2.polylines(seen, points, False, colour, int(drawn.integers(1, 9)), cv2.LINE_AA)
        else:
            cv2.fillPoly(seen, points, colour, cv2.LINE_AA)
        opacity = drawn.uniform(0.4, 1)
        picture = np.asarray(cv2.addWeighted(seen, opacity, picture, 1 - opacity, 0), np.uint8)
    return picture


def photos() -> list[Picture]:
    """Give the photos."""
    left, right, _ = skimage.data.stereo_motorcycle()
    return [*load_sample_images().images, left, right]


KINDS: tuple[Callable[[Drawn], Picture], ...] = (texture, stones, round_things, text, shapes, balls)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=50, help="pictures of each kind")
    options = parser.parse_args()
    folder = options.out / "face_free"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(0)
    made = [(f"{kind.__name__}{place}", kind(drawn)) for kind in KINDS for place in range(options.each)]
    made += [(f"photo{place}", picture) for place, picture in enumerate(photos())]
    for name, picture in made:
        Image.fromarray(picture).save(folder / f"{name}.jpg", quality=85)
    print(f"{len(made)} pictures in {folder}")


if __name__ == "__main__":
    main()
