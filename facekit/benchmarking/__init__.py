"""Benchmark suites: each measures one thing on this machine; `facekit bench` runs them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol

from facekit.errors import ConfigError

if TYPE_CHECKING:
    from facekit.benchmarking.measuring import Case, Setting

SUITES: Final = (
    "latency",
    "throughput",
    "training",
    "augmentation",
    "data",
    "accuracy",
    "memory",
    "scaling",
    "peers",
)
"""Every suite; each is the module of that name in this package, and a new one is one line here."""


class Suite(Protocol):
    """What a suite's module holds."""

    def cases(self, setting: Setting) -> list[Case]:
        """Give what is measured under a setting; nothing is measured yet."""
        ...


def load_suite(name: str) -> Suite:
    """Import a suite.

    Raises
    ------
    ConfigError
        Unknown.
    """
    if name not in SUITES:
        raise ConfigError(f"unknown benchmark suite {name!r}: expected one of {', '.join(SUITES)}")
    suite: Suite = import_module(f"facekit.benchmarking.{name}")
    return suite
