import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from qprune.errors import QpruneError
from qprune.figures.history import plot_history
from qprune.training import History

DENSE: dict[str, list[Any]] = {
    "loss": [2.0, 1.0, 0.5], "accuracy": [0.25, 0.5, 0.75], "iou_sky": [0.1, 0.2, 0.3], "val_loss": [2.5, 1.5, 1.0],
    "val_accuracy": [0.2, 0.4, 0.6], "lr": [0.1, 0.1, 0.01], "step": [5, 10, 15], "epoch": [1.0, 2.0, 3.0],
    "seconds": [1.0, 1.0, 1.0],
}  # fmt: skip
EVENTS: list[dict[str, Any]] = [
    {"step": 2, "site": "0.output", "sparsity": 0.25, "frozen": False},
    {"step": 4, "site": "0.output", "sparsity": 0.5, "frozen": True},
    {"step": 6, "site": "3.output", "sparsity": 0.5, "frozen": False},
    {"step": 9, "site": "3.input", "bits": 4},
    {"step": 9, "site": "3.weight", "bits": 4},
    {"step": 12, "site": "5.weight", "bits": 8},
]


@pytest.fixture(autouse=True)
def _matplotlib(request: pytest.FixtureRequest) -> None:
    if "no_matplotlib" not in request.fixturenames:
        pytest.importorskip("matplotlib")


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


def rows(figure: Any) -> dict[str, Any]:
    return {axes.get_ylabel(): axes for axes in figure.axes}


def curves(axes: Any) -> dict[str, list[tuple[float, float]]]:
    return {
        line.get_label(): [(float(x), float(y)) for x, y in line.get_xydata()]
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def test_losses_metrics_rate_sparsity_and_quantizers_are_rows() -> None:
    assert list(rows(plot_history(DENSE, EVENTS))) == ["loss", "accuracy", "learning rate", "sparsity", "quantizers"]


def test_dense_training_has_no_time_line() -> None:
    assert list(rows(plot_history(DENSE, []))) == ["loss", "accuracy", "learning rate"]


def test_training_without_a_validation_yet_has_only_a_time_line() -> None:
    assert list(rows(plot_history({}, EVENTS))) == ["sparsity", "quantizers"]


def test_values_are_over_steps_and_classes_are_left_out() -> None:
    axes = rows(plot_history(DENSE, []))
    assert curves(axes["loss"]) == {
        "loss": [(5, 2.0), (10, 1.0), (15, 0.5)],
        "val_loss": [(5, 2.5), (10, 1.5), (15, 1.0)],
    }
    assert list(curves(axes["accuracy"])) == ["accuracy", "val_accuracy"]


def test_sites_rise_at_their_refreshes_and_freezes_are_dots() -> None:
    axes = rows(plot_history(DENSE, EVENTS))["sparsity"]
    assert curves(axes) == {
        "0.output": [(2, 0.0), (2, 0.25), (4, 0.5)],
        "3.output": [(6, 0.0), (6, 0.5)],
    }
    dots = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    assert dots == [[[4.0, 0.5]]]
    marks = sorted(line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":")
    assert marks == [9, 12]


def test_quantizers_are_counted_by_their_bits() -> None:
    axes = rows(plot_history(DENSE, EVENTS))["quantizers"]
    assert curves(axes) == {
        "4 bit": [(0, 0), (9, 1), (9, 2), (15, 2)],
        "8 bit": [(0, 0), (12, 1), (15, 1)],
    }


def test_of_many_sites_the_first_and_the_last_are_named() -> None:
    events = [{"step": n, "site": f"{n}.output", "sparsity": 0.5, "frozen": True} for n in range(40)]
    axes = rows(plot_history({}, events))["sparsity"]
    assert list(curves(axes)) == ["0.output\nfirst of 40", "39.output\nlast of 40"]


def test_steps_are_shared_and_epochs_are_on_top() -> None:
    figure = plot_history(DENSE, EVENTS)
    limits = {axes.get_xlim() for axes in figure.axes}
    assert limits == {(0.0, 15 * 1.01)}
    assert figure.axes[-1].get_xlabel() == "step"
    (top,) = figure.axes[0].child_axes
    figure.draw_without_rendering()
    assert top.get_xlabel() == "epoch"
    assert top.get_xlim() == pytest.approx((0.0, 3 * 1.01))


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_figure_is_saved_in_the_format_of_its_name(tmp_path: Path, suffix: str) -> None:
    history = History(DENSE, EVENTS)
    history.plot(tmp_path / f"history{suffix}")
    assert (tmp_path / f"history{suffix}").stat().st_size > 5000


def test_no_pyplot_and_no_window() -> None:
    before = "matplotlib.pyplot" in sys.modules
    plot_history(DENSE, EVENTS)
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_missing_matplotlib_is_told_with_the_extra(no_matplotlib: None) -> None:
    with pytest.raises(QpruneError) as error:
        plot_history(DENSE, [])
    assert str(error.value) == 'Plots need matplotlib, which is not installed: pip install "qprune[plots]".'


def test_steps_go_as_far_as_they_are_told():
    assert rows(plot_history({}, EVENTS, steps=500))["sparsity"].get_xlim()[1] > 500
