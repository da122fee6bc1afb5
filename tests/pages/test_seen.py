"""What a network makes of test images: counts of classes, and pictures."""

import base64
import io

import torch
from PIL import Image
from tiny_runs import chain

from qprune.pages.seen import look, mistaken
from qprune.tasks import Classification
from qprune.training import evaluate_model, open_model

CPU = torch.device("cpu")


def test_counts_are_those_of_the_score():
    opened = open_model("net/half", chain())
    seen = look(opened, Classification(10), CPU)
    assert seen.images == int(seen.confusions.sum()) == 400
    accuracy = evaluate_model(opened, "test", device="cpu")["accuracy"]
    assert abs(seen.confusions.trace() / 400 - accuracy) < 1e-6


def test_pictures_are_those_of_the_task_as_addresses():
    class Drawing(Classification):
        def panels(self, net, batch, view):
            assert len(batch[0]) == 4
            return [torch.full((3, 5, 7), 10 * index, dtype=torch.uint8) for index in range(2)]

    seen = look(open_model("net/half", chain()), Drawing(10), CPU)
    assert len(seen.pictures) == 2
    kind, _, content = seen.pictures[1].partition(",")
    assert kind == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (picture.size, picture.getpixel((0, 0))) == ((7, 5), (10, 10, 10))


def test_the_worst_mistakes_come_first_with_their_share_of_the_class():
    counts = torch.tensor([[8, 2, 0], [1, 1, 0], [0, 3, 7]])
    assert mistaken(counts, ["ash", "bay", "elm"]) == [
        ["elm", "bay", "3", "30.0 %"], ["ash", "bay", "2", "20.0 %"], ["bay", "ash", "1", "50.0 %"],
    ]  # fmt: skip


def test_without_mistakes_there_are_no_lines():
    assert mistaken(torch.eye(3, dtype=torch.int64), ["ash", "bay", "elm"]) == []
