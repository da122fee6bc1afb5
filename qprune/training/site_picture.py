"""`draw_sites`: how much of each site is dropped, as a picture."""

from collections.abc import Mapping

import torch
from torch import Tensor

from qprune.errors import QpruneError
from qprune.figures import empty_figure

NAMED = 40  # sites whose names can be read


def draw_sites(sparsities: Mapping[str, float]) -> Tensor | None:
    """A bar for each site's share of dropped channels, in the order of the table; uint8 (3, H, W).

    None where matplotlib is not installed.
    """
    try:
        figure = empty_figure(rows=2)
    except QpruneError:
        return None
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    axes, places = figure.subplots(), range(len(sparsities))
    axes.bar(places, list(sparsities.values()), color="C0", width=1.0 if len(sparsities) > NAMED else 0.8)
    axes.set_ylim(0, 1)
    axes.set_ylabel("channels dropped")
    if len(sparsities) <= NAMED:
        axes.set_xticks(places, list(sparsities), rotation=90, fontsize=7)
    else:
        axes.set_xlabel(f"{len(sparsities)} sites, in the order in which they were pruned")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1)
