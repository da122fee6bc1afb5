"""What every numerics promises, whichever it is."""

import copy
import inspect
import itertools
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import qprune
from qprune.layers import ChannelMask, FakeQuant, QuantConv2d
from qprune.layers.hosts import compress
from qprune.numerics import NUMERICS, Default, Numerics, numerics_of
from qprune.shrinking.constants import Mode, compressed
from qprune.spec import read_spec

ROOT = Path(__file__).parents[2]
EACH = pytest.mark.parametrize("word", NUMERICS)
GRIDS = list(itertools.product((2, 3, 8), (True, False)))


@EACH
def test_it_is_a_value_that_can_be_compared_copied_and_pickled(word):
    numerics = NUMERICS[word]
    assert copy.deepcopy(numerics) == pickle.loads(pickle.dumps(numerics)) == numerics == type(numerics)()


@EACH
def test_it_has_a_file_of_its_own_and_a_word_on_the_page_about_specs(word):
    assert Path(inspect.getfile(type(NUMERICS[word]))).stem == word
    assert f"\n- `{word}`: " in (ROOT / "docs/reference/specs.md").read_text(encoding="utf-8")


@EACH
def test_a_spec_and_a_quantizer_choose_it_by_its_word(word):
    assert read_spec("digits/baseline", [f"numerics={word}"]).arithmetic is NUMERICS[word]
    assert FakeQuant(4, numerics=word).arithmetic is NUMERICS[word]
    assert QuantConv2d(2, 3, 1, numerics=word).weight_quant.arithmetic is NUMERICS[word]


@EACH
@pytest.mark.parametrize(("bits", "symmetric"), GRIDS)
def test_codes_are_as_many_as_the_bits_allow_and_rounding_stays_near(word, bits, symmetric):
    low, high = NUMERICS[word].code_bounds(bits, symmetric)
    assert 2**bits - 1 <= high - low + 1 <= 2**bits
    quant, x = FakeQuant(bits, numerics=word, symmetric=symmetric), torch.randn(2, 3, 5, 7)
    quant.calibrate(x).eval()
    y, steps = quant(x), quant.scale
    assert len(y.unique()) <= 2**bits
    assert quant.zero_point.dtype == torch.int32
    inside = (quant.codes(x) > low) & (quant.codes(x) < high)
    assert inside.any()
    assert (y - x)[inside].abs().max() <= steps / 2 * (1 + 1e-5)


@EACH
@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_last_through_training_where_shrinking_relies_on_it(word, symmetric):
    quant = FakeQuant(3, channels=3, numerics=word, symmetric=symmetric)
    x = torch.rand(2, 3, 5, 7) + 0.3
    quant.calibrate(x).train()
    mode = Mode(settled=lambda mask: True, training=True)
    values = compressed(torch.zeros(3), (2, 3, 5, 7), (1,), None, quant, mode)
    stays = bool((quant(torch.zeros(2, 3, 5, 7)) == 0).all())
    assert values.isnan().any() != stays


@EACH
@pytest.mark.parametrize("symmetric", [True, False])
def test_what_a_mask_dropped_is_zero_behind_the_quantizer(word, symmetric):
    mask, quant = ChannelMask(4), FakeQuant(3, numerics=word, symmetric=symmetric)
    mask.keep[::2] = False
    quant.calibrate(torch.rand(2, 3, 5, 7) + 0.3).train()
    y = compress(torch.rand(2, 4, 5, 7) + 0.3, mask, quant)
    assert not y[:, ::2].any()
    assert y[:, 1::2].all()


@EACH
def test_a_grid_that_is_kept_stays_once_the_quantizer_is_active(word):
    quant = FakeQuant(4, numerics=word).calibrate(torch.tensor([-1.0, 2.0])).train()
    before, quant.measuring = quant.scale.clone(), True
    quant(torch.tensor([-50.0, 50.0]))
    quant.commit()
    assert torch.equal(quant.scale, before) == NUMERICS[word].keeps_grid


@EACH
def test_calibrating_again_takes_the_new_range(word):
    x = torch.randn(2, 3, 5, 7)
    quant = FakeQuant(4, numerics=word).calibrate(x).calibrate(8 * x)
    assert torch.equal(quant.scale, FakeQuant(4, numerics=word).calibrate(8 * x).scale)


@EACH
def test_a_network_that_is_remade_has_no_normalization_left(word):
    torch.manual_seed(2)
    dense = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    dense(torch.randn(5, 3, 7, 6))
    rule = {"sites": [{"types": ["Conv2d"], "at": at} for at in ("input", "weight")], "bits": 8, "start": 0}
    net = qprune.swap(dense, torch.zeros(1, 3, 7, 6), quantize=[rule], numerics=word)
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules()) != NUMERICS[word].remakes


class Doubled(Default):
    """The default's grids with steps of twice the size."""

    def scale_and_zero_point(self, low, high, bits, symmetric):
        scale, zero_point = super().scale_and_zero_point(2 * low, 2 * high, bits, symmetric)
        return scale, zero_point


def test_a_new_one_is_a_class_and_a_line(monkeypatch):
    monkeypatch.setitem(NUMERICS, "doubled", Doubled())
    x = torch.randn(2, 3, 5, 7)
    plain, doubled = FakeQuant(4).calibrate(x), FakeQuant(4, numerics="doubled").calibrate(x)
    assert torch.equal(doubled.scale, 2 * plain.scale)
    dense = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1))
    rule = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 8, "start": 0}
    net = qprune.swap(dense, x, quantize=[rule], numerics="doubled")
    assert isinstance(net[1].weight_quant.arithmetic, Doubled)


def test_an_unknown_word_is_told_with_those_that_there_are():
    sentence = '^numerics must be "default", "paper" or "exact"; received \'exakt\'$'
    with pytest.raises(ValueError, match=sentence):
        numerics_of("exakt")
    with pytest.raises(ValueError, match=sentence):
        FakeQuant(4, numerics="exakt")
    with pytest.raises(ValueError, match=sentence):  # also where no rule quantizes
        qprune.swap(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(1, 3, 5, 7), numerics="exakt")


def test_no_numerics_needs_torch_at_import():
    path = ROOT / "qprune"
    code = (
        "import sys, types; room = types.ModuleType('qprune'); "
        f"room.__path__ = [{str(path)!r}]; sys.modules['qprune'] = room; "
        "import qprune.numerics; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_one_in_the_dict_is_a_numerics():
    assert all(isinstance(numerics, Numerics) for numerics in NUMERICS.values())


def test_nobody_else_compares_the_words():
    """A word stands where it is registered, written by people or shown in an example, never after an ``==``."""
    pattern = re.compile(r"\bnumerics *(?:[!=]=|in\b(?! NUMERICS)|not in\b)")
    found = [
        f"{path.name}: {line.strip()}"
        for path in (ROOT / "qprune").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert not found
