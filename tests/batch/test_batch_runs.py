from __future__ import annotations

import os
import signal
from dataclasses import replace
from itertools import count
from pathlib import Path

import made
import made_runs
import pytest
from dying import die_of_some_pictures
from made_runs import album, alive, analysis, children, finish, manifest, rows, start
from typer.testing import CliRunner

from facekit.analyzer import FaceAnalyzer
from facekit.batch import local, running
from facekit.batch.chunks import Chunk
from facekit.batch.local import AHEAD, LocalEngine
from facekit.batch.plan import FILE as PLAN
from facekit.batch.running import BatchConfig, run_batch
from facekit.batch.shards import locked
from facekit.batch.work import Task, Worker
from facekit.errors import ConfigError, WeightsError
from facekit_cli.main import app


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return album(tmp_path_factory.mktemp("pictures") / "album")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> BatchConfig:
    small = analysis(tmp_path_factory.mktemp("weights"), batch_size=4)
    return BatchConfig(small, shard_size=7, workers=2)


def run(source, out, config) -> list[running.Progress]:
    return list(run_batch([str(source)], out, config))


@pytest.fixture(scope="module")
def unbroken(pictures, config, tmp_path_factory) -> list[dict]:
    """The rows of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    progress = run(pictures, out, config)
    assert [far.pictures for far in progress] == sorted(far.pictures for far in progress)
    assert progress[-1] == running.Progress(30, 30, 1, 29)
    return rows(out)


def test_the_rows_are_those_of_predict_in_the_order_of_the_pictures(pictures, config, unbroken):
    options = vars(config.analysis)
    paths = [str(path) for path in sorted(pictures.iterdir())]
    expected = [faces.to_dict() for faces in FaceAnalyzer(**options).stream(paths)]
    assert unbroken == expected
    (bad,) = [row for row in unbroken if row["error"]]
    assert (bad["image"], bad["faces"], bad["width"]) == (f"{pictures}/007.png", [], None)


def test_pictures_from_an_archive_give_the_same_and_errors_name_the_member(
    pictures, config, unbroken, tmp_path
):
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for path in sorted(pictures.iterdir()):
            archive.add(path, path.name)
    worker = Worker(replace(config.analysis, batch_size=30))
    chunk = next(iter(running.find_chunks([str(tmp_path / "a.tar")], 30, 30)))
    lines = worker(Task(0, 0, chunk)).lines
    assert [len(line) > 500 for line in lines] == [not row["error"] for row in unbroken]
    assert f'"error": "{tmp_path}/a.tar/007.png: not a picture' in lines[7]


def test_parquet_holds_the_same_rows_also_where_names_are_no_text(pictures, config, tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet is written with pyarrow")
    odd = tmp_path / os.fsdecode(b"\xff.png")
    odd.write_bytes((pictures / "000.png").read_bytes())
    sources = [str(pictures / "00?.png"), str(odd)]
    for form in ("jsonl", "parquet"):
        list(run_batch(sources, tmp_path / form, replace(config, format=form)))
    *written, last = rows(tmp_path / "parquet")
    *expected, first = rows(tmp_path / "jsonl")
    assert written == expected
    assert last == first | {"image": f"{tmp_path}/?.png"}


def test_a_finished_run_is_not_done_again_and_other_settings_need_another_folder(
    pictures, config, tmp_path, monkeypatch
):
    run(pictures, tmp_path, config)
    before = manifest(tmp_path)
    assert before["complete"]
    assert sum(shard["pictures"] for shard in before["shards"]) == 30
    monkeypatch.setattr(running, "_make_engine", lambda _config: pytest.fail("there is nothing to do"))
    assert run(pictures, tmp_path, config)[-1].pictures == 30
    (tmp_path / "manifest.json").unlink()  # killed before it was written
    run(pictures, tmp_path, config)
    assert manifest(tmp_path) == before
    with pytest.raises(ConfigError, match=r"holds a run with other settings \(max_faces null, now 1\)"):
        run(pictures, tmp_path, replace(config, analysis=replace(config.analysis, max_faces=1)))


def test_other_weights_in_the_same_folder_need_another_folder_of_results(pictures, config, tmp_path):
    trained, weights = tmp_path / "run", Path(config.analysis.weights)
    trained.mkdir()
    (trained / "weights.safetensors").write_bytes(weights.read_bytes())
    begun = replace(config, analysis=replace(config.analysis, weights=str(trained)))
    going = run_batch([str(pictures / "00[0-3].png")], tmp_path / "out", begun)
    next(going)
    going.close()
    other = made.weights(tmp_path, seed=1)
    Path(other).replace(trained / "weights.safetensors")
    with pytest.raises(ConfigError, match=r"\(weights/weights\.safetensors \w{64}, now \w{64}\)"):
        list(run_batch([str(pictures / "00[0-3].png")], tmp_path / "out", begun))


def test_shards_that_are_gone_or_damaged_are_made_again_and_half_written_ones_go(
    pictures, config, unbroken, tmp_path
):
    run(pictures, tmp_path, config)
    shards = sorted(tmp_path.glob("part-*"))
    shards[0].unlink()
    os.truncate(shards[1], shards[1].stat().st_size // 2)
    os.truncate(shards[2], shards[2].read_bytes().index(b"\n") + 1)
    for left in ("part-000003.jsonl", "manifest.json", PLAN):
        (tmp_path / f".{left}.left").touch()
    assert run(pictures, tmp_path, config)[0].pictures == 30 - 3 * 8
    assert rows(tmp_path) == unbroken
    assert not list(tmp_path.glob(".*.left"))


def test_a_damaged_parquet_shard_is_made_again(pictures, config, tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet is written with pyarrow")
    config = replace(config, format="parquet")
    run(pictures, tmp_path, config)
    before = rows(tmp_path)
    shard = min(tmp_path.glob("part-*"))
    shard.write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    run(pictures, tmp_path, config)
    assert rows(tmp_path) == before


def test_two_runs_do_not_write_to_one_folder(pictures, config, tmp_path):
    with locked(tmp_path), pytest.raises(ConfigError, match="another run is writing there"):
        run(pictures, tmp_path, config)


def test_a_run_killed_at_any_point_goes_on_and_has_each_picture_once(config, tmp_path):
    pictures, out = album(tmp_path / "album", 300), tmp_path / "out"  # many: still at work when killed
    run(pictures, tmp_path / "unbroken", config)
    options = ("--backend", "onnx", "--detector", "none", "--weights", config.analysis.weights)
    command = (pictures, "--out", out, *options, "--batch-size", 4, "--shard-size", 7, "--workers", 2)
    for point in (
        lambda: (out / PLAN).is_file(),
        lambda: len(list(out.glob("part-*"))) >= 1,
        lambda: len(list(out.glob("part-*"))) >= 3,
    ):
        killed = start(*command)
        made_runs.wait_until(point, killed)
        below = children(killed.pid)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        made_runs.wait_until(lambda below=below: not any(map(alive, below)))
    assert not (out / "manifest.json").exists() or not manifest(out)["complete"]
    code, said, complaint = finish(start(*command))
    assert (code, complaint) == (1, f"facekit: {out}: 1 of 300 pictures failed; the shards say why\n")
    assert said == f"{out}: 300 pictures, 299 faces, 1 pictures failed\n"
    assert rows(out) == rows(tmp_path / "unbroken")
    assert manifest(out)["complete"]


def test_a_worker_that_is_killed_takes_nothing_with_it(pictures, config, unbroken, tmp_path):
    going = run_batch([str(pictures)], tmp_path, config)
    before = set(children(os.getpid()))
    next(going)
    assert next(going).pictures
    for pid in {pid for pid, name in children(os.getpid()).items() if "spawn_main" in name} - before:
        os.kill(pid, signal.SIGKILL)
    list(going)
    assert rows(tmp_path) == unbroken


def test_a_picture_that_kills_its_worker_every_time_fails_alone(
    pictures, config, unbroken, tmp_path, monkeypatch
):
    monkeypatch.setattr(local, "_analyse", die_of_some_pictures)
    run(pictures, tmp_path, replace(config, workers=1))
    found = rows(tmp_path)
    dead = [place for place, row in enumerate(found) if "worker process died" in (row["error"] or "")]
    assert dead == [3]
    assert found[3]["image"] == f"{pictures}/003.png"
    assert [row["image"] for row in found] == [row["image"] for row in unbroken]
    assert {row["weights"] for row in found} == {"untrained-0"}
    scores = [[face["expression"]["confidence"] for face in row["faces"]] for row in found]
    expected = [[face["expression"]["confidence"] for face in row["faces"]] for row in unbroken]
    scores[3] = expected[3]
    assert [score for row in scores for score in row] == pytest.approx(
        [score for row in expected for score in row], abs=1e-4
    )


def test_only_a_few_tasks_are_taken_ahead(pictures, config):
    taken = 0

    def tasks():
        nonlocal taken
        for place in count():
            taken += 1
            yield Task(place, 0, Chunk("files", str(pictures), 1, names=("000.png",)))

    outcomes = LocalEngine(config.analysis, 1)(tasks())
    for given in range(1, 6):
        next(outcomes)
        assert taken <= given + AHEAD
    outcomes.close()


def test_what_the_model_lacks_is_told_as_it_is(pictures, config, tmp_path):
    with pytest.raises(WeightsError, match="no weights 'nonsense'"):
        run(pictures, tmp_path, replace(config, analysis=replace(config.analysis, weights="nonsense")))


def test_what_only_a_cluster_takes_is_refused_without_one(config, tmp_path):
    with pytest.raises(ConfigError, match="need --engine ray"):
        run("album", tmp_path, replace(config, gpus_per_worker=0.5))


def test_a_cluster_needs_absolute_paths(config, tmp_path):
    with pytest.raises(ConfigError, match="give absolute paths"):
        run("album", tmp_path, replace(config, engine="ray", address="auto"))


def test_the_command_fails_when_every_picture_does(config, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    options = ["--backend", "onnx", "--detector", "none", "--weights", config.analysis.weights]
    done = CliRunner().invoke(app, ["batch", str(tmp_path), "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 2
    assert "1 pictures failed" in done.stdout
    expected = f"facekit: {tmp_path / 'out'}: 1 of 1 pictures failed; the shards say why\n"
    assert done.stderr == expected
    assert {path.name for path in (tmp_path / "out").glob("*.jsonl")} == {"part-000000.jsonl"}
