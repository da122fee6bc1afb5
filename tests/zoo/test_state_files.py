"""Files of weights as torch, training scripts and safetensors write them, and what is none."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from qprune.errors import CheckpointError
from qprune.zoo import read_state

WAY_OUT = "Write one with torch.save(net.state_dict(), file)."


@pytest.fixture
def state():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_a_state_dict_may_lie_in_a_table(key, state, tmp_path):
    torch.save({"epoch": 4, key: state}, tmp_path / "a.pth")
    assert same(read_state(tmp_path / "a.pth"), state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_wrappers_put_before_names_is_taken_off(prefix, state, tmp_path):
    torch.save({f"{prefix}{key}": value for key, value in state.items()}, tmp_path / "a.pth")
    assert same(read_state(tmp_path / "a.pth"), state)


def test_the_form_of_torch_before_1_6_is_read(state, tmp_path):
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert same(read_state(tmp_path / "a.pth"), state)


def test_safetensors_are_read(state, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(state, tmp_path / "a.safetensors")
    assert same(read_state(tmp_path / "a.safetensors"), state)


def test_without_safetensors_a_sentence_says_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert message(tmp_path / "a.safetensors") == (
        f"{tmp_path / 'a.safetensors'} needs the package safetensors: pip install safetensors."
    )


def message(path):
    with pytest.raises(CheckpointError) as caught:
        read_state(Path(path))
    return str(caught.value)


def test_a_whole_network_is_not_opened(tmp_path):
    torch.save(nn.Linear(3, 5), tmp_path / "net.pth")
    assert message(tmp_path / "net.pth") == (
        f"{tmp_path / 'net.pth'} holds more than tensors and plain types, or was not written by torch, and is not "
        f"opened. {WAY_OUT}"
    )


def test_what_is_no_state_dict_is_told(tmp_path):
    file = tmp_path / "a.pth"
    for content, told in (
        ([1, 2], "must hold a state_dict; it holds a value of type list."),
        ({}, "must hold a state_dict; it holds nothing."),
        ({"lr": 0.5}, "must hold a state_dict, tensors under their names; under 'lr' it holds a value of type float."),
        (
            {3: torch.zeros(2)},
            "must hold a state_dict, tensors under their names; under 3 it holds a value of type Tensor.",
        ),
    ):
        torch.save(content, file)
        assert message(file) == f"{file} {told} {WAY_OUT}"


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_damaged_file_is_named(name, state, tmp_path):
    torch.save(state, tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
    told = message(tmp_path / name)
    assert told.startswith(f"{tmp_path / name} cannot be read: it is damaged or no file of weights (")
    assert told.endswith(WAY_OUT)
    assert "\n" not in told


def test_a_model_of_qprune_is_named_by_its_run(tmp_path):
    torch.save({"format": 2, "written_by": {}, "spec": "", "state": {}}, tmp_path / "model.pt")
    assert message(tmp_path / "model.pt") == (
        f"{tmp_path / 'model.pt'} is a model of qprune: name its run with init, in place of weights."
    )


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, about making quantized and reading sparse tensors
@pytest.mark.parametrize(("change", "told"), [
    (lambda weight: weight.to("meta"), "a tensor without values"),
    (torch.Tensor.to_sparse, "a sparse tensor"),
    (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), "a quantized tensor"),
], ids=["meta", "sparse", "quantized"])  # fmt: skip
def test_tensors_that_are_no_plain_ones_are_refused(change, told, tmp_path):
    torch.save({"conv.weight": change(torch.randn(3, 5))}, tmp_path / "a.pth")
    assert message(tmp_path / "a.pth") == (
        f"{tmp_path / 'a.pth'} must hold a state_dict, tensors under their names; under 'conv.weight' it holds {told}. "
        f"{WAY_OUT}"
    )
