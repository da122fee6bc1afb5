"""`sweep`: the same spec trained with several values and seeds, and compared."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from qprune import api
from qprune.comparison import Comparison, compare
from qprune.errors import SpecError
from qprune.spec.values import shown
from qprune.training import SpecLike, check_run, choose_spec, init_run, is_trained, runs_root

MOST = 1000  # runs of a sweep
_OPENING, _CLOSING = "[{", "]}"


class InterruptedSweep(KeyboardInterrupt):  # it is no error, and passes where Ctrl-C does
    """Ctrl-C or SIGTERM ended a run of a sweep, which is saved; the same sweep goes on from there.

    Attributes:
        preempted: whether it was SIGTERM.
    """

    def __init__(self, run: str, preempted: bool) -> None:
        super().__init__(f"The sweep was interrupted in {run}, where everything is saved; the same sweep goes on.")
        self.preempted = preempted


@frozen
class Trial:
    """One run of a sweep."""

    name: str
    overrides: tuple[str, ...] = ()  # values of the spec to replace, ``("prune.0.sparsity=0.5",)``
    seed: int | None = None  # in place of the spec's; None for that
    done: bool = False  # whether it is trained and scored already


def trials(
    spec: SpecLike,
    values: Mapping[str, Sequence[Any]] | Sequence[str],
    *,
    seeds: int = 1,
    data: Path | str | None = None,
    runs: Path | str | None = None,
) -> tuple[Trial, ...]:
    """The runs of a sweep, of which nothing is trained: every combination of values, each with every seed.

    A run is called like the spec with the last word of each key and its value, ``digits/a75_layerwise_sparsity0.5``.
    The first seed is the spec's; the others, counted on from there, end in ``@seed1`` and so on.

    Args:
        spec: as for `fit`.
        values: key -> its values, or texts ``"KEY=VALUE,VALUE"``; a value may be a list or text in TOML.
        seeds: how many.
        data: the folder of the data.
        runs: where run folders lie.

    Raises:
        SpecError: for a value that the spec cannot have, a key without values, two runs of one name, or too many.
        CheckpointError: if a run of such a name is there that was begun with another spec.

    Example:
        >>> [trial.name for trial in trials("digits/a75_layerwise", {"prune.0.sparsity": [0.25, 0.5]}, runs="nowhere")]
        ['digits/a75_layerwise_sparsity0.25', 'digits/a75_layerwise_sparsity0.5']
    """
    found = list(_trials(spec, dict(_pairs(values)), seeds, data))
    names = [trial.name for trial in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"Two runs of the sweep would be called {twice}: leave out a value that is there twice.")
    return tuple(evolve(trial, done=_is_done(spec, trial, data, runs_root(runs))) for trial in found)


def sweep(
    spec: SpecLike,
    values: Mapping[str, Sequence[Any]] | Sequence[str] = (),
    *,
    seeds: int = 1,
    chain: bool = False,
    data: Path | str | None = None,
    runs: Path | str | None = None,
    device: str | None = None,
    verbose: str | int = "auto",
) -> Comparison:
    """Train a spec with every combination of values, each with every seed, and compare the runs.

    They are ordinary runs. Those that are there already are not trained again, and one that was interrupted goes on; so
    the same call completes a sweep. All are planned before the first one is trained.

    Args:
        spec: as for `fit`.
        values: key -> its values, ``{"prune.0.sparsity": [0.25, 0.5]}``, or ``["prune.0.sparsity=0.25,0.5"]``.
        seeds: how many: the spec's own, and as many after it as are needed.
        chain: as for `fit`.
        data: the folder of the data.
        runs: where run folders lie.
        device: as for `fit`.
        verbose: as for `fit`.

    Returns:
        the comparison of all runs, see `compare`.

    Raises:
        SpecError, PlanError, CheckpointError: as for `fit`, before anything is trained; as `trials`.
        InterruptedSweep: after Ctrl-C or SIGTERM; the run is saved.

    Example:
        >>> found = qprune.sweep("mine.toml", {"prune.0.sparsity": [0.25, 0.5, 0.75]}, seeds=3, chain=True)
        >>> print(found.sorted_by("bytes"))
    """
    chosen = trials(spec, values, seeds=seeds, data=data, runs=runs)
    where: dict[str, Any] = {"data": data, "runs": runs}
    for overrides in dict.fromkeys(trial.overrides for trial in chosen if not trial.done):
        api.plan(spec, overrides=overrides, **where)  # refuses before hours of work, not after
    for trial in chosen:
        if not trial.done:
            options: dict[str, Any] = {"overrides": trial.overrides, "seed": trial.seed, "name": trial.name}
            history = api.fit(spec, resume=True, chain=chain, device=device, verbose=verbose, **options, **where)
            if history.interrupted:
                raise InterruptedSweep(str(history.run), history.preempted)
    return compare(*(runs_root(runs) / trial.name for trial in chosen))


def _trials(
    spec: SpecLike, values: Mapping[str, Sequence[Any]], seeds: int, data: Path | str | None
) -> Iterator[Trial]:
    if seeds < 1:
        raise SpecError(f"A sweep needs at least 1 seed; received {seeds}.")
    count = seeds
    for key, each in values.items():
        count *= len(each)
        if not each:
            raise SpecError(f'A sweep needs values of "{key}"; received none. Write {key}=VALUE,VALUE.')
    if count > MOST:
        raise SpecError(f"A sweep has at most {MOST:,} runs; received {count:,}. Leave out values or seeds.")
    labels = _labels(list(values))
    for combination in product(*values.values()):
        overrides = tuple(f"{key}={_toml(value)}" for key, value in zip(values, combination, strict=True))
        base = choose_spec(spec, overrides=overrides, folder=data)
        parts = [f"{label}{_word(value)}" for label, value in zip(labels, combination, strict=True)]
        name = "_".join([base.name, *parts])
        for number in range(seeds):
            seed = base.seed + number
            yield Trial(f"{name}@seed{seed}" if number else name, overrides, seed if number else None)


def _is_done(spec: SpecLike, trial: Trial, data: Path | str | None, root: Path) -> bool:
    if not is_trained(root / trial.name, root, scored=True):
        return False
    chosen = choose_spec(spec, name=trial.name, seed=trial.seed, overrides=trial.overrides, folder=data)
    check_run(root, evolve(chosen, init=init_run(chosen, root)), resume=True, overwrite=False)
    return True


def _pairs(values: Mapping[str, Sequence[Any]] | Sequence[str]) -> Iterator[tuple[str, Sequence[Any]]]:
    if isinstance(values, Mapping):
        yield from ((key, [each] if isinstance(each, str) else list(each)) for key, each in values.items())
        return
    for text in [values] if isinstance(values, str) else values:
        key, equals, rest = text.partition("=")
        if not equals or not key.strip():
            raise SpecError(f"Values of a sweep must read key.path=value,value; received {shown(text)}.")
        yield key.strip(), list(_split(rest))


def _split(text: str) -> Iterator[str]:
    """The values between commas, but not those between the commas of a list, a table or a quoted text."""
    depth, quote, start = 0, "", 0
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in _OPENING + _CLOSING:
            depth += 1 if character in _OPENING else -1
        elif character == "," and depth == 0:
            yield text[start:place].strip()
            start = place + 1
    if text[start:].strip():
        yield text[start:].strip()


def _toml(value: Any) -> str:
    """A value as an override takes it: text as it is, others as TOML writes them."""
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _word(value: Any) -> str:
    """A value as a part of a name."""
    return re.sub(r"[^\w.]+", "-", _toml(value)).strip("-")


def _labels(keys: Sequence[str]) -> list[str]:
    """The last word of each key, with those before it where another key ends alike."""
    parts = [[part for part in re.split(r"[.\[\]]+", key) if part] for key in keys]
    last = [words[-1] for words in parts]
    return [words[-1] if last.count(words[-1]) == 1 else "-".join(words) for words in parts]
