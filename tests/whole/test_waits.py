"""Nothing waits for a GPU, as counted on a device that is not there: tests/card.py."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("on_card.py")
TASKS = (
    "classification",
    pytest.param("segmentation", marks=pytest.mark.slow),
    pytest.param("translation", marks=pytest.mark.slow),
)
# the means of training, the scores, losses, step sizes and pictures; of a Fréchet distance its number of images, its
# root of a matrix, and the means of its parts
AT_A_VALIDATION = {"classification": 4, "segmentation": 5, "translation": 12}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a script on the device tells; each runs once, in a process of its own."""

    @cache
    def tell(name):
        command = [sys.executable, str(SCRIPT), name, str(tmp_path_factory.mktemp(name))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return tell


def waits(told, what):
    return {step: sum(counts.values()) for noted, step, counts in told["notes"] if noted == what}


def test_the_device_counts_what_waits_and_refuses_what_mixes(told):
    counted = told("counting")["counted"]
    free = {"arithmetic", "fill", "index", "where", "async"}
    assert {name for name, count in counted.items() if not count} == free
    assert counted["many"] == 1
    assert told("counting")["refused"] == [True] * 3


@pytest.mark.parametrize("task", TASKS)
def test_a_step_reads_nothing_and_one_with_events_reads_once(told, task):
    steps, events = waits(told(task), "step"), told(task)["events"]
    assert len(events) == 3  # masks are chosen twice, quantizers start once
    assert steps.pop(1) <= 1  # weights of classes, brought there once
    assert steps == {step: int(step in events) for step in range(2, 11)}


@pytest.mark.parametrize("task", TASKS)
def test_a_validation_reads_once_for_each_that_asks_whatever_its_length(told, task):
    first, *others = waits(told(task), "validation").values()
    assert others == [AT_A_VALIDATION[task]]
    assert first <= others[0] + 10  # what is brought there once: constants, features


@pytest.mark.parametrize("task", TASKS)
def test_the_start_reads_twice_and_the_end_gives_scores(told, task):
    assert waits(told(task), "begin") == {0: 2}
    assert told(task)["scored"]


def test_a_step_with_a_cut_reads_as_often_whatever_the_number_of_layers(told):
    counted = {name: waits(told(name), "step") for name in ("shallow", "deep")}
    assert counted["shallow"] == counted["deep"]
    steps = counted["deep"]
    # what is due, the masks, whether there is an input, active quantizers of the network and of its average, whether
    # each computes the same, and active quantizers once more
    assert steps.pop(5) == 8
    assert steps == {step: int(step in (2, 4)) for step in steps}


def test_a_scaler_of_losses_reads_once_more_itself(told):
    steps, events = waits(told("float16"), "step"), told("float16")["events"]
    assert steps == {step: 1 + (step in events) for step in range(1, 11)}
