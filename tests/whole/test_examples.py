"""The examples run as they stand."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import qprune
from qprune.exporting import export_network
from qprune.layers import PrunedConv2d, QuantConv2d, sites

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_custom_loop_prunes_quantizes_and_still_learns(capsys):
    assert example("custom_loop").main() > 0.9
    printed = capsys.readouterr().out
    assert "'frozen': True" in printed
    assert "'bits': 4" in printed
    assert "test accuracy" in printed


def test_custom_loop_is_short_and_shows_both_layers():
    code = (EXAMPLES / "custom_loop.py").read_text()
    body = code[code.index("def main") : code.index("if __name__")]
    assert len([line for line in body.splitlines() if line.strip()]) <= 40
    assert f" {PrunedConv2d.__name__}(" in body
    assert f" {QuantConv2d.__name__}(" in body


def test_swap_resnet_is_pruned_and_quantized(capsys):
    net = example("swap_resnet").main(steps=9)
    assert "<All keys matched successfully>" in capsys.readouterr().out
    masks = [site.mask for site in sites(net) if site.mask is not None]
    assert len(masks) == 19
    assert all(mask.sparsity == 0.5 for mask in masks)
    assert all(bool(site.quant.active) for site in sites(net) if site.quant is not None)
    assert not net.training


def test_resumable_loop_goes_on_to_the_same_bits(capsys):
    loop = example("resumable_loop")
    training = loop.Training()
    mask = training.driver.agenda.timelines["3.output", "mask"]
    assert mask.measuring(17)
    assert mask.measuring(18)
    assert loop.main(steps=42, stop=18)
    assert "stopped at step 18 of 42 and resumed: the same bits" in capsys.readouterr().out


def test_exported_file_runs_without_torch_and_predicts_the_same(tmp_path):
    torch.manual_seed(0)
    layers = [QuantConv2d(3, 6, 3, weight_bits=8, act_bits=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(6, 5)).eval()
    classes, images = ["ash", "bay", "elm", "fir", "oak"], torch.randn(16, 3, 7, 9) + 3 * torch.randn(16, 3, 1, 1)
    qprune.calibrate(net, [images])
    export_network(net, tmp_path / "it.onnx", images[:2], about={"classes": classes, "shape": [3, 7, 9]})
    np.save(tmp_path / "one.npy", images[0].numpy())
    np.save(tmp_path / "more.npy", images[1:].numpy())
    loaded = "print(sorted({'torch', 'qprune', 'onnx'} & set(sys.modules)))"
    code = f"import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__'); {loaded}"
    command = [sys.executable, "-c", code, str(EXAMPLES / "run_onnx.py"), "it.onnx", "one.npy", "more.npy"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
    expected = [classes[each] for each in net(images).argmax(1)]
    assert len(set(expected)) > 1
    assert printed[:-2] == expected
    assert re.fullmatch(r"one image: \d+\.\d+ ms", printed[-2])
    assert printed[-1] == "[]"


def test_exported_file_runs_on_random_images(tmp_path, capsys):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).eval()
    about = {"classes": ["sky", "tree", "road", "car"], "shape": [3, 5, 7]}
    export_network(net, tmp_path / "it.onnx", torch.zeros(1, 3, 5, 7), about=about)
    example("run_onnx").main(str(tmp_path / "it.onnx"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert set(", ".join(lines[:4]).split(", ")) <= set(about["classes"])
