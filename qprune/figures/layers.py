"""`plot_layers`: a network as a row of bars, its channels and bits layer by layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from qprune.escaping import visible
from qprune.figures.svg import calm, empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOAT = 32
NAMED = 40  # layers that have room for their names
GONE = "#c8ccd2"
COLOURS = {2: "#b2182b", 3: "#d6604d", 4: "#e08214", 5: "#c0a020", 6: "#5aae61", 7: "#35978f", 8: "#2f7fc1"}
REAL = "#7a6fb0"  # of layers whose weights are real numbers


@frozen
class LayerBar:
    """A layer as it is drawn."""

    name: str  # its path
    channels: int  # output channels of the dense network
    kept: int  # of these, the ones that are left
    weight_bits: int  # 32 is float
    activation_bits: int  # of what it reads


def plot_layers(layers: Sequence[LayerBar]) -> "Figure":
    """Draw a bar for each layer: as high as its channels, filled as far as they are kept, coloured by its bits.

    The rows below tell the bits of the weights and of what the layer reads.

    Raises:
        QpruneError: if matplotlib is not installed.

    Example:
        >>> plot_layers([LayerBar("stem", 16, 4, 4, 8), LayerBar("head", 10, 10, 32, 32)]).axes[0].get_ylabel()
        'output channels'
    """
    figure = empty_figure(2)
    bars, bits = figure.subplots(2, sharex=True, height_ratios=[6, 1])
    places = range(len(layers))
    bars.bar(places, [layer.channels for layer in layers], color=GONE, width=0.86)
    bars.bar(
        places, [layer.kept for layer in layers], color=[_colour(layer.weight_bits) for layer in layers], width=0.86
    )
    bars.set_ylabel("output channels")
    calm(bars, "y")
    bars.set_axisbelow(True)
    drops = any(layer.kept < layer.channels for layer in layers)
    _draw_legend(bars, sorted({layer.weight_bits for layer in layers}), drops)
    _draw_bits(bits, layers)
    return figure


def _colour(bits: int) -> str:
    return COLOURS.get(bits, REAL)


def _told(bits: int) -> str:
    return "float" if bits == FLOAT else f"{bits} bit"


def _draw_legend(axes: "Axes", widths: Sequence[int], drops: bool) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=_colour(bits), label=f"kept, {_told(bits)}") for bits in widths]
    if drops:
        patches += [Patch(color=GONE, label="dropped")]
    axes.legend(handles=patches, fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(patches))


def _draw_bits(axes: "Axes", layers: Sequence[LayerBar]) -> None:
    from matplotlib.patches import Rectangle

    for row, side in enumerate(("activation_bits", "weight_bits")):
        for place, layer in enumerate(layers):
            bits = getattr(layer, side)
            axes.add_patch(Rectangle((place - 0.43, row - 0.43), 0.86, 0.86, color=_colour(bits)))
            if len(layers) <= NAMED:
                axes.text(place, row, str(bits), ha="center", va="center", fontsize=7, color="white")
    axes.set_ylim(-0.5, 1.5)
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.set_yticks([0, 1], ["inputs", "weights"], fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    step = max(1, -(-len(layers) // NAMED))
    shown = range(0, len(layers), step)
    axes.set_xticks(list(shown), [_short(layers[place].name) for place in shown], rotation=90, fontsize=7)


def _short(name: str) -> str:
    shown = visible(name) or "(network)"
    return shown if len(shown) <= 30 else f"…{shown[-29:]}"
