"""Several processes on one machine: the network they train is that of one process."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import torch
from attrs import evolve

from qprune.spec import read_spec, spec_to_toml
from qprune.training import load_checkpoint

SCRIPT = Path(__file__).with_name("in_processes.py")
# 21 images in batches of 6, so that two processes share the last 3 unequally
IMAGES = [
    "train.channels_last=false", "data.size=32", "data.unpaired=false", "data.train_images=21",
    "train.batch=6", "train.length=36it", "train.validate_every=18it",
    'train.optimizer={name="sgd", lr=0.001}', "train.lr_schedule={}",
]  # fmt: skip
# with batch statistics; pruned, cut and quantized
DIGITS = [
    'train.shrink="as-frozen"',
    "data.train_images=300", "train.batch=60", "train.length=40it", "train.validate_every=20it",
    'prune[0].schedule={kind="layerwise", start="1it", interval="2it", refresh="2it"}',
]  # fmt: skip
BITS = {"bits": 4, "start": "25it"}


def torchrun(processes, *arguments):
    """As people start them; the tests about the network start them faster."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    return subprocess.run(
        [*start, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("processes")
    images = read_spec("streets/cyclegan/baseline", IMAGES)
    (made / "images.toml").write_text(spec_to_toml(evolve(images, name="images")))
    table = read_spec("digits/a75_layerwise", DIGITS).to_dict() | {"name": "digits"}
    del table["init"]
    sites = read_spec("digits/a75_w4a4").to_dict()["quantize"]
    table["quantize"] = [rule | BITS for rule in sites]
    (made / "digits.toml").write_text(spec_to_toml(read_spec(table)))
    return made


@pytest.fixture(scope="module")
def trained(folder):
    """The run of a spec with so many processes; each is trained once."""

    def train(name, processes):
        runs = folder / str(processes)
        spec = folder / f"{name}.toml"
        if not (runs / name / "report.json").is_file():
            command = [SCRIPT, spec, runs, "trains"]
            if name == "digits":
                command = ["-m", "qprune", "fit", spec, "--runs", runs, "--device", "cpu"]
            finish(forked.together(processes, *command))
        return runs / name

    return train


def finish(processes):
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def model(run):
    return load_checkpoint(run / "model.pt")["state"]


def rows(run):
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


def chosen(state):
    return {name: value for name, value in state.items() if name.endswith((".keep", ".zero_point"))}


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_network_without_batch_statistics_is_that_of_one_process(trained, processes):
    one, several = model(trained("images", 1)), model(trained("images", processes))
    masks = chosen(one)
    assert sum(int((~keep).sum()) for keep in masks.values()) > 50
    assert all(torch.equal(keep, several[name]) for name, keep in masks.items())
    for name, value in one.items():
        torch.testing.assert_close(several[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_losses_and_scores_are_those_of_all_samples(trained, processes):
    for ours, theirs in zip(rows(trained("images", processes)), rows(trained("images", 1)), strict=True):
        for name in ours.keys() - {"seconds"}:
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4), name


def test_with_batch_statistics_all_processes_hold_one_network_that_is_as_good(trained):
    one, two = (json.loads((trained("digits", n) / "report.json").read_text()) for n in (1, 2))
    assert [report["environment"]["processes"] for report in (one, two)] == [1, 2]
    assert one["costs"]["parameters_kept"] == two["costs"]["parameters_kept"]
    assert two["scores"]["test"]["accuracy"] == pytest.approx(one["scores"]["test"]["accuracy"], abs=0.1)


def test_one_process_writes(trained):
    run = trained("digits", 2)
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert not list(run.glob(".*"))


def test_a_preempted_training_goes_on_with_another_number_of_processes(trained, folder):
    runs = folder / "preempted"
    for process in forked.together(2, SCRIPT, folder / "images.toml", runs, "preempted"):
        assert process.communicate(timeout=300)[1].endswith("preempted: True\n")
    assert load_checkpoint(runs / "images/last.pt")["step"] == 5

    finish(forked.together(3, SCRIPT, folder / "images.toml", runs, "resumed"))
    one, several = model(trained("images", 1)), model(runs / "images")
    assert all(torch.equal(keep, several[name]) for name, keep in chosen(one).items())
    for name, value in one.items():
        torch.testing.assert_close(several[name], value, rtol=1e-4, atol=1e-5)


def test_the_failure_of_one_process_ends_all_with_its_error(folder):
    result = torchrun(2, SCRIPT, folder / "images.toml", folder / "failed", "fails")
    told = [line for line in result.stderr.splitlines() if "told: " in line]
    assert result.returncode != 0
    assert told  # torchrun may end the other one before it can speak
    assert all("AtStep5 failed in on_train_batch_end at step 5: LookupError: no such thing" in line for line in told)
    assert sum("Process 1 failed, which ends all of them" in line for line in told) == len(told) - 1


def test_a_batch_that_cannot_be_shared_is_refused_before_training(folder):
    command = ["-m", "qprune", "fit", folder / "images.toml", "--runs", folder / "refused", "--device", "cpu"]
    command += ["--set", "train.batch=7"]
    told = "".join(process.communicate(timeout=300)[1] for process in forked.together(2, *command))
    assert "A batch must be shared equally by 2 processes; train.batch is 7." in told
    assert not (folder / "refused/images").exists()
