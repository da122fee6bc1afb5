"""Figures, drawn by matplotlib, of no window: a training over its steps."""

from qprune.figures.history import empty_figure, plot_history
