"""`inherit`: what a network takes over from a trained model."""

import re
from typing import Any

from torch import nn

from qprune.errors import CheckpointError
from qprune.layers import sites
from qprune.shrinking import rebuild
from qprune.training.checkpoint import load_state

_COMPRESSOR = re.compile(r"(.*(?:input|weight|output)_(?:mask|quant))\.\w+")


def inherit(net: nn.Module, content: dict[str, Any], origin: str) -> None:
    """Take over parameters, statistics and compressors of a trained model; those that it does not have start fresh."""
    masked = {site.name for site in sites(net) if site.mask is not None}
    cut = {f"{path}.{side}" for path, entry in content["cuts"]["cuts"].items() for side in entry["masks"]}
    _check_homes(cut - masked, origin)
    rebuild(net, content["cuts"], origin)
    state, own = content["state"], net.state_dict()
    theirs, homes = ({match[1] for key in each if (match := _COMPRESSOR.fullmatch(key))} for each in (state, own))
    _check_homes(theirs - homes, origin)
    load_state(net, state, origin)


def _check_homes(homeless: set[str], origin: str) -> None:
    if homeless:
        first = sorted(homeless)[0].replace("_mask", "").replace("_quant", "")
        raise CheckpointError(
            f'{origin} has masks or quantizers at {len(homeless)} sites where this network has none, "{first}" first. '
            'Add a rule for them; [[prune]] with schedule = { kind = "inherited" } keeps masks as they are.'
        )
