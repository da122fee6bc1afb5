"""The directive ``spec-keys``: the keys of one table of a spec, from what the checker of specs judges by."""

import re
from pathlib import PurePath
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from qprune import spec
from qprune.schedules.tables import KINDS
from qprune.spec.keys import Key, keys_of
from qprune.spec.values import shown

CLASSES = {name: cls for name, cls in vars(spec).items() if isinstance(cls, type)} | KINDS


class SpecKeys(SphinxDirective):
    """A Markdown table of the keys of a class of `qprune.spec`, or of a kind of schedule."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table."""
        cls = CLASSES[self.arguments[0]]
        rows = [_row(key) for key in keys_of(cls).values()]
        self.env.note_dependency(str(PurePath(spec.__file__)))
        table = self.parse_text_to_nodes("\n".join(["| key | by default | meaning |", "| --- | --- | --- |", *rows]))
        for word in [word for part in table for word in part.findall(nodes.literal) if word.astext() in CLASSES]:
            word.replace_self(nodes.reference("", "", nodes.literal("", word.astext()), refid=_anchor(word.astext())))
        return [nodes.target("", "", ids=[_anchor(self.arguments[0])]), *table]


def _anchor(name: str) -> str:
    return f"keys-{nodes.make_id(name)}"


def _row(key: Key) -> str:
    name = "any other key" if key.free else f"`{key.name}`"
    about = _markdown(key.about)
    words = "" if key.free or _says(about, key.words) else f" *{_markdown(key.words[:1].upper() + key.words[1:])}.*"
    return f"| {name} | {_default(key)} | {about[:1].upper()}{about[1:]}{words} |"


def _says(about: str, words: str) -> bool:
    """Whether meaning and default say as much: every word that may stand there, or that it is text or a table."""
    choices = re.findall(r'"[^"]+"', words)
    plain = ("", "a table", "a string", "a string that is not empty", "true or false", "one line of text")
    return words in plain or words.startswith("a list of tables") or bool(choices and all(w in about for w in choices))


def _default(key: Key) -> str:
    if key.needed:
        return "needed"
    default: Any = key.default
    left_out = (
        default is None
        or default == ()
        or default == ""
        or isinstance(default, dict)
        or hasattr(default, "__attrs_attrs__")
    )
    return "" if left_out else f"`{shown(default)}`"


def _markdown(text: str) -> str:
    return re.sub(r"`+([^`]+)`+", r"`\1`", text).replace("|", r"\|")


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("spec-keys", SpecKeys)
    return {"parallel_read_safe": True}
