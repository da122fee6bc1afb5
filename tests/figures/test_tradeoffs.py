"""Scores over costs: a panel for each cost, the front joined."""

from qprune.figures import plot_tradeoffs

SCORES = {"cheap": 0.5, "middle": 0.4, "dear": 0.9}
COSTS = {"packed bytes": {"cheap": 10.0, "middle": 40.0, "dear": 1000.0}}
FRONT = {"packed bytes": ["cheap", "dear"]}


def test_points_of_the_front_are_dots_and_the_others_crosses():
    axes = plot_tradeoffs(SCORES, COSTS, FRONT, "accuracy").axes[0]
    marks = {tuple(line.get_xydata()[0]): line.get_marker() for line in axes.lines[1:]}
    assert marks == {(10.0, 0.5): "o", (40.0, 0.4): "x", (1000.0, 0.9): "o"}


def test_the_front_is_a_line_of_its_points():
    axes = plot_tradeoffs(SCORES, COSTS, FRONT, "accuracy").axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[10.0, 0.5], [1000.0, 0.9]]


def test_costs_far_apart_are_drawn_on_a_logarithmic_axis():
    near = {"MACs": {"cheap": 100.0, "middle": 120.0, "dear": 300.0}}
    assert plot_tradeoffs(SCORES, COSTS, FRONT, "accuracy").axes[0].get_xscale() == "log"
    assert plot_tradeoffs(SCORES, near, {"MACs": ["cheap"]}, "accuracy").axes[0].get_xscale() == "linear"


def test_shares_are_written_in_per_cent_and_distances_are_not():
    def first(**options):
        figure = plot_tradeoffs(SCORES, COSTS, FRONT, "score", **options)
        figure.draw_without_rendering()
        return figure.axes[0].get_yticklabels()[0].get_text()

    assert first().endswith("%")
    assert not first(shares=False).endswith("%")


def test_every_point_is_named_while_they_are_few():
    axes = plot_tradeoffs(SCORES, COSTS, FRONT, "accuracy").axes[0]
    assert [text.get_text() for text in axes.texts] == ["cheap", "middle", "dear"]
    many = {f"run {index}": index / 100 for index in range(20)}
    costs = {"MACs": {name: 10.0 + index for index, name in enumerate(many)}}
    axes = plot_tradeoffs(many, costs, {"MACs": ["run 19"]}, "accuracy").axes[0]
    assert [text.get_text() for text in axes.texts] == ["run 19"]


def test_a_cost_of_nothing_can_be_drawn():
    found = plot_tradeoffs({"a": 0.5, "b": 0.6}, {"MACs": {"a": 0.0, "b": 9.0}}, {"MACs": ["a", "b"]}, "accuracy")
    assert found.axes[0].get_xscale() == "linear"
