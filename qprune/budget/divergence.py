"""How far the outputs of a changed network are from those of the dense one."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qprune.errors import PlanError, TrainingError
from qprune.spec import TaskSpec
from qprune.spelling import nearest


def class_divergence(output: Tensor, dense: Tensor) -> Tensor:
    """``KL(softmax(dense) || softmax(output))``, the mean over images and pixels in nats.

    Both are logits, (N, classes) or, one for each pixel, (N, classes, H, W).
    """
    # logarithms of both, which cancel to the bit where nothing differs; the loss of a teacher takes shares, since its
    # logits may be infinite, and these may not
    ours, theirs = (values.float().log_softmax(1) for values in (output, dense))
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1).clamp(min=0).mean()


def value_divergence(output: Tensor, dense: Tensor) -> Tensor:
    """Mean squared difference of images, or other values, from those of the dense network, a scalar."""
    return F.mse_loss(output.float(), dense.float())


# by the word for what outputs are
DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"classes": class_divergence, "values": value_divergence}


def compared_of(task: TaskSpec | None, word: str | None, output: Tensor | None = None) -> str:
    """By which of `DIVERGENCES` the outputs of a network are compared.

    Args:
        task: what it was trained for; None for a network of which that is not known.
        word: what the user says; None leaves it to the task.
        output: of the network for a few images; with two dimensions they are taken for logits if nobody says more.

    Raises:
        PlanError: for another word, or where it is not known.

    Example:
        >>> compared_of(TaskSpec("segmentation"), None), compared_of(TaskSpec("pix2pix"), None)
        ('classes', 'values')
    """
    if word is None:
        if task is None or task.is_own:
            if output is not None and output.dim() == 2:
                return "classes"
            raise PlanError(
                'It is not known what the outputs of the network are: say compare = "classes" for logits (N, classes, '
                '...), or "values" for images and other numbers.'
            )
        return "classes" if task.name in ("classification", "segmentation") else "values"
    if word not in DIVERGENCES:
        raise PlanError(f'compare must be "classes" or "values"; received "{word}"{nearest(word, DIVERGENCES)}.')
    return word


@torch.no_grad()
def outputs_of(net: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """What a network, in eval mode, makes of each batch.

    Raises:
        PlanError: if that is no tensor.
        TrainingError: if it holds NaN or infinity.

    Example:
        >>> len(outputs_of(nn.Linear(3, 5), [torch.ones(2, 3), torch.ones(1, 3)]))
        2
    """
    outputs = []
    for batch in batches:
        output = net(batch)
        if not isinstance(output, Tensor):
            raise PlanError(
                f"The outputs of the network must be one tensor to be compared; it gives a {type(output).__name__}. "
                "Hand over a network that returns the part that counts."
            )
        if not output.isfinite().all():
            raise TrainingError("The outputs of the network hold NaN or infinity: check its weights, and the images.")
        outputs.append(output)
    return outputs


@torch.no_grad()
def divergence(net: nn.Module, batches: Sequence[Tensor], dense: Sequence[Tensor], compare: str) -> float:
    """The mean over all images, by a word of `DIVERGENCES`; ``dense`` has the dense network's outputs."""
    each = zip(outputs_of(net, batches), dense, strict=True)
    total = sum(DIVERGENCES[compare](output, reference).double() * len(reference) for output, reference in each)
    return float(total) / sum(len(reference) for reference in dense)
