"""The table of faults in docs/reference/checkpoints.md: each row is a test, each test a row."""

import errno
import logging
import os
import pickle
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import forked
import pytest
import torch
from torch import nn

import qprune
from qprune.errors import CheckpointError
from qprune.training import Run
from qprune.training.checkpoint import DamagedError, load, load_state, save

PAGE = Path(__file__).parents[2] / "docs/reference/checkpoints.md"
GOOD = {"step": 4, "net": {"weight": torch.arange(6.0).view(2, 3), "keep": torch.tensor([True, False])}}
NEWER = {"step": 5, "net": {"weight": torch.ones(2, 3), "keep": torch.tensor([True, True])}}


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with a `last.pt` of step 5 and a `previous.pt` of step 4."""
    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.spec.write_text("format = 1\n")
    save(run.last, GOOD)
    save(run.last, NEWER, keep_as="previous.pt")
    return run


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refusal(act: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        act(*args)
    return str(error.value)


def assert_resumes_from_previous(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    before = files(run.path)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert run.read_last()["step"] == 4
    assert re.search(r"last\.pt is not used: .*\. Going on from previous\.pt, step 4\.$", caplog.messages[-1])
    assert files(run.path) == before


def packed(path: Path, records: dict[str, bytes], compression: int = ZIP_STORED) -> Path:
    with ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)
    return path


def records(path: Path) -> dict[str, bytes]:
    with ZipFile(path) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


def forged(path: Path, content: Any, protocol: int = 2) -> Path:
    return packed(path, {"data.pkl": pickle.dumps(content, protocol), "version": b"3\n", "byteorder": b"little"})


def test_cut_off_at_any_byte(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    whole = run.last.read_bytes()
    for kept in range(len(whole)):
        run.last.write_bytes(whole[:kept])
        assert "last.pt cannot be read: " in refusal(load, run.last)
        if kept % 100 == 0:
            assert_resumes_from_previous(run, caplog)


def test_one_byte_changed_anywhere(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    whole, content = run.last.read_bytes(), str(load(run.last))
    refused = []
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        run.last.write_bytes(flipped)
        try:
            assert str(load(run.last)) == content
        except CheckpointError:
            refused.append(position)
    assert len(refused) > len(whole) / 3  # the rest is padding, dates and names that nobody reads
    caplog.clear()
    for position in refused[::40]:
        run.last.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        assert_resumes_from_previous(run, caplog)


def test_missing(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.last.unlink()
    assert "There is no checkpoint" in refusal(load, run.last)
    assert run.resumable
    assert_resumes_from_previous(run, caplog)


def test_previous_file_damaged_too(run: Run) -> None:
    run.last.write_bytes(b"")
    run.previous.unlink()
    before = files(run.path)
    message = refusal(run.read_last)
    assert re.search(
        r"has no checkpoint to go on from: of last\.pt, it is cut off, .*; of previous\.pt, it is missing\. "
        r"Begin anew with --overwrite, or under a new --name\.$",
        message,
    )
    assert files(run.path) == before


def test_model_in_place_of_a_training(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    save(run.last, {"step": 5, "state": {}, "spec": ""})
    assert_resumes_from_previous(run, caplog)
    assert "last.pt is not used: it holds no training." in caplog.messages[-1]


def test_damaged_model(run: Run) -> None:
    save(run.model, GOOD)
    run.model.write_bytes(run.model.read_bytes()[:-1])
    assert "model.pt cannot be read: it is cut off" in refusal(qprune.load, run.path)
    about = {"spec": "", "state": {}, "classes": [], "shape": []}
    for change in ({"state": 5}, {"shape": [1, 8]}, {"shape": [10**9, 10**9, 1]}, {"classes": [5]}, {"palette": [[0]]}):
        save(run.model, about | change)
        assert "model.pt holds no trained model; give the run's folder or its model.pt." in refusal(
            qprune.load, run.path
        )
    save(run.model, about | {"spec": "["})
    assert re.search(r"holds a spec that cannot be read: .*\. Train the run again\.$", refusal(qprune.load, run.path))


def test_damaged_spec_of_a_run(run: Run) -> None:
    for text in (b"\xff", b"format = ", b"x = " + b"[" * 100_000):
        run.spec.write_bytes(text)
        message = refusal(lambda: Run.create(run.path.parent, "run", "format = 1\n", resume=True))
        assert re.search(r"spec\.toml is (not|nested) .* there again, or begin anew with --overwrite\.$", message)


def test_disk_full(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before, really = files(run.path), Path.open

    def full(path: Path, mode: str = "r", **options: Any) -> Any:
        if mode != "xb":
            return really(path, mode, **options)
        really(path, mode, **options).close()
        return really(Path("/dev/full"), "wb")  # a disk that is always full

    monkeypatch.setattr(Path, "open", full)
    message = refusal(lambda: save(run.last, GOOD, keep_as="previous.pt"))
    monkeypatch.undo()
    assert message == (
        f"{run.last} cannot be written: {os.strerror(errno.ENOSPC)}. What was there before is intact. Free some space "
        "or make the folder writable, then go on with --resume; or choose another folder with --runs."
    )
    assert files(run.path) == before


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_file_larger_than_the_system_allows(run: Run) -> None:
    large = {"step": 6, "net": {"weight": torch.zeros(5000)}}
    save(run.best, large)
    size = run.best.stat().st_size
    before = files(run.path)
    for limit in range(0, size, 97):
        with largest_file(limit):
            message = refusal(lambda: save(run.last, large, keep_as="previous.pt"))
        assert f"last.pt cannot be written: {os.strerror(errno.EFBIG)}." in message
        assert files(run.path) == before
    with largest_file(size):
        save(run.last, large, keep_as="previous.pt")
    assert (load(run.last)["step"], load(run.previous)["step"]) == (6, 5)


@contextmanager
def without_rights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the folder, as somebody who may read it only: root may write everywhere, so not as root."""
    monkeypatch.chdir(folder)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_folder_that_may_not_be_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(run.path)
    save(run.path.parent / "warm.pt", GOOD)  # what this loads lies where only root may read
    with without_rights(run.path, monkeypatch):
        message = refusal(lambda: save("last.pt", GOOD, keep_as="previous.pt"))
        new = refusal(lambda: Run.create(".", "other", "format = 1\n"))
    assert f"last.pt cannot be written: {os.strerror(errno.EACCES)}. What was there" in message
    assert f"other cannot be written: {os.strerror(errno.EACCES)}. What was there" in new
    assert files(run.path) == before


def test_folder_in_place_of_the_file(run: Run) -> None:
    (run.model / "inner").mkdir(parents=True)
    assert f"model.pt cannot be written: {os.strerror(errno.EISDIR)}" in refusal(save, run.model, GOOD)
    assert "There is no checkpoint" in refusal(load, run.model)
    assert (run.model / "inner").is_dir()
    assert sorted(files(run.path)) == ["last.pt", "previous.pt", "spec.toml"]


def test_killed_while_writing(run: Run) -> None:
    before = files(run.path)
    code = (
        "import os, signal, sys; from pathlib import Path; from qprune.training.writing import replaced\n"
        "with replaced(Path(sys.argv[1]), 'previous.pt') as file:\n"
        "    file.write(b'half of it'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = forked.run("-c", code, run.last)
    assert killed.returncode == -9
    (part,) = run.path.glob(".last.pt.*.part")
    assert {name: content for name, content in files(run.path).items() if name != part.name} == before
    assert run.read_last()["step"] == 5
    save(run.last, GOOD)
    assert part.exists()  # it could be that of a process that still writes
    os.utime(part, (0, 0))
    save(run.last, GOOD)
    assert not part.exists()


@pytest.mark.parametrize("damaged", [False, True])
def test_crash_at_any_instant_of_a_save(run: Run, monkeypatch: pytest.MonkeyPatch, damaged: bool) -> None:
    if damaged:
        run.last.write_bytes(b"")
    seen = []

    def look(*_: Any) -> None:
        found = []
        for path in (run.last, run.previous):
            try:
                found.append(load(path)["step"])
            except DamagedError:
                found.append(None)
        seen.append(tuple(found))

    def watched(really: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **options: Any) -> Any:
            look()
            result = really(*args, **options)
            look()
            return result

        return act

    for owner, name in ((os, "link"), (Path, "replace"), (Path, "unlink"), (os, "fsync")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    save(run.last, GOOD | {"step": 6}, keep_as="previous.pt")
    old = None if damaged else 5
    assert list(dict.fromkeys(seen)) == [(old, 4), (6, 4), (6, old)]


def test_link_planted_for_the_new_file(run: Run) -> None:
    precious = run.path.parent / "precious"
    precious.write_text("untouched")
    for name in (f".best.pt.{os.getpid()}.part", "best.pt", "model.pt", f".previous.pt.{os.getpid()}.part"):
        (run.path / name).symlink_to(precious)
    save(run.best, GOOD)
    save(run.model, GOOD, keep_as="previous.pt")
    save(run.last, NEWER, keep_as="previous.pt")
    assert precious.read_text() == "untouched"
    assert not any(path.is_symlink() for path in run.path.iterdir())
    assert load(run.best)["step"] == load(run.model)["step"] == 4


@pytest.mark.parametrize("name", ["last.pt", "previous.pt", "model.pt"])
def test_link_out_of_the_run_s_folder(run: Run, name: str) -> None:
    outside = run.path.parent / "outside.pt"
    save(outside, GOOD)
    for path in (run.path / name, run.last if name == "previous.pt" else run.best):
        path.unlink(missing_ok=True)
    (run.path / name).symlink_to(outside)
    message = refusal(qprune.load, run.path) if name == "model.pt" else refusal(run.read_last)
    assert message == (
        f"{run.path / name} leads out of the run's folder, to {outside}, and is not followed. "
        "Put the file itself there."
    )
    assert load(outside)["step"] == 4


def test_checkpoint_of_another_network(run: Run) -> None:
    save(run.last, {"step": 5, "net": nn.Linear(2, 5).state_dict()})
    net = nn.Linear(2, 3)
    before = net.weight.tolist()
    message = refusal(load_state, net, run.read_last()["net"], run.last)
    assert "last.pt is of another network: of another shape: weight, bias. Build the network from the spec" in message
    assert net.weight.tolist() == before


def test_file_of_a_newer_format(run: Run) -> None:
    torch.save({"format": 3, "written_by": {"qprune": "9.1.0"}}, run.last)
    for act in (lambda: load(run.last), run.read_last):
        assert re.search(r"format 3, written by qprune 9\.1\.0; this is .*2\. Upgrade qprune\.$", refusal(act))
    torch.save({"format": 10**6}, run.last)
    assert "was not written by qprune" in refusal(load, run.last)


def test_file_of_an_older_format(run: Run) -> None:
    torch.save({"format": 1, "step": 5, "net": {}}, run.last)
    assert "has format 1, which has no checksum, written by another version; this is" in refusal(run.read_last)


def test_file_of_another_program(run: Run) -> None:
    torch.save(nn.Linear(2, 3).state_dict(), run.last)
    assert "was not written by qprune. A plain state_dict is loaded with net.load_state_dict." in refusal(
        load, run.last
    )
    for junk in (b"", b"PK", b"\x1f\x8b" + bytes(90), b"ustar" * 200, b"format = 1\n"):
        run.last.write_bytes(junk)
        assert "cannot be read: it is cut off, or not a file of tensors" in refusal(load, run.last)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickle_with_code_in_it(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: int) -> None:
    mark = tmp_path / "executed"
    for content in ({"format": 2, "net": Payload(mark)}, Payload(mark), {Payload(mark): 1}):
        for path in (run.last, run.model):
            forged(path, content, protocol)
        message = refusal(load, run.last)
        assert ('refers to code, "posix.mkdir", of which nothing was run' if protocol == 2 else "to code") in message
        assert "refers to code" in refusal(qprune.load, run.path)
        assert_resumes_from_previous(run, caplog)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()  # it would have been


def test_bare_pickle_without_a_zip_file(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    run.last.write_bytes(pickle.dumps(Payload(mark)))
    assert "cannot be read" in refusal(load, run.last)
    torch.save({"net": Payload(mark)}, run.last, _use_new_zipfile_serialization=False)
    assert "cannot be read" in refusal(load, run.last)
    assert not mark.exists()


def test_compressed_records(run: Run) -> None:
    packed(run.last, records(run.last) | {"data/9": bytes(10_000_000)}, ZIP_DEFLATED)
    assert run.last.stat().st_size < 20_000
    assert "bytes long and declares to hold 10,0" in refusal(load, run.last)
    packed(run.last, records(run.previous), ZIP_DEFLATED)
    assert re.search(r"it is compressed, and a checkpoint never is|declares to hold", refusal(load, run.last))


def test_declared_size_larger_than_the_file(run: Run) -> None:
    whole = bytearray(packed(run.last, records(run.last)).read_bytes())
    start = whole.index(b"PK\1\2")
    whole[start + 20 : start + 28] = (0x7FFFFFF0).to_bytes(4, "little") * 2  # both sizes of the first record
    run.last.write_bytes(whole)
    message = refusal(load, run.last)
    assert re.search(r"it is [\d,]+ bytes long and declares to hold 2,147,48\d,\d+\. Use another checkpoint", message)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_records_that_are_there_twice(run: Run) -> None:
    for name in ("archive/data.pkl", "archive/DATA.pkl", "other/version"):
        save(run.last, NEWER)
        with ZipFile(run.last, "a") as archive:
            archive.writestr(name, b"\x80\x02}.")
        assert "it is a zip file with two meanings" in refusal(load, run.last)


def test_zip_file_within_a_zip_file_s_comment(run: Run) -> None:
    inner = run.last.read_bytes()
    with ZipFile(run.last, "a") as archive:
        archive.comment = inner
    assert "cannot be read: " in refusal(load, run.last)
    run.last.write_bytes(b"#!/bin/sh\n" + inner)
    assert "it is a zip file with two meanings" in refusal(load, run.last)


def test_tensor_larger_than_what_is_stored_of_it(run: Run) -> None:
    torch.save({"format": 2, "net": {"weight": torch.zeros(1).expand(2**40)}}, run.last)
    assert "a tensor in it declares 4,398,046,511,104 bytes, of which few are stored" in refusal(load, run.last)
    there = records(run.previous)
    shape = b"K\x02K\x03\x86"
    assert shape in there["data.pkl"]
    larger = there["data.pkl"].replace(shape, b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", 1)
    packed(run.last, there | {"data.pkl": larger})
    assert "cannot be read: " in refusal(load, run.last)


def test_tensor_stored_shorter_than_declared(run: Run) -> None:
    there = records(run.last)
    for values in (there["data/0"][:12], there["data/0"] * 2, b""):
        packed(run.last, there | {"data/0": values})
        assert "cannot be read: " in refusal(load, run.last)
    packed(run.last, there | {"data/7": b"never used"})
    assert "its tensors have other sizes than what is stored of them" in refusal(load, run.last)


def test_entries_without_an_end(run: Run) -> None:
    laughs: list[Any] = ["ha"]
    for _ in range(40):
        laughs = [laughs] * 10
    forged(run.last, {"format": 2, "net": laughs})
    assert re.search(r"it is [\d,]+ bytes long and holds more entries than that", refusal(load, run.last))
    endless: dict[str, Any] = {"format": 2}
    endless["net"] = endless
    forged(run.last, endless)
    assert "it is nested deeper than 50 levels" in refusal(load, run.last)


def test_entries_nested_too_deep(run: Run) -> None:
    deep = b"".join([b"\x80\x02}(X\x06\x00\x00\x00formatK\x02X\x01\x00\x00\x00x", b"]" * 90_000, b"a" * 89_999, b"u."])
    packed(run.last, {"data.pkl": deep, "version": b"3\n", "byteorder": b"little"})
    assert "it is nested deeper than 50 levels" in refusal(load, run.last)


def test_entry_that_is_no_plain_type(run: Run) -> None:
    torch.save({"format": 2, "net": torch.float32}, run.last)
    assert "it holds a dtype, and a checkpoint never does" in refusal(load, run.last)
    torch.save({"format": 2, "net": {(1, 2): 3}}, run.last)
    assert "it has a tuple for a key, and a checkpoint never does" in refusal(load, run.last)
    torch.save({"format": 2, "net": torch.zeros(2, device="meta")}, run.last)
    assert "refers to code" in refusal(load, run.last)
    torch.save({"format": 2, "net": {1, 2}}, run.last)
    assert 'refers to code, "__builtin__.set"' in refusal(load, run.last)


def test_table_in_the_docs_lists_these_faults() -> None:
    table = PAGE.read_text(encoding="utf-8").split("| fault | outcome |")[1]
    rows = {re.sub(r"\W+", "_", row) for row in re.findall(r"^\| ([^|-][^|]*) \|", table, re.MULTILINE)}
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert rows == tests - {"table_in_the_docs_lists_these_faults"}
