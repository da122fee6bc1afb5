"""The examples run as they stand."""

import importlib.util
from pathlib import Path

from qprune.layers import PrunedConv2d, QuantConv2d, sites

EXAMPLES = Path(__file__).parents[1] / "examples"


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
    mask = training.driver.timelines["3.output", "mask"]
    assert mask.measuring(17)
    assert mask.measuring(18)
    assert loop.main(steps=42, stop=18)
    assert "stopped at step 18 of 42 and resumed: the same bits" in capsys.readouterr().out
