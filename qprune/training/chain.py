"""The chain of runs behind a spec: ``init`` names the run that it starts from, whose spec may name another."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from qprune.errors import SpecError
from qprune.spec import Spec, mistakes_in, read_spec
from qprune.training.opening import is_trained
from qprune.training.planning import plan_spec

SpecLike = Spec | Path | str | Mapping[str, Any]
Overrides = Mapping[str, Any] | Sequence[str]


def choose_spec(
    source: SpecLike,
    *,
    name: str | None = None,
    seed: int | None = None,
    overrides: Overrides = (),
    folder: Path | str | None = None,
) -> Spec:
    """Read the spec of one run.

    Args:
        source: see `qprune.spec.read_spec`, as for ``overrides``.
        name: name of the run, in place of the spec's.
        seed: another seed; the run is then called ``<name>@seed<N>``, and so is the one it starts from.
        overrides: values of the spec to replace.
        folder: the folder of the data.

    Raises:
        SpecError: for a spec with mistakes.

    Example:
        >>> choose_spec("digits/a75_w4a4", seed=3).name
        'digits/a75_w4a4@seed3'
    """
    chosen = read_spec(source, _with_folder(overrides, folder))
    if seed is not None:
        init = chosen.init and f"{chosen.init}@seed{seed}"
        chosen = evolve(chosen, seed=seed, name=f"{chosen.name}@seed{seed}", init=init)
    return chosen if name is None else evolve(chosen, name=name)


def _with_folder(overrides: Overrides, folder: Path | str | None) -> Overrides:
    if folder is None:
        return overrides
    root = f"data.root={json.dumps(str(Path(folder).absolute()))}"
    return [*(overrides if not isinstance(overrides, Mapping) else (f"{k}={v}" for k, v in overrides.items())), root]


def missing_links(spec: Spec, root: Path, *, folder: Path | str | None = None, resume: bool = False) -> list[Spec]:
    """What has to be trained before a spec, the first one first.

    Args:
        spec: the last link.
        root: the folder of the runs.
        folder: the folder of the data.
        resume: also what is trained, but not scored yet.

    Raises:
        SpecError: if ``init`` is not the whole name of a run, or leads back to the spec.

    Example:
        >>> [link.name for link in missing_links(read_spec("digits/a75_w4a4"), Path("nothing/here"))]
        ['digits/baseline', 'digits/a75_layerwise']
    """
    chain = [spec]
    while chain[0].init and not is_trained(chain[0].init, root, scored=resume):
        base, _, seed = chain[0].init.partition("@seed")
        earlier = choose_spec(base, seed=int(seed) if seed.isdigit() else None, folder=folder)
        if earlier.name != chain[0].init:
            raise SpecError(f'init must be the whole name of a run; received "{base}", did you mean "{earlier.name}"?')
        names = [link.name for link in (earlier, *chain)]
        if earlier.name in names[1:]:
            raise SpecError(f"init goes in a circle: {' -> '.join(reversed(names))}.")
        chain.insert(0, earlier)
    return chain[:-1]


def plan_chain(earlier: Sequence[Spec], last: Spec | None, source: SpecLike) -> None:
    """Tell what cannot work before the first link of a chain is trained.

    Args:
        earlier: what is trained first.
        last: the spec itself, if it can be planned without the user's own network or data.
        source: what it was read from, for errors.

    Raises:
        PlanError: for rules that cannot work.

    Example:
        >>> plan_chain([read_spec("digits/baseline")], None, "digits/a75_layerwise")
    """
    for link in earlier:
        with mistakes_in(link.name):
            plan_spec(link)
    if earlier and last is not None:
        with mistakes_in(source):
            plan_spec(last)


def init_run(spec: Spec, root: Path) -> str | None:
    """The run that ``init`` names: that of the same seed, if it has been trained.

    Example:
        >>> init_run(choose_spec("digits/a75_w4a4", seed=3), Path("nothing/here"))
        'digits/a75_layerwise'
    """
    return spec.init if spec.init is None or is_trained(spec.init, root) else spec.init.rpartition("@seed")[0]
