import enum
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qprune.errors import CheckpointError
from qprune.layers import PrunedConv2d
from qprune.training import checkpoint
from qprune.training.content import checksum


def test_content_comes_back_equal(tmp_path: Path) -> None:
    content = {"a": torch.arange(6).view(2, 3), "b": [1, 2.5, None, True, "x"], "c": {"d": (1, 2), 7: {}}}
    checkpoint.save(tmp_path / "c.pt", content)
    loaded = checkpoint.load(tmp_path / "c.pt")
    assert torch.equal(loaded.pop("a"), content.pop("a"))
    assert loaded.pop("format") == checkpoint.FORMAT
    assert loaded.pop("written_by")["torch"] == str(torch.__version__)
    assert loaded == content


def test_file_holds_no_pickled_objects(tmp_path: Path) -> None:
    net = nn.BatchNorm2d(3)
    checkpoint.save(tmp_path / "c.pt", {"net": net.state_dict()})
    loaded = torch.load(tmp_path / "c.pt", weights_only=True)
    assert type(loaded["net"]) is dict
    assert all(type(value) is torch.Tensor for value in loaded["net"].values())


@pytest.mark.parametrize(
    ("value", "kind"),
    [(np.float64(0.5), "float64"), ({1, 2}, "set"), (nn.Linear(2, 3), "Linear"), (Path("x"), "Path"),
     (enum.IntEnum("Side", "LEFT").LEFT, "Side")],
)  # fmt: skip
def test_other_types_are_refused_with_their_place(tmp_path: Path, value: object, kind: str) -> None:
    with pytest.raises(CheckpointError) as error:
        checkpoint.save(tmp_path / "c.pt", {"history": {"loss": [0.5, value]}})
    assert re.search(
        rf"dense tensors, numbers, text.* received a \w*{kind} at history.loss\[1\]. Convert it", str(error.value)
    )
    assert list(tmp_path.iterdir()) == []


def test_keys_of_other_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="keys are text or numbers; received a tuple in net"):
        checkpoint.save(tmp_path / "c.pt", {"net": {(1, 2): 3}})


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path / "c.pt", {"step": 1})

    def fail(content: object, file: object) -> None:
        file.write(b"half of it")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError, match=r"c\.pt cannot be written: disk full\. What was there before is intact"):
        checkpoint.save(tmp_path / "c.pt", {"step": 2})
    assert checkpoint.load(tmp_path / "c.pt")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no checkpoint .*none\.pt\. Train first, or check the path\."):
        checkpoint.load(tmp_path / "none.pt")


@pytest.mark.parametrize("kept", [0, 10, 300])
def test_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, {"a": torch.zeros(50)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"c\.pt cannot be read: it is cut off, or not a file of tensors"):
        checkpoint.load(path)


def test_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3), tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r'refers to code, "torch\.nn\.modules\.linear\.Linear", of which'):
        checkpoint.load(tmp_path / "c.pt")


def test_plain_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"was not written by qprune.*net\.load_state_dict"):
        checkpoint.load(tmp_path / "c.pt")


def test_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 9)
    checkpoint.save(tmp_path / "c.pt", {"step": 1})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"has format 9, written by qprune .* reads format 2\. Upgrade qprune\."):
        checkpoint.load(tmp_path / "c.pt")


def test_format_without_a_checksum_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 1, "written_by": {"qprune": "0.0.9"}}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(tmp_path / "c.pt")
    assert "has format 1, which has no checksum, written by qprune 0.0.9; this is qprune" in str(error.value)
    assert str(error.value).endswith("which reads format 2. Train it again.")


def test_file_verifies_itself(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", {"step": 1})
    content = torch.load(tmp_path / "c.pt", weights_only=True) | {"step": 2}
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(checkpoint.DamagedError, match=r"cannot be read: its checksum is not that of its content"):
        checkpoint.load(tmp_path / "c.pt")


@pytest.mark.parametrize(
    "tensor",
    [torch.tensor(1.5), torch.zeros(0, 3), torch.tensor([True, False]), torch.arange(5, dtype=torch.bfloat16),
     torch.ones(5, dtype=torch.uint16), torch.arange(24.0).view(2, 3, 4).transpose(0, 2), torch.arange(9)[3:5],
     torch.zeros(2, 3, 5, 7).to(memory_format=torch.channels_last), torch.zeros(4).to(torch.float8_e4m3fn),
     torch.tensor([float("nan"), -0.0]), torch.zeros(3, dtype=torch.complex64)],
    ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)}",
)  # fmt: skip
def test_tensors_of_every_kind_come_back_to_the_bit(tmp_path: Path, tensor: torch.Tensor) -> None:
    checkpoint.save(tmp_path / "c.pt", {"a": tensor})
    found = checkpoint.load(tmp_path / "c.pt")["a"]
    assert (found.dtype, found.shape, found.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
    assert checksum({"a": found}) == checksum({"a": tensor})


def test_tensors_that_share_values_share_them_again(tmp_path: Path) -> None:
    tied = torch.arange(6.0)
    checkpoint.save(tmp_path / "c.pt", {"a": tied, "b": tied.view(2, 3)})
    found = checkpoint.load(tmp_path / "c.pt")
    assert found["a"].data_ptr() == found["b"].data_ptr()


def test_repeated_values_are_written_out(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", {"a": torch.tensor([2.0]).expand(5)})
    assert checkpoint.load(tmp_path / "c.pt")["a"].tolist() == [2.0] * 5


@pytest.mark.parametrize("tensor", [torch.zeros(2).to_sparse(), torch.zeros(2, device="meta")])
def test_tensors_without_plain_values_are_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    with pytest.raises(CheckpointError, match=r"holds dense tensors, .* received a Tensor \(torch\.\w+\) at net\.a\."):
        checkpoint.save(tmp_path / "c.pt", {"net": {"a": tensor}})


def test_content_without_an_end_is_refused(tmp_path: Path) -> None:
    endless: dict[str, object] = {}
    endless["a"] = endless
    with pytest.raises(CheckpointError, match=r"nested at most 50 deep; net\.a\.a.* goes deeper\. Flatten it\."):
        checkpoint.save(tmp_path / "c.pt", {"net": endless})


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": 1}, {"a": 1.0}), ({"a": 1}, {"a": True}), ({"a": [1, 2]}, {"a": (1, 2)}), ({"a": 0.0}, {"a": -0.0}),
     ({"a": ["bc"]}, {"a": ["b", "c"]}), ({"a": {}, "b": 1}, {"a": {"b": 1}}), ({"a": "1"}, {"a": 1}),
     ({"a": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}), ({"a": torch.zeros(2)}, {"a": torch.zeros(2).int()})],
)  # fmt: skip
def test_checksum_tells_contents_apart(one: dict[str, object], other: dict[str, object]) -> None:
    assert checksum(one) != checksum(other)


def test_old_file_is_kept_under_its_new_name(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path / "last.pt", {"step": step}, keep_as="previous.pt")
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 3
    assert checkpoint.load(tmp_path / "previous.pt")["step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_old_file_is_kept_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    test_old_file_is_kept_under_its_new_name(tmp_path)


def test_files_get_the_permissions_that_the_user_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        checkpoint.save(tmp_path / "c.pt", {"step": 1})
    finally:
        os.umask(before)
    assert (tmp_path / "c.pt").stat().st_mode & 0o777 == 0o640


def test_state_of_another_network_is_refused_with_the_first_differences() -> None:
    net, other = nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5))
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_state(net, other.state_dict(), "last.pt")
    assert str(error.value) == (
        "last.pt is of another network: unknown: 1.weight, 1.bias, 1.running_mean and 2 more; of another shape: "
        "0.weight, 0.bias. Build the network from the spec it was trained with."
    )


def test_state_that_is_none_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"last\.pt is of no network: its state is not one of tensors with names"):
        checkpoint.load_state(nn.Linear(2, 3), {"weight": 5, 7: torch.zeros(2)}, "last.pt")  # type: ignore[dict-item]


def test_partial_compressor_state_is_refused_by_its_site() -> None:
    net = nn.Sequential(PrunedConv2d(2, 3, 1))
    state = net.state_dict()
    del state["0.input_mask.score"]
    with pytest.raises(CheckpointError, match=r'"0.input_mask" is incomplete: score missing'):
        checkpoint.load_state(net, state, "last.pt")
