"""Which rows training never sees: chosen by content or group, whatever the order, machine or seed."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def content_hash(image: NDArray[np.uint8]) -> bytes:
    """Give 8 bytes that name a picture's pixels and shape; exact duplicates share them."""
    digest = blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8)
    digest.update(str(image.shape).encode())
    return digest.digest()


def held_out(keys: Sequence[str | bytes], count: int) -> NDArray[np.bool_]:
    """Choose about `count` rows so that rows of equal keys (a person, a photo, a content hash) stay together.

    Keys are taken in the order of their hashes until `count` rows are reached.

    Returns
    -------
    (N,) bool, True for the rows that are held out
    """
    encoded = [key if isinstance(key, bytes) else key.encode() for key in keys]
    unique, inverse, sizes = np.unique(encoded, return_inverse=True, return_counts=True)
    order = np.argsort([blake2b(bytes(key), digest_size=8).digest() for key in unique])
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = np.zeros(len(unique), np.bool_)
    chosen[order[before < count]] = True
    return np.asarray(chosen[inverse])
