"""Everything that a training run can be told, as dataclasses that a TOML file fills table by table."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from facekit.augmentation import AugmentConfig
from facekit.errors import ConfigError
from facekit.fitting import FitConfig
from facekit.model import ModelConfig, Task
from facekit.schema import DEFAULT_HEAD, EXPRESSIONS, FERPLUS

HEADS: Mapping[str, tuple[str, ...]] = {
    DEFAULT_HEAD: EXPRESSIONS,
    "ferplus": FERPLUS,
    "raf_db": EXPRESSIONS,
    "affectnet": (*EXPRESSIONS, "contempt"),
    "expw": EXPRESSIONS,
}

_C = TypeVar("_C")


@dataclass(frozen=True)
class DataConfig:
    """Which samples are used, and how often.

    Attributes
    ----------
    crop_factor : float
        Side of stage 1's crop over the side of the square around the 15 points; 0: that of the weights to
        begin with, or BOX_FACTOR.
    draws : mapping of set to float
        How often each sample of a set is drawn an epoch (expressions) or relative to others (keypoints); 1 if
        absent.
    label_weight : mapping of set to float
        Weight of a set's labels for the default head; 1 if absent.
    held_out : mapping of set to int
        Samples that training never sees, by person, photo or content.
    held_out_as : str
        Weights, a shipped name or a file, whose held-out rows are held out again, so that figures compare;
        the counts of `held_out` are for sets that they do not know.
    returned : mapping of set to float
        Sets whose held-out rows are drawn like the others, so many times as often, once they have told what
        TrainConfig.calibrated_by took from them.
    leave_out : tuple of str
        Sets that are not used at all.
    balanced : bool
        Add mirrored and shifted copies until all expressions of a set are equally frequent.
    detector : str
        What finds the faces of whole pictures: auto, haar or yunet.
    reframed : tuple of float
        FER2013's faces are drawn as they are and, as often each, at these shares of the way to the aligned
        ones.
    """

    crop_factor: float = 0.0
    draws: Mapping[str, float] = field(default_factory=dict)
    label_weight: Mapping[str, float] = field(default_factory=dict)
    held_out: Mapping[str, int] = field(default_factory=dict)
    held_out_as: str = ""
    returned: Mapping[str, float] = field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    balanced: bool = False
    detector: str = "auto"
    reframed: tuple[float, ...] = ()


@dataclass(frozen=True)
class KeypointConfig:
    """See KeypointObjective; `every` counts where expressions are learnt too.

    `watched` training samples give figures beside the held-out ones.
    """

    batch_size: int = 64
    every: int = 2
    weight: float = 0.1
    watched: int = 0
    augment: AugmentConfig = AugmentConfig(rotation=30.0, low_resolution=0.3)
    late_augment: AugmentConfig = AugmentConfig(rotation=30.0, low_resolution=0.3)


@dataclass(frozen=True)
class ExpressionConfig:
    """See ExpressionObjective; `watched` training samples give figures beside the held-out ones.

    Attributes
    ----------
    photos : str
        The set, of those with aligned faces, whose training rows tell how frequent expressions are in photos;
        empty: as frequent as in FER2013.
    distill : float
        Share of teachers' answers in the default head's targets.
    teachers : tuple of str
        Weights whose mean answer this is, to each crop as the student sees it [1]_, named as
        TrainConfig.start is; empty: the out-of-fold answers of networks trained by `facekit train --folds`.

    References
    ----------
    .. [1] L. Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022.
    """

    photos: str = ""
    batch_size: int = 128
    smoothing: float = 0.1
    auxiliary: float = 0.2
    early_size: int = 48
    mixup: float = 0.0
    distill: float = 0.0
    teachers: tuple[str, ...] = ()
    watched: int = 0
    augment: AugmentConfig = AugmentConfig()
    late_augment: AugmentConfig = AugmentConfig()


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run, as a TOML file states it, table by table.

    Attributes
    ----------
    name : str
        Of the weights.
    start : str
        Weights to begin with, of the network that [model] describes: a shipped name, a file, or the
        configuration (.toml) of a run that is to come first; empty: none. Blocks that they lack do nothing
        yet.
    averaged : mapping of str to float
        Other weights of that network, or of it for one task, named as `start` is, and their shares in the
        mean of all that training begins with; the rest is the share of `start`.
    joined : tuple of str
        Weights, named as `start` is, with whose trunk, or last member if they have several, those members of
        the ensemble begin that `start` lacks, in their order, each with its heads; members beyond these begin
        fresh.
    calibrated_by : str
        Weights, named as `start` is, of the same run but for the rows that it held out and this one returns:
        their answers to these are what the answers are calibrated by; empty: the run's own are.
    teach : tuple of str
        The tasks that the run teaches, of those that the data have labels for; empty: all of them.
    model, fit, data, keypoints, expression
        See their classes.
    aligner : FitConfig
        The short keypoint training whose network frames the pictures of stage 2.
    """

    name: str = "default-v1"
    start: str = ""
    averaged: Mapping[str, float] = field(default_factory=dict)
    joined: tuple[str, ...] = ()
    calibrated_by: str = ""
    teach: tuple[Task, ...] = ()
    model: ModelConfig = ModelConfig(heads=HEADS)
    fit: FitConfig = FitConfig()
    aligner: FitConfig = FitConfig(epochs=10, optimizer="adamw", learning_rate=2e-3, weight_decay=1e-2)
    data: DataConfig = DataConfig()
    keypoints: KeypointConfig = KeypointConfig()
    expression: ExpressionConfig = ExpressionConfig()

    def with_weights(self, named: Callable[[str], str]) -> TrainConfig:
        """Name the weights anew that the run needs, by a function of their names."""
        return replace(
            self,
            start=named(self.start),
            averaged={named(name): share for name, share in self.averaged.items()},
            joined=tuple(map(named, self.joined)),
            calibrated_by=named(self.calibrated_by),
            expression=replace(self.expression, teachers=tuple(map(named, self.expression.teachers))),
        )

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights that the run needs."""
        first = (self.start, *self.averaged, *self.joined, self.calibrated_by)
        return tuple(filter(None, (*first, *self.expression.teachers)))


def read_config(path: str | os.PathLike[str]) -> TrainConfig:
    """Read a TOML file, see `read_settings`; other configurations that it names lie beside it."""
    folder = Path(path).parent
    config = read_settings(path, TrainConfig())
    return config.with_weights(lambda name: str(folder / name) if names_run(name) else name)


def names_run(weights: str) -> bool:
    """Tell whether weights are named by the configuration of the run that trains them."""
    return weights.endswith(".toml")


def read_settings(path: str | os.PathLike[str], default: _C) -> _C:
    """Read a TOML file whose tables and keys are a dataclass's fields; the rest keep their defaults.

    With ``extends = "other.toml"``, a file beside it, the other's values are the defaults, key by key; what
    such a key holds, a mapping too, is replaced whole.

    Raises
    ------
    ConfigError
        Not TOML, or a table or key that the dataclass does not have, or a file that extends itself.
    """
    for layer, table in reversed(_layers(Path(path))):
        default = _from_table(default, table, str(layer))
    return default


def _layers(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Read a TOML file and those that it extends, one after the other."""
    layers: list[tuple[Path, dict[str, Any]]] = []
    while True:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
        if path in (layer for layer, _ in layers):
            raise ConfigError(f"{path} extends itself")
        layers.append((path, table))
        if "extends" not in table:
            return layers
        path = path.parent / str(table.pop("extends"))


def _from_table(default: _C, table: Mapping[str, Any], where: str) -> _C:
    """Replace a dataclass's fields by a table's values; tables become nested dataclasses."""
    kinds = get_type_hints(type(default))
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key not in kinds:
            raise ConfigError(f"{where}: unknown key {key!r}; expected one of {', '.join(kinds)}")
        old = getattr(default, key)
        if is_dataclass(old):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: {key} = {value!r}: expected a table")
            changes[key] = _from_table(old, value, f"{where} [{key}]")
        else:
            changes[key] = type(old)(value) if isinstance(old, float) else _frozen(value)
    return replace(default, **changes)  # type: ignore[type-var]


def _frozen(value: Any) -> Any:
    """Make TOML's arrays, of a table too, the tuples that the dataclasses hold."""
    if isinstance(value, dict):
        return {key: _frozen(part) for key, part in value.items()}
    return tuple(value) if isinstance(value, list) else value
