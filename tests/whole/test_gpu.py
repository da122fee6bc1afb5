"""What only a GPU can show; `benchmarks/gpu.py` runs these where there is one."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from comparing import same
from torch import nn

import qprune
from qprune.layers import ChannelMask, FakeQuant, QuantConv2d, ReadyWeights
from qprune.spec import read_spec
from qprune.training import Callback, evaluating, load_checkpoint

pytestmark = pytest.mark.gpu
SHORT = {"data.train_images": 135, "train.length": "4ep"}


def joint() -> dict[str, Any]:
    """The net of the digits, from scratch: masks in step 3, quantizers from step 8 on."""
    relus = [{"types": ["ReLU"], "at": "output"}]
    schedule = {"kind": "one-shot", "at": 3, "measure": 2}
    return read_spec("digits/baseline", SHORT).to_dict() | {
        "name": "joint",
        "prune": [{"sites": relus, "sparsity": 0.5, "schedule": schedule}],
        "quantize": [{"sites": relus, "bits": 4, "start": 8}],
    }


class Stop(Callback):
    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        if self.trainer.step == 5:
            self.trainer.stop_training = self.trainer.history.interrupted = True


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_masks_and_codes_are_those_of_the_cpu(layout: torch.memory_format) -> None:
    x = torch.randn(3, 16, 9, 7).contiguous(memory_format=layout)
    mask, quant = ChannelMask(16).eval(), FakeQuant(4).calibrate(x).eval()
    mask.keep[::3] = False
    here, card = quant(mask(x)), x.cuda()
    there = copy.deepcopy(quant).cuda()(copy.deepcopy(mask).cuda()(card))
    assert torch.equal(quant.codes(here), quant.codes(there.cpu()))
    assert torch.equal(here, there.cpu())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weights_made_at_once_are_those_that_each_layer_makes(layout: torch.memory_format) -> None:
    net = nn.Sequential(QuantConv2d(3, 70, 3), QuantConv2d(70, 70, 3, groups=70), QuantConv2d(70, 5, 1, weight_bits=4))
    net = net.cuda().to(memory_format=layout).train()
    for part in net.modules():
        if isinstance(part, FakeQuant):
            part.active.fill_(True)
            part.measuring = part.symmetric  # the weights
    other, x, weights = copy.deepcopy(net), torch.randn(2, 3, 16, 16, device="cuda"), ReadyWeights(net)
    for _ in range(3):
        with weights.ready():
            ours = net(x)
        ours.sum().backward()
        theirs = other(x)
        theirs.sum().backward()
        assert torch.equal(ours, theirs)
        assert all(map(torch.equal, net.buffers(), other.buffers()))
        with torch.no_grad():
            for parameter in (*net.parameters(), *other.parameters()):
                parameter.mul_(0.5)


@pytest.mark.parametrize(
    "switches",
    [{}, {"train.tf32": True}, {"train.optimizer.fused": True}, {"train.precision": "bfloat16"}, {"train.ema": 0.9}],
    ids=str,
)
def test_a_training_that_was_interrupted_ends_with_the_bits_of_one_that_was_not(
    tmp_path: Path, switches: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"runs": tmp_path, "device": "cuda", "deterministic": True, "verbose": 0}
    options["overrides"] = switches
    qprune.fit(joint(), **options)
    whole = load_checkpoint(tmp_path / "joint/model.pt")["state"]
    assert qprune.fit(joint(), overwrite=True, callbacks=[Stop()], **options).interrupted
    qprune.fit(joint(), resume=True, **options)
    assert same(load_checkpoint(tmp_path / "joint/model.pt")["state"], whole)


def test_evaluation_is_in_float32_where_torch_would_round_to_tf32() -> None:
    conv, x = nn.Conv2d(64, 64, 3), torch.randn(2, 64, 32, 32)
    exact = copy.deepcopy(conv).double()(x.double())
    conv.cuda()
    with evaluating(conv), torch.no_grad():
        torch.testing.assert_close(conv(x.cuda()).cpu().double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("default")  # of torch's compiler
def test_replayed_steps_train_the_network_of_plain_ones(tmp_path: Path) -> None:
    losses = []
    for compile in (False, "reduce-overhead"):
        options: dict[str, Any] = {"runs": tmp_path, "device": "cuda", "verbose": 0, "overwrite": True}
        history = qprune.fit("digits/baseline", overrides=SHORT | {"train.compile": compile}, **options)
        losses.append(history.history["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
