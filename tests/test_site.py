from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from facekit import errors

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium")
LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The documentation as mkdocs builds it; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


class Loads(HTMLParser):
    """What a page loads by itself."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("rel") not in ("canonical", "next", "prev"):
            self.addresses += [values.get(LOADING.get(tag, "")) or ""]


def test_pages_load_nothing_from_elsewhere(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) > 15
    for page in pages:
        outside = [address for address in Loads(page).addresses if re.match(r"(https?:)?//", address)]
        assert not outside, page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text()), sheet


def test_every_error_is_explained():
    page = (ROOT / "docs" / "errors.md").read_text()
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) > 5
    for kind in kinds:
        assert f"`{kind.__name__}`" in page
        natural = kind.__bases__[-1].__name__
        if kind is not errors.FacekitError:
            assert re.search(rf"── {kind.__name__} +\({natural}\)", page)
            assert f"| `{kind.__name__}` | " in page


def test_the_interface_is_described(site):
    page = (site / "api.html").read_text()
    for name in ("analyzer.FaceAnalyzer", "results.Faces", "training.train", "errors.ProcessError"):
        assert f'id="facekit.{name}"' in page
    assert "largest first" in page


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="the browser `chromium` is not installed")
def test_pages_fit_a_phone_and_can_be_searched_from_the_file_system(site):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
        asked, wrong = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        for file in sorted({*site.glob("*.html")} - {site / "404.html"}):  # which servers send
            page.goto(file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, file
        page.goto((site / "index.html").as_uri())
        page.click("label[for=__search].md-header__button")
        page.keyboard.type("mirroring", delay=20)
        page.locator(".md-search-result__item").first.wait_for()
        assert page.locator("a.md-search-result__link[href*=coordinates]").count()
        browser.close()
    assert not wrong
    assert {address.partition(":")[0] for address in asked} <= {"file", "data", "blob"}
