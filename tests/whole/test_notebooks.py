"""The example notebooks run from top to bottom: as they stand, in a kernel, and one with a few images."""

import shutil
from pathlib import Path

import nbformat
import pytest
import torch

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def named(path):
    return path.stem


def cells(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["choose_a_budget", "digits_in_three_minutes", "your_own_network"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_a_notebook_is_stored_without_results_and_begins_with_words(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


def test_the_code_about_digits_runs_on_a_few_images(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    base = tmp_path / "specs/base/digits.toml"
    base.write_text(base.read_text().replace('name = "digits"\n', 'name = "digits"\ntrain_images = 135\n', 1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QPRUNE_RUNS", raising=False)
    torch.manual_seed(0)
    names = {}
    for source in cells(ROOT / "examples/digits_in_three_minutes.ipynb"):
        exec(compile(source, "notebook", "exec"), names)
    assert (tmp_path / "runs/digits/a75_w4a4/report.html").is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of the kernel's packages are not ours
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_a_notebook_runs_in_a_kernel_and_shows_tables_and_figures(path, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.delenv("QPRUNE_RUNS", raising=False)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.data.get("text/html", "") for cell in notebook.cells for output in cell.get("outputs", ())
             if "data" in output]  # fmt: skip
    assert sum("<table" in html for html in shown) >= 2
    assert any("<svg" in html for html in shown)
