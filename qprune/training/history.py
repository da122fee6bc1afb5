"""`History`: what happened, as lists."""

import copy
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from qprune.errors import QpruneError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@define
class History:
    """The record of one training, which the progress line, the CSV file and TensorBoard read as well.

    Attributes:
        history: name -> list with one entry per validation, all of equal length: ``loss`` and the task's metrics on the
            training batches since the entry before, the same with ``val_`` on the validation split, ``lr`` (of the last
            step), ``step`` (steps done), ``epoch`` (passes over the data, a float) and ``seconds`` (since the entry
            before).
        events: one dict per refresh of a mask, ``{"step", "site", "sparsity", "frozen"}``, and per start of a
            quantizer, ``{"step", "site", "bits"}``; "frozen" tells whether it was the mask's last.
        run: the run's folder; None without one.
        scores: final scores per split, such as ``{"test": {"accuracy": 0.98, "loss": 0.07}}``.
        interrupted: whether Ctrl-C or SIGTERM ended the training before its last step.
        preempted: whether it was SIGTERM, by which schedulers take a machine away.

    A resumed training goes on with the entries and events of its checkpoint, so that the lists have no gap.

    Example:
        >>> history = History()
        >>> history.add({"step": 19, "loss": 0.7})
        >>> history.add({"step": 38, "loss": 0.4})
        >>> history.history["loss"], history.last()
        ([0.7, 0.4], {'step': 38, 'loss': 0.4})
    """

    history: dict[str, list[Any]] = field(factory=dict)
    events: list[dict[str, Any]] = field(factory=list)
    run: Path | None = None
    scores: dict[str, dict[str, float]] = field(factory=dict)
    interrupted: bool = False
    preempted: bool = False

    def __len__(self) -> int:
        return len(next(iter(self.history.values()), []))

    def add(self, entry: dict[str, Any]) -> None:
        """Append one entry.

        Raises:
            ValueError: if its names are not those of the entries before it.
        """
        if self.history and entry.keys() != self.history.keys():
            raise ValueError(f"entries must have the names {', '.join(self.history)}; received {', '.join(entry)}")
        for name, value in entry.items():
            self.history.setdefault(name, []).append(value)

    def last(self) -> dict[str, Any]:
        """The last entry; empty if there is none."""
        return {name: values[-1] for name, values in self.history.items()}

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw losses, metrics, learning rate and the sparsity time line, one above the other, over steps.

        Metrics per class (``iou_...``) are left out. Every site is a curve of its sparsity, strong from its first
        refresh to the dot at which its mask freezes; dotted lines mark where quantizers start.

        Args:
            path: where to save the figure as well; its suffix is the format, such as ``.png`` or ``.pdf``.

        Returns:
            the matplotlib figure, to go on with.

        Raises:
            QpruneError: if the history is empty, or matplotlib is not installed.

        Example:
            >>> history.plot("runs/mine/history.png")
        """
        from qprune.figures.history import plot_history

        return plot_history(self.history, self.events, path)

    def __repr__(self) -> str:
        counts = f"{_count(len(self), 'entry', 'entries')}, {_count(len(self.events), 'event', 'events')}"
        return f"History({counts})" if self.run is None else f"History({counts}, {self.run})"

    def _repr_html_(self) -> str:
        """The figure; where there is none, a sentence."""
        from qprune.figures.svg import inline_svg

        try:
            return inline_svg(self.plot, "losses, metrics and sparsity over steps", transparent=False)
        except QpruneError as error:
            return f"<p>{escape(str(error))}</p>"

    def state_dict(self) -> dict[str, Any]:
        """Entries and events, as plain data."""
        return {"history": copy.deepcopy(self.history), "events": copy.deepcopy(self.events)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the entries and events of ``state``.

        Raises:
            TypeError: for entries that are no numbers.
        """
        columns = list(state["history"].values())
        numbers = all(isinstance(value, (int, float)) for column in columns for value in column)
        if len(set(map(len, columns))) > 1 or not numbers:
            raise TypeError("entries of a history must be numbers, as many of each name")
        self.history, self.events = copy.deepcopy(state["history"]), copy.deepcopy(state["events"])


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
