"""The version of qprune, which files that it writes carry too."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """The version that was installed, ``"unknown"`` where qprune runs from a source tree that never was.

    The number stands in ``pyproject.toml`` alone.
    """
    try:
        return version("qprune")
    except PackageNotFoundError:
        return "unknown"


__version__ = installed_version()
