"""The page of a run: everything that is at hand is on it, and what is not is said; names of others are text."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser

import pytest
import torch
from few_streets import draw_few_streets
from tiny_runs import DIGITS, FORMULA, IMG, LAYERS, SCRIPT, chain, chain_at, hostile
from torch.utils.data import TensorDataset

import qprune
from qprune.errors import CheckpointError, QpruneError


class Page(HTMLParser):
    """The sections of a page as text, its tags and their attributes."""

    def __init__(self, file):
        super().__init__()
        self.sections, self.tags, self.attributes, self._open = {"": ""}, [], [], ""
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "section":
            self._open = dict(attrs)["id"]
            self.sections[self._open] = ""

    def handle_data(self, data):
        self.sections[self._open] += data

    @property
    def text(self):
        return "\n".join(self.sections.values())


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Of a quantized run with a certificate that was timed."""
    root = chain_at(tmp_path_factory.mktemp("reports"))
    certificate = qprune.export(root / "net/w4", root / "net/w4/model.onnx")
    timed = certificate.to_dict() | {"milliseconds": {"dense": 0.5, "exported": 0.125}}
    (root / "net/w4/model.certificate.json").write_text(json.dumps(timed))
    return Page(qprune.report(root / "net/w4"))


def test_a_page_has_its_sections_in_order(page):
    assert list(page.sections)[1:] == [
        "trained", "chain", "scores", "costs", "training", "network", "removed", "certificate", "seen", "where",
    ]  # fmt: skip


def test_what_was_trained_is_said_with_the_whole_spec(page):
    assert "A tiny net, net/w4." in page.sections[""]
    assert "classification" in page.sections["trained"]
    assert "10 steps in batches of 32" in page.sections["trained"]
    assert 'init = "net/half"' in page.sections["trained"]


def test_the_chain_is_there_from_its_first_run(page):
    found = re.findall(r"net/(?:dense|half|w4)", page.sections["chain"].partition(".")[2])
    assert found == ["net/dense", "net/half", "net/w4"]


def test_scores_and_costs_are_those_of_the_report(page):
    report = json.loads((chain() / "net/w4/report.json").read_text())
    assert f"{100 * report['scores']['test']['accuracy']:.2f} %" in page.sections["scores"]
    assert f"{report['costs']['parameters_kept']:,}" in page.sections["costs"]
    assert "bit operations" in page.sections["costs"]


def test_latency_is_that_of_the_certificate(page):
    assert "0.125 ms" in page.sections[""]
    assert "25 %" in page.sections["costs"].partition("time, exported as model")[2]
    assert "not measured" not in page.text


def test_the_training_tells_when_quantizers_started_and_shows_the_runs_before(page):
    assert "5 quantizers of 4, 8 bits started at step 2." in page.sections["training"]
    assert "the training of net/half" in page.sections["training"]
    assert "2 masks froze at step 5." in page.sections["training"]
    assert "val_loss" in page.sections["training"]


def test_the_network_is_a_figure_of_its_layers(page):
    assert "conv2" in page.sections["network"]
    assert "kept, 4 bit" in page.sections["network"]


def test_the_certificate_is_shown(page):
    assert "integers of 2 quantizers" in page.sections["certificate"]
    assert "There is none yet" not in page.text


def test_test_images_are_counted_by_class(page):
    assert "Counted on 400 test images" in page.sections["seen"]
    assert "taken for" in page.sections["seen"]


def test_a_page_needs_no_network_and_no_script(page):
    assert "script" not in page.tags
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(link.startswith(("#", "data:image/png")) for link in links)
    assert "default-src 'none'" in page.source


def test_the_same_run_gives_the_same_page(tmp_path):
    one, other = (qprune.report("net/half", tmp_path / name, runs=chain()) for name in ("a.html", "b.html"))
    assert one.read_text() == other.read_text()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile") / "runs"
    shutil.copytree(hostile(), root)
    return Page(qprune.report(root / "<i>net", data=root / "data"))


def test_markup_and_formulas_in_names_are_text(attacked):
    assert not {"script", "i", "b"} & set(attacked.tags)
    assert "img" not in attacked.tags
    assert not [name for name, _ in attacked.attributes if name.startswith("on")]


def test_names_of_classes_are_shown_as_they_are(attacked):
    seen = attacked.sections["seen"]
    assert all(name in seen for name in (SCRIPT, FORMULA, IMG))
    assert f"{IMG} {SCRIPT}/script>" in attacked.sections[""]


def test_names_inside_a_figure_are_escaped_in_its_source(attacked):
    figure = re.findall(r"<svg.*?</svg>", attacked.source, re.DOTALL)[-1]
    assert "&lt;script&gt;" in figure
    assert r"$\frac$_&lt;b&gt;&amp;amp;" in figure
    assert "<script" not in figure


def test_what_is_not_at_hand_is_said_and_the_rest_is_there(tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(hostile(), root)
    shutil.rmtree(root / "data")
    (root / "<i>net/last.pt").unlink()
    spec = root / "<i>net/spec.toml"
    spec.write_text(spec.read_text().replace(str(hostile() / "data"), str(root / "data")))
    found = Page(qprune.report(root / "<i>net", data=tmp_path))
    assert "The test images are not at hand." in found.sections["seen"]
    assert "last.pt is not at hand, so when masks froze" in found.sections["training"]
    assert "There is none yet: qprune export <i>net" in found.sections["certificate"]
    assert "How long an image takes was not measured" in found.sections["costs"]
    assert "accuracy" in found.sections["scores"]


def test_a_damaged_network_is_said_and_the_rest_is_there(tmp_path):
    root = chain_at(tmp_path)
    (root / "net/half/model.pt").write_bytes(b"no model")
    found = Page(qprune.report("net/half", runs=root))
    assert "The network cannot be opened." in found.sections["network"]
    assert "Not known, since the network could not be opened." in found.sections["seen"]
    assert "accuracy" in found.sections["scores"]


def test_a_damaged_certificate_is_said(tmp_path):
    root = chain_at(tmp_path)
    (root / "net/half/model.certificate.json").write_text("[]")
    found = Page(qprune.report("net/half", runs=root))
    assert "holds no certificate as qprune writes it" in found.sections["certificate"]


def test_a_network_and_data_of_ones_own_are_shown_when_handed_over(tmp_path):
    torch.manual_seed(0)
    images = TensorDataset(torch.randn(24, 1, 8, 8), torch.arange(24) % 3)
    net = qprune.build(DIGITS)
    spec = {"name": "own", "train": DIGITS["train"] | {"batch": 8}}
    qprune.fit(spec, model=net, data={"train": images, "test": images}, runs=tmp_path, verbose=0)
    alone = Page(qprune.report("own", runs=tmp_path))
    assert "The test images are not at hand." in alone.sections["seen"]
    assert "your own" in alone.sections["trained"]
    handed = Page(qprune.report("own", data={"test": images}, runs=tmp_path))
    assert "Counted on 24 test images" in handed.sections["seen"]


class Regression:
    monitor, mode = "loss", "min"

    def loss(self, output, target):
        return torch.nn.functional.mse_loss(output.mean(1), target.float())

    def step(self, net, batch):
        output = net(batch[0])
        return self.loss(output, batch[1]), output

    def metrics(self):
        import torchmetrics

        return torchmetrics.MetricCollection({})


def test_a_task_of_ones_own_is_shown_without_pictures_of_a_class(tmp_path):
    images = TensorDataset(torch.randn(24, 1, 8, 8), torch.arange(24) % 3)
    data = {"train": images, "test": images}
    spec = {"name": "own", "model": {"layers": LAYERS}, "train": DIGITS["train"]}
    qprune.fit(spec, data=data, task=Regression(), runs=tmp_path, verbose=0)
    assert "The task is your own" in Page(qprune.report("own", runs=tmp_path)).sections["seen"]
    handed = Page(qprune.report("own", data=data, task=Regression(), runs=tmp_path))
    assert "The task draws and counts nothing." in handed.sections["seen"]
    assert "less is better" in handed.sections[""]


def test_a_segmentation_shows_images_with_what_it_tells_and_the_colours_of_its_classes(tmp_path, monkeypatch):
    draw_few_streets(monkeypatch)
    spec = {
        "name": "net/streets",
        "data": {"name": "streets", "size": [32, 48], "train_images": 16},
        "task": {"name": "segmentation"},
        "model": {"arch": "unet", "width": 0.02},
        "train": {"length": "2it", "batch": 4, "optimizer": {"name": "sgd", "lr": 0.01}},
    }
    qprune.fit(spec, runs=tmp_path, verbose=0)
    found = Page(qprune.report("net/streets", runs=tmp_path))
    assert found.tags.count("img") == 4
    assert "From left to right: the image, the truth, what the network tells." in found.sections["seen"]
    assert "road" in found.sections["seen"]
    assert any(value.startswith("background: rgb(") for name, value in found.attributes if name == "style")


def test_a_translation_shows_the_images_that_it_makes(tmp_path):
    torch.manual_seed(0)
    pairs = TensorDataset(torch.rand(6, 3, 32, 32) * 2 - 1, torch.rand(6, 3, 32, 32) * 2 - 1)
    spec = {"name": "gan", "task": {"name": "cyclegan"}, "model": {"arch": "cyclegan", "width": 0.05}}
    train = {"length": "1it", "batch": 2, "optimizer": {"name": "adam", "lr": 0.001}}
    data = {"train": pairs, "test": pairs}
    qprune.fit(spec | {"train": train}, data=data, runs=tmp_path, verbose=0)
    found = Page(qprune.report("gan", data=data, runs=tmp_path))
    assert found.tags.count("img") == 4
    assert "From left to right: the image, its translation, that translated back." in found.sections["seen"]


def test_a_run_that_is_missing_or_not_finished_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="There is no run"):
        qprune.report("nothing", runs=tmp_path)
    root = chain_at(tmp_path)
    (root / "net/half/model.pt").unlink()
    with pytest.raises(CheckpointError, match="is not finished"):
        qprune.report("net/half", runs=root)


def test_a_link_out_of_the_folder_is_not_written_through(tmp_path):
    root = chain_at(tmp_path)
    (tmp_path / "mine").write_text("precious")
    (root / "net/half/report.html").symlink_to(tmp_path / "mine")
    with pytest.raises(CheckpointError, match="leads out of the run's folder"):
        qprune.report("net/half", runs=root)
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_page_that_cannot_be_written_is_told_in_a_sentence(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(QpruneError, match=r"there cannot be written: Is a directory\. Choose another file\."):
        qprune.report("net/half", tmp_path / "there", runs=chain())


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        ("jinja2", 'Pages need jinja2.*"qprune\\[report\\]"'),
        ("matplotlib", 'Plots need matplotlib.*"qprune\\[plots\\]"'),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(tmp_path, monkeypatch, package, sentence):
    from qprune.pages.rendering import environment

    environment.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(QpruneError, match=sentence):
        qprune.report("net/half", tmp_path / "it.html", runs=chain())
    environment.cache_clear()
