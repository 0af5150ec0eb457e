"""What each part of the recipe is worth: the recipe with one thing changed, against the recipe as it is.

    python benchmarks/ablations.py --data fer2013.csv HELEN AFW YTF [RAF_DB ...] [--only VARIANT ...]

One protocol for all: the shipped blocks at width 16, 8 epochs that draw a third of FER2013's rows each,
small batches, so that there are enough steps, AdamW 2e-3, two seeds, full augmentation throughout. Figures
are of the rows that the shipped weights held out: FER2013's accuracy and Helen's NME, label boxes off by up
to 5%. Differences below the spread of the seeds say nothing. Sets other than FER2013 with expressions take
part in the variant "more sets" alone, where they add steps. The student of "distilled" learns half from the
out-of-fold answers of three teachers of its own size, another one from the shipped weights.

An interrupted run goes on: variants that are done lie in OUT/VARIANT-SEED.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from facekit.augmentation import AugmentConfig
from facekit.benchmarking import results
from facekit.benchmarking.measuring import threads
from facekit.configuration import DataConfig, ExpressionConfig, KeypointConfig, TrainConfig
from facekit.data.catalog import load_dataset
from facekit.fitting import FitConfig
from facekit.model import ModelConfig
from facekit.schema import EXPRESSIONS, FERPLUS
from facekit.training import train
from facekit.writing import write_atomically

BASE, TEACHERS = "as it is", "teachers"
SEEDS = (0, 1)
FOLDS = 3

RECIPE = TrainConfig(
    name="ablation",
    model=ModelConfig(
        width=16,
        blocks=(1, 1, 2, 2),
        map_channels=32,
        heads={"fer2013": EXPRESSIONS, "ferplus": FERPLUS},
    ),
    fit=FitConfig(epochs=8, optimizer="adamw", learning_rate=2e-3, weight_decay=0.05, average=0.99),
    data=DataConfig(draws={"fer2013": 1 / 3}, held_out_as="default"),
    keypoints=KeypointConfig(batch_size=16, every=1),
    expression=ExpressionConfig(batch_size=64),
)


def augmented(recipe: TrainConfig, **off: Any) -> TrainConfig:
    """Change the augmentation of both objectives."""
    return replace(
        recipe,
        keypoints=replace(recipe.keypoints, augment=replace(recipe.keypoints.augment, **off)),
        expression=replace(recipe.expression, augment=replace(recipe.expression.augment, **off)),
    )


def for_tasks(recipe: TrainConfig, *tasks: str) -> TrainConfig:
    """Leave only some of the heads, and their data."""
    return replace(recipe, model=replace(recipe.model, tasks=tasks))


STRENGTHS = [field.name for field in fields(AugmentConfig) if field.name not in ("mirror", "swap_sides")]

VARIANTS: Mapping[str, TrainConfig] = {
    BASE: RECIPE,
    "expressions alone": for_tasks(RECIPE, "expression"),
    # Epochs are shorter without expressions: nine have as many steps as the others' eight.
    "keypoints alone": for_tasks(replace(RECIPE, fit=replace(RECIPE.fit, epochs=9)), "keypoints"),
    "batch norms shared by the stages": replace(RECIPE, model=replace(RECIPE.model, norm_per_task=False)),
    "mirrored without exchanging left and right": augmented(RECIPE, swap_sides=False),
    "without mirror": augmented(RECIPE, mirror=False),
    **{f"without {name.replace('_', ' ')}": augmented(RECIPE, **{name: 0.0}) for name in STRENGTHS},
    "without label smoothing": replace(RECIPE, expression=replace(RECIPE.expression, smoothing=0.0)),
    "without FER+ votes": replace(RECIPE, model=replace(RECIPE.model, heads={"fer2013": EXPRESSIONS})),
    "more sets": RECIPE,
    TEACHERS: for_tasks(RECIPE, "expression"),
    "distilled": replace(RECIPE, expression=replace(RECIPE.expression, distill=0.5)),
    "taught by the shipped weights": replace(
        RECIPE, expression=replace(RECIPE.expression, distill=0.5, teachers=("default",))
    ),
}


def measure(variant: str, seed: int, data: Sequence[str], out: Path) -> dict[str, Any]:
    """Train a variant, or go on with it, and give its figures on held-out rows."""
    recipe = VARIANTS[variant]
    recipe = replace(recipe, fit=replace(recipe.fit, seed=seed))
    folder = out / f"{'folds' if variant == TEACHERS else variant.replace(' ', '-')}-{seed}"
    if variant == "distilled":
        write_atomically(folder / "folds.npz", (out / f"folds-{seed}" / "folds.npz").read_bytes())
    list(train(recipe, data, folder, resume=True, folds=FOLDS if variant == TEACHERS else 0, device="cpu"))
    if variant == TEACHERS:
        return {}
    history = [
        {key: float(value) for key, value in row.items()}
        for row in csv.DictReader((folder / "history.csv").read_text().splitlines())
    ]
    told = {key: history[-1][key] for key in ("fer2013_accuracy", "nme") if key in history[-1]}
    return {**told, "seconds": sum(row["seconds"] for row in history)}


def main() -> None:
    """Measure what is not measured yet and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="fer2013.csv, keypoint sets, other sets")
    parser.add_argument(
        "--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--results", type=Path, default=results.RESULTS)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    sets = {path: load_dataset(path) for path in given.data}
    few = [path for path, one in sets.items() if one.points is not None or one.fer2013_frame]
    run = results.ScriptRun()
    figures: list[dict[str, Any]] = []
    untrained: dict[str, None] = {}
    with threads(1):
        for variant in VARIANTS:
            for seed in SEEDS:
                done = given.out / f"{variant.replace(' ', '-')}-{seed}.json"
                if not done.is_file():
                    if variant not in given.only:
                        untrained.setdefault(variant)
                        continue
                    told = measure(variant, seed, given.data if variant == "more sets" else few, given.out)
                    write_atomically(done, json.dumps(told).encode())
                told = json.loads(done.read_text())
                print(variant, seed, told, flush=True)
                for name, unit in (("fer2013_accuracy", "share"), ("nme", "NME")):
                    if name in told:
                        setting = {"variant": variant, "seed": seed, "seconds": round(told["seconds"], 1)}
                        figures.append({"name": name, "setting": setting, "unit": unit, "value": told[name]})
    skipped = [{"case": ", ".join(untrained), "reason": "not trained in this run"}] if untrained else []
    command = (
        "python benchmarks/ablations.py --data fer2013.csv helen_train afw ytf raf_db affectnet expw muxspace"
    )
    body = run.body("trained here", figures, skipped)
    print(results.write_result("ablations", "cpu", command, body, given.results))


if __name__ == "__main__":
    main()
