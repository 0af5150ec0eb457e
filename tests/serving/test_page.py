from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import PATIENCE, encoded, process

from facekit import KEYPOINTS

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="the browser `chromium` is not installed"),
]


@pytest.fixture(scope="module")
def camera_clip(tmp_path_factory, portrait) -> Path:
    """What the webcam sees: a person, as a Motion JPEG of 640x480."""
    picture = Image.open(io.BytesIO(portrait)).crop((0, 0, 512, 384)).resize((640, 480))
    path = tmp_path_factory.mktemp("camera") / "person.mjpeg"
    path.write_bytes(encoded(np.asarray(picture), "JPEG") * 10)
    return path


@pytest.fixture(scope="module")
def browser(camera_clip) -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={camera_clip}",
            ],
        )
        yield started
        started.close()


@pytest.fixture
def page(browser, running) -> Iterator:
    """The page, fresh; a test fails if the page reports an error or asks another server for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    context.set_default_timeout(PATIENCE * 1000)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=running.address)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda told: faults.append(told.text) if "Content Security" in told.text else None)
    opened.on(
        "request",
        lambda asked: None if asked.url.startswith((running.address, "blob:")) else faults.append(asked.url),
    )
    opened.goto(running.address)
    opened.wait_for_selector("#about:not(:empty)")
    yield opened
    context.close()
    assert faults == []


def choose(page, data: bytes, name: str = "picture.jpg") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": data})


def two_people(portrait: bytes) -> bytes:
    one = np.asarray(Image.open(io.BytesIO(portrait)))
    return encoded(np.concatenate([one, one[:, ::-1]], 1), "JPEG")


def test_the_sample_shows_box_points_and_probabilities(page):
    page.click("#sample")
    page.wait_for_selector(".card")
    assert re.fullmatch(r"One face: happy \d+%\.", page.inner_text("#status"))
    assert page.locator(".face .box").count() == 1
    names = page.locator(".point").evaluate_all("points => points.map(point => point.dataset.name)")
    assert names == [*KEYPOINTS]
    bars = page.locator(".scores i").evaluate_all(
        "bars => bars.map(bar => bar.style.getPropertyValue('--share'))"
    )
    written = page.locator(".scores span").all_inner_texts()
    assert bars == written
    assert 97 <= sum(int(share.rstrip("%")) for share in written) <= 103
    assert page.inner_text(".top-score >> nth=0") == "happy"
    # What is drawn stands where the answer says, on the screen too.
    answer = json.loads(page.text_content("#json"))
    picture, box = (page.locator(css).bounding_box() for css in ("#picture", ".face .box"))
    scale = picture["width"] / answer["width"]
    x0, y0, x1, _ = answer["faces"][0]["box"]
    assert box["x"] - picture["x"] == pytest.approx(x0 * scale, abs=4)
    assert box["y"] - picture["y"] == pytest.approx(y0 * scale, abs=4)
    assert box["width"] == pytest.approx((x1 - x0) * scale, abs=8)


def test_names_of_points_show_on_hover_and_by_keyboard(page, portrait):
    choose(page, portrait)
    page.wait_for_selector(".card")
    page.hover('[data-name="nose_tip"] .dot')
    assert page.inner_text("#tip").startswith("nose tip: ")
    page.mouse.move(5, 5)
    assert page.is_hidden("#tip")
    page.focus(".face")
    assert page.locator(".face").get_attribute("aria-label").startswith("Face 1: happy")
    assert "marked" in page.locator(".card").get_attribute("class")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#status").startswith("right eye center: ")  # what a screen reader says
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#tip").startswith("mouth center bottom lip: ")
    page.keyboard.press("Escape")
    assert page.is_hidden("#tip")
    page.uncheck("#show-points")
    assert page.locator(".point").first.is_hidden()


def test_everything_can_be_reached_by_keyboard(page, portrait):
    choose(page, portrait)
    page.wait_for_selector(".card")
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(e => e.id || e.getAttribute('class')?.split(' ')[0] || e.localName)(document.activeElement)"
            )
        )
    order = ["skip", "a", "face", "choose", "sample", "webcam", "show-points", "download", "copy", "summary"]
    assert [name for name in reached if name in order][: len(order)] == order


def test_several_faces_are_listed_numbered_and_marked_together(page, portrait):
    choose(page, two_people(portrait))
    page.wait_for_selector(".card")
    assert page.locator(".card").count() == page.locator(".face").count() == 2
    assert page.inner_text("#status").startswith("2 faces: 1 happy")
    page.hover(".card >> nth=1")
    marked = page.locator(".face").evaluate_all(
        "faces => faces.map(face => face.classList.contains('marked'))"
    )
    assert marked == [False, True]


def test_pasted_and_dropped_pictures_are_analysed(page, portrait):
    give = """([kind, data]) => {
        const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
        const files = new DataTransfer();
        files.items.add(new File([bytes], "given.jpg", { type: "image/jpeg" }));
        const event = kind === "paste"
            ? new ClipboardEvent(kind, { clipboardData: files, bubbles: true })
            : new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    data = base64.b64encode(portrait).decode()
    for kind in ("paste", "drop"):
        page.evaluate(give, [kind, data])
        page.wait_for_selector(".card")
        assert "happy" in page.inner_text("#status")
        choose(page, b"no picture")
        page.wait_for_selector("#message:visible")
        assert page.locator(".card").count() == 0


def test_failures_are_told_clearly(page, portrait):
    choose(page, encoded(np.full((200, 300, 3), 120, np.uint8), "JPEG"))
    page.locator("#status", has_text="No face found").wait_for()
    assert page.is_hidden("#message")
    choose(page, b"just text", "notes.txt")
    page.wait_for_selector("#message:visible")
    assert page.inner_text("#message").startswith("This cannot be read as a picture")
    choose(page, bytes(10_000_001), "huge.jpg")
    page.locator("#message", has_text="This file is too large").wait_for()
    assert "limit is 10 MB" in page.inner_text("#message")
    page.route("**/v1/analyze", lambda route: route.abort())
    choose(page, portrait)
    page.locator("#message", has_text="does not answer").wait_for()
    page.unroute("**/v1/analyze")
    choose(page, portrait)
    page.wait_for_selector(".card")
    assert page.is_hidden("#message")


def test_the_answer_can_be_copied_and_the_picture_downloaded(page, portrait):
    choose(page, portrait, "person.jpg")
    page.wait_for_selector(".card")
    page.click("#copy")
    page.locator("#copy", has_text="Copied").wait_for()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["faces"][0]["expression"]["label"] == "happy"
    with page.expect_download() as waiting:
        page.click("#download")
    assert waiting.value.suggested_filename == "person-faces.jpg"
    drawn = np.asarray(Image.open(waiting.value.path()).convert("RGB")).astype(int)
    plain = np.asarray(Image.open(io.BytesIO(portrait))).astype(int)
    assert drawn.shape == plain.shape
    x0, y0, x1, y1 = (round(edge) for edge in copied["faces"][0]["box"])
    changed = np.abs(drawn - plain).max(2) > 25
    assert changed[y0, x0:x1].mean() > 0.9  # the box
    assert changed[y1 + 20 :].mean() < 0.01


def test_the_webcam_is_analysed_live_and_its_last_picture_stays(page):
    page.click("#webcam")
    page.locator(".card h3", has_text="happy").first.wait_for()
    assert page.is_visible("#video")
    assert page.get_attribute("#webcam", "aria-pressed") == "true"
    first = page.text_content("#json")
    assert json.loads(first)["width"] == 640
    page.locator(".face").evaluate_all("faces => faces.forEach((face) => (face.dataset.old = 1))")
    page.wait_for_selector(".face:not([data-old])")  # the next frame's
    page.click("#webcam")
    page.wait_for_selector("#picture:visible")
    assert page.is_hidden("#video")
    assert page.locator(".card").count() >= 1
    assert page.evaluate("document.querySelector('#video').srcObject") is None


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_screens_and_can_be_read(page, portrait, width, scheme):
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    choose(page, portrait)
    page.wait_for_selector(".card")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.locator("button:visible").evaluate_all(
        "all => all.filter(b => b.getBoundingClientRect().height < 44).length"
    )
    assert small == 0
    assert page.evaluate(CONTRASTS) >= 4.5


CONTRASTS = """() => {
    const light = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const { backgroundColor: color } = getComputedStyle(node);
            if (!/, 0\\)$/.test(color)) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const ratios = [...document.querySelectorAll("h1, h2, h3, b, p, button, a, label, dt, dd span, pre")]
        .filter((node) => node.checkVisibility() && node.textContent.trim() && !node.closest(".skip, .view"))
        .map((node) => [light(getComputedStyle(node).color), light(ground(node))])
        .map(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
    return Math.min(...ratios);
}"""


def test_the_interface_is_shown_offline(page, running):
    page.goto(f"{running.address}/docs")
    page.wait_for_selector("#paths article")
    assert page.locator("#paths h2").all_inner_texts()[0].startswith("POST")
    assert page.locator("#FaceAnswer").count() == 1


def test_a_token_is_asked_for_and_kept_in_the_tab(browser, small_weights, portrait):
    with process("--token", "s3cret", "--detector", "none", "--weights", small_weights) as service:
        context = browser.new_context()
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.goto(service.address)
        choose(page, portrait)
        page.wait_for_selector("#key[open]")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#key[open]")
        page.fill("#token", "s3cret")
        page.keyboard.press("Enter")
        page.wait_for_selector(".card")
        choose(page, portrait)
        page.wait_for_selector(".card")
        assert page.locator("#key[open]").count() == 0
        context.close()
