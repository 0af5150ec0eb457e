from __future__ import annotations

import http.client
import io
import json
import logging
import re
import socket
import threading
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import made
import pytest
from served import encoded, half_a_request, until

from facekit import KEYPOINTS, FaceAnalyzer
from facekit.serving.settings import Limits


def header_of(width: int, height: int) -> bytes:
    """Give a PNG file that says to be of that size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    head = chunk(b"IHDR", size + bytes([1, 0, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def raw(data: bytes, **headers: str) -> dict[str, object]:
    return {"content": data, "headers": {"content-type": "image/png", **headers}}


def test_answers_are_those_of_the_analyzer(serve, png, small_weights):
    expected = FaceAnalyzer(detector="none", weights=small_weights)(png).to_dict()
    with serve().client() as client:
        (alone,) = client.post("/v1/analyze", **raw(png)).json()
        untyped = client.post("/v1/analyze", content=png).json()
        several = client.post("/v1/analyze", files=[("a", ("one.png", png)), ("b", ("two.png", png))]).json()
    assert untyped == [alone]
    assert [answer["image"] for answer in several] == ["one.png", "two.png"]
    for answer in (alone, *several):
        assert answer.keys() == expected.keys()
        (face,), (wanted,) = answer["faces"], expected["faces"]
        assert face["box"] == wanted["box"]
        assert [*face["keypoints"]] == [*KEYPOINTS]
        for name in KEYPOINTS:
            assert face["keypoints"][name] == pytest.approx(wanted["keypoints"][name], abs=0.2)
        scores = face["expression"]["scores"]
        assert scores == pytest.approx(wanted["expression"]["scores"], abs=2e-3)  # in bfloat16


def test_many_clients_at_once_get_their_own_pictures_answers(serve):
    pictures = [encoded(made.picture(seed, 48 + seed)) for seed in range(24)]
    served = serve()

    def ask(picture: bytes) -> tuple[int, int]:
        with served.client() as client:
            (answer,) = client.post("/v1/analyze", **raw(picture)).json()
            return answer["width"], answer["height"]

    with ThreadPoolExecutor(12) as pool:
        sizes = [*pool.map(ask, pictures)]
    assert sizes == [(48 + seed, 48 + seed) for seed in range(24)]
    with served.client() as client:
        figures = client.get("/metrics").text
    assert re.search(r'facekit_pictures_total{worker="\d+",outcome="read"} 24', figures)
    batches = re.search(r"facekit_batch_pictures_count{.*} (\d+)", figures)
    assert batches
    assert int(batches[1]) < 25  # the warm-up is one


def test_a_broken_picture_is_an_error_alone_and_told_of_in_its_place_among_others(serve, png):
    broken = png[: len(png) // 2]
    with serve().client() as client:
        for body in (b"hello", broken):
            refused = client.post("/v1/analyze", **raw(body))
            assert (refused.status_code, [*refused.json()]) == (400, ["error"])
        told = client.post("/v1/analyze", files=[("a", ("a.png", broken)), ("b", ("b.png", png))])
        lone = client.post("/v1/analyze", files={"a": ("a.txt", b"hello")})
    first, second = told.json()
    assert told.status_code == lone.status_code == 200
    assert (first["image"], first["faces"], first["width"], first["height"]) == ("a.png", [], None, None)
    assert "damaged" in first["error"]
    assert second["error"] is None
    assert len(second["faces"]) == 1
    assert lone.json()[0]["error"].startswith("not a picture")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(serve, png):
    bomb = header_of(60_000, 60_000)
    with serve().client() as client:
        answer = client.post("/v1/analyze", **raw(bomb))
        in_form = client.post("/v1/analyze", files={"a": ("a.png", bomb)})
        among = client.post("/v1/analyze", files=[("a", ("a.png", bomb)), ("b", ("b.png", png))])
    assert answer.status_code == in_form.status_code == 422
    assert "3,600,000,000 pixels" in answer.json()["error"]
    assert [bool(told["error"]) for told in among.json()] == [True, False]


def test_too_large_bodies_are_refused_announced_or_not(serve):
    def pieces():
        for _ in range(30):
            yield bytes(1000)

    with serve(limits=Limits(body=20_000)).client() as client:
        for body in (bytes(20_001), pieces()):
            answer = client.post("/v1/analyze", **raw(body))
            assert answer.status_code == 413
            assert "20,000 bytes" in answer.json()["error"]
        assert client.post("/v1/analyze", **raw(bytes(20_000))).status_code == 400


def test_too_many_pictures_are_refused(serve, png):
    with serve(limits=Limits(pictures=2)).client() as client:
        counts = {n: client.post("/v1/analyze", files=[("p", (f"{n}.png", png))] * n) for n in (2, 3)}
    assert counts[2].status_code == 200
    assert counts[3].status_code == 413


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"no boundary"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nnever ends',
        ),
        ("image/png", b""),
    ],
)
def test_what_holds_no_picture_is_a_bad_request(serve, kind, body):
    with serve().client() as client:
        answer = client.post("/v1/analyze", content=body, headers={"content-type": kind})
    assert (answer.status_code, [*answer.json()]) == (400, ["error"])


def test_nothing_is_answered_before_the_models_are_ready(serve, png, monkeypatch):
    from facekit.serving import service

    go, make = threading.Event(), service._make_analyzer

    def make_late(config):
        assert go.wait(60)
        return make(config)

    monkeypatch.setattr(service, "_make_analyzer", make_late)
    with serve(ready=False).client() as client:
        try:
            assert client.get("/healthz").status_code == 200
            for answer in (client.get("/readyz"), client.post("/v1/analyze", **raw(png))):
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) > 0
        finally:
            go.set()
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/v1/analyze", **raw(png)).status_code == 200


def test_more_requests_than_the_limit_are_told_when_to_come_again(serve, png):
    served = serve(limits=Limits(requests=2))
    halves = [half_a_request(served.port, len(png), png[:10]) for _ in range(2)]
    with served.client() as client:
        until(lambda: served.service.metrics.active == 2)
        busy = client.post("/v1/analyze", **raw(png))
        assert client.get("/healthz").status_code == 200
        assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
        for half in halves:
            half.send(png[10:])
            assert half.getresponse().status == 200
            half.close()
        assert client.post("/v1/analyze", **raw(png)).status_code == 200


def test_slow_uploads_and_long_work_end(serve, png):
    served = serve(limits=Limits(upload_seconds=0.3, seconds=1.0))
    slow = half_a_request(served.port, len(png), png[:10])
    answer = slow.getresponse()
    assert answer.status == 408
    slow.close()
    go = threading.Event()
    analyse = served.service._batcher._analyse
    served.service._batcher._analyse = lambda uploads: go.wait(60) and analyse(uploads)
    with served.client() as client:
        late = client.post("/v1/analyze", **raw(png))
        go.set()
        assert (late.status_code, late.headers["retry-after"]) == (503, "5")
        assert client.post("/v1/analyze", **raw(png)).status_code == 200


def test_clients_that_leave_in_mid_upload_are_no_faults(serve, png):
    served = serve()
    for _ in range(5):
        half_a_request(served.port, len(png), png[:10]).close()
    with served.client() as client:
        until(lambda: 'path="/v1/analyze",status="499"} 5' in client.get("/metrics").text)
        assert client.post("/v1/analyze", **raw(png)).status_code == 200
        assert 'status="5' not in client.get("/metrics").text
    assert served.service.metrics.active == 0


def test_faults_tell_strangers_nothing_and_the_log_everything(serve, png, caplog):
    served = serve()

    def fail(_uploads):
        raise RuntimeError("the secret path /srv/models")

    served.service._batcher._analyse = fail
    with served.client() as client:
        answer = client.post("/v1/analyze", **raw(png))
    assert answer.status_code == 500
    assert answer.json() == {"error": "the service failed; its log says why"}
    assert "the secret path /srv/models" in caplog.text


def test_the_log_holds_neither_names_nor_contents(serve, png, caplog):
    caplog.set_level(logging.INFO)
    with serve().client() as client:
        client.post("/v1/analyze?who=alice", files={"a": ("alice.png", png)})
        client.post("/v1/analyze", **raw(b"contents of a picture"))
        client.get("/nowhere%0d%0aforged")
    lines = [
        record.getMessage() for record in caplog.records if record.name.startswith(("facekit", "uvicorn"))
    ]
    assert re.fullmatch(r'127.0.0.1 "POST /v1/analyze" 200 \d+ ms', lines[-3])
    assert '"GET /nowhere%0d%0aforged" 404' in lines[-1]
    assert not re.search("alice|contents of", "".join(lines))


def test_uploads_never_touch_the_disk(serve, png, monkeypatch, tmp_path):
    large = encoded(made.picture(0, 1500), "BMP")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))  # writing there would fail
    with serve().client() as client:
        answer = client.post("/v1/analyze", files=[("a", ("a.bmp", large)), ("b", ("b.png", png))])
    assert len(large) > 2_000_000
    assert [told["error"] for told in answer.json()] == [None, None]


def test_the_token_is_asked_for_where_there_is_one(serve, png):
    with serve(token="s3cret-ä").client() as client:
        for shown in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret-ä".encode()}):
            answer = client.post("/v1/analyze", content=png, headers=shown)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for path, status in (
            ("/metrics", 401),
            ("/healthz", 200),
            ("/readyz", 200),
            ("/", 200),
            ("/docs", 200),
        ):
            assert client.get(path).status_code == status
        right = {"authorization": "Bearer s3cret-ä".encode()}
        assert client.post("/v1/analyze", content=png, headers=right).status_code == 200
        lower = {"authorization": "bearer s3cret-ä".encode()}  # the name of a scheme has no case
        assert client.get("/metrics", headers=lower).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 400),
        ({"host": "127.0.0.1.evil.example"}, 400),
        ({"host": "10.0.0.1"}, 400),
        ({"host": "["}, 400),
        ({"host": "localhost:1234"}, 200),
        ({"host": "[::1]:80"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
    ],
)
def test_other_sites_cannot_use_it(one_service, png, headers, status):
    with one_service.client() as client:
        answer = client.post("/v1/analyze", **raw(png, **headers))
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


@pytest.fixture
def one_service(serve):
    return serve()


def test_opened_to_others_any_host_name_will_do(serve):
    with serve(local=False).client() as client:
        assert client.get("/readyz", headers={"host": "faces.example"}).status_code == 200


def test_urls_are_fetched_only_where_allowed_and_never_from_here(serve, png, monkeypatch, caplog):
    with serve().client() as client:
        assert client.post("/v1/analyze", json={"urls": ["http://93.184.216.34/"]}).status_code == 403
    served = serve(allow_urls=True)
    hidden = [
        f"{served.address}/assets/sample.png",
        "http://localhost/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:10.0.0.1]/",
        "http://0/",
        "file:///etc/passwd",
        "ftp://example.org/a.png",
        "/etc/passwd",
    ]
    with served.client() as client:
        for url in hidden:
            answer = client.post("/v1/analyze", json={"urls": [url]})
            assert answer.status_code == 400
            assert answer.json() == {
                "error": f"{url}: cannot be fetched; expected a picture at a public address"
            }
        odd = ["{}", "[]", '"x"', "{", '{"urls": []}', '{"urls": [1]}', '{"urls": "http://example.org"}']
        for body in (*odd, '{"urls": ["http://a\\nforged"]}', '{"urls": ["http://\\ud800"]}'):
            answer = client.post("/v1/analyze", content=body, headers={"content-type": "application/json"})
            assert answer.status_code == 400
        monkeypatch.setattr("facekit.serving.uploads.fetch", lambda _url: png)
        (told,) = client.post("/v1/analyze", json={"urls": ["https://example.org/a.png"]}).json()
    assert (told["image"], len(told["faces"])) == ("https://example.org/a.png", 1)


def zip_of(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder.parent))
    return stream.getvalue()


def test_a_zip_of_labelled_folders_is_cross_checked_and_gone_afterwards(
    serve, tmp_path, monkeypatch, small_weights
):
    from facekit import crosscheck

    folder = made.class_folders(tmp_path / "faces", {"happy": 6, "sad": 4})
    (folder / "sad" / "broken.png").write_bytes(b"broken")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    expected = crosscheck(
        folder, format="class_folders", analyzer=FaceAnalyzer(detector="none", weights=small_weights)
    ).to_dict()
    with serve().client() as client:
        answer = client.post("/v1/crosscheck", content=zip_of(folder))
        in_form = client.post("/v1/crosscheck", files={"archive": ("faces.zip", zip_of(folder))})
        page = client.post("/v1/crosscheck", content=zip_of(folder), headers={"accept": "text/html"})
        refused = client.post("/v1/crosscheck", content=b"no zip")
    assert answer.status_code == 200
    found = answer.json()
    assert found == in_form.json()
    assert found["dataset"] == "upload"
    assert found["expression"]["n"] == expected["expression"]["n"] == 10
    assert found["expression"]["confusion"] == expected["expression"]["confusion"]
    assert [skipped["source"] for skipped in found["skipped"]] == ["faces/sad/broken.png"]
    assert found.keys() == expected.keys()
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert "<h1" in page.text
    assert refused.status_code == 400
    assert str(scratch) not in answer.text + page.text
    assert not any(scratch.iterdir())


def test_cross_checks_are_bounded(serve, tmp_path, monkeypatch):
    data = zip_of(made.class_folders(tmp_path / "faces", {"happy": 3}))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with serve(limits=Limits(archive_entries=2)).client() as client:
        assert client.post("/v1/crosscheck", content=data).status_code == 413
    with serve(limits=Limits(archive_seconds=0.0)).client() as client:
        late = client.post("/v1/crosscheck", content=data)
        assert (late.status_code, "retry-after" in late.headers) == (503, True)
    served = serve()
    with served.client() as client, served.service._crosschecking:
        busy = client.post("/v1/crosscheck", content=data)
        assert (busy.status_code, busy.headers["retry-after"]) == (429, "10")
    until(lambda: not any(scratch.iterdir()))


def test_every_answer_has_its_security_headers(one_service, png):
    with one_service.client() as client:
        answers = [
            client.get("/"),
            client.get("/docs"),
            client.get("/nowhere"),
            client.get("/assets/page.js"),
            client.get("/v1/analyze"),
            client.post("/v1/analyze", **raw(png)),
            client.post("/v1/analyze", **raw(b"x")),
        ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers or "uvicorn" in answer.headers["server"]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 200, 405, 200, 400]
    assert all([*answer.json()] == ["error"] for answer in (answers[2], answers[4]))


def test_the_pages_need_nothing_from_elsewhere():
    folder = resources.files("facekit.serving") / "page"
    files = [file for file in folder.iterdir() if file.is_file()]
    assert {file.name for file in files} >= {"index.html", "docs.html", "style.css", "page.js"}
    for file in files:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|//cdn|url\(", text), file.name
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", text), file.name


def test_the_interface_is_described(one_service, png):
    with one_service.client() as client:
        told = client.get("/openapi.json").json()
        (answer,) = client.post("/v1/analyze", **raw(png)).json()
    assert set(told["paths"]) == {
        "/v1/analyze",
        "/v1/crosscheck",
        "/v1/about",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    schemas = told["components"]["schemas"]
    assert schemas["PictureAnswer"]["properties"].keys() == answer.keys()
    assert schemas["FaceAnswer"]["properties"].keys() == answer["faces"][0].keys()
    assert {"413", "422", "429", "503"} <= told["paths"]["/v1/analyze"]["post"]["responses"].keys()


def test_metrics_are_in_prometheus_format(one_service, png):
    with one_service.client() as client:
        client.post("/v1/analyze", **raw(png))
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    line = re.compile(r'(# (HELP|TYPE) \w+ .+|\w+\{\w+="[^"]*"(,\w+="[^"]*")*\} [0-9.e+]+)')
    lines = answer.text.splitlines()
    assert all(line.fullmatch(one) for one in lines)
    counts = [int(one.rpartition(" ")[2]) for one in lines if one.startswith("facekit_batch_pictures_bucket")]
    assert counts == sorted(counts)


def test_broken_http_harms_nothing(one_service, png):
    for junk in (
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/analyze HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", one_service.port)) as connection:
            connection.sendall(junk)
    with one_service.client() as client:
        assert client.post("/v1/analyze", **raw(png)).status_code == 200


def test_deep_json_is_a_bad_request(serve):
    with serve(allow_urls=True).client() as client:
        deep = '{"urls":' + "[" * 200_000
        answer = client.post("/v1/analyze", content=deep, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert json.loads(answer.text)["error"].startswith("expected")


def test_pictures_can_be_sent_while_the_server_says_continue(one_service, png):
    connection = http.client.HTTPConnection("127.0.0.1", one_service.port, timeout=60)
    connection.request("POST", "/v1/analyze", png, {"Content-Type": "image/png"})
    assert connection.getresponse().status == 200
    connection.close()
