"""What the examples in docstrings take for granted: a reader's network in training, files of images, a run."""

import json
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import qprune
from qprune import zoo
from qprune.comparison import ComparedRun, Comparison
from qprune.data import load_data
from qprune.spec import DataSpec, read_spec
from qprune.tasks import Classification
from qprune.training import (
    Callback,
    CSVLogger,
    History,
    ModelCheckpoint,
    ScheduleDriver,
    TensorBoard,
    Trainer,
    get_rng,
    save_checkpoint,
)

SPECS = Path(__file__).parents[1] / "specs"
CLASSES = 'names = ["wall", "floor", "chair"]\n'
SHORT = ["train.length=2it", "train.validate_every=1it", "data.train_images=80"]


def _picture(path: Path, height: int = 32, width: int = 32, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((height, width, 3) if mode == "RGB" else (height, width), np.uint8)
    Image.fromarray(values, mode).save(path)


def fill(folder: Path) -> None:
    """Put a reader's files into a folder."""
    _picture(folder / "cat.png", 240, 320)
    _picture(folder / "a.jpg", 240, 320)
    _picture(folder / "labels/0.png", 240, 320, "L")
    for name in ("a.png", "b.png", "animals/cat/0.png", "animals/dog/0.png"):
        _picture(folder / name)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            _picture(folder / "photos" / split / name / "0.png")
        for side in ("A", "B"):
            _picture(folder / f"horses_and_zebras/{split}{side}/0.png")
        _picture(folder / "rooms" / split / "images/0.png")
        _picture(folder / "rooms" / split / "labels/0.png", mode="L")
    (folder / "rooms/classes.toml").write_text(CLASSES)
    save_checkpoint(folder / "last.pt", {"step": 5, "net": {"weight": torch.zeros(4, 6), "bias": torch.zeros(4)}})
    run = qprune.fit("digits/baseline", overrides=SHORT, runs=folder / "runs", verbose=0).run
    assert run is not None
    for name, init in (("a75_layerwise", "baseline"), ("a75_w4a4", "a75_layerwise")):
        copied = shutil.copytree(run, run.with_name(name))
        report = json.loads((run / "report.json").read_text()) | {"name": f"digits/{name}", "init": f"digits/{init}"}
        (copied / "report.json").write_text(json.dumps(report))
    shutil.copy(run / "model.pt", folder / "model.pt")
    certificate = qprune.export(run, folder / "model.onnx")
    (folder / "model.certificate.json").write_text(certificate.to_json())
    (folder / "runs/mine").mkdir()
    (folder / "runs/mine-kept-1").mkdir()
    for name in ("base", "digits"):
        shutil.copytree(SPECS / name, folder / "specs" / name)


def _net() -> nn.Module:
    layers = OrderedDict(
        conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), act=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(), fc=nn.Linear(4, 10),
    )  # fmt: skip
    return nn.Sequential(layers)


class _WithTrainer(dict[str, Any]):
    """Callbacks of the reader watch a training."""

    def watched(self, callback: Callback) -> Callback:
        callback.set_trainer(self["trainer"])
        return callback


def things() -> dict[str, Any]:
    """What a reader has made by the time of an example, by the names that examples give it."""
    net, images, labels = _net(), torch.rand(2, 3, 32, 32), torch.tensor([0, 4])
    data = TensorDataset(images, labels)
    loader, sgd, task = DataLoader(data, batch_size=2), torch.optim.SGD(net.parameters(), 0.1), Classification(10)
    _ = net(images)  # so that normalizations have statistics
    history = History()
    for step in (1, 2):
        history.add({"step": step, "epoch": float(step), "loss": 1 / step, "lr": 0.1, "seconds": 1.0})
    found = _WithTrainer(
        net=net, model=net, trained=net, dense=net, images=images, labels=labels, example=images[:1], loader=loader,
        sgd=sgd, optimizer=sgd, task=task, history=history, my_set=data, train_set=data, val_set=data,
        resnet18=_net, state=get_rng(), step=lambda batch: None, loss=net(images).sum(), torchvision=torchvision,
        OrderedDict=OrderedDict, driver=ScheduleDriver(net, images), splits=load_data(DataSpec("digits")),
        spec=read_spec(read_spec("digits/baseline").to_dict() | {"name": "mine"}),
        paths=[Path("a.png"), Path("b.png"), Path("a.png")],
        trainer=Trainer(net, task, train=loader, optimizer=sgd, steps=2),
        comparison=Comparison((ComparedRun("net/a75", 0.8, 90, 600, 900, 45),), "accuracy", "max"),
    )  # fmt: skip
    found["logger"] = found.watched(CSVLogger("history.csv"))
    found["checkpoint"] = found.watched(ModelCheckpoint("runs/mine"))
    found["tensorboard"] = found.watched(TensorBoard("runs/mine"))
    return found


def of_digits() -> dict[str, Any]:
    """Images of the size of those that the exported file is for."""
    return {"images": torch.rand(2, 1, 8, 8)}


def of_gans(name: str) -> dict[str, Any]:
    """Two kinds of images, and a small GAN that translates between them."""
    widths = {option: 0.125 for option in zoo.options_of(name) if option.startswith("width")}
    size = 256 if name == "pix2pix" else 32
    return {"net": zoo.create(name, **widths), "a": torch.rand(1, 3, size, size), "b": torch.rand(1, 3, size, size)}
