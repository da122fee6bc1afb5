"""The page of runs side by side."""

from collections.abc import Sequence

from qprune.pages.rendering import as_html, render


def comparison_page(title: str, table: str, plot: str = "", notes: Sequence[str] = ()) -> str:
    """A page with a table (HTML), a figure (SVG), if there is one, and notes below the table.

    Raises:
        QpruneError: if jinja2 is not installed.

    Example:
        >>> "<p class=\\"quiet\\">none</p>" in comparison_page("runs", "<table></table>", notes=["none"])
        True
    """
    return render("comparison.html", title=title, table=as_html(table), plot=as_html(plot), notes=notes)
