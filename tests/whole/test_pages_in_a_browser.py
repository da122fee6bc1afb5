"""Pages as a browser shows them: not blank, light and dark, no wider than the window, and nothing in them runs."""

import functools
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import chain, hostile

import qprune

webdriver = pytest.importorskip("selenium.webdriver")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no Chromium with its driver on this machine")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip
FOUND = """
const root = document.documentElement;
const size = (element) => { const box = element.getBoundingClientRect(); return [box.width, box.height]; };
return {
    title: document.title, width: root.scrollWidth, scripts: document.scripts.length,
    figures: [...document.querySelectorAll("section > figure svg, body > figure svg")].map(size),
    pictures: [...document.images].map((image) => image.naturalWidth),
};
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def show(browser: webdriver.Chrome, page: Path, width: int, scheme: str = "light") -> dict:
    """Open a page in a window of a width, for a reader who likes it light or dark; what is there then."""
    size = {"width": width, "height": 2400, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    likes = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": likes})
    browser.get(page.as_uri())
    return browser.execute_script(FOUND)


def screenshot(browser: webdriver.Chrome, page: Path, scheme: str) -> np.ndarray:
    show(browser, page, 1200, scheme)
    return np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")).astype(int)


@functools.cache
def pages() -> dict[str, Path]:
    """A page of a run, one of a run with hostile names, and one of runs side by side."""
    root, other = chain(), hostile()
    made = {
        "run": qprune.report("net/w4", root / "pages/run.html", runs=root),
        "hostile": qprune.report(other / "<i>net", other / "pages/hostile.html", data=other / "data"),
        "comparison": qprune.compare("net", runs=root).to_html(root / "pages/comparison.html"),
    }
    return made


PAGES = ("run", "hostile", "comparison")


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_a_page_is_bright_or_dark_as_the_reader_likes_it_and_figures_can_be_read_in_both(browser, name):
    for scheme in ("light", "dark"):
        image = screenshot(browser, pages()[name], scheme)
        paper = np.median(image.reshape(-1, 3), axis=0).mean()
        assert paper < 40 if scheme == "dark" else paper > 240
        contrast = np.abs(image.mean(axis=2) - paper)
        assert (contrast > 120).mean() > 0.002  # words and lines that stand out from the paper
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_in_a_figure_stand_out_from_the_paper(browser, scheme):
    image = screenshot(browser, pages()["comparison"], scheme)[320:900].mean(axis=2)  # below the table
    contrast = np.abs(image - np.median(image))
    assert (contrast > 150).mean() > 0.003


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_its_window(browser, name, width):
    assert show(browser, pages()[name], width)["width"] == width


def test_figures_are_there_and_wide_enough_to_be_read(browser):
    narrow, wide = (show(browser, pages()["run"], width)["figures"] for width in (400, 1200))
    assert len(narrow) == len(wide) == 3
    assert all(width >= 300 and height >= 150 for width, height in (*narrow, *wide))
    assert all(width <= 1000 for width, _ in wide)


def test_nothing_in_a_page_runs_and_its_title_stays(browser):
    found = show(browser, pages()["hostile"], 1200)
    assert (found["title"], found["scripts"], found["pictures"]) == ("<i>net", 0, [])


def test_a_script_that_gets_into_a_page_is_not_run(browser, tmp_path):
    page = tmp_path / "it.html"
    source = pages()["run"].read_text(encoding="utf-8")
    page.write_text(source.replace("<footer>", "<script>document.title = 'owned'</script><footer>"), encoding="utf-8")
    found = show(browser, page, 1200)
    assert (found["title"], found["scripts"]) == ("net/w4", 1)
