"""OpenCV's detectors, shared by threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class PerThread:
    """Makes one object a thread, since OpenCV's detectors have state that a call changes."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._local = make, threading.local()

    def get(self) -> Any:
        """Give this thread's object."""
        if not hasattr(self._local, "made"):
            self._local.made = self._make()
        return self._local.made
