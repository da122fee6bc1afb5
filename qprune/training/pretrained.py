"""`start_from_weights`: a network of another library takes over weights that somebody trained."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from qprune import zoo
from qprune.assemble import zoo_options
from qprune.data import weights_of
from qprune.errors import CheckpointError
from qprune.layers import names_apart
from qprune.spec import Spec
from qprune.training import ranks
from qprune.training.checkpoint import few

log = logging.getLogger(__name__)

# the keys of masks and quantizers, and the counts of normalizations, which older files do not have
_OWN = re.compile(r"(.*\.)?((input|weight|output)_(mask|quant)\..*|num_batches_tracked)")


def start_from_weights(
    net: nn.Module, spec: Spec, classes: int, in_channels: int, *, download: bool = False, needed: bool = True
) -> None:
    """Load the weights that ``model.weights`` (or ``weights_backbone``) names; without them nothing is done.

    Masks and quantizers stay as they are, and so does the head where its classes are others, which is said in the log.

    Args:
        net: the network of the spec, with its masks and quantizers, before anything is cut.
        spec: what to start from.
        classes: with which the network was made, as ``in_channels``.
        download: fetch a file that is not on this machine.
        needed: whether a file that is not there is an error; if not, the network stays as it is, which the log says.

    Raises:
        CheckpointError: if the file is not there or cannot be read, or is of another network: keys or shapes that
            differ are named.

    Example:
        >>> from qprune.spec import read_spec
        >>> net, theirs = (zoo.create("torchvision/squeezenet1_1", classes=4) for _ in range(2))
        >>> torch.save(theirs.state_dict(), "mine.pth")
        >>> model = {"model.arch": "torchvision/squeezenet1_1", "model.width": "1.0", "model.weights": "mine.pth"}
        >>> start_from_weights(net, read_spec("digits/baseline", model), classes=4, in_channels=3)
        >>> torch.equal(net.features[0].weight, theirs.features[0].weight)
        True
    """
    if spec.model.start is None:
        return
    weights = weights_of(spec)
    if not needed and weights.here() is None:
        log.warning("%s is made with fresh weights, as %s are not on this machine", spec.name, weights.title)
        return
    file = weights.get(download)
    own = net.state_dict()
    state = names_apart(net, _translated(spec, file, in_channels, classes))
    taken = {key: own[key] for key in own if not _OWN.fullmatch(key) and key.startswith(_part(spec))}
    others = {key for key in taken if key not in state or state[key].shape != taken[key].shape}
    head = _head(spec, classes, in_channels) if others else set()
    _check(taken, state, head, f"{file} is of another network than {spec.model.arch}")
    own.update((key, value) for key, value in state.items() if key in own and key not in others)
    net.load_state_dict(own)  # which says of what version of each layer it is
    if others and ranks.is_writer():
        fresh = few("head", others, own)
        log.warning(
            "%s: of %s all is taken but the %s, which stays fresh for the data's classes", spec.name, file, fresh
        )


def _part(spec: Spec) -> str:
    """What the names of all that is loaded begin with."""
    return zoo.BACKBONE if spec.model.weights_backbone else ""


def _translated(spec: Spec, file: Path, in_channels: int, classes: int) -> zoo.State:
    state = zoo.read_state(file)
    if spec.model.weights_backbone:
        return zoo.backbone_state(state)
    options = zoo_options(spec.model, classes, in_channels)
    del options["classes"]  # a file has its own
    with torch.random.fork_rng(devices=[]):  # the network's own weights were drawn already
        return zoo.native_state(str(spec.model.arch), state, **options)


def _head(spec: Spec, classes: int, in_channels: int) -> set[str]:
    """What of the network depends on the number of classes."""
    options = zoo_options(spec.model, classes, in_channels)
    with torch.random.fork_rng(devices=[]):
        sizes = (options["classes"], options["classes"] + 1)
        one, other = (zoo.create(str(spec.model.arch), **options | {"classes": size}).state_dict() for size in sizes)
    return {key for key in one if one[key].shape != other[key].shape}


def _check(own: Mapping[str, Tensor], state: zoo.State, head: Iterable[str], what: str) -> None:
    wanted = own.keys() - set(head)
    unknown = [key for key in state if key not in own and not _OWN.fullmatch(key)]
    shaped = [key for key in wanted if key in state and state[key].shape != own[key].shape]
    kinds = [key for key in own if key in state and own[key].is_floating_point() != state[key].is_floating_point()]
    differences = [
        few("missing", wanted - state.keys(), own),
        few("unknown", unknown, state),
        few("of another shape", shaped, own),
        few("of another kind of number", kinds, own),
    ]
    if any(differences):
        raise CheckpointError(
            f"{what}: {'; '.join(filter(None, differences))}. Name the file of this network, or the network of this "
            "file (model.arch and its options)."
        )
