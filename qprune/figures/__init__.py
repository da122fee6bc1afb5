"""Figures, drawn by matplotlib, of no window: a training, a network, runs side by side; as SVG for pages."""

from qprune.figures.confusion import plot_confusion
from qprune.figures.history import plot_history
from qprune.figures.layers import LayerBar, plot_layers
from qprune.figures.svg import empty_figure, inline_svg, notebook_svg
from qprune.figures.tradeoffs import plot_tradeoffs
