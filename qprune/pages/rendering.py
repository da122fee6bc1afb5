"""HTML pages from templates, in which every text is escaped."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qprune.errors import QpruneError
from qprune.escaping import visible
from qprune.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Fill a template of the folder ``templates``: texts are escaped; HTML that is wanted comes as from `as_html`."""
    return environment().get_template(template).render(version=__version__, **values)


def as_html(text: str) -> Any:
    """Mark text as HTML in which everything is escaped that was not written here."""
    environment()
    from markupsafe import Markup

    return Markup(text)


def write_page(path: Path, page: str) -> Path:
    """Write a page; one that is there is replaced, and a folder that is missing is made.

    Raises:
        QpruneError: if it cannot be written.

    Example:
        >>> write_page(Path("page.html"), "<p>It</p>").name
        'page.html'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise QpruneError(f"{path} cannot be written: {error.strerror or error}. Choose another file.") from error
    return path


@cache
def environment() -> "Environment":
    """The templates, and how they are filled: every text is escaped, control characters are written out."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise QpruneError('Pages need jinja2, which is not installed: pip install "qprune[report]".') from error
    # what is no text is shown as text; lone surrogates and control characters are written out
    return Environment(
        loader=PackageLoader("qprune.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value, keep="\n") if type(value) is str else value,
        trim_blocks=True,
    )
