"""Pages as a browser shows them: not blank, light and dark, no wider than the window, and nothing in them runs."""

import functools
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import chain, hostile

import qprune

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip
DARK = "--blink-settings=preferredColorScheme=0"

# shows the page in a frame of a width, and writes what it finds there into its own document
PROBE = """<!DOCTYPE html><iframe id="it" width="{width}" height="3000" style="border: 0" srcdoc="{page}"></iframe>
<pre id="found"></pre><script>
const frame = document.getElementById("it");
const look = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  const seen = (element) => {{ const box = element.getBoundingClientRect(); return [box.width, box.height]; }};
  document.getElementById("found").textContent = JSON.stringify({{
    title: page.title, width: root.scrollWidth, scripts: page.scripts.length, overflow: page.body.scrollWidth,
    figures: [...page.querySelectorAll("section > figure svg, body > figure svg")].map(seen),
    pictures: [...page.images].map((image) => image.naturalWidth), owned: String(frame.contentWindow.owned),
  }});
}};
frame.addEventListener("load", look);
</script>"""


def chromium(folder: Path, *arguments: str) -> str:
    profile = f"--user-data-dir={folder / 'profile'}"
    found = subprocess.run(
        [BROWSER, *FLAGS, profile, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return found.stdout


def screenshot(page: Path, folder: Path, width: int, *flags: str) -> np.ndarray:
    file = folder / f"{width}{len(flags)}.png"
    chromium(folder, *flags, f"--screenshot={file}", f"--window-size={width},2400", page.as_uri())
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def probed(page: Path, folder: Path, width: int) -> dict:
    probe = folder / "probe.html"
    probe.write_text(PROBE.format(width=width, page=html.escape(page.read_text(encoding="utf-8"))), encoding="utf-8")
    document = chromium(folder, "--virtual-time-budget=5000", "--dump-dom", probe.as_uri())
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', document, re.DOTALL)[1]))


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
def test_a_page_is_bright_or_dark_as_the_reader_likes_it_and_figures_can_be_read_in_both(tmp_path, name):
    light, dark = (screenshot(pages()[name], tmp_path, 1200, *flags) for flags in ((), (DARK,)))
    for image, is_dark in ((light, False), (dark, True)):
        paper = np.median(image.reshape(-1, 3), axis=0).mean()
        assert paper < 40 if is_dark else paper > 240
        contrast = np.abs(image.mean(axis=2) - paper)
        assert (contrast > 120).mean() > 0.002  # words and lines that stand out from the paper
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize("flags", [(), (DARK,)], ids=["light", "dark"])
def test_words_in_a_figure_stand_out_from_the_paper(tmp_path, flags):
    image = screenshot(pages()["comparison"], tmp_path, 1200, *flags)[320:900].mean(axis=2)  # below the table
    contrast = np.abs(image - np.median(image))
    assert (contrast > 150).mean() > 0.003


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_its_window(tmp_path, name, width):
    found = probed(pages()[name], tmp_path, width)
    assert found["width"] <= width
    assert found["overflow"] <= width


def test_figures_are_there_and_wide_enough_to_be_read(tmp_path):
    narrow, wide = (probed(pages()["run"], tmp_path, width)["figures"] for width in (400, 1200))
    assert len(narrow) == len(wide) == 3
    assert all(width >= 300 and height >= 150 for width, height in (*narrow, *wide))
    assert all(width <= 1000 for width, _ in wide)


def test_nothing_in_a_page_runs_and_its_title_stays(tmp_path):
    found = probed(pages()["hostile"], tmp_path, 1200)
    assert (found["title"], found["scripts"], found["pictures"]) == ("<i>net", 0, [])


def test_a_script_that_gets_into_a_page_is_not_run(tmp_path):
    page = tmp_path / "it.html"
    source = pages()["run"].read_text(encoding="utf-8")
    page.write_text(source.replace("<footer>", "<script>document.title = 'owned'</script><footer>"), encoding="utf-8")
    found = probed(page, tmp_path, 1200)
    assert (found["title"], found["scripts"]) == ("net/w4", 1)
