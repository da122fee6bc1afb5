"""How a mistake becomes a line: the sentence, the key path and the file it is in."""

from collections.abc import Iterable

from attrs import frozen

from qprune.schedules.tables import KINDS
from qprune.spec.document import Document, KeyPath
from qprune.spec.keys import keys_of
from qprune.spec.network import LayerSpec, ModelSpec
from qprune.spec.recipe import DataSpec, LrSpec, OptimizerSpec, TrainSpec
from qprune.spec.rules import LIFTED, PruneRule, QuantizeRule, Rules, Selector
from qprune.spec.spec import Spec
from qprune.spec.teacher import TeacherSpec
from qprune.spec.values import in_toml, listed
from qprune.spelling import closest, nearest

_NOUNS = {
    DataSpec: "a [data] table",
    LayerSpec: "a layer",
    LrSpec: "a learning-rate schedule",
    ModelSpec: "a [model] table",
    OptimizerSpec: "an optimizer",
    PruneRule: "a prune rule",
    QuantizeRule: "a quantize rule",
    Rules: "a set of rules",
    Selector: "a site",
    Spec: "a spec",
    TeacherSpec: "a [train.teacher] table",
    TrainSpec: "a [train] table",
}


@frozen
class Mistake:
    """One thing wrong."""

    sentence: str  # the rule, the value received and the way out, without the final stop
    path: KeyPath
    lacks: tuple[str, ...] = ()  # the keys one of which is missing, if that is the mistake
    suggests: str = ""  # the known key nearest to the unknown one, if that is the mistake


def missing(cls: type, path: KeyPath) -> Mistake:
    """The mistake that the last key of ``path`` is not there."""
    key = str(path[-1])
    return Mistake(f'{_noun(cls).capitalize()} needs "{key}"', path[:-1], lacks=(key,))


def unknown(cls: type, key: str, path: KeyPath) -> Mistake:
    """The mistake that a table of class ``cls`` has no such key."""
    known = [*keys_of(cls), *LIFTED.get(cls, ())]
    has = f"; {_noun(cls)} has {listed(known, 'and') if known else 'no options'}"
    near = nearest(key, known) or has
    return Mistake(f'Unknown key "{key}"{near}', (*path, key), suggests=closest(key, known))


def lines(mistakes: Iterable[Mistake], document: Document) -> list[str]:
    """One line for each mistake; a key that is missing because it is misspelt is told once."""
    found = list(mistakes)
    return [_line(mistake, document) for mistake in found if not any(_explains(other, mistake) for other in found)]


def _explains(other: Mistake, mistake: Mistake) -> bool:
    above = other.path[:-1]
    return other.suggests in mistake.lacks and mistake.path[: len(above)] == above


def _line(mistake: Mistake, document: Document) -> str:
    path = _as_written(mistake.path, document)
    place = " in ".join(filter(None, (dotted(path), document.origin(path))))
    return f"{mistake.sentence} ({place})." if place else f"{mistake.sentence}."


def _as_written(path: KeyPath, document: Document) -> KeyPath:
    """Some keys of a rule, such as ``sparsity``, are checked as part of its schedule but may stand on the rule."""
    if "schedule" not in path or document.has(path):
        return path
    place = path.index("schedule")
    on_rule = path[:place] + path[place + 1 :]
    return on_rule if document.has(on_rule) else path


def dotted(path: KeyPath) -> str:
    """Write a key path as people do."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{in_toml(key)}" for key in path)
    return text.removeprefix(".")


def _noun(cls: type) -> str:
    kind = next((name for name, schedule in KINDS.items() if schedule is cls), "")
    return f"a{'n' if kind == 'inherited' else ''} {kind} schedule" if kind else _NOUNS[cls]
