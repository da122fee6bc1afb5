"""What README and docs say works: their Python runs, their TOML reads, their commands and options exist."""

import re
import shutil
import tomllib
from pathlib import Path

import attrs
import pytest
import torch

import qprune
from qprune.cli import main
from qprune.spec import (
    DataSpec,
    LrSpec,
    ModelSpec,
    OptimizerSpec,
    PruneRule,
    QuantizeRule,
    Selector,
    Spec,
    TrainSpec,
    read_spec,
)

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]
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


# in the order of the pages, then all of them again from the last to the first, where the files of the others lie
@pytest.mark.parametrize("snippet", [*SNIPPETS, *reversed(SNIPPETS)])
def test_every_snippet_runs_by_itself_and_again(snippet, few_images, monkeypatch):
    monkeypatch.chdir(few_images)
    monkeypatch.delenv("QPRUNE_RUNS", raising=False)
    torch.manual_seed(0)
    exec(compile(snippet, "snippet", "exec"), {})


def test_readme_has_the_three_ways():
    assert len(blocks(ROOT / "README.md", "python")) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_their_options_exist(page):
    text = page.read_text(encoding="utf-8").replace("`qprune.", "`")
    for command, rest in re.findall(r"(?<![\w./-])qprune ([a-z]+)\b([^`|\n]*)", " ".join(re.findall(r"`[^`]+`", text))):
        assert command in main.commands, f"qprune {command}"
        options = {option for parameter in main.commands[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, f"qprune {command}{rest}"


def test_readme_names_every_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in main.commands if f"`qprune {name}" not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_page_about_specs_shows_one_that_reads():
    table = tomllib.loads(blocks(ROOT / "docs/reference/specs.md", "toml")[0])
    assert table.pop("extends").endswith(".toml")
    read_spec(table)


def test_the_page_about_a_network_of_ones_own_shows_a_spec_that_reads():
    (text,) = blocks(ROOT / "docs/howto/own_network.md", "toml")
    spec = read_spec(tomllib.loads(text))
    assert spec.model == ModelSpec("torchvision/resnet18", weights="DEFAULT")


def test_the_page_about_specs_shows_layers_that_build():
    (text,) = [block for block in blocks(ROOT / "docs/reference/specs.md", "toml") if block.startswith("[[model.layers]]")]
    table = tomllib.loads(text)
    net = qprune.build({"data": {"name": "digits"}, "model": table["model"], "train": TRAIN})
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    "cls",
    [Spec, DataSpec, ModelSpec, TrainSpec, OptimizerSpec, LrSpec, PruneRule, QuantizeRule, Selector],
    ids=lambda c: c.__name__,
)
def test_the_page_about_specs_names_every_key(cls):
    text = (ROOT / "docs/reference/specs.md").read_text(encoding="utf-8")
    keys = {attribute.metadata.get("key", attribute.name) for attribute in attrs.fields(cls)}
    assert not [key for key in keys if not re.search(rf"\b{key}\b", text)]
