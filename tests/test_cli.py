"""The command line: every command, and every kind of mistake told in sentences, with exit code 2 and no traceback."""

import csv
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from qprune import api, cli_export
from qprune.cli import main
from qprune.costs import timing
from qprune.data import load_data
from qprune.errors import ExportError
from qprune.exporting import Certificate
from qprune.spec import DataSpec, list_specs
from qprune.trained import save
from qprune.training import load_model

TINY = """format = 1
about = "A tiny net on a few digits."
{head}
[data]
name = "digits"
train_images = 135

[[model.layers]]
name = "conv1"
type = "Conv2d"
out_channels = 6
kernel_size = 3

[[model.layers]]
name = "act1"
type = "ReLU"

[[model.layers]]
name = "conv2"
type = "Conv2d"
out_channels = 8
kernel_size = 3

[[model.layers]]
type = "Flatten"

[[model.layers]]
name = "classifier"
type = "Linear"
out_features = 10

[train]
length = "2ep"
batch = 32
optimizer = {{ name = "sgd", lr = 0.05 }}
{tail}
"""
PRUNE = """
[[prune]]
sites = [{ types = ["ReLU"], at = "output" }]
sparsity = 0.5
schedule = { kind = "one-shot", at = 5 }
"""


def write(name, head="", tail=""):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TINY.format(head=head, tail=tail))
    return str(path)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QPRUNE_RUNS", raising=False)
    monkeypatch.delenv("QPRUNE_DATA", raising=False)
    return tmp_path


@pytest.fixture
def qprune():
    """Run a command that works; its output."""

    def run(*arguments):
        result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


@pytest.fixture
def refused():
    """Run a command that is refused; the lines that say why."""

    def run(*arguments):
        result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert "Traceback" not in result.stderr
        return result.stderr.rstrip("\n").split("\n")

    return run


# commands


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            [],
            [
                "qprune list",
                "qprune plan SPEC",
                "qprune fit SPEC --chain",
                "fit",
                "evaluate",
                "predict",
                "summary",
                "shrink",
                "export",
            ],
        ),
        (["fit"], ["SPEC", "--chain", "--resume", "--overwrite", "--name", "--seed", "--set", "--data", "--runs"]),
        (["plan"], ["SPEC", "--steps-per-epoch", "--set", "--data", "without training"]),
        (["evaluate"], ["RUN", "--split [test|val|train]", "--device", "default: test"]),
        (["predict"], ["RUN IMAGES...", "class and confidence"]),
        (["summary"], ["RUN", "per layer and in total"]),
        (["shrink"], ["RUN", "--fold", "--out", "small.pt", "computes the same"]),
        (["export"], ["RUN", "--require", "0.1", "--storage [int8|int4]", "--out", "model.onnx", "qprune[onnx]"]),
        (["list"], ["[PART]", "List the specs", "with PART in their name"]),
    ],
)
def test_help_says_what_to_do_next(qprune, command, words):
    text = qprune(*command, "--help")
    assert not [word for word in words if word not in " ".join(text.split())]
    assert qprune(*command, "-h") == text


def test_list_shows_every_spec_with_a_line_about_it(qprune):
    lines = [line for line in qprune("list", "--full").splitlines() if "  " in line.lstrip()]  # not the folders
    specs = list_specs()
    assert [line.split()[0] for line in lines] == [spec.name.split("/")[-1] for spec in specs]
    assert all(spec.about in line for line, spec in zip(lines, specs, strict=True))


def test_list_shows_a_folder_with_many_specs_in_one_line(qprune):
    lines = qprune("list").splitlines()
    assert lines[lines.index("cifar100") + 1] == "  densenet121  23 specs"
    assert len(lines) < len(list_specs()) / 2
    told = f"{len(list_specs())} specs. Those of a part: qprune list PART. All of them: qprune list --full."
    assert lines[-2:] == ["", told]
    assert len(qprune("list", "cifar100/densenet121").splitlines()) == 2 + 23
    assert qprune("list", "--full").splitlines() == qprune("list", "/").splitlines()


@pytest.mark.parametrize("place", [0, 1])
def test_more_is_said_with_v_before_and_after_the_command(folder, place):
    spec = write("specs/tiny/dense.toml")
    command = ["fit", spec, "--quiet", "--set", "train.length=1it"]
    told = forked.run("-m", "qprune", *(["-v", *command], [*command, "-v"])[place], folder=folder)
    assert told.returncode == 0
    assert re.search(r"^Step 1: .* waiting for data", told.stderr, re.MULTILINE)
    if place == 0:
        silent = forked.run("-m", "qprune", *command, "--overwrite", folder=folder)
        assert silent.stderr == ""


def test_list_shows_a_part(qprune):
    lines = qprune("list", "digits/a75").splitlines()
    assert lines[0] == "digits"
    assert lines[1].startswith("  a75_l0_layerwise  75 % of the channels pruned")
    assert not [line for line in lines[1:] if not line.startswith("  a75_")]


def test_list_shows_networks(qprune):
    lines = qprune("list", "--networks").splitlines()
    assert {"mobilenetv2", "torchvision/resnet18", "torchvision/fcn_resnet50"} <= set(lines)
    assert qprune("list", "--networks", "mobilenetv2").splitlines()[0] == "mobilenetv2"
    assert qprune("list", "--networks", "torchvision/resnet18").splitlines() == ["torchvision/resnet18"]


def test_list_of_a_part_that_is_nowhere_names_the_nearest(refused):
    assert refused("list", "digist") == ['qprune: No spec has "digist" in its name; nearest: "digits".']


def test_list_shows_specs_of_the_current_folder_and_published_names(qprune):
    write("specs/mine/tiny.toml", 'aka = "paper_name"')
    assert qprune("list", "mine/").splitlines() == ["mine", "  tiny  A tiny net on a few digits. [paper_name]"]


def test_plan_prints_the_time_line_and_trains_nothing(qprune, folder):
    text = qprune("plan", write("tiny.toml", tail=PRUNE))
    assert "act1.output: 3 of 6 channels kept (activation-l1)" in text
    assert "step 5 (1.00 ep) of 10 (2.00 ep)" in text
    assert "parameters: " in text
    assert [path.name for path in folder.iterdir()] == ["tiny.toml"]


def test_plan_of_a_large_network_fits_a_screen_and_full_shows_every_site(qprune):
    lines = qprune("plan", "digits/joint_single_run", "--full").splitlines()
    assert lines == qprune("plan", "digits/joint_single_run").splitlines()  # no more than eight go alike
    assert len(lines) == 1 + 19 + 4
    lines = qprune("plan", "cifar100/mobilenetv2/a75_w4a4").splitlines()
    assert len(lines) < 24
    assert "  stem.act.output and 52 more: masks taken over" in lines[1]
    assert lines[-1].startswith("Sites that go alike share a line; all of them: qprune plan --full")
    full = qprune("plan", "cifar100/mobilenetv2/a75_w4a4", "--full").splitlines()
    assert len([line for line in full if line.endswith("mask taken over")]) == 53
    assert lines[0] == full[0]


def test_plan_takes_another_epoch_and_overrides(qprune):
    spec = write("tiny.toml", tail=PRUNE)
    text = qprune("plan", spec, "--steps-per-epoch", 50, "--set", "prune.0.sparsity=0.9")
    assert "act1.output: 1 of 6 channels kept" in text
    assert "of 100 (2.00 ep)" in text


def test_fit_prints_its_epochs_and_ends_with_a_table_of_the_chain(qprune):
    write("specs/tiny/dense.toml")
    write("specs/tiny/small.toml", 'init = "tiny/dense"', PRUNE)
    lines = qprune("fit", "tiny/small", "--chain").splitlines()
    assert [line.split(" - ")[0] for line in lines[:8]] == [
        "tiny/dense (1 of 2)", "Epoch 1/2", "Epoch 2/2", "",
        "tiny/small (2 of 2)", "  step 5: froze 1 of 1", "Epoch 1/2", "Epoch 2/2",
    ]  # fmt: skip
    assert " left - val_accuracy: " in lines[2]  # of the chain, as the run is at its end
    assert lines[-6].startswith("run ") and "test accuracy" in lines[-6]  # noqa: PT018
    assert [line.split()[0] for line in lines[-4:-2]] == ["tiny/dense", "tiny/small"]
    assert lines[-1] == "The run is in runs/tiny/small"


def test_fit_quietly_with_seed_name_and_runs(qprune, folder):
    spec = write("tiny.toml")
    lines = qprune("fit", spec, "--quiet", "--seed", 3, "--runs", "there", "--set", "train.length=1it").splitlines()
    assert not [line for line in lines if line.startswith("Epoch")]
    assert lines[-1] == "The run is in there/tiny@seed3"
    qprune("fit", spec, "--quiet", "--name", "mine", "--set", "train.length=1it")
    assert (folder / "runs/mine/model.pt").is_file()


def test_evaluate_prints_json_equal_to_the_report(qprune):
    qprune("fit", write("tiny.toml"), "--quiet")
    report = json.loads(Path("runs/tiny/report.json").read_text())
    assert json.loads(qprune("evaluate", "tiny")) == report["scores"]["test"]
    assert json.loads(qprune("evaluate", "runs/tiny", "--split", "val")) == report["scores"]["val"]


def test_predict_classifies_image_files(qprune):
    qprune("fit", write("tiny.toml"), "--quiet", "--set", "train.length=20ep", "--set", "data.train_images=600")
    test = load_data(DataSpec("digits")).test
    files, labels = [], []
    for index in range(20):
        image, label = test[index]
        pixels = ((image * 0.3756 + 0.3051) * 255).round().clamp(0, 255).byte()[0].numpy()
        files.append(f"scan{index}.png")
        labels.append(str(int(label)))
        Image.fromarray(pixels).resize((16, 16), Image.Resampling.NEAREST).save(files[-1])
    rows = [line.split() for line in qprune("predict", "tiny", *files).splitlines()[2:]]
    assert [row[0] for row in rows] == files
    assert sum(row[1] == label for row, label in zip(rows, labels, strict=True)) >= 15
    assert all(row[2].endswith("%") and 10 <= float(row[2][:-1]) <= 100 for row in rows)
    assert qprune("predict", "tiny", *files, "--out", "told") == qprune("predict", "tiny", *files)
    with open("told/predictions.csv", encoding="utf-8", newline="") as file:
        told = list(csv.reader(file))
    assert told[0] == ["image", "class", "confidence"]
    assert [[path, label, f"{float(share):.1%}"] for path, label, share in told[1:]] == rows


def test_summary_prints_the_layers_of_a_run(qprune):
    qprune("fit", write("tiny.toml", tail=PRUNE), "--quiet")
    text = qprune("summary", "tiny")
    assert "conv2" in text
    assert "classifier" in text


NORM = """
[[model.layers]]
name = "norm2"
type = "BatchNorm2d"
from = "conv2"
"""


def test_sensitivity_shows_the_curves_and_keeps_them_beside_the_model(qprune, folder):
    qprune("fit", write("tiny.toml"), "--quiet")
    options = ("--ratios", "0.5,0.75", "--bits", "4", "--images", "40", "--quiet")
    shown = qprune("sensitivity", "tiny", *options)
    lines = shown.splitlines()
    assert lines[2] == "40 images; channels ranked by activation-l1."
    assert lines[4].split() == ["channels", "dropped", "of", "50", "%", "75", "%"]
    assert [line.split()[:2] for line in lines[6:8]] == [["act1.output", "6"], ["conv2.output", "8"]]
    assert lines[-1] == f"The curves are in {Path('runs/tiny/sensitivity.png')}"
    assert (folder / "runs/tiny/sensitivity.png").stat().st_size > 10_000
    assert qprune("sensitivity", "tiny", *options) == shown


def test_sensitivity_says_what_it_costs_before_it_starts(folder):
    CliRunner().invoke(main, ["fit", write("tiny.toml"), "--quiet"], catch_exceptions=False)
    result = CliRunner().invoke(
        main, ["sensitivity", "tiny", "--bits", "4", "--out", "own.png"], catch_exceptions=False
    )
    # six ratios of two groups, and one width of three: the classifier's weights are the third
    assert result.stderr.startswith("15 measurements of 3 groups, on 135 images each: about ")
    assert (folder / "own.png").is_file()


def test_sensitivity_of_a_pruned_run_or_of_nothing_is_refused(qprune, refused):
    assert refused("sensitivity", "tiny")[0].startswith("qprune: ")
    qprune("fit", write("tiny.toml", tail=PRUNE), "--quiet")
    assert refused("sensitivity", "tiny") == [
        "qprune: A dense network is measured, and this one has a mask at act1.output. Give the one that "
        "it started from."
    ]
    assert refused("sensitivity", "tiny", "--bits", "4,x") == [
        'qprune: --bits must be numbers with commas between them; received "4,x".'
    ]


SEARCH = ("search", "tiny", "--ratios", "0.5,0.75", "--images", "40", "--quiet")


def test_search_writes_a_spec_that_plans_and_trains(qprune, folder):
    qprune("fit", write("tiny.toml"), "--quiet")
    lines = qprune(*SEARCH, "--budget", "macs=0.5", "--budget", "bytes=2kB", "--bits", "4,8").splitlines()
    file = Path("runs/tiny/tiny_macs50_bytes2kB.toml")
    assert lines[0] == "Found for macs = 50 %, bytes = 2 kB, by sensitivity; channels ranked by activation-l1."
    assert lines[-4:] == [f"The spec is in {file}", "", f"  qprune plan {file}", f"  qprune fit {file}"]
    plan = qprune("plan", str(file))
    assert plan.splitlines()[0].startswith("1 mask, 5 quantizers, finished by step ")
    assert qprune("fit", str(file)).splitlines()[-1] == "The run is in runs/tiny_macs50_bytes2kB"


def test_search_writes_a_spec_of_training_from_scratch(qprune, folder):
    qprune("fit", write("tiny.toml"), "--quiet")
    assert qprune(*SEARCH, "--budget", "macs=0.5", "--scratch").endswith("tiny_macs50_scratch.toml\n")
    lines = qprune("fit", "runs/tiny/tiny_macs50_scratch.toml").splitlines()
    assert "  step 0: froze 1 of 1" in lines
    assert lines[-1] == "The run is in runs/tiny_macs50_scratch"


def test_the_same_search_again_finds_the_same_and_a_changed_spec_is_not_lost(qprune, refused, folder):
    qprune("fit", write("tiny.toml"), "--quiet")
    search = (*SEARCH, "--budget", "macs=0.5", "--name", "mine")
    assert qprune(*search) == qprune(*search)
    file = Path("runs/tiny/mine.toml")
    file.write_text(file.read_text().replace("about", "# about"))
    result = CliRunner().invoke(main, search)
    assert result.stdout.startswith("Found for macs = 50 %")  # what may have taken long is told in any case
    assert result.stderr == f"qprune: {file} is there already. Move it away, or choose another --out.\n"
    assert qprune(*search, "--out", "other.toml").splitlines()[-4] == "The spec is in other.toml"


def test_search_for_what_cannot_be_is_refused(qprune, refused):
    assert refused(*SEARCH, "--budget", "macs=0.5")[0].startswith("qprune: There is no run")
    qprune("fit", write("tiny.toml"), "--quiet")
    assert refused(*SEARCH, "--budget", "mac=0.5") == [
        'qprune: A budget is of macs, params, bytes, bops, latency; received "mac"; nearest: "macs".'
    ]
    assert refused(*SEARCH, "--budget", "macs=few")[0].startswith("qprune: The budget of macs must be a number such")
    assert "cannot be met" in refused(*SEARCH, "--budget", "macs=1e-9")[0]
    assert refused(*SEARCH, "--budget", "macs=1")[0].startswith("qprune: The dense network meets the budget already: ")


@pytest.fixture
def in_a_hurry(monkeypatch):
    """Timings of three rounds."""
    monkeypatch.setattr(timing, "SECONDS", 0.0)


def test_shrink_shows_what_went_and_how_long_a_forward_takes(qprune, in_a_hurry):
    qprune("fit", write("tiny.toml", tail=PRUNE), "--quiet")
    lines = qprune("shrink", "tiny").splitlines()
    assert lines[0].split()[:4] == ["layer", "type", "in", "out"]
    assert lines[2].split()[:4] == ["conv1", "Conv2d", "1", "3/6"]
    assert lines[3].split()[:4] == ["conv2", "Conv2d", "3/6", "8"]
    assert any(line.startswith("Parameters: 1,790 before, 1,544 by the masks, 1,544 left") for line in lines)
    table = lines.index(next(line for line in lines if line.startswith("network")))
    assert lines[table].split() == ["network", "batch", "1", "of", "dense", "batch", "8", "of", "dense"]
    assert [line.split()[0] for line in lines[table + 2 : table + 5]] == ["dense", "masked", "shrunk"]
    assert lines[-1].startswith("The smaller network is in runs/tiny/small.pt (")


def test_shrink_writes_a_file_that_is_opened_as_the_run_is(qprune, in_a_hurry):
    qprune("fit", write("tiny.toml", tail=PRUNE), "--quiet")
    qprune("shrink", "tiny", "--out", "there/it.pt")
    before, after = load_model("runs/tiny/model.pt"), load_model("there/it.pt")
    assert {name: after[name] for name in ("spec", "classes", "shape", "step", "scores")} == {
        name: before[name] for name in ("spec", "classes", "shape", "step", "scores")
    }
    assert after["state"]["conv1.weight"].shape == (3, 1, 3, 3)
    assert not [key for key in after["state"] if "mask" in key]
    assert sorted(after["cuts"]["cuts"]) == ["act1", "conv1", "conv2"]
    scores, small = json.loads(qprune("evaluate", "tiny")), json.loads(qprune("evaluate", "there/it.pt"))
    assert small == pytest.approx(scores, rel=1e-5)


def test_shrink_folds_normalizations_if_asked(qprune, in_a_hurry):
    spec = write("tiny.toml", tail=PRUNE)
    text = (
        Path(spec)
        .read_text()
        .replace('[[model.layers]]\ntype = "Flatten"', f'{NORM}\n[[model.layers]]\ntype = "Flatten"')
    )
    Path(spec).write_text(text)
    qprune("fit", spec, "--quiet")
    assert "part of a convolution" not in qprune("shrink", "tiny", "--out", "plain.pt")
    assert "Normalizations that are part of a convolution now: 1." in qprune("shrink", "tiny", "--fold")
    assert load_model("runs/tiny/small.pt")["cuts"]["folds"] == [["norm2", "conv2", False]]
    assert json.loads(qprune("evaluate", "runs/tiny/small.pt")) == pytest.approx(
        json.loads(qprune("evaluate", "tiny")), rel=1e-4
    )


def test_shrink_says_that_quantizers_take_time_of_their_own(qprune, in_a_hurry):
    quantize = '\n[[quantize]]\nsites = [{ types = ["Conv2d"], at = "weight" }]\nbits = 4\n'
    quantize += 'schedule = { kind = "quantize-from", start = 5, measure = 2 }\n'
    qprune("fit", write("tiny.toml", tail=PRUNE + quantize), "--quiet")
    assert "(masked and shrunk round to low precision in float arithmetic" in qprune("shrink", "tiny")


def test_shrink_overwrites_nothing(qprune, refused, in_a_hurry):
    qprune("fit", write("tiny.toml", tail=PRUNE), "--quiet")
    qprune("shrink", "tiny")
    before = Path("runs/tiny/small.pt").read_bytes()
    for arguments, name in [([], "runs/tiny/small.pt"), (["--out", "runs/tiny/model.pt"], "runs/tiny/model.pt")]:
        (line,) = refused("shrink", "tiny", *arguments)
        assert line == f"qprune: {name} is there already. Move it away, or choose another --out."
    assert Path("runs/tiny/small.pt").read_bytes() == before


def test_shrink_refuses_a_network_without_a_run_before_it_writes(refused, folder):
    save(nn.Sequential(nn.Conv2d(3, 4, 1)), "own.pt", torch.zeros(1, 3, 5, 7))
    (line,) = refused("shrink", "own.pt")
    assert "holds a network alone" in line
    assert [path.name for path in folder.iterdir()] == ["own.pt"]


QUANTIZE = """
[[quantize]]
sites = [{ types = ["Conv2d", "Linear"], at = "weight" }]
bits = 8
per = "channel"
schedule = { kind = "quantize-from", start = 5, measure = 2 }
"""


def test_export_certifies_the_metric_and_times_both(qprune, in_a_hurry):
    qprune("fit", write("tiny.toml", head="complete = true", tail=PRUNE + QUANTIZE), "--quiet")
    text = qprune("export", "tiny", "--require", "100")
    assert "64 test images" in text
    assert "accuracy: " in text
    assert "operators that ran: " in text
    assert "in real numbers" not in text
    assert [line.split()[0] for line in text.splitlines()[-4:-2]] == ["dense", "exported"]
    assert text.splitlines()[-1].endswith(" points of accuracy; allowed are 100 (--require).")
    certificate = json.loads(Path("runs/tiny/model.certificate.json").read_text())
    assert certificate["scores"]["accuracy"][0] == json.loads(qprune("evaluate", "tiny"))["accuracy"]
    assert set(certificate["milliseconds"]) == {"dense", "exported"}
    pytest.importorskip("openvino")
    text = qprune("export", "tiny", "--out", "again.onnx", "--require", "nothing", "--also", "openvino")
    assert re.search(r"^openvino \S+: outputs .* % equal, .* largest difference", text, re.MULTILINE)
    assert [line.split()[0] for line in text.splitlines()[-5:-2]] == ["dense", "exported", "openvino"]


def test_exported_files_are_evaluated_and_predicted_with(qprune, in_a_hurry):
    qprune("fit", write("tiny.toml"), "--quiet", "--set", "train.length=5ep")
    qprune("export", "tiny")
    scores, exported = (json.loads(qprune("evaluate", run)) for run in ("tiny", "runs/tiny/model.onnx"))
    assert exported == pytest.approx(scores, rel=1e-5)
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save("scan.png")
    assert qprune("predict", "runs/tiny/model.onnx", "scan.png") == qprune("predict", "tiny", "scan.png")


def certified(trained, exported, error):
    """A certificate with these scores, of which the other facts do not matter."""
    facts = dict.fromkeys(("environment", "operators")) | {"inputs": {}, "outputs": (), "quantizers": ()}
    scores, errors = {"accuracy": (trained, exported)}, {"accuracy": error}
    return Certificate(file="it.onnx", bytes=1, scores=scores, standard_errors=errors, **facts)


def held(certificate, metric="accuracy", require=None, **facts):
    return cli_export._check_certificate(certificate, metric, require, cli_export._allowed(require), **facts)


def test_files_that_differ_too_much_or_cannot_be_scored_are_refused():
    differing = certified(0.98, 0.97, error=0.001)
    with pytest.raises(
        ExportError, match=r"^it.onnx differs by 1 points of accuracy; allowed are 0.1 \(--require\)\. Tr"
    ):
        held(differing, require="0.1")
    with pytest.raises(
        ExportError, match=r"allowed are 0.2 \(two standard errors of the difference on these images\)\."
    ):
        held(differing)
    with pytest.raises(ExportError, match=r"allowed are 0.1 \(the default\)\."):
        held(certified(0.98, 0.97, error=0.0001))
    with pytest.raises(ExportError, match=r"^There is no data to score the file on\. .* --require nothing\.$"):
        held(differing, metric="miou", require="0.1")
    with pytest.raises(
        ExportError, match=r"It was your own: call qprune\.export in Python with data=.* --require noth"
    ):
        held(differing, metric="miou", own_data=True)
    assert held(differing, metric="miou", require="nothing") == "Required was nothing."


def test_default_gate_knows_how_much_chance_there_is_in_so_many_images():
    one_of_400 = certified(0.9875, 0.985, error=0.0025)
    assert held(one_of_400) == (
        "The file differs by 0.25 points of accuracy; allowed are 0.5 (two standard errors of the difference on these "
        "images)."
    )
    assert held(certified(0.9875, 0.9875, error=0)) == (
        "The file differs by 0 points of accuracy; allowed are 0.1 (the default)."
    )


def test_export_of_another_kind_of_file_is_refused(qprune, in_a_hurry):
    qprune("fit", write("tiny.toml"), "--quiet")
    result = CliRunner().invoke(main, ["export", "tiny", "--out", "tiny.tflite"])
    assert result.exit_code == 2
    assert result.stderr.startswith('qprune: tiny.tflite is to be an ONNX file (its name ends in ".onnx") or a program')
    assert not Path("tiny.tflite").exists()


@pytest.mark.parametrize("name", ["model.pt2", "quant.onnx"])
def test_runs_leave_as_programs_and_for_hardware(qprune, in_a_hurry, name):
    qprune("fit", write("tiny.toml", tail=QUANTIZE), "--quiet")
    dialect = ["--dialect", "qonnx"] if name.endswith(".onnx") else []
    text = qprune("export", "tiny", "--out", name, *dialect)
    assert "no integers were compared" in text
    trusted = ["--trusted"] if name.endswith(".pt2") else []
    scores = json.loads(qprune("evaluate", name, *trusted))
    assert scores == pytest.approx(json.loads(qprune("evaluate", "tiny")), rel=1e-5)


def test_exact_runs_are_exported_to_the_bit(qprune, in_a_hurry):
    norm = '[[model.layers]]\ntype = "Flatten"'
    for name, tail, head in (("pruned", PRUNE, ""), ("exact", QUANTIZE, 'numerics = "exact"\ninit = "pruned"')):
        path = Path(write(f"{name}.toml", head=head, tail=tail))
        path.write_text(path.read_text().replace(norm, f"{NORM}\n{norm}"))
    inherited = """
[[prune]]
sites = [{ types = ["ReLU"], at = "output" }]
schedule = { kind = "inherited" }
"""
    Path("exact.toml").write_text(Path("exact.toml").read_text() + inherited)
    qprune("fit", "pruned.toml", "--quiet")
    qprune("fit", "exact.toml", "--quiet")
    text = qprune("export", "exact", "--require", "exact")
    assert "0 of them differ somewhere" in text
    assert load_model("runs/exact/model.pt")["state"]["conv1.weight"].shape == (3, 1, 3, 3)


def test_export_that_is_less_equal_than_required_ends_with_an_error(in_a_hurry, monkeypatch):
    spec = write("tiny.toml", tail=QUANTIZE)
    assert CliRunner().invoke(main, ["fit", spec, "--quiet"]).exit_code == 0
    result = CliRunner().invoke(main, ["export", "tiny", "--require", "exact"])
    assert result.exit_code == 2
    assert 'differs from the network. Train with numerics = "exact", or require less.' in result.stderr
    assert "accuracy: " in result.stdout
    (line,) = CliRunner().invoke(main, ["export", "tiny"]).stderr.splitlines()
    assert line == "qprune: runs/tiny/model.onnx is there already. Move it away, or choose another --out."
    result = CliRunner().invoke(main, ["export", "tiny", "--out", "it.onnx", "--require", "much"])
    assert result.stderr == 'qprune: --require must be a number, "exact" or "nothing"; received "much".\n'


# mistakes in a spec: line by line, with the place, the value and the way out

ADD = '[[model.layers]]\nname = "{}"\ntype = "Add"\nfrom = ["{}", "conv1"]\n'
LAYER = '[[model.layers]]\nname = "{}"\ntype = "{}"\n'
MISTAKES = {  # what stands at the head and the end of the file, and what the sentence says
    "unknown key": ("", "optimzer = 3", ['"optimzer"', 'nearest: "optimizer"', "train.optimzer"]),
    "wrong type": ('seed = "3"', "", ["seed must be a whole number", 'received "3"']),
    "out of range": ("", PRUNE.replace("0.5", "1.5"), ["sparsity must be in [0, 1); received 1.5", "prune[0]"]),
    "unknown layer type": ("", LAYER.format("last", "Cnv2d"), ["model.layers[5].type", '"Cnv2d"', '"Conv2d"']),
    "pattern without match": ("", PRUNE.replace('types = ["ReLU"]', 'paths = ["act9"]'), ['"act9"', '"act1"']),
    "type without match": (
        "",
        PRUNE.replace("ReLU", "ReLU6"),
        ["type 'ReLU6'. Nearest: \"ReLU\" (prune[0].sites[0] in tiny.toml)."],
    ),
    "duration that never comes": ("", PRUNE.replace("at = 5", 'at = "0.5eps"'), ["received '0.5eps'", '"0.5ep"']),
    "schedule past the end": ("", PRUNE.replace("at = 5", "at = 50"), ["act1.output: pruning ends at step 50"]),
    "output of the network": ("", PRUNE.replace('types = ["ReLU"]', 'paths = ["classifier"]'), ["classifier.output"]),
    "cycle in from": ("", ADD.format("a", "b") + ADD.format("b", "a"), ["model.layers[5].from", '"b" comes later']),
    "duplicate names": ("", LAYER.format("conv1", "ReLU"), ['"conv1"']),
}


@pytest.mark.parametrize("command", ["plan", "fit"])
@pytest.mark.parametrize(("head", "tail", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_spec_is_one_sentence(refused, folder, command, head, tail, words):
    lines = refused(command, write("tiny.toml", head, tail))
    assert len(lines) == 1
    assert lines[0].startswith("qprune: ")
    assert "tiny.toml" in lines[0]
    assert lines[0].endswith(".")
    assert not [word for word in words if word not in lines[0]], lines[0]
    assert not (folder / "runs").exists()


def test_all_mistakes_of_a_file_are_told_at_once(refused):
    head = 'seed = -1\nnumerics = "exakt"\ncolour = "red"'
    lines = refused("fit", write("tiny.toml", head, PRUNE.replace("0.5", '"half"').replace("one-shot", "oneshot")))
    assert len(lines) >= 4
    for word in ("seed must be", 'received "exakt"', "(colour in tiny.toml)", '"oneshot"'):
        assert sum(word in line for line in lines) == 1, (word, lines)
    assert all(line.endswith("tiny.toml).") for line in lines)


FILE_MISTAKES = {
    "not TOML": (b"format = = 1", "is not TOML"),
    "not UTF-8": (b"format = 1\nabout = '\xff'", "is not UTF-8 text"),
    "empty": (b"", "is empty"),
    "circle of extends": (b'format = 1\nextends = "bad.toml"', "extends goes in a circle"),
}


@pytest.mark.parametrize("kind", FILE_MISTAKES)
def test_a_file_that_is_no_spec_is_one_sentence(refused, kind):
    content, words = FILE_MISTAKES[kind]
    Path("bad.toml").write_bytes(content)
    (line,) = refused("fit", "bad.toml")
    assert "bad.toml" in line
    assert words in line


def test_a_folder_and_a_missing_spec_are_one_sentence_each(refused):
    Path("place").mkdir()
    assert "is a folder" in refused("fit", "place")[0]
    assert 'nearest spec: "digits/baseline"' in refused("plan", "digits/basline")[0]


# other mistakes


def test_what_a_command_cannot_find_or_use_is_one_sentence(refused, qprune):
    spec = write("tiny.toml")
    qprune("fit", spec, "--quiet")
    for arguments, words in [
        (["fit", spec], "holds a finished run. Use --resume"),
        (["fit", spec, "--resume", "--overwrite"], "exclude each other"),
        (["fit", spec, "--name", "x", "--device", "gpu"], 'device must be one that is here; received "gpu"'),
        (["fit", spec, "--name", "../x"], "name must be a relative path"),
        (["fit", spec, "--seed", -1], "seed must be"),
        (["fit", spec, "--set", "train.batch"], "An override must read key.path=value"),
        (["fit", spec, "--set", "train.bach=3"], "bach"),
        (["fit", spec, "--name", "x", "--set", "init=nowhere"], "There is no run nowhere"),
        (["plan", spec, "--data", "nowhere", "--set", "data.name=folder", "--set", "data.size=8"], "nowhere"),
        (["evaluate", "tiyn"], "Nearest: tiny"),
        (["summary", "tiyn"], "There is no run tiyn"),
        (["shrink", "tiyn"], "There is no run tiyn"),
        (["predict", "tiny", "nowhere.png"], "There is no image nowhere.png."),
        (["predict", "tiny", "tiny.toml"], "tiny.toml"),
    ]:
        (line,) = refused(*arguments)
        assert words in line, line


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied", "out.csv"), "out.csv cannot be used: Permission denied."),
        (OSError(28, "No space left on device"), "A file cannot be used: No space left on device."),
    ],
)
def test_what_the_system_refuses_is_one_sentence(refused, monkeypatch, error, sentence):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(api, "plan", refuse)
    assert refused("plan", "digits/baseline") == [f"qprune: {sentence} Check the path, and the room there."]


def test_a_damaged_model_is_one_sentence(refused, qprune):
    qprune("fit", write("tiny.toml"), "--quiet", "--set", "train.length=1it")
    model = Path("runs/tiny/model.pt")
    model.write_bytes(model.read_bytes()[:500])
    (line,) = refused("evaluate", "tiny")
    assert "cannot be read: it is cut off" in line


def test_a_folder_that_cannot_be_written_is_one_sentence(refused):
    Path("file").write_text("")
    (line,) = refused("fit", write("tiny.toml"), "--quiet", "--runs", "file")
    assert "file" in line


@pytest.mark.parametrize("arguments", [["fot"], ["fit"], ["plan", "x", "--steps-per-epoch", "0"], ["predict", "x"]])
def test_a_wrong_command_line_has_exit_code_2(arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Try 'main" in result.stderr


def test_ctrl_c_before_training_has_exit_code_130(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("qprune.api.plan", interrupt)
    assert CliRunner().invoke(main, ["plan", "digits/baseline"]).exit_code == 130


# as a program


@pytest.mark.parametrize("program", [[str(Path(sys.executable).parent / "qprune")], [sys.executable, "-m", "qprune"]])
def test_the_program_runs_from_any_folder(folder, program):
    listed = subprocess.run([*program, "list"], cwd=folder, capture_output=True, text=True, check=True)
    assert "\ndigits\n" in listed.stdout
    wrong = subprocess.run([*program, "fit", "digits/basline"], cwd=folder, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("qprune: ")
    assert wrong.stderr.count("\n") == 1


def test_ctrl_c_saves_everything_and_resume_goes_on(folder, qprune):
    spec = write("tiny.toml")
    command = [sys.executable, "-m", "qprune", "fit", spec, "--set", "train.length=100ep"]
    program = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "tiny\n"
    assert program.stdout.readline().startswith("Epoch   1/100")
    program.send_signal(signal.SIGINT)
    _, told = program.communicate()
    assert program.returncode == 130
    assert "Interrupted; everything is saved in runs/tiny. Go on with the same command and --resume" in told
    assert "Traceback" not in told
    assert {path.name for path in (folder / "runs/tiny").iterdir()} >= {
        "spec.toml",
        "last.pt",
        "best.pt",
        "history.csv",
    }
    assert not (folder / "runs/tiny/model.pt").exists()
    lines = qprune(*command[3:], "--resume").splitlines()
    assert re.match(r"tiny, from step \d+$", lines[0])
    assert not lines[1].startswith("Epoch   1/")
    assert [line for line in lines if line.startswith("Epoch 100/100")]
    assert lines[-1] == "The run is in runs/tiny"


@pytest.mark.parametrize("name", main.commands)
def test_the_help_of_the_program_has_the_first_sentence_of_each_command(name):
    later = main.commands[name]
    assert later.get_short_help_str(1000) == later.real.get_short_help_str(1000)
    assert later.real.name == name
