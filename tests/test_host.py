"""What comes from a device is in tests/whole/test_waits.py."""

import torch

from qprune.host import _joined, constant, on_device, on_host


def test_tensors_of_the_host_stay_what_they_are():
    values = torch.randn(2, 3)
    (same,) = on_host([values.requires_grad_()])
    assert same.data_ptr() == values.data_ptr()
    assert not same.requires_grad


def test_tensors_that_travel_together_keep_their_bits_types_and_shapes():
    many = [
        torch.tensor([True, False, True]),
        torch.tensor(2**62 + 1),
        torch.tensor([[torch.nan, -0.0, 1e-45]]),
        torch.tensor(5, dtype=torch.int32),
        torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last),
        torch.tensor([0.1], dtype=torch.float64),
        torch.empty(0, 3),
    ]
    for came, sent in zip(_joined(many), many, strict=True):
        assert (came.dtype, came.shape) == (sent.dtype, sent.shape)
        assert came.reshape(-1).view(torch.uint8).tolist() == sent.reshape(-1).view(torch.uint8).tolist()


def test_numbers_become_a_tensor_of_their_type():
    assert on_device((2, 0), torch.device("cpu")).tolist() == [2, 0]
    assert on_device([2, 0], None).dtype == torch.int64
    assert on_device([0.5], torch.device("meta")).is_meta


def test_a_constant_is_made_once_for_each_device_and_serves_gradients():
    cpu = torch.device("cpu")
    with torch.inference_mode():
        half = constant((0.5, 0.75), cpu)
    assert constant((0.5, 0.75), cpu) is half
    weight = torch.ones(2, requires_grad=True)
    (weight * half).sum().backward()
    assert weight.grad.tolist() == [0.5, 0.75]
