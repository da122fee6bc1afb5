"""What a person would look at: pictures of what a network makes of test images, and which classes it mixes up."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from qprune.data import eval_loader
from qprune.shrinking import evaluating
from qprune.training import Opened, batch_of, few_samples, place, spread, to_device, view_of, workers_of

PICTURES = 4
IMAGES = 2000  # most that are counted
MISTAKEN = 12  # lines of the table of mistakes


@frozen(eq=False)
class Seen:
    """What a network made of test images; of a task that has neither pictures nor counts, nothing."""

    pictures: tuple[str, ...] = ()  # PNGs as ``data:`` addresses
    confusions: Tensor | None = None  # how often each class, by rows, was told to be each class, by columns
    images: int = 0  # how many were counted


def look(opened: Opened, task: Any, device: torch.device) -> Seen:
    """Run a network on test images: a few to draw, if its task has ``panels``, and up to 2,000 to count."""
    splits, test, layout = opened.splits(), opened.split("test"), opened.spec.train.channels_last
    place(opened.net, device, layout)
    pictures: Sequence[Tensor] = ()
    confusions, images = None, 0
    with evaluating(opened.net), torch.no_grad():
        if hasattr(task, "panels"):
            batch = to_device(few_samples(test, PICTURES), device, layout)
            pictures = task.panels(opened.net, batch, view_of(splits, opened.palette))
        if hasattr(task, "confusions"):
            options: dict[str, Any] = {"batch": batch_of(opened.spec, opened.shape), "workers": workers_of(opened.spec)}
            for batch in eval_loader(spread(test, IMAGES), device=device, **options):
                batch = to_device(batch, device, layout)
                _, output = task.step(opened.net, batch)
                counts = task.confusions(output, batch[1])
                confusions = counts if confusions is None else confusions + counts
                images += len(batch[1])
    return Seen(tuple(map(_as_address, pictures)), None if confusions is None else confusions.cpu(), images)


def mistaken(confusions: Tensor, classes: Sequence[str]) -> list[list[str]]:
    """Lines of a table of the classes mixed up most: which, for which, how many, and the share of the class."""
    wrong = confusions.clone().fill_diagonal_(0).flatten()
    counts, places = wrong.topk(min(MISTAKEN, len(wrong)))
    totals = confusions.sum(1).tolist()
    lines = []
    for count, pair in zip(counts.tolist(), places.tolist(), strict=True):
        true, told = divmod(pair, len(classes))
        if count:
            lines.append([classes[true], classes[told], f"{count:,}", f"{100 * count / totals[true]:.1f} %"])
    return lines


def _as_address(picture: Tensor) -> str:
    from PIL import Image  # slow to import

    file = io.BytesIO()
    Image.fromarray(picture.cpu().permute(1, 2, 0).contiguous().numpy()).save(file, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
