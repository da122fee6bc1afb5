"""The trained networks in pretrained/: small, open without anything else, begin others, and are as their cards say."""

import re
import tomllib
from pathlib import Path

import pytest
import torch

import qprune
from qprune.run_record import RunRecord
from qprune.tables import short
from qprune.training.opening import load_model

ROOT = Path(__file__).parents[2]
NETWORKS = sorted(path.parent for path in (ROOT / "pretrained").rglob("model.pt"))
NAMES = [path.relative_to(ROOT / "pretrained").as_posix() for path in NETWORKS]


def test_there_are_some_and_together_they_are_small():
    sizes = [(path / "model.pt").stat().st_size for path in NETWORKS]
    assert 0 < max(sizes) < 2e6
    assert sum(sizes) < 10e6


@pytest.fixture(params=NAMES)
def name(request, monkeypatch):
    """Of a network, seen from the folder of the project."""
    monkeypatch.chdir(ROOT)
    return f"pretrained/{request.param}"


def test_it_opens_and_is_as_its_card_says(name):
    record = RunRecord.open(name)
    card = Path(name, "README.md").read_text(encoding="utf-8")
    net = qprune.load(name).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, *load_model(f"{name}/model.pt")["shape"])).isfinite().all()
    score = float(re.search(rf"{record.monitor} on test images \| ([\d.]+)", card)[1])
    assert score == pytest.approx(record.score, abs=5e-5)
    assert "licence of the images" in card
    assert f'init = "{name}"' in card


def test_a_spec_starts_from_it(name):
    table = tomllib.loads(Path(name, "spec.toml").read_text(encoding="utf-8"))
    table["train"].pop("teacher", None)
    rules = [{"sites": rule["sites"], "schedule": {"kind": "inherited"}} for rule in table.get("prune", [])]
    plan = qprune.plan(table | {"init": name, "prune": rules})
    assert plan.cost["MACs"].endswith(f"-> {short(RunRecord.open(name).facts['costs']['macs_kept'])}")


def test_it_does_not_say_where_the_images_were(name):
    assert RunRecord.open(name).spec.data.root is None
    assert "root" not in tomllib.loads(load_model(f"{name}/model.pt")["spec"])["data"]
