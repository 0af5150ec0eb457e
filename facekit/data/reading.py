"""Pictures of a dataset, read in order in threads, a few ahead of their use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from facekit.data.samples import Dataset
from facekit.errors import ImageError

READ_AHEAD = 16
"""Pictures; more would fill the memory where they are large."""

Read = NDArray[np.uint8] | ImageError
"""A picture, or why it cannot be read."""


def read_ahead(dataset: Dataset, places: NDArray[np.int64]) -> Iterator[tuple[int, Read]]:
    """Give the pictures of samples, each with its place in the dataset."""

    def read(place: int) -> Read:
        try:
            return dataset.load(place)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = iter(places.tolist())
        reading: list[tuple[int, Future[Read]]] = []
        while True:
            reading += [
                (place, pool.submit(read, place)) for place in islice(waiting, READ_AHEAD - len(reading))
            ]
            if not reading:
                return
            place, picture = reading.pop(0)
            yield place, picture.result()
