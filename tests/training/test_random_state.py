"""What is drawn after going on is what would have been drawn."""

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qprune.training import get_rng, load_checkpoint, save_checkpoint, set_rng
from qprune.training.random_state import seed_generators


def drawn() -> list[Any]:
    return [torch.rand(3).tolist(), random.random(), random.gauss(), np.random.rand(3).tolist(), np.random.randn()]


def test_torch_python_and_numpy_go_on_from_a_file(tmp_path: Path) -> None:
    drawn()  # so that NumPy and Python each hold the second of a pair of normal numbers
    save_checkpoint(tmp_path / "last.pt", {"rng": get_rng()})
    expected = [drawn(), drawn()]
    seed_generators(7)
    set_rng(load_checkpoint(tmp_path / "last.pt")["rng"])
    assert [drawn(), drawn()] == expected


def test_one_seed_seeds_all_three() -> None:
    seed_generators(2**40 + 5)
    first = drawn()
    assert first != drawn()
    seed_generators(2**40 + 5)
    assert drawn() == first


def test_state_of_an_earlier_version_sets_torch_alone_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    state = {"cpu": torch.get_rng_state()}
    expected = torch.rand(3)
    seed_generators(7)
    _, *others = drawn()
    seed_generators(7)
    with caplog.at_level(logging.INFO):
        set_rng(state)
    first, *rest = drawn()
    assert first == expected.tolist()
    assert rest == others
    assert caplog.messages == [
        "The checkpoint holds no state of Python's and NumPy's random numbers; they are as seeded."
    ]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> dict[int, torch.Tensor]:
    """The states of two GPUs, of which number 1 is the current one."""
    states = {index: torch.full((16,), index, dtype=torch.uint8) for index in range(2)}
    for name, answer in [("is_available", True), ("is_initialized", True), ("device_count", 2), ("current_device", 1)]:
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda index: states[index].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, index: states.__setitem__(index, state))
    return states


def test_the_state_is_that_of_the_gpu_that_trains(gpus: dict[int, torch.Tensor]) -> None:
    assert get_rng("cuda:0")["cuda"][0] == 0
    assert get_rng("cuda")["cuda"][0] == get_rng()["cuda"][0] == 1
    assert "cuda" not in get_rng("cpu")


def test_state_of_one_gpu_goes_on_on_another(gpus: dict[int, torch.Tensor]) -> None:
    state = get_rng("cuda:1")
    set_rng(state, "cuda:0")
    assert gpus[0][0] == gpus[1][0] == 1
    set_rng(state, "cpu")


def test_states_of_eight_gpus_by_an_earlier_version_go_on_where_there_are_two(
    gpus: dict[int, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    eight = {"cpu": torch.get_rng_state(), "cuda": [torch.full((16,), 10 + i, dtype=torch.uint8) for i in range(8)]}
    set_rng(eight)
    assert [int(gpus[index][0]) for index in range(2)] == [0, 11]
    set_rng(eight | {"cuda": eight["cuda"][:1]}, "cuda:1")  # type: ignore[index]
    assert int(gpus[1][0]) == 11
    assert caplog.messages[-1] == (
        "The checkpoint holds the random numbers of 1 GPUs and none for number 1: that one goes on with its own."
    )


def test_another_generator_in_numpy_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(np.random, "get_state", lambda legacy: {"bit_generator": "PCG64"})
    state = get_rng()
    assert caplog.messages == ["NumPy's global generator is a PCG64, whose state is not kept."]
    expected = torch.rand(3)
    set_rng(state)
    assert torch.equal(torch.rand(3), expected)
