"""One file of a spec as a table, or the sentence that says why it cannot be read."""

from os.path import normpath
from pathlib import Path

from qprune.errors import SpecError
from qprune.regular_files import read_regular
from qprune.spec.finding import nearest_spec
from qprune.spec.parsing import LARGEST, parse_toml
from qprune.spec.values import Table
from qprune.spelling import closest


def read_table(path: Path, asked: str = "") -> Table:
    """Read a TOML file.

    Args:
        path: the file.
        asked: who asked for it, for the sentence, such as ``"extends in specs/mine.toml"``.

    Raises:
        SpecError: if it is missing, no regular file, larger than 2 MiB, unreadable, empty, not UTF-8 or not TOML; the
            sentence names the nearest spec that exists.

    Example:
        >>> read_table(Path("nowhere.toml"))
        Traceback (most recent call last):
        qprune.spec.document.SpecError: nowhere.toml does not exist; `qprune list` shows the specs.
    """
    try:
        return _parsed(read_regular(path, LARGEST))
    except FileNotFoundError:
        reason = f"does not exist{_nearest_sibling(path)}"
    except IsADirectoryError:
        reason = "is a folder, and a spec is a file"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 text (byte {error.object[error.start]:#04x} at position {error.start})"
    except ValueError as error:
        reason = str(error)
    near = "" if "; nearest" in reason else nearest_spec(path)
    raise SpecError(f"{label(path)} {reason}{near}{f' ({asked})' if asked else ''}.")


def _parsed(content: bytes) -> Table:
    text = content.decode("utf-8-sig")  # some editors write a byte-order mark
    if not text.strip():
        raise ValueError("is empty")
    return parse_toml(text)


def _nearest_sibling(path: Path) -> str:
    siblings = sorted(file.stem for file in path.parent.glob("*.toml")) if path.parent.is_dir() else []
    close = closest(path.stem, siblings)
    return f'; nearest: "{close}.toml"' if close else ""


def label(path: Path) -> str:
    """The path as a sentence shows it: relative where it lies below the current folder."""
    whole = Path(normpath(path.absolute()))
    return str(whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else path)
