from __future__ import annotations

import base64
import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import made
import numpy as np
import pytest
from PIL import Image

from facekit import crosschecking, evaluation, plots
from facekit.analyzer import FaceAnalyzer
from facekit.crosschecking import CrossCheck
from facekit.data.samples import Skipped
from facekit.predictions import Predictor
from facekit.report import SUSPECT_COLUMNS, write_report
from facekit.report.charts import chart
from facekit.report.page import page
from facekit.schema import EXPRESSIONS

WITHOUT_END = {"meta", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Reads a page strictly: every tag is closed in order; gathers ids, links, headings and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.words = [], [], [], []
        self.unnamed = 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag not in WITHOUT_END:
            self.open.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("href", "src", "xlink:href") if given.get(name)]
        if tag == "svg" and not (given.get("aria-label") or given.get("aria-hidden")):
            self.unnamed += 1

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in WITHOUT_END:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory):
    weights = made.weights(tmp_path_factory.mktemp("weights"))
    return FaceAnalyzer(device="cpu", detector="none", precision="fp32", weights=weights)


def result_of(dataset, found, analyzer, seen=None, reference=False):
    measured = evaluation.measure(dataset, found, Predictor(analyzer, "labels"), "data/set", None, 0)
    measured = replace(measured, seen=seen)
    suspected = crosschecking._suspects(measured)
    judged = crosschecking._judge(measured, suspected) if reference else None
    return CrossCheck(measured, suspected, made.faults_of(dataset), judged)


def expression_result(analyzer, **columns):
    """Give the cross-check of a made set of 70 labelled faces, one of them with a hostile name."""
    random = np.random.default_rng(0)
    labels = [EXPRESSIONS[k % 7] for k in range(70)]
    dataset = made.expression_set([*labels, "contempt", None], **columns)
    dataset.sources[3] = '<script>alert("3")</script>.png'
    found = made.predictions_of(dataset, scores=random.dirichlet(np.ones(7), 72))
    found.box_scores[5], found.scores[5], found.points[5], found.boxes[5] = (np.nan,) * 4
    return result_of(dataset, found, analyzer, seen=np.arange(72) < 9)


def point_result(analyzer):
    """Give the cross-check of a made set of 30 colour pictures with points, one face of them shifted."""
    dataset = made.point_set(
        30, load=lambda place: np.dstack([made.picture(place + k, 120) for k in range(3)])
    )
    predicted = dataset.points + np.random.default_rng(0).normal(0, 0.5, dataset.points.shape)
    dataset.points[4] += 20
    return result_of(dataset, made.predictions_of(dataset, points=predicted), analyzer)


def test_every_file_is_written_and_fits_the_result(analyzer, tmp_path):
    result = expression_result(analyzer)
    assert write_report(result, tmp_path / "out") == tmp_path / "out" / "report.html"
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "predictions.jsonl", "predictions.csv", "suspects.csv", "summary.json"}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == json.loads(result.to_json())
    with (tmp_path / "out" / "suspects.csv").open() as file:
        table = csv.DictReader(file)
        assert tuple(table.fieldnames) == SUSPECT_COLUMNS
        rows = list(table)
    assert [int(row["rank"]) for row in rows] == list(range(1, 72))
    assert {row["task"] for row in rows} == {"expression"}
    with (tmp_path / "out" / "predictions.csv").open() as file:
        samples = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert len(samples) == len(lines) == 72
    assert samples[5]["predicted"] == ""
    assert lines[5]["faces"] == []
    for sample, line in zip(samples, lines, strict=True):
        for face in line["faces"]:
            assert sample["predicted"] == face["expression"]["label"]
            assert float(sample["nose_tip_x"]) == pytest.approx(face["keypoints"]["nose_tip"][0], abs=0.01)


def test_predictions_of_another_run_are_replaced_and_its_own_stay(analyzer, tmp_path):
    (tmp_path / "predictions.jsonl").write_text("from before")
    result = point_result(analyzer)
    write_report(result, tmp_path)
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 30
    (tmp_path / "predictions.jsonl").write_text("by the run itself")
    write_report(replace(result, journal=tmp_path / "predictions.jsonl"), tmp_path)
    assert (tmp_path / "predictions.jsonl").read_text() == "by the run itself"


def test_the_page_stands_alone_and_is_sound(analyzer):
    for result in (expression_result(analyzer), point_result(analyzer)):
        text = page(result)
        read = Page(text)
        assert len(set(read.ids)) == len(read.ids)
        assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in read.links)
        assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)
        assert not re.search(r"https?://|@import|<script|url\((?!#)", text)
        assert read.unnamed == 0
        assert "nan" not in read.text.lower().split()
        assert len(text) < 3_000_000


def test_names_from_the_data_are_text_and_nothing_else(analyzer):
    result = expression_result(analyzer)
    result = replace(
        result, evaluation=replace(result.evaluation, skipped=(Skipped(1, "<b>x</b>", "bad & broken <i>"),))
    )
    text = page(result)
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "bad &amp; broken &lt;i&gt;" in text
    assert '<script>alert("3")' not in text


def test_what_is_read_aloud_names_files_as_they_are(analyzer):
    for result in (expression_result(analyzer), point_result(analyzer)):
        result.dataset.sources[:], labels = "R&D.png", result.dataset.labels
        if labels is not None:
            labels[labels == "contempt"] = "R&D"
        text = page(result)
        assert "Face of R&amp;D.png" in text
        assert "&amp;amp;" not in text


def test_the_page_says_what_must_be_known(analyzer):
    text = Page(page(expression_result(analyzer))).text
    assert "9 of these 72 samples were in the training data" in text
    assert "contempt (1)" in text
    assert "In 1 picture no face was found" in text
    assert "p is the answer of the head that learnt from FER+'s ten taggers" in text
    points = Page(page(point_result(analyzer))).text
    assert "of the distance of the eyes from the labelled ones" in points
    assert "shifted" in points
    assert "no expression labels" in points


def test_the_judgement_of_independent_taggers_is_shown(analyzer):
    votes = np.zeros((72, 10), np.uint8)
    votes[:, 1], votes[::2, 0] = 4, 6
    result = expression_result(analyzer, votes=votes)
    judged = crosschecking._judge(result.evaluation, result.suspects)
    text = Page(page(replace(result, reference=judged))).text
    assert "Judged by independent taggers" in text
    assert f"{judged.pooled_auroc:.3f}" in text


def test_sets_without_labels_or_faces_have_a_page_too(analyzer):
    unlabelled = made.made_set(5)
    nothing = made.predictions_of(unlabelled)
    for column in (nothing.box_scores, nothing.boxes, nothing.points, nothing.scores, nothing.sigma):
        column[:] = np.nan
    for found in (made.predictions_of(unlabelled), nothing):
        assert "no labels" in Page(page(result_of(unlabelled, found, analyzer))).text
    pointed = made.point_set(4)
    missed = made.predictions_of(pointed)
    for column in (missed.box_scores, missed.boxes, missed.points, missed.scores, missed.sigma):
        column[:] = np.nan
    assert "4 pictures no face was found" in Page(page(result_of(pointed, missed, analyzer))).text
    one = made.expression_set(["happy"])
    assert "1 label" in Page(page(result_of(one, made.predictions_of(one), analyzer))).text


def test_tiles_show_the_face_with_its_points(analyzer):
    result = point_result(analyzer)
    text = page(result)
    tile = text[text.index('<figure class="tile">') :].partition("</figure>")[0]
    assert tile.count('class="labelled"') == tile.count('class="predicted"') == 15
    embedded = re.search(r"base64,([^\"]+)", tile)
    shown = Image.open(io.BytesIO(base64.b64decode(embedded[1])))
    assert shown.width == shown.height <= 160
    assert shown.mode == "RGB"
    box = re.search(r'viewBox="-0.5 -0.5 (\d+) (\d+)"', tile)
    assert (int(box[1]), int(box[2])) == shown.size
    places = [float(x) for x in re.findall(r'class="predicted" cx="(-?[\d.]+)"', tile)]
    assert all(-1 < x < shown.width for x in places)


def test_charts_take_their_colours_from_the_page():
    figure = plots.reliability(np.array([3.0, 5.0]), np.array([0.3, 0.8]), np.array([0.2, 0.9]))
    text = chart(figure, "one", 'a "chart"', "below")
    assert 'aria-label="a &quot;chart&quot;"' in text
    assert "var(--predicted)" in text
    assert plots.PREDICTED not in text
    assert "xmlns" not in text
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(re.findall(r'id="([^"]+)"', text))
    assert chart(figure, "one", "a") == chart(figure, "one", "a")


def test_a_page_is_the_same_each_time(analyzer):
    result = point_result(analyzer)
    assert page(result) == page(result)
