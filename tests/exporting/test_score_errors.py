import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from qprune.exporting import score_errors
from qprune.tasks import Classification, Segmentation

IMAGES = 400


class Answers(nn.Module):
    """Says class 1 for the images of these numbers, and class 0 for others; an image is its number."""

    def __init__(self, *ones: int) -> None:
        super().__init__()
        self.ones = torch.tensor(ones)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.isin(x[:, 0, 0, 0], self.ones).long(), 2).float()


def images(count: int = IMAGES) -> TensorDataset:
    return TensorDataset(torch.arange(count).float().view(-1, 1, 1, 1), torch.zeros(count, dtype=torch.int64))


def errors(one: nn.Module, other: nn.Module, count: int = IMAGES) -> dict[str, float]:
    return score_errors(one, other, Classification(classes=2), images(count), batch=64)


@pytest.mark.parametrize("wrong", [1, 4, 20])
def test_error_is_that_of_the_differences_image_by_image(wrong: int) -> None:
    differing = torch.zeros(IMAGES)
    differing[torch.arange(wrong) * (IMAGES // wrong)] = 1
    other = Answers(*differing.nonzero().flatten().tolist())
    expected = float(differing.std()) / IMAGES**0.5
    assert errors(Answers(), other)["accuracy"] == pytest.approx(expected, rel=0.1)


def test_what_both_get_wrong_does_not_count() -> None:
    assert errors(Answers(3, 50, 7), Answers(3, 50, 7))["accuracy"] == 0


def test_one_image_says_nothing_about_chance() -> None:
    assert errors(Answers(), Answers(0), count=1)["accuracy"] == 0


def test_classes_that_a_group_of_images_does_not_show_are_left_out() -> None:
    torch.manual_seed(0)
    one, other = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
    scenes = TensorDataset(torch.randn(20, 3, 5, 7), torch.randint(0, 3, (20, 5, 7)))
    task = Segmentation(classes=4, names=("road", "sky", "tree", "none"))
    found = score_errors(one, other, task, scenes, batch=8)
    assert found["miou"] > 0
    assert all(value >= 0 for value in found.values())
