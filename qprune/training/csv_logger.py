"""`CSVLogger`: the history as a table."""

import csv
import io
import logging
from pathlib import Path

from qprune.errors import CheckpointError
from qprune.training.callbacks import Callback, Logs
from qprune.training.writing import replaced

log = logging.getLogger(__name__)


class CSVLogger(Callback):
    """Writes the history to a CSV file: a column per name, a row per validation.

    The whole file is written anew each time, so a resumed training leaves no row twice and none out: when it begins,
    the file is cut back to the rows of the checkpoint. Where it cannot be written, say on a full disk, that is logged
    and training goes on; the next row brings the missing ones with it.

    Args:
        path: the file.

    Example:
        >>> CSVLogger("runs/mine/history.csv")
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def move_to(self, folder: Path) -> None:
        """Write into another folder from now on.

        Example:
            >>> logger.move_to(Path("runs/mine-kept-1"))
        """
        self.path = folder / self.path.name

    def on_train_begin(self, logs: Logs) -> None:
        """Cut the file back to the checkpoint, if there is one."""
        if self.trainer.step > 0:
            self._write()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write all entries up to this one."""
        self._write()

    def _write(self) -> None:
        if not self.trainer.writes:
            return
        try:
            if len(self.trainer.history):
                self._replace()
            else:
                self.path.unlink(missing_ok=True)
        except (CheckpointError, OSError) as error:
            log.warning("Training goes on without its newest rows in %s: %s", self.path, error)

    def _replace(self) -> None:
        columns = self.trainer.history.history
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([list(columns), *zip(*columns.values(), strict=True)])
        with replaced(self.path) as file:
            file.write(text.getvalue().encode())
