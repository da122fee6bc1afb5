"""The chain of runs behind a spec: ``init`` names the run that it starts from, whose spec may name another."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from qprune.errors import SpecError, UnknownSpecError
from qprune.network_plan import Plan
from qprune.spec import Spec, mistakes_in, read_spec
from qprune.training.opening import is_trained, load_model, model_file
from qprune.training.planning import Keeps, plan_spec
from qprune.training.progress import Stage
from qprune.training.provided import NOTHING, Provided
from qprune.training.ranks import is_writer
from qprune.training.teaching import open_teacher

log = logging.getLogger(__name__)

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
    """The specs that have to be trained before this one, in the order of training.

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


def plan_chain(
    links: Sequence[Spec],
    root: Path,
    *,
    provided: Provided = NOTHING,
    sources: Mapping[str, SpecLike] | None = None,
    steps_per_epoch: int | None = None,
) -> list[Plan]:
    """Plan runs that are to be trained one after the other, each with the masks that the one before will leave it.

    Args:
        links: the specs, the first one first; what that one starts from counts if it is trained.
        root: the folder of the runs.
        provided: network, data and task of the user's own, in place of those of every spec.
        sources: what the specs were read from, for errors, by their names; a spec's name where none is given.
        steps_per_epoch: optimizer steps of an epoch; by default from the size of the data set.

    Returns:
        their plans; what its network costs is told by that of the last.

    Raises:
        PlanError: for rules that cannot work.
        CheckpointError: if the run that the first one starts from does not fit it, or that of a teacher is not trained.

    Example:
        >>> plan_chain([read_spec("digits/baseline"), read_spec("digits/a75_layerwise")], Path("runs"))[-1].cost
        {'parameters': '83,434 -> 5,506', 'MACs': '2.215 M -> 142 k', 'packed': '333.7 kB -> 22.02 kB'}
    """
    first = links[0].init
    init = load_model(model_file(first, root)) if first and is_trained(first, root) else None
    keeps: Keeps | None = None
    plans: list[Plan] = []
    for number, link in enumerate(links):
        with mistakes_in((sources or {}).get(link.name, link.name)):
            link = provided.with_presets(link)
            open_teacher(link, root, provided, to_come=links[:number])
            planned = plan_spec(link, steps_per_epoch, provided=provided, init=init, keeps=keeps)
            plans.append(planned.with_cost() if link is links[-1] else planned.plan)
        init, keeps = None, planned.keeps
    return plans


def stages(links: Sequence[Spec], plans: Sequence[Plan]) -> list[Stage]:
    """The place of each run among those that are trained one after the other.

    Args:
        links: their specs, the first one first.
        plans: their plans, where there are several.

    Example:
        >>> [str(stage) for stage in stages([read_spec("digits/baseline")], [])]
        ['digits/baseline']
    """
    steps = [plan.steps or 0 for plan in plans]
    numbered = enumerate(links, 1)
    return [Stage(link.name, number, len(links), sum(steps[number:])) for number, link in numbered]


def plan_run(
    spec: Spec,
    root: Path,
    provided: Provided,
    source: SpecLike,
    *,
    steps_per_epoch: int | None = None,
) -> Plan:
    """Plan a spec with what is pruned before it: by the run that it starts from or, until that is trained, by its plan.

    Args:
        spec: what to plan.
        root: the folder of the runs.
        provided: network, data and task of the user's own, or the folder of the data.
        source: what the spec was read from, for errors.
        steps_per_epoch: as for `plan_chain`.

    Raises:
        PlanError: as `plan_chain`, as CheckpointError.
        SpecError: as `missing_links`, but for a run that is unknown, which becomes a note of the plan.

    Example:
        >>> plan_run(read_spec("digits/a75_w4a4"), Path("runs"), Provided(), "digits/a75_w4a4").cost["parameters"]
        '83,434 -> 5,506'
    """
    try:
        earlier, notes = missing_links(spec, root, folder=provided.folder), []
    except UnknownSpecError as error:  # there is no such run, and no spec from which it could be planned
        earlier, notes = [], [f"what {spec.init} prunes is not known and does not count: {error}"]
    planning: dict[str, Any] = {"provided": provided, "sources": {spec.name: source}}
    plan = plan_chain([*earlier, spec], root, steps_per_epoch=steps_per_epoch, **planning)[-1]
    return evolve(plan, notes=(*plan.notes, *notes))


def init_run(spec: Spec, root: Path) -> str | None:
    """The run that ``init`` names: that of the same seed, if it has been trained; else the one without, which is said.

    Example:
        >>> init_run(choose_spec("digits/a75_w4a4", seed=3), Path("nothing/here"))
        'digits/a75_layerwise'
    """
    if spec.init is None or is_trained(spec.init, root):
        return spec.init
    unseeded = spec.init.rpartition("@seed")[0]
    if is_trained(unseeded, root) and is_writer():
        log.warning(
            "%s is not trained, so %s starts from %s, whose seed is another; with --chain (chain=True) it would be "
            "trained first.",
            *(spec.init, spec.name, unseeded),
        )
    return unseeded
