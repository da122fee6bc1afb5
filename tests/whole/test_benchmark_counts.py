"""What benchmarks count is what a person would count, and what large images keep does not grow."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F


def test_live_bytes_are_those_of_each_storage_once(bench: Any) -> None:
    x = torch.ones(10)
    with bench("counters").LiveBytes() as live:
        y = x + 1  # 40 bytes
        z = y.view(2, 5).relu_()  # the same storage
        more = torch.cat([y, z.flatten(), y])  # 120
        assert (live.now, live.peak) == (160, 160)
        del more
        assert (live.now, live.peak) == (40, 160)
        assert live.listed() == {("add", (10,), "float32"): 40}


def test_live_bytes_hold_what_a_backward_needs_and_nothing_else(bench: Any) -> None:
    weight = torch.randn(4, 3, requires_grad=True)
    with bench("counters").LiveBytes() as live:
        loss = F.linear(torch.randn(5, 3), weight).relu().sum()
        assert live.now == 4 * (5 * 3 + 5 * 4 + 1)  # the input, what the ReLU gave, the loss
        loss.backward()
        del loss
        assert live.now == 4 * 4 * 3  # the gradient


def test_views_and_allocations_are_no_launches(bench: Any) -> None:
    with bench("counters").Launches() as launches:
        x = torch.empty(6).fill_(1.0).view(2, 3).t()
        torch._foreach_mul_([x, torch.empty(3)], 2.0)
    assert launches.counts == {"fill_": 1, "_foreach_mul_": 1}


MOST = {
    ("unet", "joint"): 1.42, ("unet", "joint, recomputed"): 1.10,
    ("resnet50", "joint"): 1.56, ("resnet50", "joint, recomputed"): 1.01,
}  # fmt: skip


@pytest.mark.parametrize("net", ["unet", "resnet50"])
def test_a_joint_step_keeps_no_more_of_large_images_than_it_did(bench: Any, net: str) -> None:
    large = bench("large_inputs")
    ways = ("dense", "joint", "joint, recomputed")
    dense, *kept = (large.memory(large.make(net, way))[0] for way in ways)
    for way, size in zip(ways[1:], kept, strict=True):
        assert size / dense < MOST[net, way]


def test_a_copy_that_may_have_been_a_view_is_a_launch(bench: Any) -> None:
    with bench("counters").Launches() as launches, torch.inference_mode():
        x = torch.ones(2, 3)
        x.to(torch.float32)
        x.reshape(6)
        x.t().reshape(6)
        x.to(torch.int32)
    assert launches.counts.total() == 3  # ones, a transposed reshape, another dtype
