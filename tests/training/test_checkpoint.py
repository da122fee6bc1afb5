import enum
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qprune.errors import CheckpointError
from qprune.layers import PrunedConv2d
from qprune.training import checkpoint


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
        rf"tensors, numbers, text.* received a \w*{kind} at history.loss\[1\]. Convert it", str(error.value)
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
    with pytest.raises(OSError, match="disk full"):
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
    with pytest.raises(CheckpointError, match="not a file of tensors and plain types"):
        checkpoint.load(tmp_path / "c.pt")


def test_plain_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"was not written by qprune.*net\.load_state_dict"):
        checkpoint.load(tmp_path / "c.pt")


def test_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 9)
    checkpoint.save(tmp_path / "c.pt", {"step": 1})
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(CheckpointError, match=r"has format 9, written by .* up to format 1\. Upgrade qprune\."):
        checkpoint.load(tmp_path / "c.pt")


def test_state_of_another_network_is_refused_with_the_first_differences() -> None:
    net, other = nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5))
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_state(net, other.state_dict(), "last.pt")
    assert str(error.value) == (
        "last.pt is of another network: unknown: 1.weight, 1.bias, 1.running_mean and 2 more; of another shape: "
        "0.weight, 0.bias. Build the network from the spec it was trained with."
    )


def test_partial_compressor_state_is_refused_by_its_site() -> None:
    net = nn.Sequential(PrunedConv2d(2, 3, 1))
    state = net.state_dict()
    del state["0.input_mask.score"]
    with pytest.raises(CheckpointError, match=r'"0.input_mask" is incomplete: score missing'):
        checkpoint.load_state(net, state, "last.pt")
