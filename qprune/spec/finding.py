"""Specs by name: those below ./specs, then those that are installed with the package."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from qprune.errors import SpecError, UnknownSpecError
from qprune.regular_files import read_regular
from qprune.spec.parsing import LARGEST, parse_toml
from qprune.spec.values import Table, listed, shown
from qprune.spelling import closest


class ListedSpec(NamedTuple):
    """One spec of the list."""

    name: str  # its path below the folder specs, without .toml
    aka: str | None  # the name of the published experiment, if it reproduces one
    about: str  # one line that says what it shows
    path: Path
    published: bool = False  # whether it reproduces an experiment of the paper

    @property
    def names(self) -> tuple[str, ...]:
        """The name, and the same with ``aka`` as its last component."""
        return (self.name, self.name[: self.name.rfind("/") + 1] + self.aka) if self.aka else (self.name,)


def list_specs() -> list[ListedSpec]:
    """Every spec there is, sorted by name; files below a folder ``base`` only serve others and are left out.

    A spec below the current folder's ``specs`` hides an installed one of the same name.

    Example:
        >>> [spec.name for spec in list_specs()][:2]
        ['camvid/cyclegan/a75_layerwise', 'camvid/cyclegan/baseline']
    """
    return [_listed(name, path) for name, path in sorted(_files().items())]


def _files() -> dict[str, Path]:
    found = {name_below_specs(path): path for folder in reversed(_folders()) for path in folder.rglob("*.toml")}
    return {name: path for name, path in found.items() if "base" not in name.split("/")[:-1]}


def find_spec(name: str) -> Path:
    """Find a spec's file by its name or a part of it.

    The name matches whole path components from the right (``"digits/baseline"``, ``"baseline"``), also with the
    published experiment's name in place of the last; failing that, any part of the name. Among several the published
    one wins.

    Raises:
        UnknownSpecError: if none matches, with the nearest name.
        SpecError: if several do, with the candidates.

    Example:
        >>> find_spec("digits/a75_w4a4").name
        'a75_w4a4.toml'
    """
    files = _files()
    if name in files:  # none needs to be read
        return files[name]
    specs = list_specs()
    for fits in (_equals, _ends, _contains):
        matches = [spec for spec in specs if any(fits(full, name) for full in spec.names)]
        if name and matches:
            return _only(name, matches).path
    raise UnknownSpecError(f"No spec is named {shown(name)}{nearest_spec(Path(name))}.")


def nearest_spec(path: Path) -> str:
    """End a sentence with the name of the spec that looks most like ``path``, or with where to see them all."""
    others = [spec for spec in list_specs() if spec.path.absolute() != path.absolute()]
    words = {full.split("/")[-1]: spec.name for spec in others for full in spec.names}
    words |= {full: spec.name for spec in others for full in spec.names}
    for word in (path.as_posix().removesuffix(".toml"), name_below_specs(path), path.stem):
        if close := closest(word, words):
            return f'; nearest spec: "{words[close]}"'
    return "; `qprune list` shows the specs"


def name_below_specs(path: Path) -> str:
    """The name that a file gives its run: its path below the last folder ``specs``, else its stem."""
    parts = Path(str(path.absolute()).removesuffix(".toml")).parts
    folders = [place for place, part in enumerate(parts[:-1]) if part == "specs"]
    return "/".join(parts[folders[-1] + 1 :]) if folders else path.stem


def _folders() -> list[Path]:
    package = Path(__file__).parents[1]
    installed = package / "specs"
    folders = [Path.cwd() / "specs", installed if installed.is_dir() else package.parent / "specs"]
    return [folder for folder in folders if folder.is_dir()]


def _listed(name: str, path: Path) -> ListedSpec:
    head = _head(path)
    aka, about = head.get("aka"), head.get("about")
    return ListedSpec(
        name,
        aka if isinstance(aka, str) else None,
        about if isinstance(about, str) else "",
        path,
        published=head.get("published") is True,
    )


def _head(path: Path) -> Table:
    try:
        return parse_toml(read_regular(path, LARGEST).decode("utf-8-sig"))
    except (OSError, ValueError):
        return {}  # listed without a line about it; reading it says what is wrong


def _only(name: str, matches: list[ListedSpec]) -> ListedSpec:
    choice = matches if len(matches) == 1 else [spec for spec in matches if spec.published]
    if len(choice) != 1:
        candidates = _listed_at_most(12, [spec.name for spec in matches])
        raise SpecError(f"{shown(name)} fits {len(matches)} specs: {candidates}. Write more of the name.")
    return choice[0]


def _listed_at_most(most: int, names: Sequence[str]) -> str:
    if len(names) <= most:
        return listed(names, "and")
    return f"{', '.join(map(shown, names[:most]))} and {len(names) - most} more"


_equals: Callable[[str, str], bool] = str.__eq__
_contains: Callable[[str, str], bool] = str.__contains__


def _ends(full: str, name: str) -> bool:
    return f"/{full}".endswith(f"/{name}")
