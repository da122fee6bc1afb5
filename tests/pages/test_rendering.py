"""Templates: every text is escaped, what is missing in one is an error, and pages are written whole."""

import sys

import jinja2
import pytest

from qprune.errors import QpruneError
from qprune.pages import rendering
from qprune.pages.rendering import as_html, render, write_page


def page(**values):
    return render("comparison.html", **({"title": "a", "table": "", "notes": [], "plot": ""} | values))


def test_texts_are_escaped_and_html_is_not():
    found = page(title='<b>"&', table=as_html("<table></table>"), notes=["<i>"])
    assert "<h1>&lt;b&gt;&#34;&amp;</h1>" in found
    assert "<title>&lt;b&gt;&#34;&amp;</title>" in found
    assert "<table></table>" in found
    assert "<i>" not in found


def test_control_characters_are_written_out():
    assert r"<h1>a\x00\u202eb\ud800</h1>" in page(title="a\x00\u202eb\ud800")


def test_a_value_that_a_template_misses_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        render("comparison.html", title="a")


def test_a_page_forbids_scripts_and_addresses_of_its_own_accord():
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page()


def test_a_page_is_written_into_a_folder_that_is_made_for_it(tmp_path):
    file = write_page(tmp_path / "new/it.html", "é")
    assert file.read_bytes() == "é".encode()
    assert write_page(file, "again").read_text() == "again"


def test_a_page_in_place_of_a_folder_is_refused(tmp_path):
    with pytest.raises(QpruneError, match=r"cannot be written: Is a directory\. Choose another file\."):
        write_page(tmp_path, "it")


def test_without_jinja2_the_extra_is_named(monkeypatch):
    rendering.environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(QpruneError, match=r'Pages need jinja2, which is not installed: pip install "qprune\[report\]"'):
        page()
    rendering.environment.cache_clear()
