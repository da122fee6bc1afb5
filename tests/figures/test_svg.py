"""Figures as SVG: one element, the same text each time, names as text."""

import sys

import pytest

from qprune.errors import QpruneError
from qprune.figures import empty_figure, inline_svg

HOSTILE = r'<script>"&$\frac$'


def titled(title):
    def draw():
        figure = empty_figure(rows=1)
        figure.subplots().set_title(title)
        return figure

    return draw


def test_a_figure_is_one_element_with_a_label():
    text = inline_svg(titled("a title"), 'what "it" shows')
    assert text.startswith('<svg role="img" aria-label="what &quot;it&quot; shows" class="figure"')
    assert text.rstrip().endswith("</svg>")
    assert ">a title</text>" in text


def test_names_in_a_figure_are_no_markup_and_no_formulas():
    text = inline_svg(titled(HOSTILE), "it")
    assert r"&lt;script&gt;" in text
    assert r"$\frac$" in text
    assert "<script" not in text


def test_the_same_figure_is_the_same_text():
    assert inline_svg(titled("a"), "it") == inline_svg(titled("a"), "it")


def test_settings_of_the_program_around_are_left_alone():
    from matplotlib import rcParams

    before = dict(rcParams)
    inline_svg(titled("a"), "it")
    assert dict(rcParams) == before


def test_a_page_shows_through_unless_it_may_not():
    assert "fill: #ffffff" not in inline_svg(titled("a"), "it")
    assert "fill: #ffffff" in inline_svg(titled("a"), "it", transparent=False)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(QpruneError, match=r'not installed: pip install "qprune\[plots\]"'):
        inline_svg(titled("a"), "it")
