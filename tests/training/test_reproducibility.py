"""What is drawn after going on is what would have been drawn; operations without a deterministic form are named."""

import logging
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import qprune
from qprune.cli import main
from qprune.training import Callback, determined, get_rng, load_checkpoint, save_checkpoint, set_rng
from qprune.training.reproducibility import seed_generators


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


OTHER = "put_"  # an operation that torch has no deterministic form of, even on a CPU
SENTENCE = "put_ has no deterministic form: results may differ from run to run."
SMALL = {"data.train_images": 135, "train.length": "2ep"}


def put():
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


def settings():
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return *algorithms, torch.backends.cudnn.benchmark, warnings.showwarning, list(warnings.filters)


def fails_in_between():
    with determined():
        assert settings()[:3] == (True, True, False)
        raise LookupError


class Puts(Callback):
    """Uses the operation in every step, and notes what torch was told."""

    def on_train_batch_end(self, batch, logs):
        put()
        self.settings = settings()


def test_an_operation_without_a_deterministic_form_is_named_once(caplog):
    with determined() as others:
        put()
        put()
    assert others == [OTHER]
    assert caplog.messages == [SENTENCE]


def test_it_is_named_in_every_training_of_a_process(caplog):
    for _ in range(2):
        with determined() as others:
            put()
        assert others == [OTHER]
    assert caplog.messages == [SENTENCE] * 2


def test_other_warnings_stay_warnings():
    with pytest.warns(UserWarning, match="of another kind"), determined() as others:
        warnings.warn("of another kind", stacklevel=1)
    assert others == []


def test_what_was_set_before_is_set_afterwards():
    before = settings()
    torch.backends.cudnn.benchmark = True
    try:
        with pytest.raises(LookupError):
            fails_in_between()
        assert settings()[:3] == (False, False, True)
    finally:
        torch.backends.cudnn.benchmark = before[2]
    assert settings() == before


def test_nothing_changes_where_it_is_not_wanted():
    before = settings()
    with determined(False) as others:
        assert settings() == before
        put()
    assert others == []


def test_digits_train_deterministically_on_a_cpu(tmp_path, caplog):
    options = {"overrides": SMALL, "device": "cpu", "verbose": 0, "deterministic": True}
    runs = [qprune.fit("digits/baseline", runs=tmp_path / str(run), **options) for run in range(2)]
    assert caplog.messages == []
    states = [qprune.load(history.run).state_dict() for history in runs]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_fit_names_what_a_callback_does(tmp_path, caplog):
    puts = Puts()
    options = {"overrides": SMALL, "device": "cpu", "verbose": 0, "callbacks": [puts]}
    qprune.fit("digits/baseline", runs=tmp_path, deterministic=True, **options)
    assert puts.settings[:2] == (True, True)
    assert caplog.messages == [SENTENCE]


def test_command_line_has_the_switch(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(qprune.api, "train", lambda *arguments, **options: seen.append(settings()[:2]) or 1 / 0)
    for flags in (["--deterministic"], []):
        command = ["fit", "digits/baseline", "--quiet", "--runs", str(tmp_path), "--overwrite", *flags]
        result = CliRunner().invoke(main, command)
        assert isinstance(result.exception, ZeroDivisionError)
    assert seen == [(True, True), (False, False)]
