"""What a trained network can spare, and which smaller one to train for a budget: `sensitivity` and `search`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from qprune.budget import (
    BITS,
    RATIOS,
    Found,
    Sensitivity,
    compared_of,
    measure_sensitivity,
    outputs_of,
    read_budgets,
    search_network,
    take_images,
)
from qprune.data import wrap_data
from qprune.errors import DataError
from qprune.spec import Spec
from qprune.trained import with_data
from qprune.training import choose_device, evaluating, model_file, open_model, runs_root
from qprune.zoo import deployed

IMAGES, IMAGES_OF_PIXELS = 256, 32


def sensitivity(
    model: nn.Module | Path | str,
    *,
    data: Any = None,
    ratios: Sequence[float] = RATIOS,
    bits: Sequence[int] = BITS,
    images: int | None = None,
    importance: str = "activation-l1",
    compare: str | None = None,
    seed: int = 0,
    file: Path | str | None = None,
    runs: Path | str | None = None,
    device: str | None = None,
    verbose: str | int = "auto",
) -> Sensitivity:
    """How much of each group of channels a trained network can spare: which ratio, how many bits, layer by layer.

    Of every group of channels (see `qprune.budget.find_groups`) each ratio is dropped alone, and its weights and values
    are rounded to each number of bits alone; measured is how far the outputs move from those of the dense network. That
    needs images, but no labels and no training: minutes on a CPU for a small network. The cost is told before it
    starts, and a measurement that was interrupted goes on where it was.

    Args:
        model: a dense network, or a run of one.
        data: as for `fit`; of a run it is known. The training images are taken, without augmentation.
        ratios: shares of the channels to drop, each in [0, 1).
        bits: widths, each from 2 to 8.
        images: how many; by default 256, or 32 where each pixel has an output. All outputs are held in memory.
        importance: by which the channels of a group are ranked, as in a rule; one that no loss is needed for.
        compare: ``"classes"`` for logits, by their KL divergence, or ``"values"`` for images and other numbers, by
            their mean squared difference; a run, and outputs of shape (N, classes), say so by themselves.
        seed: of the draw of images, and of random ranks.
        file: where measurements are kept, as JSON; by default ``sensitivity.json`` in the folder of a run.
        runs: where run folders lie.
        device: where to compute, for a run; a network stays where it is.
        verbose: 0 is silent; 2 tells the cost; 1 shows a live line, too; ``"auto"`` does on a terminal.

    Returns:
        the curves: prints as a table, ``.plot(path)``, ``.to_dict()``.

    Raises:
        CheckpointError: as for `load`; if ``file`` holds something else.
        DataError: if there are no images.
        PlanError: for a ratio, a width or an importance that cannot be, or a network that is compressed already.

    Example:
        >>> found = qprune.sensitivity("runs/digits/baseline", ratios=(0.5,), bits=(4,), images=64, verbose=0)
        >>> found.curves[0].group.name
        'stem.act.output'
    """
    ready = _ready(model, data, images, compare, seed, Path(file) if file else None, runs, device)
    known: dict[str, Any] = {"ratios": ratios, "bits": bits, "importance": importance, "seed": seed, "verbose": verbose}
    return measure_sensitivity(ready.net, ready.batches, compare=ready.compare, file=ready.file, **known)


def search(
    model: nn.Module | Path | str,
    budget: Mapping[str, float | str] | Sequence[str],
    *,
    data: Any = None,
    bits: Sequence[int] = (),
    method: str = "sensitivity",
    ratios: Sequence[float] = RATIOS,
    images: int | None = None,
    importance: str = "activation-l1",
    least: float = 0.1,
    compare: str | None = None,
    seed: int = 0,
    file: Path | str | None = None,
    runs: Path | str | None = None,
    device: str | None = None,
    verbose: str | int = "auto",
) -> Found:
    """Find which channels to drop, layer by layer, and how many bits to use, so that a trained network meets a budget.

    What each group of channels can spare is measured as by `sensitivity`, and the choice with the least sum is taken
    that meets the budget; then it is measured again in a network of which half of that is dropped, and chosen once
    more. Nothing is trained: `fit` does that with the spec that is found.

    Args:
        model: a dense network, or a run of one.
        budget: the most that the network may cost, ``{"macs": 0.25, "bytes": "100kB"}``: ``macs``, ``params``,
            ``bytes`` (packed weights), ``bops`` (MACs times bits of weights and values) or ``latency`` (``"2.5ms"``: of
            the exported file in ONNX Runtime, on one thread of this machine). A number up to 1 is a share of what the
            dense network costs; ``["macs=0.25"]`` says the same.
        data: as for `fit`; of a run it is known.
        bits: widths to choose from, each from 2 to 8; without any, everything stays in float.
        method: ``"sensitivity"``; or, to see what that is worth, ``"uniform"`` (the same share everywhere) or
            ``"random"``.
        ratios: shares of the channels that are measured; what is chosen may lie between.
        images: how many to measure on, as for `sensitivity`.
        importance: as for `sensitivity`.
        least: share of its channels that each group keeps, in [0, 1).
        compare: as for `sensitivity`.
        seed: as for `sensitivity`, and of the method ``"random"``.
        file: where measurements are kept, as for `sensitivity`, which shares them; the table of latencies beside it.
        runs: where run folders lie.
        device: where to compute, for a run; a network stays where it is.
        verbose: as for `sensitivity`.

    Returns:
        what was found: prints as a table; ``.spec()`` and ``.to_toml()`` for `fit`, ``.prune()`` and ``.quantize()``
        for `swap`, ``.plot(path)``, ``.to_dict()``.

    Raises:
        CheckpointError: as for `load`; if ``file`` holds something else.
        DataError: if there are no images.
        PlanError: for a budget that cannot be read or met, or is met already, and as for `sensitivity`.
        ExportError: for a budget of latency, if the network cannot be exported or the packages for it are missing.

    Example:
        >>> found = qprune.search("runs/digits/baseline", {"macs": 0.25}, images=64, verbose=0)
        >>> found.spec().name
        'digits/baseline_macs25'
    """
    budgets = read_budgets(budget)
    ready = _ready(model, data, images, compare, seed, Path(file) if file else None, runs, device)
    known: dict[str, Any] = {"method": method, "ratios": ratios, "importance": importance, "least": least, "seed": seed}
    known |= {"compare": ready.compare, "file": ready.file, "verbose": verbose}
    found = search_network(ready.net, ready.batches, budgets, bits=bits, **known)
    return evolve(found, base=ready.spec)


@frozen(eq=False)
class _Ready:
    net: nn.Module
    batches: list[Tensor]
    compare: str
    file: Path | None
    spec: Spec | None


def _ready(
    model: nn.Module | Path | str,
    data: Any,
    images: int | None,
    compare: str | None,
    seed: int,
    file: Path | None,
    runs: Path | str | None,
    device: str | None,
) -> _Ready:
    """A trained network and images to measure it on."""
    spec = None
    if isinstance(model, nn.Module):
        net, part = model, _training_part(data)
    else:
        opened = with_data(open_model(model, runs_root(runs)), data)
        net, spec, part = opened.net.to(choose_device(device)), opened.spec, opened.split("train")
        file = file or model_file(model, runs_root(runs)).with_name("sensitivity.json")
    where = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    first = take_images(part, 1, seed=seed)[0].to(where)
    with evaluating(net):
        output = outputs_of(deployed(net), [first])[0]
    if images is None:
        images = IMAGES if output.dim() == 2 else IMAGES_OF_PIXELS
    batches = [batch.to(where) for batch in take_images(part, images, seed=seed)]
    return _Ready(net, batches, compared_of(spec.task if spec else None, compare, output), file, spec)


def _training_part(data: Any) -> Any:
    if data is None or isinstance(data, str | Path):
        raise DataError(
            'A network does not know what its images are: hand them over, data={"train": ...}, a dataset or a loader.'
        )
    return wrap_data(data).train
