"""Processes that train are killed at random moments; resumed, they leave what an unbroken one leaves, to the bit."""

import csv
import json
import logging
import os
import random
import signal
import tarfile
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path

import forked
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import qprune
from qprune.spec import read_spec, spec_to_toml
from qprune.training.checkpoint import load

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name("killed.py")
CAMVID = Path(__file__).parents[2].parent / "shared" / "data" / "camvid.tar.gz"
SEED = int(os.environ.get("QPRUNE_KILL_SEED", "0"))  # another one kills at other moments
STEPWISE = 'prune.0.schedule={kind="stepwise", start="1it", every="2it", times=3}'
WARMUP = 'train.lr_schedule={name="cosine", warmup="4it"}'
SCENES = ["data.size=[32, 48]", "data.train_images=52", "model.width=0.07", "train.batch=8", STEPWISE, WARMUP]
# a prime number of steps between two checkpoints: they fall anywhere in an epoch and in what is measured
SPECS = {
    "digits": ("digits/joint_single_run", [
        "data.train_images=150", "train.batch=16", "train.length=28it", "train.validate_every=8it", WARMUP,
        "train.ema=0.9", "train.accumulate=2",
        'prune.0.schedule={kind="layerwise", start="2it", interval="3it", refresh="1it"}',
    ]),
    "shrunk": ("digits/joint_single_run", [
        "data.train_images=150", "train.batch=16", "train.length=92it", "train.validate_every=24it", WARMUP,
        'train.shrink="as-frozen"', "train.ema=0.9", 'train.optimizer={name="adamw", lr=0.002}',
        'prune.0.schedule={kind="layerwise", start="2it", interval="7it", refresh="3it"}',
    ]),
    "streets": ("streets/unet/a75_layerwise", [*SCENES, "train.length=12it", "train.validate_every=6it"]),
    "camvid": ("camvid/unet/a75_layerwise", [*SCENES, "train.length=14it", "train.validate_every=6it"]),
    "cyclegan": ("streets/cyclegan/a75_layerwise", [
        "data.size=32", "data.train_images=65", "model.width=0.07", "model.width_ba=0.07",
        "model.width_discriminators=0.07", "train.batch=10", "train.length=12it", "train.validate_every=6it",
        STEPWISE, "task.pool=25", 'train.lr_schedule={name="linear", decay_from="4it"}',
    ]),
}  # fmt: skip
BITS = {"digits": (23, 21), "shrunk": (75, 71)}  # steps at which weights and activations begin to be quantized
EVENTS = {  # what a process may be killed at, and how often that may happen first
    "on_train_batch_begin": 5, "on_before_optimizer_step": 5, "on_train_batch_end": 5, "on_freeze": 3,
    "on_epoch_end": 2, "on_train_end": 1, "validation": 3, "write": 30, "last.pt": 8, "history.csv": 3, "best.pt": 2,
    "best.pt>last.pt": 1, "model.pt": 2, "report.json": 2, "tfevents": 4, "ms": 1500,
}  # fmt: skip
SIGNALS = {"SIGKILL": 8, "SIGTERM": 1, "SIGINT": 1}


def write_spec(name, folder):
    base, small = SPECS[name]
    table = read_spec(base, [*small, 'train.checkpoint_every="3it"']).to_dict() | {"name": name}
    table.pop("init", None)
    if name == "digits":
        layers = table["model"]["layers"]
        layers.insert(len(layers) - 1, {"name": "drop", "type": "Dropout", "p": 0.2})
    elif name == "camvid":
        table["data"]["root"] = str(folder / "data")
    else:
        table["data"].pop("augment", None)  # what it imports takes two seconds
    table["quantize"] = [*bits(name)]
    (folder / f"{name}.toml").write_text(spec_to_toml(read_spec(table)))


def bits(name):
    weights, activations = BITS.get(name, (9, 8))
    paths = ["generator_ab.*"] if name == "cyclegan" else ["*"]
    for types, at, start in ((["Conv2d"], "weight", weights), (["ReLU"], "output", activations)):
        schedule = {"kind": "quantize-from", "start": f"{start}it", "measure": "5it"}
        yield {"sites": [{"types": types, "paths": paths, "at": at}], "bits": 4, "schedule": schedule}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("kill")
    for name in SPECS:
        write_spec(name, made)
    return made


@pytest.fixture(scope="module")
def camvid(folder):
    if not CAMVID.exists():
        pytest.skip("CamVid is not on this machine")
    with tarfile.open(CAMVID) as archive:
        archive.extractall(folder / "data", filter="data")


@pytest.fixture(scope="module")
def whole(folder):
    """What an unbroken run of a spec leaves; each is trained once."""
    done = {}

    def train(name):
        if name not in done:
            with one_thread():
                qprune.fit(folder / f"{name}.toml", runs=folder / "whole", device="cpu", verbose=0)
            done[name] = left(folder / "whole" / name)
        return done[name]

    return train


@contextmanager
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ended(process, *codes):
    """Its exit code, once it has ended with one of these; that of a signal is negative."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode in codes, errors
    return process.returncode


def arguments(folder, name, runs, workers):
    options = ["--resume", "--quiet", "--device", "cpu", "--set", f"data.workers={workers}"]
    return ["-m", "qprune", "fit", folder / f"{name}.toml", "--runs", runs, *options]


def killed(folder, name, runs, number, event, count, workers=0):
    """Go on with a run in a process that is sent a signal; whether that killed it."""
    process = forked.Process(SCRIPT, folder / f"{name}.toml", runs, workers, number, event, count)
    return ended(process, 0, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT) == -signal.SIGKILL


def left(run):
    """All that a run leaves, by file, without timings and where it was computed."""
    files = {path.name for path in run.iterdir() if not path.name.startswith(".")} - {"previous.pt"}
    facts = {name: content(load(run / name)) for name in files if name.endswith(".pt")}
    facts["report.json"] = json.loads((run / "report.json").read_text())
    del facts["report.json"]["environment"]
    with (run / "history.csv").open(newline="") as file:
        facts["history.csv"] = [{**row, "seconds": None} for row in csv.DictReader(file)]
    return {"files": files, "points": points(run / "tensorboard")} | facts


def content(checkpoint):
    checkpoint["spec"] = {**tomllib.loads(checkpoint["spec"]), "data": None}  # it may have had other workers
    board = checkpoint.get("callbacks", {}).get("TensorBoard-1", {})
    board.pop("sizes", None)  # the files are called by the time, and are as many as processes wrote them
    checkpoint.get("history", {}).get("history", {}).pop("seconds", None)
    checkpoint.get("scores", {}).pop("seconds", None)
    return checkpoint


def points(folder):
    """For each tag the points in the order in which they are in the files, and none is dropped for its step."""
    events = EventAccumulator(str(folder), {"scalars": 0, "images": 0}, purge_orphaned_data=False).Reload()
    scalars = {tag: [(s.step, s.value) for s in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    images = events.Tags()["images"]
    return scalars | {tag: [(s.step, s.encoded_image_string) for s in events.Images(tag)] for tag in images}


def differences(a, b, place=""):
    """Where two are not the same, to the bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        alike = a.dtype == b.dtype and a.shape == b.shape and torch.equal(as_bytes(a), as_bytes(b))
        return [] if alike else [place]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [found for index in range(len(a)) for found in differences(a[index], b[index], f"{place}/{index}")]
    return [] if type(a) is type(b) and a == b else [place]


def as_bytes(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)  # NaN equals itself, and 0 is not -0


def moments(generator, count):
    """Signals and moments, as random as the seed allows."""
    for event in generator.choices(list(EVENTS), k=count):
        (number,) = generator.choices(list(SIGNALS), SIGNALS.values())
        yield number, event, generator.randint(1, EVENTS[event]), generator.randint(0, 2)


def check(folder, whole, name, kills, runs, workers=0):
    """Go on with a run through all of the kills, then to its end; at which of them a process was killed."""
    kills = list(kills)
    hits = [kill for kill in kills if killed(folder, name, runs, *kill)]
    ended(forked.Process(*arguments(folder, name, runs, workers)), 0)
    log.info("seed %d, %s: killed at %s", SEED, name, hits)
    assert differences(left(runs / name), whole(name)) == [], f"seed {SEED}, after {kills}"
    return hits


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        pytest.param("streets", ("SIGKILL", "on_train_batch_begin", 8), marks=pytest.mark.slow),
        pytest.param("cyclegan", ("SIGKILL", "best.pt>last.pt", 1), marks=pytest.mark.slow),
        ("shrunk", ("SIGKILL", "on_train_batch_end", 55)),
    ],
)
def test_killed_run_goes_on_as_if_it_had_not_been(folder, whole, tmp_path, name, kill):
    assert check(folder, whole, name, [kill], tmp_path, workers=1) == [kill]


def stopped(folder, name, runs, number, code):
    """The step of the checkpoint of a run that is sent a signal as soon as it has written one."""
    last = runs / name / "last.pt"
    before = last.stat().st_mtime_ns if last.exists() else 0
    process = forked.Process(*arguments(folder, name, runs, workers=2), session=True)
    while process.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
        time.sleep(0.002)
    os.killpg(process.pid, number)  # a terminal, a launcher, a scheduler: each tells the loader processes too
    ended(process, code)
    return load(last)["step"]


def test_signals_save_and_are_told_by_the_exit_code(folder, whole, tmp_path):
    assert killed(folder, "digits", tmp_path, "SIGKILL", "last.pt", 1)  # points are written, a checkpoint is not
    steps = [stopped(folder, "digits", tmp_path, signal.SIGTERM, 143)]
    steps += [stopped(folder, "digits", tmp_path, signal.SIGINT, 130)]
    assert 3 <= steps[0] < steps[1] < 28
    check(folder, whole, "digits", [], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_run_killed_at_random_moments_goes_on_as_if_it_had_not_been(folder, whole, tmp_path, name, request):
    if name == "camvid":
        request.getfixturevalue("camvid")
    generator, hits = random.Random(f"{SEED} {name}"), []
    while len(hits) < 6:
        runs = tmp_path / str(len(hits))
        hits += check(folder, whole, name, moments(generator, 5), runs, generator.randint(0, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kills",
    [
        [("last.pt", 1), ("last.pt", 2), ("on_train_batch_end", 2)],  # thrice before there is a checkpoint
        [("last.pt", 8)] * 3,  # thrice without progress
        [("best.pt>last.pt", 1), ("best.pt>last.pt", 2)],
        [("model.pt", 1), ("model.pt", 3), ("report.json", 1), ("report.json", 3)],
    ],
)
def test_run_killed_between_two_files_goes_on_as_if_it_had_not_been(folder, whole, tmp_path, kills):
    kills = [("SIGKILL", *kill) for kill in kills]
    assert check(folder, whole, "digits", kills, tmp_path) == kills
