"""The table of files from elsewhere in docs/reference/files_from_elsewhere.md: each row is a test, each test a row."""

import io
import json
import logging
import os
import pickle
import re
import resource
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import onnx
import pytest
import torch
from attrs import evolve
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

import qprune
from qprune.cli import main
from qprune.costs import chain_of
from qprune.errors import CheckpointError, DataError, ExportError, PlanError, QpruneError, SpecError
from qprune.exporting import OnnxModel, TorchProgram, file_model
from qprune.spec import read_spec, spec_to_toml
from qprune.training import load_checkpoint, opening, save_checkpoint
from qprune.training.checkpoint import load_state
from qprune.training.event_log import EventLog
from qprune.training.resuming import load_part

PAGE = Path(__file__).parents[2] / "docs/reference/files_from_elsewhere.md"
SPEC: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "digits"},
    "model": {"layers": [{"type": "Conv2d", "out_channels": 2, "kernel_size": 3}, {"type": "Flatten"},
                         {"type": "Linear", "out_features": 10}]},
    "train": {"length": "3it", "batch": 64, "optimizer": {"name": "sgd", "lr": 0.05}},
}  # fmt: skip
IMAGES = torch.zeros(2, 1, 8, 8)
CLEAR = "\x1b[2J\u202e"


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run, and what was exported of it."""
    folder = tmp_path_factory.mktemp("made")
    run = qprune.fit(SPEC, runs=folder / "runs", verbose=0).run
    assert run is not None
    for name in ("model.onnx", "model.pt2"):
        qprune.export(run, folder / name)
    shutil.copy(run / "model.pt", folder)
    return folder


@pytest.fixture
def there(made: Path, tmp_path: Path) -> Path:
    """The same in a folder that the test may change."""
    shutil.copytree(made, tmp_path / "there")
    return tmp_path / "there"


def message(kind: type[QpruneError], act: Callable[..., Any], *args: Any, **options: Any) -> str:
    with pytest.raises(kind) as error:
        act(*args, **options)
    return str(error.value)


def shell(*arguments: Any) -> str:
    """What a command that is refused says."""
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return str(result.stderr)


# programs of torch.export


def changed(path: Path, name: str, change: Callable[[bytes], bytes], to: Path | None = None) -> Path:
    """The archive with one record changed, or added."""
    with ZipFile(path) as archive:
        records = {record: archive.read(record) for record in archive.namelist()}
    records[f"archive/{name}"] = change(records.get(f"archive/{name}", b""))
    with ZipFile(to or path, "w", ZIP_STORED) as archive:
        for record, content in records.items():
            archive.writestr(record, content)
    return to or path


def pickled(mark: Path) -> bytes:
    content = io.BytesIO()
    torch.save(Payload(mark), content)
    return content.getvalue()


def assert_runs_nothing_unless_trusted(path: Path, mark: Path) -> None:
    scan = path.with_name("scan.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(scan)
    refusal = (
        f"{path} is a program of torch.export, and opening one runs whatever code is in the file. If you made it, or "
        "trust who did, say so with trusted=True (--trusted in the shell); else ask for the ONNX file."
    )
    for act in (qprune.load, qprune.evaluate, lambda file: qprune.predict(file, IMAGES), TorchProgram, file_model):
        assert message(ExportError, act, path) == refusal
    assert message(ExportError, qprune.export, path, path.with_name("again.onnx")) == refusal
    assert shell("evaluate", path) == f"qprune: {refusal}\n"
    assert shell("predict", path, scan) == f"qprune: {refusal}\n"
    for command in ("summary", "shrink", "export"):
        shell(command, path)
    assert not mark.exists()
    with suppress(ExportError):  # code was run, then torch saw that it is no tensor
        qprune.load(path, trusted=True)
    assert mark.exists()  # it would have been


def test_pickle_among_the_example_inputs_of_a_program(there: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    path = changed(there / "model.pt2", "data/sample_inputs/model.pt", lambda _: pickled(mark))
    assert_runs_nothing_unless_trusted(path, mark)


def test_weight_of_a_program_as_a_pickle(there: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"

    def say_so(config: bytes) -> bytes:
        table = json.loads(config)
        next(iter(table["config"].values()))["use_pickle"] = True
        return json.dumps(table).encode()

    path = changed(there / "model.pt2", "data/weights/model_weights_config.json", say_so)
    assert_runs_nothing_unless_trusted(changed(path, "data/weights/weight_0", lambda _: pickled(mark)), mark)


def test_expression_in_the_shapes_of_a_program(there: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    code = json.dumps(f"__import__('os').mkdir({str(mark)!r})").encode()
    path = changed(
        there / "model.pt2",
        "models/model.json",
        lambda text: re.sub(rb'"expr_str": ?"[^"]*"', lambda _: b'"expr_str": ' + code, text),
    )
    assert_runs_nothing_unless_trusted(path, mark)


@pytest.mark.parametrize("name", ["model.pt", "model.onnx", "model", "model.pt2.bak"])
def test_program_under_another_name(there: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "executed"
    path = changed(
        there / "model.pt2", "data/sample_inputs/model.pt", lambda _: pickled(mark), to=tmp_path / "there" / name
    )
    assert_runs_nothing_unless_trusted(path, mark)


def test_program_in_the_layout_of_older_versions(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    path = tmp_path / "model"
    with ZipFile(path, "w") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_exported_program.json", "{}")
        for part in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{part}.pt", pickled(mark))
    for act in (qprune.load, qprune.evaluate, TorchProgram):
        assert "is a program of torch.export, and opening one runs" in message(ExportError, act, path)
    assert not mark.exists()


def test_program_that_is_a_checkpoint_too(there: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for record, content in (("archive_format", b"pt2"), ("data/sample_inputs/model.pt", pickled(mark))):
        changed(there / "model.pt", record, lambda _, content=content: content)
    assert "is a program of torch.export" in message(ExportError, qprune.load, there / "model.pt")
    shutil.copy(there / "model.pt", there / "runs/tiny/model.pt")
    qprune.load(there / "runs/tiny")  # read as a checkpoint, and as nothing else
    assert not mark.exists()


def test_program_that_says_something_damaged_about_its_network(there: Path) -> None:
    for text in (b"{", b"[" * 100_000, b"[]", b"9" * 5000):
        changed(there / "model.pt2", "extra/qprune", lambda _, text=text: text)
        assert message(ExportError, qprune.load, there / "model.pt2", trusted=True).startswith(
            f"What {there / 'model.pt2'} says about its network cannot be read: it is "
        )
    changed(there / "model.pt2", "extra/qprune", lambda _: b"{}")
    assert TorchProgram(there / "model.pt2", trusted=True).about == {}
    assert "does not say what it was trained for" in message(
        ExportError, qprune.load, there / "model.pt2", trusted=True
    )
    changed(there / "model.pt2", "models/model.json", lambda _: b"{}")
    assert re.search(
        r"model\.pt2 cannot be run: torch refuses it \(.*\)\. Export the network again\.$",
        message(ExportError, qprune.load, there / "model.pt2", trusted=True),
    )
    (there / "model.pt2").write_bytes((there / "model.pt2").read_bytes()[:2000])
    assert message(ExportError, qprune.load, there / "model.pt2", trusted=True) == (
        f"{there / 'model.pt2'} cannot be run: it is cut off, or no program of torch.export."
    )


# ONNX files


def about(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The ONNX file with what it says about its network changed; text is written as it is."""
    model = onnx.load(path)
    (entry,) = (each for each in model.metadata_props if each.key == "qprune")
    new = change(json.loads(entry.value))
    entry.value = new if isinstance(new, str) else json.dumps(new)
    onnx.save(model, path)
    return path


def test_onnx_file_that_says_something_damaged_about_its_network(there: Path) -> None:
    path = there / "model.onnx"
    whole = path.read_bytes()
    for text, reason in (
        ("{", "it is not JSON, or holds a number of thousands of digits"),
        ("9" * 5000, "it is not JSON, or holds a number of thousands of digits"),
        ('{"a":' * 20_000 + "1" + "}" * 20_000, "it is nested too deep"),
        ("[1]", "it is no table"),
    ):
        path.write_bytes(whole)
        about(path, lambda _, text=text: text)
        for act in (qprune.load, qprune.evaluate):
            assert message(ExportError, act, path) == (
                f"What {path} says about its network cannot be read: {reason}. Export the run again, or run the file "
                "with onnxruntime or torch."
            )
        assert shell("evaluate", path).count("\n") == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"spec": None}, "holds a spec that cannot be read: A spec must be a table; received nothing"),
        ({"spec": {"name": "tiny"}}, 'holds a spec that cannot be read: A spec needs "train"'),
        ({"classes": [1, 2]}, "its classes, shape or palette are not as they should be"),
        ({"classes": "0123456789"}, "its classes, shape or palette are not as they should be"),
        ({"shape": []}, "its classes, shape or palette are not as they should be"),
        ({"shape": [1, 8]}, "its classes, shape or palette are not as they should be"),
        ({"shape": [1, 8, True]}, "its classes, shape or palette are not as they should be"),
        ({"shape": [1, 10**9, 10**9]}, "its classes, shape or palette are not as they should be"),
        ({"palette": [[0, 0, 256]]}, "its classes, shape or palette are not as they should be"),
        ({"palette": 5}, "its classes, shape or palette are not as they should be"),
        ({"stride": 0}, "its stride is no whole number from 1 to 4096"),
        ({"stride": "8"}, "its stride is no whole number from 1 to 4096"),
        ({"stride": 10**12}, "its stride is no whole number from 1 to 4096"),
    ],
)
def test_onnx_file_with_a_wrong_entry(there: Path, change: dict[str, Any], reason: str) -> None:
    path = about(there / "model.onnx", lambda table: table | change)
    assert reason in message(ExportError, qprune.evaluate, path)
    (key,) = change
    about(path, lambda table: {name: value for name, value in table.items() if name != key})
    assert f"cannot be read: it has no {key}. Export the run again" in message(ExportError, qprune.evaluate, path)


def weight_elsewhere(path: Path, location: str) -> None:
    model = onnx.load(path)
    tensor = next(each for each in model.graph.initializer if each.raw_data)
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(tensor.raw_data)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["weights.bin", "../outside", "/etc/hostname", "pipe"])
def test_onnx_weight_in_another_file(there: Path, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(there)
    (there / "weights.bin").write_bytes(bytes(4096))
    os.mkfifo(there / "pipe")
    weight_elsewhere(there / "model.onnx", location)
    for act in (qprune.load, OnnxModel, lambda path: OnnxModel(path.read_bytes())):
        told = message(ExportError, act, there / "model.onnx")
        assert re.search(r" is not opened: its weight '.*' lies in another file, and only what is whole in one", told)


def test_onnx_weight_in_another_file_below_an_attribute_or_a_subgraph(there: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    constant = helper.make_node("Constant", [], ["y"], value=tensor)
    inner = helper.make_graph([constant], "inner", [], [helper.make_tensor_value_info("y", 1, [3])])
    choice = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    function = helper.make_function("mine", "F", [], ["y"], [constant], [helper.make_opsetid("", 21)])
    for nodes, functions in (
        ([constant], []),
        ([choice], []),
        ([helper.make_node("F", [], ["y"], domain="mine")], [function]),
    ):
        graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("c", TensorProto.BOOL, [])], [])
        model = helper.make_model(graph, functions=functions)
        assert "its weight 'hidden' lies in another file" in message(ExportError, OnnxModel, model.SerializeToString())


def test_onnx_operator_of_a_library_of_its_own(there: Path) -> None:
    model = onnx.load(there / "model.onnx")
    model.graph.node[0].op_type, model.graph.node[0].domain = "Run", "mine"
    model.opset_import.append(helper.make_opsetid("mine", 1))
    onnx.save(model, there / "model.onnx")
    assert " cannot be run: " in message(ExportError, qprune.load, there / "model.onnx")


def test_onnx_file_that_is_none(there: Path) -> None:
    path = there / "model.onnx"
    whole = path.read_bytes()
    assert whole.count(b"conv2d_1.weight") > 1
    for content in (b"", whole[: len(whole) // 2], b"\x08\x09", b"ORTM" * 90, b"\x1a" * 5000,
                    whole.replace(b"conv2d_1.weight", b"conv2d_1.weigh\xff")):  # fmt: skip
        path.write_bytes(content)
        assert re.search(r" cannot be run: it is (cut off, or )?no ONNX file", message(ExportError, qprune.load, path))
    path.unlink()
    os.mkfifo(path)
    assert "it is a named pipe, and only regular files are read." in message(ExportError, OnnxModel, path)


def test_onnx_network_that_takes_no_images(there: Path) -> None:
    text = helper.make_tensor_value_info("x", TensorProto.STRING, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [text], [text])
    graph.output[0].name = "y"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model.metadata_props.extend(onnx.load(there / "model.onnx").metadata_props)
    onnx.save(model, there / "model.onnx")
    told = message(ExportError, qprune.evaluate, there / "model.onnx")
    assert told.startswith(f"{there / 'model.onnx'} cannot be run on what it was given: ")
    del model.graph.input[:]
    model.graph.node[0].CopyFrom(helper.make_node("Constant", [], ["y"], value_string="x"))
    onnx.save(model, there / "model.onnx")
    assert message(ExportError, qprune.evaluate, there / "model.onnx") == (
        f"{there / 'model.onnx'} cannot be run on images: it has no input."
    )


# specs, in files and beside networks


def test_spec_beside_a_network_that_extends_a_file(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(there)
    os.mkfifo("pipe")
    content = load_checkpoint("model.pt")
    for base in ("pipe", "/dev/zero", "base.toml", "a\0"):
        save_checkpoint("model.pt", content | {"spec": f"extends = {json.dumps(base)}\n{content['spec']}"})
        about(there / "model.onnx", lambda table, base=base: table | {"spec": table["spec"] | {"extends": base}})
        sentence = f"A spec beside a network is whole and extends no file; received extends = {json.dumps(base)}"
        for path, kind in (("model.pt", CheckpointError), ("model.onnx", ExportError)):
            assert message(kind, qprune.load, path) == (
                f"{path} holds a spec that cannot be read: {sentence}. Train the run again."
            )
        assert sentence in shell("summary", "model.pt")


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_spec_that_is_no_regular_file_or_too_large(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "pipe":
        os.mkfifo("base.toml")
    elif kind == "device":
        Path("base.toml").symlink_to("/dev/zero")
    else:
        Path("base.toml").write_bytes(b"#" * (2**21 + 1))
    reason = {
        "pipe": "it is a named pipe, and only regular files are read",
        "device": "it is a device, and only regular files are read",
        "large": "it is 2,097,153 bytes long, and at most 2,097,152 are read",
    }[kind]
    Path("mine.toml").write_text('format = 1\nextends = "base.toml"\n')
    assert message(SpecError, read_spec, "mine.toml").startswith(f"base.toml cannot be read ({reason})")
    assert message(SpecError, read_spec, Path("base.toml")).startswith(f"base.toml cannot be read ({reason})")
    Path("specs").mkdir()
    shutil.move("base.toml", "specs/base.toml")
    assert CliRunner().invoke(main, ["list"]).exit_code == 0  # lists it, and reads nothing of it


def test_extends_with_a_character_that_no_path_has(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('format = 1\nextends = "a\\u0000"\n')
    assert message(SpecError, read_spec, tmp_path / "mine.toml").startswith(
        'extends must be the relative path of a file; received "a\\u0000" (extends in '
    )


def test_key_of_fifty_thousand_parts(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for key in (".".join("a" * 50_000), " . ".join(['"a b"'] * 3000), ".".join(["'x'"] * 3000)):
        for text in (f"{key} = 1", f"[{key}]", f"x = {{ {key} = 1 }}"):
            path.write_text(f"format = 1\n{text}\n")
            begun = time.perf_counter()
            assert "mine.toml has a key of more than 20 parts, " in message(SpecError, read_spec, path)
            assert time.perf_counter() - begun < 5
    key = ".".join("a" * 50_000)
    assert "A key has at most 20 parts; received 50,000 (override a.a." in message(
        SpecError, read_spec, "digits/baseline", [f"{key}=1"]
    )
    path.write_text(f"format = 1\nabout = '{'1.' * 9}'\nx = [{'0.5, ' * 500}]\n")
    assert "20 parts" not in message(SpecError, read_spec, path)


def test_number_of_twenty_digits(tmp_path: Path) -> None:
    number, runs = 10**20, tmp_path / "runs"
    seed = f"seed must be a whole number from 0 to {2**63 - 1}; received {number}"
    assert message(SpecError, qprune.fit, SPEC, seed=number, runs=runs) == seed
    assert message(SpecError, qprune.plan, SPEC | {"seed": number}) == f"{seed} (seed)."
    assert shell("fit", "digits/baseline", "--seed", number, "--runs", runs).startswith(f"qprune: {seed}")
    for table, key in (("train", "batch"), ("train", "accumulate"), ("data", "train_images"), ("data", "prefetch")):
        told = message(SpecError, qprune.plan, SPEC | {table: SPEC[table] | {key: number}})
        assert told == f"{key} must be a whole number from 1 to {2**31 - 1}; received {number} ({table}.{key})."
    assert not runs.exists()
    (tmp_path / "mine.toml").write_text(f"format = 1\nseed = {'9' * 5000}\n")
    assert "it holds a number of thousands of digits" in message(SpecError, read_spec, tmp_path / "mine.toml")


def test_two_thousand_clashing_rules() -> None:
    rule = {"sites": [{"types": ["Conv2d"], "at": "input"}], "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 1}}
    layers = [{"type": "Conv2d", "out_channels": 2, "kernel_size": 1} for _ in range(3)]
    model = {"layers": layers + SPEC["model"]["layers"][1:]}
    told = message(PlanError, qprune.plan, SPEC | {"model": model, "prune": [rule] * 2000})
    lines = told.split("\n")
    assert len(lines) == 51
    assert lines[-1] == "... and 5,947 more mistakes."
    assert len(told) < 10_000


# what a file asks for


def asked(there: Path, **changes: dict[str, Any]) -> Path:
    """The model with another spec in it, as its author could have trained it."""
    content = load_checkpoint(there / "model.pt")
    spec = read_spec(SPEC | {name: SPEC[name] | table for name, table in changes.items()})
    save_checkpoint(there / "model.pt", content | {"spec": spec_to_toml(spec)})
    return there / "model.pt"


def test_processes_and_batches_that_a_file_asks_for(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    really = opening.eval_loader

    def watched(data: Any, **options: Any) -> Any:
        seen.append(options)
        return really(data, **options | {"workers": 0})

    monkeypatch.setattr(opening, "eval_loader", watched)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    path = asked(there, data={"workers": 40}, train={"batch": 10**9})
    qprune.evaluate(path)
    qprune.evaluate(path, workers=5, batch=2000)
    assert CliRunner().invoke(main, ["evaluate", str(path), "--workers", "7", "--batch", "50"]).exit_code == 0
    assert [(each["workers"], each["batch"]) for each in seen] == [(3, 1024), (5, 2000), (7, 50)]
    qprune.evaluate(asked(there, data={"workers": 2}, train={"batch": 100}))
    assert (seen[-1]["workers"], seen[-1]["batch"]) == (2, 100)


def test_large_images_that_a_file_asks_for(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = load_checkpoint(there / "model.pt")
    monkeypatch.delenv("QPRUNE_LARGEST_IMAGE", raising=False)

    def refusal(path: Path, values: str) -> str:
        return (
            f"{path} is about images of {values} values; a file's word is taken for 67,108,864. If it is right, set "
            "QPRUNE_LARGEST_IMAGE to that many."
        )

    save_checkpoint(there / "model.pt", content | {"shape": [1, 30000, 30000]})
    about(there / "model.onnx", lambda table: table | {"shape": [1, 30000, 30000]})
    for name, kind in (("model.pt", CheckpointError), ("model.onnx", ExportError)):
        told = refusal(there / name, "1 x 30000 x 30000, 900,000,000")
        assert message(kind, qprune.load, there / name) == told
        assert shell("evaluate", there / name) == f"qprune: {told}\n"
    assert "is about images of 1 x 30000" in shell("shrink", there / "model.pt")
    path = asked(there, data={"size": [16384, 16000]})
    save_checkpoint(path, load_checkpoint(path) | {"shape": [1, 8, 8]})
    assert message(CheckpointError, qprune.load, path) == refusal(path, "3 x 16384 x 16000, 786,432,000")
    monkeypatch.setenv("QPRUNE_LARGEST_IMAGE", "786432000")
    assert qprune.load(path)(IMAGES).shape == (2, 10)
    monkeypatch.setenv("QPRUNE_LARGEST_IMAGE", "many")
    assert 'QPRUNE_LARGEST_IMAGE must be a whole number of values; received "many".' in message(
        CheckpointError, qprune.load, path
    )


def test_large_network_that_a_file_asks_for(there: Path) -> None:
    layers = [SPEC["model"]["layers"][0], {"type": "Flatten"}, *[{"type": "Linear", "out_features": 12_000}] * 3]
    path = asked(there, model={"layers": layers})
    values = 2 * 9 + 2 + 72 * 12_000 + 2 * 12_000**2 + 3 * 12_000
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert message(CheckpointError, qprune.load, path) == (
        f"{path} describes a network of {values:,} values, and holds 750. Take out what was dropped (qprune.shrink) "
        "and save the network with qprune.save, which needs no spec."
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun < 500_000  # kilobytes


def test_fewer_classes_than_the_network_tells_apart(there: Path) -> None:
    content = load_checkpoint(there / "model.pt")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(there / "scan.png")
    save_checkpoint(there / "model.pt", content | {"classes": ["0", "1"]})
    assert shell("predict", there / "model.pt", there / "scan.png") == (
        "qprune: The network tells 10 classes apart; its file names 2.\n"
    )
    save_checkpoint(there / "model.pt", content | {"shape": []})
    assert message(CheckpointError, qprune.load, there / "model.pt") == (
        f"{there / 'model.pt'} does not say how large its images are. Train the run again."
    )


def test_download_that_a_file_asks_for(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("a download was begun"))
    path = asked(there, data={"name": "cifar10", "download": True, "root": str(there / "new")})
    assert "cifar10 must be on this machine; looked for" in message(DataError, qprune.evaluate, path)
    assert not (there / "new").exists()


# reports, data, checkpoints


def test_damaged_report_of_the_run_before(there: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = there / "runs"
    for content in (b"{", b"[" * 100_000, b"9" * 5000, b'{"name": "tiny", "init": null}'):
        shutil.rmtree(runs / "next", ignore_errors=True)
        (runs / "tiny/report.json").write_bytes(content)
        Path(there / "next.toml").write_text(spec_to_toml(evolve(read_spec(SPEC), name="next", init="tiny")))
        result = CliRunner().invoke(main, ["fit", str(there / "next.toml"), "--runs", str(runs), "--quiet"])
        assert result.exit_code == 0, result.output
        assert "tiny/report.json is left out of the table: it " in caplog.text
        assert re.search(r"^next +\d", result.output, re.MULTILINE)
        assert f"The run is in {runs / 'next'}" in result.output
        caplog.clear()
    assert [row["name"] for row in chain_of("next", runs)] == ["next"]


def test_class_names_that_are_no_regular_file(tmp_path: Path) -> None:
    for kind in ("train", "test"):
        for side in ("images", "labels"):
            (tmp_path / kind / side).mkdir(parents=True)
    os.mkfifo(tmp_path / "classes.toml")
    spec = SPEC | {"data": {"name": "segmentation", "root": str(tmp_path)}}
    assert message(DataError, qprune.plan, spec) == (
        f"{tmp_path / 'classes.toml'}: must be a TOML file; it is a named pipe, and only regular files are read."
    )


def test_image_that_is_no_regular_file_or_no_image(there: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "draws.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 7\n%%EndComments\n")
    for name in ("train/a", "test/a"):
        (tmp_path / "set" / name).mkdir(parents=True)
        os.mkfifo(tmp_path / "set" / name / "1.png")
    assert "There is no image" in shell("predict", there / "model.pt", tmp_path / "pipe.png")
    assert "There is no image" in shell("predict", there / "model.pt", tmp_path / "zero.png")
    assert "must be a whole, readable image; it is none of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP" in shell(
        "predict", there / "model.pt", tmp_path / "draws.png"
    )
    spec = SPEC | {"data": {"name": "folder", "root": str(tmp_path / "set")}}
    assert "it is a named pipe, and only regular files are read" in message(DataError, qprune.plan, spec)


def test_data_set_of_pickles_that_were_changed(tmp_path: Path) -> None:
    mark, folder = tmp_path / "executed", tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(Payload(mark)))
    spec = SPEC | {"data": {"name": "cifar10", "root": str(tmp_path)}}
    assert "cifar10 must be on this machine" in message(DataError, qprune.fit, spec, runs=tmp_path / "runs")
    assert not mark.exists()


def test_tensors_of_another_dtype() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    whole = net.state_dict()
    before = {name: tensor.clone() for name, tensor in whole.items()}
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in whole.items()}
    assert message(CheckpointError, load_state, net, half, "half.pt") == (
        "half.pt is of another dtype: 0.weight, 0.bias, 1.weight and 3 more (float16, and float32 is wanted). Nothing "
        "is rounded in passing: bring the network to the dtype of the file before, or build it from the spec it was "
        "trained with."
    )
    floats = {name: tensor.float() for name, tensor in whole.items()}
    assert "is of another dtype: 1.num_batches_tracked (float32, and int64 is wanted)" in message(
        CheckpointError, load_state, net, floats, "floats.pt"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    load_state(net.half(), half, "half.pt")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(2, 3, 2, 2).half()).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    load_part(optimizer, state, "last.pt")
    state["state"][0]["momentum_buffer"] = state["state"][0]["momentum_buffer"].double()
    assert "last.pt is of another dtype: parameter 0, momentum_buffer (float64, and float16 is wanted)" in message(
        CheckpointError, load_part, optimizer, state, "last.pt"
    )


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("optimizer", lambda old: old | {"state": 5}, "optimizer"),
        ("optimizer", lambda old: old | {"state": {0: {"momentum_buffer": 5}}}, "optimizer"),
        ("optimizer", lambda old: old | {"param_groups": [{"lr": "fast", "params": [0, 1, 2, 3]}]}, "optimizer"),
        ("lr_schedule", lambda old: old | {"last_epoch": None}, "lr_schedule"),
        ("history", lambda old: {"history": {"loss": ["low"]}, "events": []}, "history"),
        ("history", lambda old: {"history": {"loss": [0.5], "step": []}, "events": []}, "history"),
        ("meter", lambda old: old | {"updates": {"accuracy": [1]}}, "meter"),
        ("callbacks", lambda old: {"ModelCheckpoint-1": 5}, "callbacks"),
        ("lr", lambda old: None, "step"),
        ("ranks", lambda old: [], "ranks"),
        ("ranks", lambda old: [{}], "ranks"),
        ("ranks", lambda old: [{"rng": 5}], "random numbers"),
    ],
)
def test_part_of_a_checkpoint_that_is_something_else(
    there: Path, part: str, change: Callable[[Any], Any], named: str
) -> None:
    last = there / "runs/tiny/last.pt"
    content = load_checkpoint(last)
    save_checkpoint(last, content | {part: change(content[part]), "step": 2})
    assert message(CheckpointError, qprune.fit, SPEC, runs=there / "runs", resume=True, verbose=0) == (
        f"The checkpoint holds something else where its {named} should be. Begin anew with --overwrite, or under a new "
        "--name."
    )


def test_control_characters_in_a_file(there: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = load_checkpoint(there / "model.pt")
    path = there / "model.pt"
    save_checkpoint(path, content | {"classes": [f"{name}{CLEAR}\nfake: line" for name in "0123456789"]})
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "scan.png")
    shown = CliRunner().invoke(main, ["predict", str(path), str(tmp_path / "scan.png")], catch_exceptions=False)
    assert shown.exit_code == 0
    assert len(shown.output.splitlines()) == 3
    layers = [SPEC["model"]["layers"][0] | {"name": f"stem{CLEAR}\nfake"}, *SPEC["model"]["layers"][1:]]
    qprune.fit(SPEC | {"model": {"layers": layers}}, runs=tmp_path / "runs", verbose=0)
    summary = CliRunner().invoke(main, ["summary", str(tmp_path / "runs/tiny")], catch_exceptions=False)
    assert summary.exit_code == 0
    specs = tmp_path / "specs"
    specs.mkdir()
    (specs / "mine.toml").write_text(f"format = 1\nabout = {json.dumps(f'x{CLEAR}')}\n{json.dumps(f'y{CLEAR}')} = 1\n")
    said = [shown.output, summary.output, shell("plan", specs / "mine.toml")]
    caplog.set_level(logging.INFO)
    save_checkpoint(path, content | {"spec": f"{json.dumps(f'z{CLEAR}')} = 1"})
    said.append(shell("evaluate", path))
    torch.save({"format": 3, "written_by": {"qprune": CLEAR}}, path)
    said.append(shell("evaluate", path))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        said.append(CliRunner().invoke(main, ["list", "mine"]).output)
    for text in said:
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\\x1b[2J\\u202e" in text


def test_event_file_that_is_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("untouched")
    events = EventLog(tmp_path / "events")
    events.folder.mkdir()
    link = events.folder / "events.out.tfevents.0.qprune"
    link.symlink_to(precious)
    events.sizes = {link.name: 3, "../precious": 3}
    events.cut_back()
    assert precious.read_text() == "untouched"
    assert not link.exists()


def test_table_in_the_docs_lists_these_faults() -> None:
    section = PAGE.read_text(encoding="utf-8").split("\n## ")[0]
    rows = {re.sub(r"\W+", "_", row).lower() for row in re.findall(r"^\| ([^|-][^|]*) \|", section, re.MULTILINE)}
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert rows - {"fault"} == tests - {"table_in_the_docs_lists_these_faults"}
