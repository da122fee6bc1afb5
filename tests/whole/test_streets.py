"""The specs of drawn streets: each trains a few steps, with nothing to download, and shows what it makes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from few_streets import draw_few_streets
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import qprune
from qprune.cli import main
from qprune.data import NAMED
from qprune.errors import DataError
from qprune.layers import sites
from qprune.spec import list_specs, read_spec
from qprune.training import Callback

SMALL = {
    "unet": ["model.width=0.07", "data.size=[32, 48]", "train.batch=4"],
    "frrn_b": ["model.width=0.05", "data.size=[32, 64]", "train.batch=2"],
    "cyclegan": ["model.width=0.07", "model.width_ba=0.07", "model.width_discriminators=0.07", "data.size=32"],
}
LONG = "streets/frrn_b/a75_layerwise"
SPECS = [
    pytest.param(spec.name, marks=[pytest.mark.slow] if spec.name == LONG else [])
    for spec in sorted(list_specs(), key=lambda spec: spec.name)
    if spec.name.startswith("streets/")
]


class StopEarly(Callback):
    """Ends training after its first validation, or the first one at which masks are frozen and quantizers active."""

    def __init__(self, finished: bool) -> None:
        self.finished = finished

    def on_epoch_end(self, epoch, logs):
        self.trainer.stop_training = self.trainer.driver.finished or not self.finished


@pytest.fixture(scope="module", autouse=True)
def _few_streets():
    with pytest.MonkeyPatch.context() as monkeypatch:
        draw_few_streets(monkeypatch)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run a spec at a fraction of its size, after those that it starts from; once each."""
    root, done = tmp_path_factory.mktemp("runs"), {}

    def run(name):
        if name not in done:
            spec = read_spec(name)
            if spec.init is not None:
                run(spec.init)
            starts_others = name == "streets/unet/a75_layerwise"
            small = [*SMALL[name.split("/")[1]], "data.train_images=96", "train.validate_every=3it"]
            done[name] = qprune.fit(name, overrides=small, runs=root, verbose=0, callbacks=[StopEarly(starts_others)])
        return done[name]

    return run


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_of_streets_trains_and_is_scored(runs, name):
    history = runs(name)
    assert not history.interrupted
    assert all(np.isfinite(history.history["loss"]))
    monitor = "frechet_fixed44" if "cyclegan" in name else "miou"
    assert history.scores["test"][monitor] >= 0


def test_joint_training_keeps_what_was_cut_and_quantizes(runs):
    net, before, dense = (qprune.load(runs(f"streets/unet/{n}").run) for n in ("a75_w4a4", "a75_layerwise", "baseline"))
    shapes = {name: parameter.shape for name, parameter in net.named_parameters()}
    assert shapes == {name: parameter.shape for name, parameter in before.named_parameters()}
    assert sum(p.numel() for p in net.parameters()) < 0.2 * sum(p.numel() for p in dense.parameters())
    assert {site.quant.bits for site in sites(net)} == {4}
    assert not any(site.mask for site in sites(net))


@pytest.mark.parametrize(("name", "columns"), [("streets/unet/baseline", 3), ("streets/cyclegan/baseline", 3)])
def test_the_same_pictures_are_shown_at_every_validation(runs, name, columns):
    events = EventAccumulator(str(runs(name).run / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert events.Tags()["images"] == [f"pictures/{i}" for i in range(4)]
    shown = events.Images("pictures/0")
    assert [image.step for image in shown] == list(runs(name).history["step"])
    height, width = (32, 48) if "unet" in name else (32, 32)
    assert (shown[0].height, shown[0].width) == (height, columns * width)


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def command(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_predicted_classes_are_written_for_an_image_of_any_size(runs, photo, tmp_path):
    result = command("predict", runs("streets/unet/baseline").run, photo, "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout.strip()) == (0, str(tmp_path / "out/photo.png"))
    with Image.open(tmp_path / "out/photo.png") as image:
        labels = np.array(image)
        colours = {colour for _, colour in image.convert("RGB").getcolors()}
    assert labels.shape == (37, 53)
    assert labels.max() < len(NAMED["streets"].classes)
    assert colours == {NAMED["streets"].palette[label] for label in np.unique(labels)}


def test_translated_images_are_written_for_an_image_of_any_size(runs, photo, tmp_path):
    assert command("predict", runs("streets/cyclegan/baseline").run, photo, "--out", tmp_path / "out").exit_code == 0
    with Image.open(tmp_path / "out/photo.png") as image:
        assert (image.mode, image.size) == ("RGB", (53, 37))


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("unet/a75_w4a4", "miou"),
        pytest.param("cyclegan/a75_layerwise", "frechet_fixed44", marks=pytest.mark.slow),
    ],
)
def test_exported_networks_score_and_predict_alike(runs, photo, tmp_path, name, metric):
    run, file = runs(f"streets/{name}").run, tmp_path / "model.onnx"
    certificate = qprune.export(run, file)
    one, other = certificate.scores[metric]
    assert other == pytest.approx(one, rel=0.02, abs=1e-4)
    for source, folder in ((run, "run"), (file, "file")):
        assert command("predict", source, photo, "--out", tmp_path / folder).exit_code == 0
    pictures = [np.asarray(Image.open(tmp_path / each / "photo.png").convert("RGB"), int) for each in ("run", "file")]
    assert (abs(pictures[0] - pictures[1]).max(2) > 3).mean() < 0.05
    if metric == "miou":
        assert certificate.iou > 0.9
        assert qprune.evaluate(file)["miou"] == other
    else:
        with pytest.raises(DataError, match=r"Evaluate the run it came of\."):
            qprune.evaluate(file)


def test_images_of_one_name_are_refused_before_one_overwrites_the_other(runs, photo, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(photo, tmp_path / "other/photo.png")
    run = runs("streets/unet/baseline").run
    result = command("predict", run, photo, tmp_path / "other/photo.png", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "Several images are called photo, and would be written to one file: rename all but one." in result.stderr
    assert not (tmp_path / "out").exists()


def test_pictures_need_a_folder_and_overwrite_nothing(runs, photo, tmp_path):
    run = runs("streets/unet/baseline").run
    result = command("predict", run, photo)
    assert (result.exit_code, "with --out FOLDER." in result.stderr) == (2, True)
    (tmp_path / "out").mkdir()
    Path(tmp_path / "out/photo.png").write_text("mine")
    result = command("predict", run, photo, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "is there already. Move it away, or choose another --out." in result.stderr
    assert (tmp_path / "out/photo.png").read_text() == "mine"
