"""The directive ``public-names``: every name that a room shows, each from its docstring."""

import importlib
from inspect import isclass, isroutine
from types import ModuleType
from typing import Any, ClassVar, get_type_hints

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import qprune

PUBLIC = [f"qprune.{room}" for room in qprune._ROOMS]


def shown(module: ModuleType) -> list[str]:
    """The names of ``__all__``, or of a room without one what it imports from itself; modules are none."""
    own = [name for name, value in vars(module).items() if name[0] != "_" and not isinstance(value, ModuleType)]
    return [name for name in getattr(module, "__all__", own) if _is_ours(getattr(module, name))]


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith("qprune") and bool(getattr(value, "__doc__", None))


class PublicNames(SphinxDirective):
    """``.. public-names:: MODULE`` with ``:only:``, the names to take, or ``:returned:``, what its functions return."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"only": directives.unchanged, "returned": directives.flag}

    def run(self) -> list[nodes.Node]:
        """The entries, as autodoc makes them."""
        module = importlib.import_module(self.arguments[0])
        if "returned" in self.options:
            values = _returned(module)
        else:
            names = self.options["only"].split() if "only" in self.options else shown(module)
            values = {f"{module.__name__}.{name}": getattr(module, name) for name in names}
            if module is qprune:  # a class has one entry, on the page of its room
                values = {path: value for path, value in values.items() if value not in _of_rooms()}
        lines = [line for path, value in values.items() for line in _entry(path, value)]
        return self.parse_text_to_nodes(StringList(lines, source=self.arguments[0]))


def _returned(module: ModuleType) -> dict[str, type]:
    """The classes that the public functions of a module return and that no other room of the site shows."""
    functions = filter(isroutine, (getattr(module, name) for name in shown(module)))
    found = [get_type_hints(function).get("return") for function in functions]
    ours = [cls for cls in found if isclass(cls) and cls.__module__.startswith("qprune.") and cls not in _of_rooms()]
    return {f"{cls.__module__}.{cls.__qualname__}": cls for cls in ours}


def _of_rooms() -> set[type]:
    return {value for room in PUBLIC for value in vars(importlib.import_module(room)).values() if isclass(value)}


def _entry(path: str, value: Any) -> list[str]:
    kind = "exception" if isclass(value) and issubclass(value, BaseException) else "class" if isclass(value) else ""
    kind = kind or ("function" if isroutine(value) else "data")
    members = ["   :members:"] if kind == "class" else []
    return [f".. auto{kind}:: {path}", *members, ""]


def _readable(app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str | None, made: str) -> Any:
    """A signature with an ellipsis for a default that is made anew each time, where attrs has an object of its own."""
    return signature and (signature.replace("= NOTHING", "= ..."), made)


def _with_dashes(app: Sphinx, doctree: nodes.document) -> None:
    """What lists of fields have between a name and its meaning, as a dash: smart quotes would dash options, too."""
    for text in [text for text in doctree.findall(nodes.Text) if text == " -- "]:
        text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("autodoc-process-signature", _readable)
    app.connect("doctree-read", _with_dashes)
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True}
