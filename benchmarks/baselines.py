"""The classic models and the shared trunk, trained for the same time on FER2013 and judged on PublicTest.

    python benchmarks/baselines.py --fer2013 fer2013.csv --points HELEN [--minutes M] [--only ARCH ...]

A short trial tells how fast a model trains here; from that follow the epochs, or the share of the rows that
an epoch draws, that fill the minutes. All train by one recipe (mirroring, translation, brightness, AdamW) and
on one thread; the shared trunk does so too, without its keypoints, beside the shipped weights as they are.
PublicTest is looked at once, at the end. keypoint_resnet trains on --points less the faces that the shipped
weights held out, on which both are compared. What is reported beside a reference's name is what that project
says of itself, on its own split.

An interrupted run goes on: models that are done lie in OUT/ARCH/measured.json, others resume their epochs.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import facekit
from facekit import evaluate
from facekit.backends.torch import TorchBackend
from facekit.baseline_training import CLASSIC, default_config, train_baseline
from facekit.baselines import BASELINES
from facekit.benchmarking import results
from facekit.benchmarking.measuring import Clock, in_turns, threads
from facekit.configuration import DataConfig, ExpressionConfig, TrainConfig
from facekit.data.catalog import load_dataset
from facekit.data.samples import Dataset
from facekit.errors import WeightsError
from facekit.evaluation import Evaluation, expression_indices
from facekit.fitting import EpochRecord
from facekit.imagenet import imagenet_weights
from facekit.model import ModelConfig
from facekit.schema import DEFAULT_HEAD, EXPRESSIONS, INPUT_SIZE
from facekit.training import train
from facekit.weights import load_stages, load_weights
from facekit.writing import write_atomically

TRIAL_BATCHES = 4
MOST_EPOCHS = 30
FEWEST_EPOCHS = 4
HELD_OUT, WATCHED = 3000, 1000
"""Rows that are looked at after each epoch; fewer where an epoch is short."""
SHARED = "shared"
ORDER = (SHARED, *BASELINES)
SHARED_KEYPOINTS = "shared, keypoints"


@dataclass(frozen=True)
class Plan:
    """How a model spends its minutes.

    Attributes
    ----------
    epochs : int
    draws : float
        Share of the training rows that an epoch draws.
    held_out, watched : int
        Rows whose figures are taken after each epoch.
    """

    epochs: int
    draws: float
    held_out: int
    watched: int

    @classmethod
    def filling(cls, seconds: float, seconds_a_picture: float, rows: int, batch: int) -> Plan:
        """Fill so many seconds, if looking at a picture takes a third of learning from it."""
        pictures = seconds / seconds_a_picture
        held_out, watched = (int(min(most, max(100, pictures / 20))) for most in (HELD_OUT, WATCHED))
        looks = (held_out + watched) / 3
        epochs = int(np.clip(round(pictures / (rows + looks)), FEWEST_EPOCHS, MOST_EPOCHS))
        # A hundredth more than whole batches, because rows are drawn by chance.
        least = 1.01 * batch / rows
        return cls(epochs, float(np.clip((pictures / epochs - looks) / rows, least, 1.0)), held_out, watched)


@dataclass(frozen=True)
class Budget:
    """What every model is given; another budget is another run."""

    minutes: float
    seed: int
    pretrained: bool


def runs(
    arch: str, plan: Plan, budget: Budget, dataset: Path, out: Path, imagenet: bool, resume: bool
) -> Iterator[EpochRecord]:
    """Train a model by a plan."""
    data = DataConfig(draws={dataset_name(dataset): plan.draws}, held_out=held_out(arch, plan, dataset))
    if arch == SHARED:
        config = TrainConfig(
            name="shared",
            model=ModelConfig(blocks=(1, 1, 2, 2), tasks=("expression",)),
            fit=replace(default_config("simple_cnn").fit, epochs=plan.epochs, seed=budget.seed),
            data=data,
            expression=ExpressionConfig(
                smoothing=0.0, watched=plan.watched, augment=CLASSIC, late_augment=CLASSIC
            ),
        )
        return train(config, [dataset], out, resume=resume, device="cpu")
    start = default_config(arch)
    settings = replace(
        start,
        model=replace(start.model, pretrained=imagenet),
        fit=replace(start.fit, epochs=plan.epochs, seed=budget.seed),
        data=data,
        expression=replace(start.expression, watched=plan.watched),
        keypoints=replace(start.keypoints, watched=plan.watched),
    )
    return train_baseline(settings, [dataset], out, resume=resume, device="cpu")


def dataset_name(path: Path) -> str:
    """Give the name by which configurations call a dataset."""
    return load_dataset(path).name


def held_out(arch: str, plan: Plan, dataset: Path) -> dict[str, int]:
    """Hold out what the plan says; of points those that the shipped weights held out."""
    name = dataset_name(dataset)
    if arch == SHARED or BASELINES[arch].task == "expression":
        return {name: plan.held_out}
    return {name: len(shipped_held_out(name))}


def shipped_held_out(name: str) -> list[int]:
    """Give the rows of a set that the shipped weights never saw."""
    rows: list[int] = load_weights().header["data"][name]["held_out_rows"]
    return rows


def take_imagenet(arch: str, budget: Budget) -> tuple[bool, str]:
    """Tell whether a model starts from ImageNet weights, and what the table says of its start."""
    entry = BASELINES.get(arch)
    frozen = arch.endswith("_features")
    if entry is None or entry.imagenet is None or not (budget.pretrained or frozen):
        return False, "random"
    try:
        imagenet_weights(entry.imagenet)
    except WeightsError as error:
        print(f"{arch}: {error}")
        return False, "random, frozen: ImageNet's were not to be had" if frozen else "random: no ImageNet"
    return True, "ImageNet, frozen" if frozen else "ImageNet"


def measure(arch: str, budget: Budget, dataset: Path, folder: Path) -> dict[str, Any]:
    """Train a model, or go on with it, and take its figures."""
    imagenet, start = take_imagenet(arch, budget)
    batch, rows = batch_of(arch), training_rows(arch, load_dataset(dataset))
    note = folder / "plan.json"
    stored = json.loads(note.read_text()) if note.is_file() else {}
    run = asdict(budget) | {"start": start}
    if stored.get("run") != run:
        shutil.rmtree(folder, ignore_errors=True)
        trial = Plan(2, 1.01 * TRIAL_BATCHES * batch / rows, 50, 0)
        records = list(runs(arch, trial, budget, dataset, folder / "trial", imagenet, False))
        shutil.rmtree(folder / "trial")
        a_picture = records[-1].seconds / (TRIAL_BATCHES * batch)
        plan = Plan.filling(60 * budget.minutes, a_picture, rows, batch)
        stored = {"run": run, "plan": asdict(plan), "seconds_a_picture": a_picture}
        write_atomically(note, json.dumps(stored).encode())
    plan = Plan(**stored["plan"])
    print(f"{arch}: {plan}", flush=True)
    for record in runs(arch, plan, budget, dataset, folder, imagenet, True):
        print(f"{arch}: epoch {record.epoch}/{record.epochs} {record.row()}", flush=True)
    history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    setting = {
        "arch": arch,
        "start": start,
        **describe(folder),
        "training_seconds": round(sum(float(row["seconds"]) for row in history), 1),
        "epochs": plan.epochs,
        "pictures": round(plan.epochs * plan.draws * rows),
        **{key: float(value) for key, value in history[-1].items() if key.endswith(("accuracy", "nme"))},
    }
    if arch in BASELINES:
        setting |= {"reference": BASELINES[arch].reference, "reference_figure": BASELINES[arch].figure}
    figure = judged(arch, str(folder), dataset, setting)
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return figure


def batch_of(arch: str) -> int:
    """Give the pictures of a step."""
    keypoints = arch in BASELINES and BASELINES[arch].task == "keypoints"
    start = default_config(arch if arch in BASELINES else "simple_cnn")
    return start.keypoints.batch_size if keypoints else start.expression.batch_size


def training_rows(arch: str, dataset: Dataset) -> int:
    """Count the rows that a model could train on."""
    trained = np.array([split in (None, "train") for split in dataset.splits])
    if arch in BASELINES and dataset.labels is not None and (classes := default_config(arch).model.classes):
        trained &= np.isin(dataset.labels.astype(str), classes)
    return int(trained.sum())


def describe(weights: str | Path) -> dict[str, Any]:
    """Count a network's parameters and the operations that a face takes."""
    read = load_stages(weights)
    network = read.baseline if read.baseline is not None else read.network
    task = read.header["model"]["tasks"][0] if read.baseline is not None else "expression"
    size = INPUT_SIZE[task]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 1, size, size), task)
    return {
        "task": task,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "flops": counter.get_total_flops(),
    }


def add_latencies(figures: Sequence[dict[str, Any]], runs: Path) -> None:
    """Time all networks on one face in turns, so that a busy core is busy for all alike."""
    calls = {}
    for figure in figures:
        told = figure["setting"]
        weights = runs / told["arch"] if (runs / told["arch"]).is_dir() else "default"
        crop = torch.rand(1, 1, *2 * [INPUT_SIZE[told["task"]]])
        calls[told["arch"]] = one_face(weights, told["task"], crop)
        if told["task"] == "keypoints":
            calls[SHARED_KEYPOINTS] = one_face("default", "keypoints", crop)
    times = in_turns(calls, Clock(torch.device("cpu")), seconds=6 * len(calls))
    medians = {name: round(float(np.median(taken)) * 1e3, 4) for name, taken in times.items()}
    for figure in figures:
        told = figure["setting"]
        told["latency_ms"] = medians[told["arch"]]
        if told["task"] == "keypoints":
            told["shared_latency_ms"] = medians[SHARED_KEYPOINTS]


def one_face(weights: str | Path, task: str, crop: torch.Tensor) -> Callable[[], Any]:
    """Give the call that a model analyses one crop by."""
    backend = TorchBackend(load_stages(weights), "cpu")
    if task == "keypoints":
        return partial(backend.keypoints, crop)
    return partial(backend.expression, crop, DEFAULT_HEAD)


def judged(arch: str, weights: str, dataset: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """Give the figure of a model: its accuracy on PublicTest, or its error on held-out points."""
    if setting["task"] == "keypoints":
        points = load_dataset(dataset)
        unseen = points.select(np.isin(points.rows, shipped_held_out(points.name)))
        found, shared = (
            evaluate(unseen, boxes="labels", weights=name, device="cpu") for name in (weights, "default")
        )
        assert found.keypoints is not None
        assert shared.keypoints is not None
        both = {"n": found.keypoints.n, "shared_nme": shared.keypoints.nme}
        setting = setting | both
        return {"name": "keypoint baseline", "setting": setting, "unit": "NME", "value": found.keypoints.nme}
    found = evaluate(dataset, split="PublicTest", weights=weights, device="cpu")
    figures = found.expression
    assert figures is not None
    classes = BASELINES[arch].class_set if arch in BASELINES else "fer2013"
    setting = setting | {"classes": classes, "n": figures.n, "balanced": figures.balanced_accuracy}
    if classes != "fer2013":
        labels = default_config(arch).model.classes
        setting["shared_among_them"] = among(labels, dataset)
    return {
        "name": "baseline",
        "setting": setting,
        "unit": "share",
        "value": figures.accuracy,
        "ci95": list(figures.ci95["accuracy"]),
        "confusion": figures.confusion.tolist(),
    }


def among(labels: tuple[str, ...], dataset: Path) -> float:
    """Give the shipped weights' accuracy on rows of these labels when they have to choose among them."""
    found: Evaluation = evaluate(dataset, split="PublicTest", device="cpu")
    places = [EXPRESSIONS.index(label) for label in labels]
    truth = expression_indices(found.dataset.labels, len(found.dataset))
    rows = np.isin(truth, places)
    chosen = np.array(places)[found.predictions.scores[rows][:, places].argmax(1)]
    return round(float((chosen == truth[rows]).mean()), 5)


def shipped_figure(dataset: Path) -> dict[str, Any]:
    """Give the figure of the shipped weights, which had hours."""
    setting = {"arch": "shared, as shipped", "start": load_weights().name, **describe("default")}
    return judged(SHARED, "default", dataset, setting)


def main() -> None:
    """Measure what is not measured yet and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fer2013", type=Path, required=True)
    parser.add_argument("--points", type=Path, help="Helen's training set, in iBUG's form")
    parser.add_argument("--minutes", type=float, default=10, help="of training, each model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pretrained", action="store_true", help="ImageNet weights for all that have some")
    parser.add_argument("--only", nargs="+", choices=ORDER, default=list(ORDER), metavar="ARCH")
    parser.add_argument("--out", type=Path, default=Path("runs/baselines"), help="of weights and curves")
    parser.add_argument("--results", type=Path, default=results.RESULTS)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    budget, run = Budget(given.minutes, given.seed, given.pretrained), results.ScriptRun()
    figures, skipped = [], []
    with threads(1):
        for arch in ORDER:
            keypoints = arch in BASELINES and BASELINES[arch].task == "keypoints"
            dataset = given.points if keypoints else given.fer2013
            done = given.out / arch / "measured.json"
            known = json.loads(done.read_text()) if done.is_file() else {}
            if known.get("run") != asdict(budget):
                if arch not in given.only or dataset is None:
                    reason = "needs --points" if dataset is None else "not trained in this run"
                    skipped.append({"case": arch, "reason": reason})
                    continue
                known = {"run": asdict(budget), "figure": measure(arch, budget, dataset, given.out / arch)}
                write_atomically(done, json.dumps(known).encode())
            figures.append(known["figure"])
            print(f"{arch}: {known['figure']['value']:.4f}", flush=True)
        figures.append(shipped_figure(given.fer2013))
        add_latencies(figures, given.out)
    body = run.body(load_weights().name, figures, skipped)
    body["budget"] = asdict(budget) | {"threads": 1, "device": "cpu", "facekit": facekit.__version__}
    command = f"python benchmarks/baselines.py --minutes {given.minutes:g} --seed {given.seed}"
    command += " --pretrained" if given.pretrained else ""
    print(results.write_result("baselines", "cpu", command, body, given.results))


if __name__ == "__main__":
    main()
