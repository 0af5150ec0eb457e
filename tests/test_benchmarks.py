from __future__ import annotations

import json
import math
import os
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made import weights as made_weights
from torch import nn

from facekit.benchmarking import (
    SUITES,
    augmentation,
    load_suite,
    peers,
    results,
    running,
    throughput,
    training,
)
from facekit.benchmarking.floors import Peaks, Work, count_work, measure_peaks, with_floor
from facekit.benchmarking.measuring import (
    Case,
    Clock,
    Setting,
    UnavailableError,
    in_turns,
    timing,
    value,
)
from facekit.benchmarking.processes import ask
from facekit.benchmarking.stages import resident
from facekit.data.catalog import load_dataset
from facekit.errors import ConfigError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scripts():
    """The renderer and what it is made of, which live beside the results, not in the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import charts
        import compare
        import plots
        import reckoning
        import render
        import tables

        yield SimpleNamespace(
            charts=charts, compare=compare, plots=plots, reckoning=reckoning, render=render, tables=tables
        )


@pytest.fixture(scope="module")
def valid():
    jsonschema = pytest.importorskip("jsonschema", reason="the schema of results files is checked with it")
    validator = jsonschema.Draft202012Validator(results.schema())
    return lambda record: [error.message for error in validator.iter_errors(record)]


@pytest.fixture
def setting(tmp_path):
    return Setting(CPU, quick=True, weights=made_weights(tmp_path))


def suite_of(*cases: Case):
    return lambda _name: SimpleNamespace(cases=lambda _setting: list(cases))


# What very many pictures take


def scale_result():
    def figures(backend, workers, picture, writing):
        told = {"picture": picture, "writing process": writing, "memory a worker": 1024, "output": 2000}
        return [value(name, one, "ms", backend=backend, workers=workers) for name, one in told.items()]

    stages = [
        {**value(name, 0, "ms", backend=backend), "median": 5}
        for name in ("decode", "detect", "network", "rest")
        for backend in ("torch", "onnx")
    ]
    runs = figures("torch", 1, 99, 99) + figures("torch", 2, 36, 0.1) + figures("onnx", 2, 18, 10)
    machine = {"processor": "P", "cores": 2, "accelerator": None, "packages": {"torch": "2"}}
    figures_of_all = [value("input", 100_000, "bytes"), *stages, *runs]
    return {"figures": figures_of_all, "notes": "A note.", "machine": machine, "date": "2026-01-01"}


def test_the_slowest_part_of_a_cluster_sets_hours_and_money(scripts):
    result = scale_result()
    cluster = scripts.reckoning.Cluster("c", nodes=10, cores=36, price=2, network=8, store=2)
    told = scripts.reckoning.reckon(result, "torch", cluster, 36_000_000)
    expected = {"workers": 10_000, "writing process": 10_000, "network": 100_000, "storage": 20_000}
    assert told.rates == pytest.approx(expected)
    assert (told.hours, told.dollars) == pytest.approx((1, 20))
    assert (told.memory, told.output) == pytest.approx((36, 72))
    told = scripts.reckoning.reckon(result, "onnx", cluster, 36_000_000)
    assert (told.bottleneck, told.hours) == ("writing process", pytest.approx(100))


def test_the_tables_of_scale_tell_core_hours_shares_and_the_note(scripts):
    drawn = scripts.tables.scale_cost(scale_result())
    assert "| torch | 36.0 ms | 10.0 | 5.0 | 25.0% | 25.0% | 25.0% | 25.0% | 1,024 MiB |" in drawn
    assert drawn.endswith("A note.\n")
    assert "| onnx 2 | 18 | 10 |" in scripts.tables.scale_runs(scale_result())
    assert "100,000,000 pictures on" in scripts.tables.scale_reckoning(scale_result())


# How things are timed


def test_calls_are_timed_in_turns_and_the_warm_up_does_not_count():
    order = []

    def call(name, seconds):
        order.append(name)
        time.sleep(seconds)

    calls = {"slow": lambda: call("slow", 0.006), "fast": lambda: call("fast", 0.003)}
    times = in_turns(calls, Clock(CPU), seconds=0, least=3, warm_up=1)
    assert order == ["slow", "fast"] * 4
    assert [len(taken) for taken in times.values()] == [3, 3]
    assert min(times["slow"]) >= 0.006 > 0.003 <= min(times["fast"])


def test_short_calls_are_repeated_until_a_reading_is_long_enough_for_the_clock():
    count = 0

    def call():
        nonlocal count
        count += 1

    (times,) = in_turns({"short": call}, Clock(CPU), seconds=0, least=1).values()
    assert len(times) == 1
    assert count > 100


def test_a_run_of_rounds_ends_at_its_time_or_its_count():
    calls = {"call": lambda: time.sleep(0.003)}
    assert len(in_turns(calls, Clock(CPU), seconds=100, most=4)["call"]) == 4
    assert 2 <= len(in_turns(calls, Clock(CPU), seconds=0.05, least=2)["call"]) < 25


def test_a_timing_holds_median_and_quartiles_of_times_or_rates():
    times = [0.001, 0.002, 0.003, 0.004, 0.005]
    figure = timing("parts", times, batch=2)
    assert (figure["median"], figure["quartiles"], figure["repeats"]) == (3, [2, 4], 5)
    rate = timing("parts", times, "faces/s", 6)
    assert (rate["median"], rate["quartiles"]) == (2000, [1500, 3000])


# The hardware's limit


def test_work_is_counted_from_the_network():
    convolution, linear = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Linear(10, 5)
    pictures, rows = torch.zeros(2, 3, 16, 16), torch.zeros(4, 10)
    seen = count_work(lambda: convolution(pictures))
    assert seen.operations == 2 * 2 * 8 * 16 * 16 * 3 * 9
    assert seen.traffic == 4 * (2 * 3 * 256 + 8 * 3 * 9 + 2 * 8 * 256)
    seen = count_work(lambda: linear(rows).relu())
    assert seen.operations == 2 * 4 * 10 * 5
    assert seen.traffic == 4 * (40 + 50 + 5 + 20)


def test_half_the_bytes_of_half_precision_are_counted():
    layer = nn.Conv2d(3, 8, 3, bias=False)
    whole = count_work(lambda: layer(torch.zeros(1, 3, 8, 8)))
    layer = layer.to(torch.bfloat16)
    half = count_work(lambda: layer(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16)))
    assert (half.operations, half.traffic * 2) == (whole.operations, whole.traffic)


@pytest.mark.parametrize(("traffic", "limit", "rate"), [(10, "operations", 50.0), (400, "bytes", 25.0)])
def test_the_floor_is_the_longer_of_both_times(traffic, limit, rate):
    figure = {"median": 10.0}
    floor = with_floor(figure, Work(200, traffic), Peaks(1000, 1000), items=10)["floor"]
    assert (floor["limit"], floor["rate"], floor["share"]) == (limit, rate, 10 / rate)


def test_peaks_are_those_of_this_machine():
    peaks = measure_peaks(CPU, torch.float32)
    assert 1e8 < peaks.operations < 1e14
    assert 1e8 < peaks.traffic < 1e13


# Running and going on


def test_every_suite_tells_what_it_measures_before_it_does(setting):
    for name in SUITES:
        cases = load_suite(name).cases(setting)
        assert cases
        assert len({case.name for case in cases}) == len(cases)
        assert all(case.seconds > 0 for case in cases)
    quick = sum(case.seconds for name in SUITES for case in load_suite(name).cases(setting))
    assert quick <= 180


def test_an_unknown_suite_is_a_users_error():
    with pytest.raises(ConfigError, match="unknown benchmark suite 'speed'"):
        load_suite("speed")


def test_an_interrupted_run_goes_on_where_it_stopped(setting, tmp_path, monkeypatch, valid):
    ran, broken = [], True

    def first():
        ran.append("first")
        return [timing("first", [0.1, 0.2])]

    def second():
        ran.append("second")
        if broken:
            raise KeyboardInterrupt
        raise UnavailableError("no such thing here")

    cases = [Case("one", 30, first), Case("two", 60, second)]
    monkeypatch.setattr(running, "load_suite", suite_of(*cases))
    plan = running.Plan(["made"], setting, tmp_path)
    assert (plan.seconds("made"), plan.done(), plan.count()) == (90, 0, 2)
    with pytest.raises(KeyboardInterrupt):
        list(plan.run("facekit bench made"))

    broken = False
    plan = running.Plan(["made"], setting, tmp_path)
    assert (plan.seconds("made"), plan.done()) == (60, 1)
    done = list(plan.run("facekit bench made"))
    assert ran == ["first", "second", "second"]
    assert [one.skipped for one in done] == [None, "no such thing here"]
    assert done[0].written is None

    record = json.loads(done[1].written.read_text())
    assert valid(record) == []
    assert [figure["name"] for figure in record["figures"]] == ["first"]
    assert record["skipped"] == [{"case": "two", "reason": "no such thing here"}]
    assert [path.name for path in done[1].written.parent.iterdir()] == [done[1].written.name]


def test_another_setting_is_another_run(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "load_suite", suite_of(Case("one", 1, list), Case("two", 1, list)))
    plan = running.Plan(["made"], setting, tmp_path)
    next(plan.run("facekit bench made"))
    assert running.Plan(["made"], setting, tmp_path).done() == 1
    assert running.Plan(["made"], Setting(CPU, weights=setting.weights), tmp_path).done() == 0
    Path(made_weights(tmp_path, 1)).replace(setting.weights)
    assert running.Plan(["made"], setting, tmp_path).done() == 0


def test_a_bug_in_a_suite_is_not_published_as_a_reason(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "load_suite", suite_of(Case("one", 1, lambda: [][0])))
    with pytest.raises(IndexError):
        list(running.Plan(["made"], setting, tmp_path).run("facekit bench made"))


# Results files


def record(**changes):
    body = {"quick": False, "weights": "default", "seconds": 1.0, "load_before": 0.1, "skipped": []}
    machine = {
        "processor": "P",
        "cores": 2,
        "accelerator": None,
        "system": "S",
        "python": "3",
        "facekit": "0",
    }
    machine["packages"] = {"torch": "2", "numpy": "2", "pillow": None}
    head = {"suite": "made", "command": "facekit bench", "date": "2026-01-02", "machine": machine}
    return {**head, **body, "figures": [], **changes}


def test_every_results_file_is_in_the_form(valid):
    for path in BENCHMARKS.glob("results/**/*.json"):
        assert valid(json.loads(path.read_text())) == [], path
    assert valid(record(figures=[timing("a", [1.0], batch=1), value("b", 1, "s")])) == []


def test_what_a_script_writes_is_in_the_form(valid, tmp_path):
    skipped = [{"case": "b", "reason": "not trained in this run"}]
    body = results.ScriptRun().body("default", [value("a", 0.5, "share")], skipped)
    path = results.write_result("members", "cpu", "python members.py", body, tmp_path)
    written = json.loads(path.read_text())
    assert valid(written) == []
    assert (written["figures"], written["skipped"]) == (body["figures"], skipped)


@pytest.mark.parametrize(
    "changes",
    [
        {"date": "yesterday"},
        {"skipped": [{"case": "one"}]},
        {"figures": [{"name": "a", "setting": {}, "unit": "ms"}]},
        {"figures": [{**timing("a", [1.0]), "quartiles": [1.0]}]},
        {"figures": [value("a", None, "s")]},
        {"figures": [{**value("a", None, "s"), "reason": ""}]},
    ],
)
def test_what_is_not_in_the_form_is_found(valid, changes):
    assert valid(record(**changes))


# Suites, on an untrained small network


def test_throughput_of_every_arithmetic_stands_beside_its_floor(setting, valid):
    case = throughput.cases(setting)[0]
    figures = case.run()
    assert valid(record(figures=figures)) == []
    rates = [figure for figure in figures if "median" in figure]
    assert len(rates) == 2 * 2 * 3
    assert sum(figure["setting"]["automatic"] for figure in rates) == 3
    work = {(f["name"], f["setting"]["precision"]): f["floor"]["operations"] for f in rates}
    assert work["both", "fp32"] == work["keypoints", "fp32"] + work["expression", "fp32"]
    shares = {f["setting"]["stage"]: f["value"] for f in figures if f["name"] == "automatic of best"}
    assert set(shares) == {"keypoints", "expression", "both"}
    assert max(shares.values()) <= 1


def test_the_floor_is_that_of_the_network_however_it_is_run(setting, monkeypatch):
    """A compiled network or a replayed graph shows no operations that could be counted."""

    def compiled(function, **_options):
        with torch.no_grad():
            done = function(resident(1, 96 if function.__name__ == "keypoints" else 48, CPU))
        return lambda _pixels: done

    monkeypatch.setattr(torch, "compile", compiled)
    figures = throughput._running(setting, 1, "compiled")
    assert [figure["setting"]["running"] for figure in figures] == ["compiled"] * 3
    assert all(figure["floor"]["operations"] > 1e6 for figure in figures)
    assert not any(figure["setting"]["automatic"] for figure in figures)


def test_a_profile_tells_where_the_time_goes(setting):
    shares = [figure["value"] for figure in throughput._profile(setting, 1)]
    assert 3 < len(shares) <= throughput.OPERATIONS
    assert shares == sorted(shares, reverse=True)
    assert 0.5 < sum(shares) <= 1.001


def test_what_cannot_be_compiled_is_left_out_with_its_reason(setting, monkeypatch):
    def broken(*_arguments, **_options):
        def call(_pixels):
            raise RuntimeError("no compiler\nat all")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UnavailableError, match=r"torch\.compile fails here: no compiler$"):
        throughput._running(setting, 1, "compiled")


def test_augmentation_and_training_give_rates(setting, valid, monkeypatch):
    monkeypatch.setattr(training, "CPU_BATCH", 8)
    figures = [*augmentation.cases(setting)[0].run(), *training.cases(setting)[0].run()]
    assert valid(record(figures=figures)) == []
    assert [figure["unit"] for figure in figures] == ["crops/s"] * 4 + ["images/s"]
    assert all(figure["median"] > 0 for figure in figures)


def test_time_to_accuracy_tells_when_a_target_is_passed_or_that_it_is_not():
    curve = [(1.0, 0.5), (2.0, 0.66), (3.0, 0.64)]
    assert training._time_to(0.65, curve)["value"] == 2
    missed = training._time_to(0.7, curve)
    assert (missed["value"], missed["reason"]) == (None, "not reached in 3 epochs")


def test_the_accuracy_is_watched_while_stage_2_learns(setting, tmp_path):
    random, rows = np.random.default_rng(0), ["emotion,pixels,Usage"]
    for row in range(21):
        pixels = " ".join(map(str, random.integers(0, 256, 48 * 48)))
        rows.append(f"{row % 7},{pixels},{'Training' if row < 14 else 'PublicTest'}")
    rows.append(rows[-1].replace("PublicTest", "Training"))
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join(rows) + "\n")
    train, unseen = training.fer2013_samples(load_dataset(path))
    assert (len(train), len(unseen)) == (14, 7), "the double of a PublicTest row is not trained on"
    recipe = replace(training.RECIPE, epochs=2)
    (first, _), (second, accuracy) = training.accuracy_by_time(setting, train, unseen, recipe)
    assert 0 < first < second
    assert round(accuracy * 7, 6) in range(8)


def test_a_new_process_is_measured_without_what_this_one_holds():
    held = np.ones(300 << 20, np.uint8)
    told = ask("tell(peak=peak_mebibytes(), given=int(sys.argv[1]))", 3)
    assert told["given"] == 3
    assert 3 < told["peak"] < len(held) >> 20


# Peers


def test_a_library_answers_from_its_own_process(setting, tmp_path, made_crops):
    picture = tmp_path / "picture.npy"
    np.save(picture, np.zeros((64, 64, 3), np.uint8))
    with peers.started("facekit", setting.weights, make=False) as worker:
        assert 0 < worker.ask(ask="time", picture=str(picture))["seconds"] < 60
        assert worker.ask(ask="found", picture=str(picture)) == {"faces": 0, "points": 0, "expressions": []}
        labels = worker.ask(ask="labels", crops=str(made_crops))["labels"]
    assert len(labels) == 3


@pytest.fixture
def made_crops(tmp_path):
    path = tmp_path / "crops.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (3, 48, 48), np.uint8))
    return path


def test_a_process_that_dies_is_a_reason(monkeypatch, caplog):
    monkeypatch.setattr(peers, "environment", lambda *_given, **_options: Path(sys.executable))
    died = pytest.raises(UnavailableError, match="ended with status 1")
    with died, peers.started("dlib", "default", make=False):
        pass
    assert "No module named 'dlib'" in caplog.text


def test_without_uv_a_library_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="needs uv"):
        peers.environment("fer", make=True)
    with pytest.raises(UnavailableError, match="full run"):
        peers.environment("fer", make=False)


@pytest.mark.skipif(os.name == "nt", reason="the made uv is a shell script")
def test_an_installation_that_fails_is_a_reason_without_its_log(monkeypatch, tmp_path, caplog):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n[ $1 = venv ] && exit 0\necho no route to somewhere >&2\nexit 2\n")
    uv.chmod(0o755)
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UnavailableError) as caught:
        peers.environment("mediapipe", make=True)
    assert str(caught.value) == "`uv pip install` fails here with exit status 2"
    assert "no route to somewhere" in caplog.text


# Pages


PAGE = "# Page\n\n<!-- table: latency -->\nold\n<!-- end -->\n\n<!-- plot: peers -->\n<!-- end -->\n"


def write(folder: Path, name: str, **changes):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(record(**changes)))


def parts_of(median: float):
    return [timing("whole", [median / 1e3] * 3, precision=precision) for precision in ("auto", "fp32")]


def test_what_was_not_measured_says_so(scripts, tmp_path):
    page = scripts.render.render(PAGE, Path("README.md"), tmp_path)
    assert page.count("Not yet measured.\n<!-- end -->") == 2


def test_a_table_shows_the_newest_full_result_and_how_it_was_measured(scripts, tmp_path):
    for name, median, date in (
        ("latency--a--cpu.json", 1, "2026-01-03"),
        ("latency--b--cpu.json", 2, "2026-01-02"),
        ("latency--a--cpu--quick.json", 3, "2026-01-09"),
        ("latency--a--gpu.json", 4, "2026-01-09"),
    ):
        write(tmp_path, name, figures=parts_of(median), date=date)
    page = scripts.render.render(PAGE, Path("README.md"), tmp_path)
    assert "| whole | 1 (1 to 1) | 1 (1 to 1) |\n\nP, 2 cores, torch 2, 2026-01-03.\n<!-- end -->" in page
    assert "old" not in page


def test_every_table_and_plot_can_be_drawn(scripts, valid, tmp_path):
    """From results of every suite, each with a figure that could not be measured."""
    rate = with_floor(timing("both", [0.1], "faces/s", 8), Work(10, 10), Peaks(1e3, 1e3), 8)
    run = {"automatic": True, "precision": "bf16", "layout": "channels_last", "running": "eager"}
    right = {"accuracy": 0.5, "balanced_accuracy": None, "macro_f1": 0.4, "ece": 0.1}
    right |= {"labels": ["happy"], "confusion": [[5]]}
    right |= {"per_class": {"happy": {"n": 5, "precision": 0.5, "recall": None, "f1": None}}}
    near = {"nme": 0.05, "auc_08": 0.4, "coverage_68": 0.7, "coverage_95": None}
    evaluated = {
        "n": 5,
        "weights": "w",
        "expression": {"n": 5, **right, "ci95": {"accuracy": [0.4, 0.6]}},
        "keypoints": {"n": 5, **near, "ci95": {"nme": [0.04, 0.06]}},
        "reliability": [{"n": 10, "confidence": sure, "accuracy": 0.5} for sure in (0.5, 0.7)],
    }
    model = {"arch": "simple_cnn", "parameters": 9, "flops": 9e6, "latency_ms": 1.5}
    model |= {"training_seconds": 60.0, "pictures": 100, "n": 5}
    found = {"faces": 1, "points": 15, "expressions": ["happy"]}
    others = [f"{name}, one look" for name in ("raf_db", "affectnet", "expw", "muxspace")]
    looked = {"accuracy": 0.6, "ece": 0.02, "nll": 0.9, "change": -0.01, "error": 0.005}
    held_out = dict.fromkeys(("fer2013, one look", "fer2013, two looks", *others), looked)
    figures = {
        "accuracy": [{"name": "FER2013 PublicTest", "setting": {}, "unit": "share", "evaluation": evaluated}],
        "unseen-set": [{"name": "AFW", "setting": {}, "unit": "share", "evaluation": evaluated}],
        "shares": [
            {
                **value("settled", 0.6, "share", share=share),
                "sets": held_out,
                "nme": 0.03,
            }
            for share in (1.0, 0.2)
        ],
        "members": [
            {**value("m", 0.6, "share", members=some), "sets": held_out} for some in ("1", "1 and 2")
        ],
        "training-runs": [
            {
                **value("default-v1", 0.6, "share"),
                "epochs": 2,
                "hours": [0.1, 0.2],
                "curves": {"fer2013_accuracy": [0.5, 0.6]},
                "held_out": {"fer2013_accuracy": 0.6, "fer2013_nll": 0.9, "nme": 0.03},
            }
        ],
        "latency": [
            *parts_of(1),
            timing("detector", [1.0], detector="haar", picture="512x512"),
            timing("first picture", [1.0]),
        ],
        "throughput": [
            *({**rate, "setting": {"batch": batch, **run}} for batch in (1, 64)),
            timing("pictures", [1.0], "pictures/s", source="files", batch=1),
            value("where the time goes", 0.5, "share", operation="convolution", batch=64),
        ],
        "training": [
            timing("training", [1.0], "images/s", 9, tasks="expression", compiled=False),
            training._time_to(0.7, [(1.0, 0.5)]),
            {**value("best accuracy", 0.5, "share"), "curve": [[1.0, 0.4], [2.0, 0.5]]},
        ],
        "augmentation": [timing("expression", [1.0], "crops/s", 9, batch=128)],
        "onnx-parity": [value("probability", 1e-6, "largest", run="torch and onnx")],
        "onnx-accuracy": [value("accuracy", 0.5, "share", run="onnx int8")],
        "onnx-speed": [timing("stage 1", [1.0], run="onnx fp32")],
        "onnx-start": [timing("start to exit", [1.0], run="onnx")],
        "data": [timing("first load", [1.0], "rows/s", 9, dataset="FER2013")],
        "memory": [value("import facekit", 10, "MiB")],
        "scaling": [value("time a picture", 10, "ms", pictures=count) for count in (1, 10)],
        "peers": [
            {**timing("whole picture", [1.0], library="facekit", picture="512x512"), "found": found},
            peers.absent("whole picture", "fer", "needs uv"),
            value("FER2013 PublicTest", 0.7, "share", library="facekit"),
        ],
        "ablations": [
            value(name, 0.5, "share", variant=variant, seed=0)
            for variant in ("as it is", "other")
            for name in ("fer2013_accuracy", "nme")
        ],
        "baselines": [
            {
                **value("baseline", 0.6, "share", **model, classes="fer2013", start="scratch"),
                "ci95": [0.5, 0.7],
            },
            value("keypoint baseline", 0.06, "NME", **model, shared_nme=0.05, shared_latency_ms=2.0),
        ],
    }
    for suite, shown in figures.items():
        assert valid(record(figures=shown)) == [], suite
        for device in ("cpu", "gpu"):
            write(tmp_path, f"{suite}--m--{device}.json", suite=suite, figures=shown)
    recalls = ("recall_afw_scenes", "recall_helen", "recall_group_photos")
    kept = dict.fromkeys((*recalls, "average_precision"), 0.9)
    kept |= {"false_positives_face_free": 0.1, "false_positives_masked_scenes": 0.1}
    found = {"facekit": {**kept, "one_core": {"640x480": {"median_ms": 8.0}}}}
    parts = {
        "by_min_score": {"0.5": kept},
        "by_side": {"640": found["facekit"]},
        "sheets": {"640": {"faces": 5, "recall": 0.8, "one_core": {"median_ms": 8.0}}},
        "keypoints": {"facekit": {"n": 5, "nme": 0.03, "nme_label_boxes": 0.03, "ratio": 1.0}},
        "reliability": {"bins": [{"n": 10, "score": score, "share": 0.5} for score in (0.5, 0.9)]},
    }
    write(tmp_path, "detection--m--cpu.json", suite="detection", weights="w", detectors=found, **parts)
    moved = {"jitter_px": 2.0, "error_px": 1.0, "lag_frames": None, "box_jitter_px": 1.0}
    moved |= {"box_lag_frames": 0.5, "score_jitter": 0.1}
    clip = dict.fromkeys(scripts.tables.CLIP_JITTER, 0.5)
    run = {"clients": 1, "outcomes": {"200": 5}}
    rates = {key: {"median": 5.0} for key in ("pictures_per_second", "p50_ms", "processor_ms")}
    load = {"pictures_per_second": 5.0, "ms": {"p50": 1, "p95": 2, "p99": 3}, "processor_ms": 4.0}
    for suite, body in {
        "video-smoothing": {
            "synthetic": {"rest": {"raw": moved, "smoothed": moved}},
            "clips": {
                "a.avi": {
                    "slow_below_face_sizes_per_s": 0.1,
                    "raw": clip,
                    "smoothed": {**clip, "lag_frames": 0.5},
                }
            },
        },
        "video-speed": {"clips": {"a.avi": {"every 1": {"frames_per_s": 20.0}}}},
        "video-memory": {"frames": 20_000, "after_500_mb": 500.0, "growth_mb": 10.0},
        "serving": {"seconds": 600, "runs": {"one client": run | rates, "load": run | load}},
        "crosscheck": {
            "summaries": {
                "fer2013": {
                    "n": 5,
                    "expression": {**right, "undetected": 1, "other_labels": {"contempt": 2}},
                    "keypoints": None,
                    "suspects": {"flagged": 1},
                    "seen_in_training": 0,
                    "faults": {"duplicates": {"n": 2}},
                    "reference": {"precision_at_k": {"happy": {"n": 5, "base_rate": 0.1, "10": 0.5}}},
                }
            },
            "suspects": {
                "default head": {
                    "self_confidence": {"macro_within_class_auroc": 0.8, "per_class_auroc": {"happy": 0.8}}
                }
            },
            "planted_labels_found": {"default head": 0.9},
            "planted_points": {"shifted": 1.0},
            "seconds": {"bare_passes": 10.0, "fer2013": 12.0},
        },
        "crosscheck-memory": {"pictures": 200_000, "peak_mebibytes": 1500.0, "written_megabytes": 500.0},
    }.items():
        write(tmp_path, f"{suite}--m--cpu.json", suite=suite, **body)
    write(tmp_path, "scale--m--cpu.json", suite="scale", figures=scale_result()["figures"])
    for name in scripts.tables.TABLES:
        page = scripts.render.render(f"<!-- table: {name} -->\n<!-- end -->", Path("README.md"), tmp_path)
        rows = [line for line in page.splitlines() if line.startswith("|")]
        assert len(rows) >= 3, name
        assert len({line.count("|") for line in rows}) == 1, name
    for name in scripts.plots.PLOTS:
        page = scripts.render.render(f"<!-- plot: {name} -->\n<!-- end -->", Path("docs/a.md"), tmp_path)
        assert f"](images/bench-{name}.svg)" in page, name


def test_stale_pages_and_plots_are_found(scripts, tmp_path):
    root, measured = tmp_path / "root", tmp_path / "results"
    (root / "docs" / "images").mkdir(parents=True)
    (root / "README.md").write_text(PAGE)
    write(measured, "latency--a--cpu.json", figures=parts_of(1))
    write(measured, "scaling--a--cpu.json", figures=[value("time a picture", 10, "ms", pictures=1)])
    wrong = scripts.render.stale(root, measured)
    assert {str(place) for place in wrong} == {"README.md", "docs/images/bench-scaling.svg"}
    for place, text in wrong.items():
        (root / place).write_text(text)
    assert scripts.render.stale(root, measured) == {}
    (measured / "scaling--a--cpu.json").unlink()
    assert scripts.render.stale(root, measured) == {Path("docs/images/bench-scaling.svg"): None}


def test_an_unknown_mark_is_told_with_its_page(scripts, tmp_path):
    with pytest.raises(SystemExit, match=r"README\.md: no table 'nothing'"):
        scripts.render.render("<!-- table: nothing -->\n<!-- end -->", Path("README.md"), tmp_path)


# Charts


def test_a_scale_takes_values_to_pixels_evenly_or_by_logarithms(scripts):
    even = scripts.charts.Scale(0, 10, 100, 200, False)
    assert [even(at) for at in (0, 5, 10)] == [100, 150, 200]
    assert even.ticks() == [0, 2, 4, 6, 8, 10]
    log = scripts.charts.Scale(1, 1000, 0, 300, True)
    assert [round(log(at), 9) for at in (1, 10, 1000)] == [0, 100, 300]
    assert log.ticks() == [1, 10, 100, 1000]
    assert scripts.charts.Scale(8, 18, 0, 300, True).ticks() == [8, 10, 12, 14, 16, 18]


def test_charts_are_svg_for_light_and_dark_pages(scripts):
    charts = scripts.charts
    pages = [
        charts.bars("A < B", "note", "ms", [("facekit", 5.0, (4.0, 6.0)), ("other", 50.0, (49.0, 60.0))]),
        charts.lines("Lines", "note", ("x", "y"), {"one": [(1, 10), (64, 900)]}, log=(True, True)),
        charts.scatter("Points", "note", ("x", "y"), [("a", 1, 50, 0), ("b", 9, 60, 1)]),
    ]
    for page in pages:
        root = ET.fromstring(page)
        assert root.tag.endswith("svg")
        assert "prefers-color-scheme: dark" in page
        assert "nan" not in page
    assert "A &lt; B" in pages[0]


def texts(page: str, *, names: set[str]):
    root = ET.fromstring(page)
    return {
        node.text: (float(node.get("x")), float(node.get("y"))) for node in root.iter() if node.text in names
    }


def test_names_of_lines_that_end_together_do_not_cover_each_other(scripts):
    series = {f"line {k}": [(1, 1), (10, 100 + k / 100)] for k in range(5)}
    page = scripts.charts.lines("Lines", "note", ("x", "y"), series)
    heights = sorted(y for _, y in texts(page, names=set(series)).values())
    assert len(heights) == 5
    assert np.diff(heights).min() >= 15


def test_names_of_neighbouring_points_do_not_cover_each_other(scripts):
    points = [(f"model {k}", 10 + k * 0.01, 60 + k * 0.01, 0) for k in range(4)]
    far = [("far", 100.0, 20.0, 1)]
    page = scripts.charts.scatter("Points", "note", ("x", "y"), points + far)
    places = list(texts(page, names={name for name, *_ in points}).values())
    assert len(places) == 4
    for k, (x, y) in enumerate(places):
        for other_x, other_y in places[:k]:
            assert abs(y - other_y) >= 13 or abs(x - other_x) >= 40


# Runs compared


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (([90, 110], 100), ([95, 120], 108), True),
        (([60, 180], 100), ([70, 160], 130), True),
        (([90, 110], 100), ([120, 140], 130), False),
    ],
)
def test_medians_agree_within_a_tenth_or_the_quartiles(scripts, first, second, same):
    figures = [{"quartiles": quartiles, "median": median} for quartiles, median in (first, second)]
    assert scripts.compare.agree(*figures) is same


# The command


def test_the_command_tells_its_cost_first_and_what_it_could_not_measure(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from facekit_cli.main import app

    monkeypatch.delenv("FACEKIT_DATA", raising=False)
    done = CliRunner().invoke(
        app, ["bench", "accuracy", "--quick", "--device", "cpu", "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("accuracy")
    assert "2 measurements, about 12 s" in lines[0]
    assert sum("not measured: needs" in line for line in lines) == 2
    (written,) = tmp_path.rglob("*.json")
    assert written.name.endswith("--quick.json")
    told = json.loads(written.read_text())
    assert told["command"] == "facekit bench accuracy --quick"
    assert [one["case"] for one in told["skipped"]] == ["FER2013 PublicTest", "Helen, held out"]


def test_the_command_knows_its_suites():
    from typer.testing import CliRunner

    from facekit_cli.main import app

    done = CliRunner().invoke(app, ["bench", "speed"])
    assert done.exit_code == 2
    assert "expected one of latency, throughput" in done.stderr
    told = CliRunner().invoke(app, ["bench", "--help"]).stdout
    assert all(name in told for name in SUITES)


def test_durations_and_figures_are_told_in_a_line():
    from facekit_cli.bench import describe, duration

    assert [duration(seconds) for seconds in (5, 89, 150)] == ["5 s", "89 s", "2 min"]
    assert describe(timing("whole", [0.0101, 0.0102, 0.0103], threads=1)) == (
        "whole (threads 1): 10.2 ms (10.15 to 10.25)"
    )
    assert describe(peers.absent("whole", "fer", "needs uv")) == "whole (library fer): not measured: needs uv"
    assert math.isfinite(value("x", 1 / 3, "s")["value"])
