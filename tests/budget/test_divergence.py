"""Divergences: those of torch, by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qprune.budget import DIVERGENCES, compared_of, outputs_of
from qprune.budget.divergence import class_divergence, divergence, value_divergence
from qprune.errors import PlanError, TrainingError
from qprune.spec import TaskSpec


@pytest.mark.parametrize("shape", [(5, 7), (2, 7, 3, 4)])
def test_the_divergence_of_classes_is_the_kl_of_their_shares(shape):
    output, dense = torch.randn(shape), torch.randn(shape)
    shares = dense.double().softmax(1)
    by_hand = (shares * (shares.log() - output.double().softmax(1).log())).sum(1).mean()
    flat = [values.movedim(1, -1).reshape(-1, 7).double() for values in (output, dense)]
    by_torch = F.kl_div(flat[0].log_softmax(1), flat[1].softmax(1), reduction="batchmean")
    torch.testing.assert_close(class_divergence(output, dense).double(), by_hand, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(by_torch, by_hand)


def test_the_divergence_of_values_is_their_mean_squared_difference():
    output, dense = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(value_divergence(output, dense), ((output - dense) ** 2).mean())


@pytest.mark.parametrize("compare", DIVERGENCES)
def test_equal_outputs_diverge_by_nothing_at_all(compare):
    output = 30 * torch.randn(9, 7)
    assert DIVERGENCES[compare](output, output.clone()) == 0


def test_every_image_counts_the_same_however_batches_are_cut():
    net, other, images = nn.Linear(3, 5), nn.Linear(3, 5), torch.randn(7, 3)
    whole, cut = [images], list(images.split(4))
    one, two = (divergence(net, batches, outputs_of(other, batches), "classes") for batches in (whole, cut))
    assert one == pytest.approx(two, rel=1e-5)


def test_outputs_that_are_no_tensor_or_no_numbers_are_refused():
    with pytest.raises(PlanError, match="must be one tensor to be compared; it gives a tuple"):
        outputs_of(nn.MaxPool2d(2, return_indices=True), [torch.zeros(1, 3, 4, 4)])
    with pytest.raises(TrainingError, match="hold NaN or infinity"):
        outputs_of(nn.Identity(), [torch.tensor([[1.0, torch.nan]])])


def test_what_outputs_are_is_known_from_the_task_or_their_shape_or_asked_for():
    assert compared_of(TaskSpec("cyclegan"), None) == "values"
    assert compared_of(TaskSpec("segmentation"), "values") == "values"
    assert compared_of(None, None, torch.zeros(1, 10)) == "classes"
    with pytest.raises(PlanError, match='say compare = "classes" for logits'):
        compared_of(None, None, torch.zeros(1, 10, 4, 4))
    with pytest.raises(PlanError, match='must be "classes" or "values"; received "clases"; nearest: "classes"'):
        compared_of(None, "clases")
