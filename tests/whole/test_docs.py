"""What README and docs say works: their Python runs, their TOML reads, their commands and options exist."""

import importlib.util
import re
import shutil
import tomllib
from inspect import isclass
from pathlib import Path

import attrs
import pytest
import torch

import qprune
from qprune import spec
from qprune.cli import main
from qprune.schedules.tables import KINDS
from qprune.spec import ModelSpec, Rules, read_spec
from qprune.spec.keys import keys_of

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts),
]
PICTURES = importlib.util.module_from_spec(
    importlib.util.spec_from_file_location("pictures", ROOT / "docs/pictures.py")
)
PICTURES.__spec__.loader.exec_module(PICTURES)
TRAIN = {"length": "1ep", "batch": 64, "optimizer": {"name": "sgd", "lr": 0.05}}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


SNIPPETS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python"))
]


@pytest.fixture(scope="module")
def few_images(tmp_path_factory):
    """A folder for all snippets together, whose ./specs are those of the project with a ninth of the images."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "specs", folder / "specs")
    base = folder / "specs/base/digits.toml"
    text = base.read_text(encoding="utf-8")
    base.write_text(text.replace('name = "digits"\n', 'name = "digits"\ntrain_images = 135\n', 1), encoding="utf-8")
    return folder


# all of them again from the last to the first, where the files of the others lie
AGAIN = [pytest.param(*each.values, id=f"{each.id}-again", marks=pytest.mark.slow) for each in reversed(SNIPPETS)]


# in the order of the pages
@pytest.mark.parametrize("snippet", [*SNIPPETS, *AGAIN])
def test_every_snippet_runs_by_itself_and_again(snippet, few_images, monkeypatch):
    monkeypatch.chdir(few_images)
    monkeypatch.delenv("QPRUNE_RUNS", raising=False)
    torch.manual_seed(0)
    exec(compile(snippet, "snippet", "exec"), {})
    assert all(Path(picture).is_file() for picture in re.findall(r'"(\w+\.png)"', snippet))


def test_readme_has_the_three_ways():
    assert len(blocks(ROOT / "README.md", "python")) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_their_options_exist(page):
    text = page.read_text(encoding="utf-8").replace("`qprune.", "`")
    for command, rest in re.findall(r"(?<![\w./-])qprune ([a-z]+)\b([^`|\n]*)", " ".join(re.findall(r"`[^`]+`", text))):
        assert command in main.commands, f"qprune {command}"
        options = {option for parameter in main.commands[command].real.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, f"qprune {command}{rest}"


def test_readme_names_every_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in main.commands if f"`qprune {name}" not in text]


def anchors(page):
    """The anchors of a page's headings, as forges and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8"))
    for path, _, anchor in (link.partition("#") for link in links):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_lines_fit_an_editor(page):
    assert not [line for line in page.read_text(encoding="utf-8").splitlines() if len(line) >= 120]


def listed(page):
    """The pages that a page's tables of contents lead to, and those of these."""
    found = []
    for block in blocks(page, r"{toctree}"):
        below = [(page.parent / line).with_suffix(".md") for line in block.split() if not line.startswith(":")]
        found += [each for each in below if each.is_file()]
    return found + [deeper for each in found for deeper in listed(each)]


def test_every_page_is_in_a_table_of_contents_once():
    pages = [ROOT / "docs/index.md", *listed(ROOT / "docs/index.md")]
    assert sorted(pages) == sorted(page for page in PAGES if page.parent != ROOT)


@pytest.mark.parametrize("page", sorted((ROOT / "docs/tutorial").glob("*.md")), ids=lambda page: page.stem)
def test_a_page_of_the_tutorial_shows_a_picture_that_its_own_snippets_make(page):
    (picture,) = PICTURES.pictures_of(page)
    assert (
        f'savefig("{picture.name}")' in (text := "".join(PICTURES.snippets_of(page)))
        or f'plot("{picture.name}")' in text
    )
    assert 1_000 < picture.stat().st_size < 200_000


def test_the_page_about_specs_shows_one_that_reads():
    table = tomllib.loads(blocks(ROOT / "docs/reference/specs.md", "toml")[0])
    assert table.pop("extends").endswith(".toml")
    read_spec(table)


def test_the_page_about_a_network_of_ones_own_shows_a_spec_that_reads():
    (text,) = blocks(ROOT / "docs/howto/own_network.md", "toml")
    spec = read_spec(tomllib.loads(text))
    assert spec.model == ModelSpec("torchvision/resnet18", weights="DEFAULT")


def test_the_page_about_specs_shows_layers_that_build():
    (text,) = [
        block for block in blocks(ROOT / "docs/reference/specs.md", "toml") if block.startswith("[[model.layers]]")
    ]
    table = tomllib.loads(text)
    net = qprune.build({"data": {"name": "digits"}, "model": table["model"], "train": TRAIN})
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


SPECS = [value for value in vars(spec).values() if isclass(value) and attrs.has(value) and value is not Rules]


@pytest.mark.parametrize("name", [*(cls.__name__ for cls in SPECS), *(kind for kind in KINDS if kind != "inherited")])
def test_the_page_about_specs_has_a_table_of_every_kind_of_keys(name):
    assert f"```{{spec-keys}} {name}\n" in (ROOT / "docs/reference/specs.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("cls", [*SPECS, *KINDS.values()], ids=lambda cls: cls.__name__)
def test_every_key_of_a_spec_says_what_it_means(cls):
    assert not [key.name for key in keys_of(cls).values() if len(key.about.split()) < 2]


def test_every_room_that_people_use_has_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/reference/api").glob("*.md"))
    assert not [room for room in qprune._ROOMS if f".. public-names:: qprune.{room}\n" not in text]
