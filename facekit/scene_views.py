"""Training views of scenes, a batch at once: crops, mosaics, pasted faces and covers, light, artefacts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from facekit import geometry
from facekit.data.detection_scenes import DOUBTFUL, FACE, NONE, Scenes, sample_scenes
from facekit.mirror import mirroring_matrix

SLOTS = 64
"""Most labels a view."""

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ViewConfig:
    """How views are made; a share is the share of views that something is done to.

    Attributes
    ----------
    size : int
        Width and height, pixels.
    smallest_face, largest_face : float
        Longer side of faces that are aimed at, pixels; smaller ones turn up and are doubtful.
    enlargement : float
        Largest enlargement of a picture.
    rotation : float
        Largest angle either way, degrees.
    aimed : float
        Share of crops placed by a face; the others lie anywhere.
    mosaic, crowd : float
        Shares of views that are put together from four and from sixteen.
    pastes : int
        Rounds in which a part of another picture, a face or not, is put on half of the views.
    gray, dark, blur, low_resolution, noise, blocks : float
        Shares; low resolutions are a half and a quarter, blocks are JPEG's.
    """

    size: int = 320
    smallest_face: float = 12.0
    largest_face: float = 340.0
    enlargement: float = 2.0
    rotation: float = 30.0
    aimed: float = 0.8
    mosaic: float = 0.25
    crowd: float = 0.15
    pastes: int = 3
    gray: float = 0.2
    dark: float = 0.1
    blur: float = 0.15
    low_resolution: float = 0.1
    noise: float = 0.2
    blocks: float = 0.2


class Views(NamedTuple):
    """Training views.

    Attributes
    ----------
    pixels : (B, 3, S, S) float32, 0..1
    boxes : (B, SLOTS, 4) float32, image edges, pixels of the view; they pass its border where a face does
    kinds : (B, SLOTS) uint8, FACE, DOUBTFUL or NONE
    """

    pixels: Tensor
    boxes: Tensor
    kinds: Tensor


def random_views(
    scenes: Scenes, draws: Tensor, count: int, config: ViewConfig, generator: Generator
) -> Views:
    """Make `count` views of scenes that are drawn in proportion to `draws` (M,)."""
    stitched = {2: round(count * config.mosaic), 4: round(count * config.crowd)}
    parts = [_crops(scenes, draws, count - sum(stitched.values()), config.size, config, generator)]
    for across, number in stitched.items():
        if number:
            tiles = _crops(scenes, draws, across**2 * number, config.size // across, config, generator)
            parts.append(_stitch(tiles, across))
    views = Views(*(torch.cat(part) for part in zip(*parts, strict=True)))
    for _ in range(config.pastes):
        views = _paste(views, scenes, draws, config, generator)
    views = _judge(views, config.smallest_face)
    return views._replace(pixels=_vary_light(views.pixels / 255, config, generator))


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(count, device=generator.device, generator=generator) * (high - low) + low


def _log_uniform(low: Tensor | float, high: Tensor | float, count: int, generator: Generator) -> Tensor:
    """Draw (B,) between limits so that each octave is as likely as another."""
    low = torch.as_tensor(low, device=generator.device)
    high = torch.maximum(torch.as_tensor(high, device=generator.device), low)
    return (low.log() + (high.log() - low.log()) * _uniform(count, 0, 1, generator)).exp()


def _some(count: int, share: float, generator: Generator) -> Tensor:
    """Draw the places of a fixed share of a batch, so that nothing waits for the device."""
    order = torch.randperm(count, device=generator.device, generator=generator)
    return order[: round(count * share)]


def _centre(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _longer_side(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).amax(-1)


def _pick_face(boxes: Tensor, kinds: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw one face a picture: its box (B, 4), anything if there is none, and whether there is one (B,)."""
    is_face = kinds == FACE
    place = torch.multinomial(is_face + 1e-6, 1, generator=generator)
    return boxes.gather(1, place[..., None].expand(-1, -1, 4))[:, 0], is_face.any(1)


def _matrices(
    centre_picture: Tensor,
    centre_view: Tensor,
    shrink: Tensor,
    size: int,
    config: ViewConfig,
    generator: Generator,
) -> Tensor:
    """Turn and mirror at random: picture_from_view (B, 2, 3) that puts `centre_picture` at `centre_view`."""
    count = len(shrink)
    limit = math.radians(config.rotation)
    turn = _uniform(count, -1, 1, generator)
    angle = limit * turn * turn.abs()  # small angles are the common ones
    cosine, sine = shrink * angle.cos(), shrink * angle.sin()
    linear = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
    shift = centre_picture - (linear @ centre_view[..., None])[..., 0]
    matrix = torch.cat([linear, shift[..., None]], -1)
    reading = torch.tensor(mirroring_matrix(size), device=matrix.device)
    mirrored = _uniform(count, 0, 1, generator) < 0.5
    return torch.where(mirrored[:, None, None], geometry.compose(matrix, reading), matrix)


def _crops(
    scenes: Scenes, draws: Tensor, count: int, size: int, config: ViewConfig, generator: Generator
) -> Views:
    """Cut square views out of pictures, most of them placed and scaled by one of the faces."""
    picture = torch.multinomial(draws, count, replacement=True, generator=generator)
    extent = scenes.sizes[picture, 0].float()  # (B, 2)
    face, has_face = _pick_face(scenes.boxes[picture], scenes.kinds[picture], generator)
    aimed = has_face & (_uniform(count, 0, 1, generator) < config.aimed)
    anywhere = extent * torch.rand(count, 2, device=extent.device, generator=generator)
    target = _log_uniform(config.smallest_face, min(config.largest_face, 1.1 * size), count, generator)
    # A view is rarely much wider than the picture: most of it would be empty. Tiles need small faces more.
    finest, filled = 1 / config.enlargement, 0.7 if size == config.size else 0.5
    coarsest = (extent.amin(1) / (filled * size)).clamp(min=finest)
    shrink = torch.where(
        aimed,
        (_longer_side(face) / target).clamp(min=finest).minimum(coarsest),
        _log_uniform(finest, coarsest, count, generator),
    )
    wanted = torch.where(aimed[:, None], _centre(face), anywhere)
    at = torch.rand(count, 2, device=extent.device, generator=generator) * size
    middle = wanted + (size / 2 - at) * shrink[:, None]
    half = (shrink * size / 2)[:, None].minimum(extent / 2)
    kept_in = _uniform(count, 0, 1, generator)[:, None] < 0.85
    middle = torch.where(kept_in, torch.maximum(torch.minimum(middle, extent - half), half), middle)
    centre_view = torch.full_like(middle, (size - 1) / 2)
    matrix = _matrices(middle - 0.5, centre_view, shrink, size, config, generator)
    pixels, inside = sample_scenes(scenes, picture, matrix, size, _uniform(count, 0.3, 0.8, generator))
    fill = 255 * _uniform(count, -1, 1, generator).clamp(min=0)[:, None, None, None]
    pixels = torch.where(inside[:, None], pixels, fill)
    boxes = geometry.apply_to_boxes(geometry.invert(matrix), scenes.boxes[picture])
    return Views(pixels, *_compact(*_inside_view(boxes, scenes.kinds[picture], size)))


def _inside_view(boxes: Tensor, kinds: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Drop labels of which nearly nothing lies in the view; those cut by more than half are doubtful."""
    share = geometry.areas(boxes.clamp(0, size)) / geometry.areas(boxes).clamp(min=1e-6)
    return boxes, _doubt(kinds, share, 0.5, 0.1)


def _doubt(kinds: Tensor, visible: Tensor, doubtful: float, gone: float) -> Tensor:
    kinds = torch.where((visible < doubtful) & (kinds == FACE), DOUBTFUL, kinds)
    return torch.where(visible < gone, NONE, kinds).to(torch.uint8)


def _compact(boxes: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Bring labels (B, G) to (B, SLOTS): faces first, then doubtful ones; padded or cut."""
    missing = max(0, SLOTS - boxes.shape[1])
    boxes, kinds = F.pad(boxes, (0, 0, 0, missing)), F.pad(kinds, (0, missing))
    order = (3 * (kinds == FACE) + (kinds == DOUBTFUL).long()).topk(SLOTS, 1).indices
    return boxes.gather(1, order[..., None].expand(-1, -1, 4)), kinds.gather(1, order)


def _stitch(tiles: Views, across: int) -> Views:
    """Put tiles together to views that are `across` tiles wide and high."""
    side, count = tiles.pixels.shape[-1], len(tiles.pixels) // across**2
    pixels = tiles.pixels.reshape(count, across, across, 3, side, side)
    pixels = pixels.permute(0, 3, 1, 4, 2, 5).reshape(count, 3, across * side, across * side)
    corner = side * torch.arange(across, device=pixels.device)
    y, x = torch.meshgrid(corner, corner, indexing="ij")
    offset = torch.stack([x, y, x, y], -1).reshape(across**2, 1, 4)
    # A face ends where its tile ends, as at the border of a picture.
    boxes = tiles.boxes.reshape(count, across**2, SLOTS, 4) + offset
    return Views(pixels, *_compact(boxes.flatten(1, 2), tiles.kinds.reshape(count, -1)))


def _paste(views: Views, scenes: Scenes, draws: Tensor, config: ViewConfig, generator: Generator) -> Views:
    """Put a part of another picture on half of the views: a face with something around it, or a cover."""
    size, device = config.size, views.pixels.device
    chosen = _some(len(views.pixels), 0.5, generator)
    count = len(chosen)
    picture = torch.multinomial(draws, count, replacement=True, generator=generator)
    extent = scenes.sizes[picture, 0].float()
    face, has_face = _pick_face(scenes.boxes[picture], scenes.kinds[picture], generator)
    is_face = has_face & (_uniform(count, 0, 1, generator) < 0.6)
    margin = _uniform(count, 1.1, 2.2, generator)
    anywhere = extent * torch.rand(count, 2, device=device, generator=generator)
    side = _log_uniform(24.0, extent.amin(1) / 2, count, generator)
    centre = torch.where(is_face[:, None], _centre(face), anywhere)
    reach = torch.where(is_face[:, None], (face[:, 2:] - face[:, :2]) * margin[:, None], side[:, None]) / 2

    struck, has_struck = _pick_face(views.boxes[chosen], views.kinds[chosen], generator)
    covers = ~is_face & has_struck & (_uniform(count, 0, 1, generator) < 0.7)
    face_size = _log_uniform(config.smallest_face, size / 2, count, generator)
    cover_size = _longer_side(struck) * _uniform(count, 0.3, 1.1, generator)
    target = torch.where(covers, cover_size, face_size * torch.where(is_face, margin, 1.0))
    shrink = (2 * reach.amax(1) / target.clamp(min=4)).clamp(min=1 / config.enlargement)
    at = torch.rand(count, 2, device=device, generator=generator)
    beside = _centre(struck) + (at - 0.5) * _longer_side(struck)[:, None]
    at = torch.where(covers[:, None], beside, at * size)
    matrix = _matrices(centre - 0.5, at - 0.5, shrink, size, config, generator)

    pixels, inside = sample_scenes(scenes, picture, matrix, size, _uniform(count, 0.3, 0.8, generator))
    alpha = _stencil(matrix, centre - 0.5, reach, size, generator) * inside
    pixels = torch.lerp(views.pixels[chosen], pixels, alpha[:, None])

    below = _doubt(views.kinds[chosen], 1 - _covered(alpha > 0.5, views.boxes[chosen]), 0.65, 0.4)
    region = torch.cat([centre - reach, centre + reach], 1)[:, None]
    source = scenes.boxes[picture]
    shared = torch.cat(
        [source[..., :2].maximum(region[..., :2]), source[..., 2:].minimum(region[..., 2:])], -1
    )
    share = geometry.areas(shared) / geometry.areas(source).clamp(min=1e-6)
    added = geometry.apply_to_boxes(geometry.invert(matrix), source)
    added, above = _inside_view(added, _doubt(scenes.kinds[picture], share, 0.75, 0.25), size)
    boxes, kinds = _compact(torch.cat([views.boxes[chosen], added], 1), torch.cat([below, above], 1))
    return Views(
        views.pixels.index_copy(0, chosen, pixels),
        views.boxes.index_copy(0, chosen, boxes),
        views.kinds.index_copy(0, chosen, kinds),
    )


def _stencil(matrix: Tensor, centre: Tensor, reach: Tensor, size: int, generator: Generator) -> Tensor:
    """Give the opacity (B, S, S) of a pasted rectangle or ellipse, its edge hard or soft."""
    place = torch.arange(size, device=matrix.device, dtype=torch.float32)
    points = geometry.apply_to_grid(matrix, place)  # (B, 2, S, S)
    apart = (points - centre[..., None, None]) / reach.clamp(min=1)[..., None, None]
    x, y = apart.abs().unbind(1)
    round_ = _uniform(len(matrix), 0, 1, generator)[:, None, None] < 0.5
    distance = torch.where(round_, torch.hypot(x, y), torch.maximum(x, y))
    slope = _log_uniform(4.0, 60.0, len(matrix), generator)[:, None, None]
    return ((1 - distance) * slope).clamp(0, 1)


def _covered(mask: Tensor, boxes: Tensor) -> Tensor:
    """Give the share (B, G) of each box, within the view, that a mask (B, S, S) covers."""
    size = mask.shape[-1]
    sums = F.pad(mask.float().cumsum(1).cumsum(2), (1, 0, 1, 0)).flatten(1)
    edges = boxes.round().clamp(0, size).long()
    x0, y0, x1, y1 = edges.unbind(-1)

    def up_to(x: Tensor, y: Tensor) -> Tensor:
        return sums.gather(1, y * (size + 1) + x)

    total = up_to(x1, y1) - up_to(x0, y1) - up_to(x1, y0) + up_to(x0, y0)
    return total / ((x1 - x0) * (y1 - y0)).clamp(min=1)


def _judge(views: Views, smallest: float) -> Views:
    """Mark faces that are smaller than the smallest aimed at as doubtful."""
    extent = _longer_side(views.boxes)
    return views._replace(kinds=_doubt(views.kinds, extent / smallest, 0.8, 0.25))


def _vary_light(pixels: Tensor, config: ViewConfig, generator: Generator) -> Tensor:
    """Vary colour, contrast, brightness and gamma of views (B, 3, S, S) in 0..1, and spoil shares of them."""
    count, device = len(pixels), pixels.device

    def each(number: int, low: float, high: float) -> Tensor:
        return _uniform(number, low, high, generator)[:, None, None, None]

    tint = 1 + 0.08 * torch.randn(count, 3, 1, 1, device=device, generator=generator)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    pixels = ((pixels - mean) * each(count, 0.6, 1.4) + mean) * tint + each(count, -0.12, 0.12)
    pixels = pixels.clamp(1e-4, 1) ** each(count, 0.7, 1.5)
    luma = torch.tensor(LUMA, device=device)[:, None, None]

    def change(share: float, how: str) -> None:
        nonlocal pixels
        chosen = _some(count, share, generator)
        if not len(chosen):
            return
        some = pixels[chosen]
        if how == "gray":
            some = (some * luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)
        elif how == "dark":
            some = some * each(len(chosen), 0.12, 0.5)
        elif how == "blur":
            some = _blur(some, _uniform(len(chosen), 0.4, 2.0, generator))
        elif how == "low_resolution":
            some = torch.cat([_coarse(part, 2 << k) for k, part in enumerate(some.chunk(2))])
        elif how == "noise":
            noise = torch.randn(some.shape, device=device, generator=generator)
            some = some + noise * each(len(chosen), 0.005, 0.08)
        else:
            some = _blocks(some, _log_uniform(0.5, 4.0, len(chosen), generator))
        pixels = pixels.index_copy(0, chosen, some)

    for how in ("gray", "dark", "blur", "low_resolution", "noise", "blocks"):
        change(getattr(config, how), how)
    return pixels.clamp(0, 1)


def _coarse(pixels: Tensor, factor: int) -> Tensor:
    """Shrink views by averaging and enlarge them again."""
    return F.interpolate(F.avg_pool2d(pixels, factor), scale_factor=float(factor), mode="bilinear")


def _blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Blur views by Gaussians of their own widths (B,), pixels."""
    place = torch.arange(-4, 5, device=pixels.device)
    kernel = (-0.5 * (place / sigma[:, None]) ** 2).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None, None]
    planes = F.pad(pixels.flatten(0, 1)[None], (4, 4, 4, 4), mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel, groups=len(kernel)), kernel.mT, groups=len(kernel))
    return planes[0].reshape(pixels.shape)


def _blocks(pixels: Tensor, coarseness: Tensor) -> Tensor:
    """Quantise the cosine transform of 8x8 blocks, as JPEG does, with steps that grow with frequency."""
    place = torch.arange(8, device=pixels.device)
    basis = ((2 * place + 1) * place[:, None] * (math.pi / 16)).cos() / 2
    basis[0] /= math.sqrt(2)
    step = (16 + 10 * (place[:, None] + place)) / 255 * coarseness[:, None, None]  # (B, 8, 8)
    count, _, height, width = pixels.shape
    blocks = pixels.reshape(count, 3, height // 8, 8, width // 8, 8)
    spectrum = torch.einsum("ui,bcyixj,vj->bcyxuv", basis, blocks, basis)
    step = step[:, None, None, None]
    spectrum = (spectrum / step).round() * step
    return torch.einsum("ui,bcyxuv,vj->bcyixj", basis, spectrum, basis).reshape(pixels.shape)
