"""Words in single backticks within docstrings: links where the site has the name, code where the program has it."""

import importlib
import re
import sys
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def _resolve(app: Sphinx, env: BuildEnvironment, node: Any, shown: nodes.Node) -> nodes.Node | None:
    """A name that exists and has no entry of its own is shown as code; one that does not exist stays a warning."""
    if node.get("refdomain") != "py":
        return None
    name, module, cls = node["reftarget"], node.get("py:module"), node.get("py:class")
    if not re.fullmatch(r"[\w.]+", name):
        return shown  # a command, in the help of another
    places = [name, *(".".join(filter(None, (module, part, name))) for part in (cls, None))]
    known = [entry for entry in _objects(env) if entry.endswith(f".{name}")]
    if len(known) == 1:
        domain = env.get_domain("py")
        found = domain.objects[known[0]]  # type: ignore[attr-defined]
        return _link(app, node["refdoc"], found.docname, found.node_id, shown)
    return shown if known or any(map(_exists, places)) or _is_somewhere(name) else None


def _objects(env: BuildEnvironment) -> Any:
    return env.get_domain("py").objects  # type: ignore[attr-defined]


def _link(app: Sphinx, here: str, there: str, anchor: str, shown: nodes.Node) -> nodes.Node:
    link = nodes.reference("", "", internal=True)
    link["refuri"] = f"{app.builder.get_relative_uri(here, there)}#{anchor}"
    link += shown
    return link


def _exists(path: str) -> bool:
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:cut]))
        except (ImportError, ValueError):
            continue
        for part in parts[cut:]:
            if not hasattr(value, part) and part not in getattr(value, "__annotations__", {}):
                return False
            value = getattr(value, part, None)
        return True
    return False


def _is_somewhere(name: str) -> bool:
    """Whether a bare name is one of a module of qprune, which docstrings of the same file may name so."""
    return any(hasattr(module, name) for path, module in sys.modules.items() if path.startswith("qprune"))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.config.default_role = "py:obj"
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True}
