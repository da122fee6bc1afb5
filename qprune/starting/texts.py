"""The specs that `qprune new` writes, as text with comments."""

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from textwrap import wrap

from attrs import frozen

from qprune.data.opening import FOLDER, SEGMENTATION
from qprune.starting.recipe import Recipe
from qprune.starting.setting import Setting


@frozen
class Sites:
    """Where the channels of a network are masked."""

    alone: tuple[str, ...]  # paths of layers with channels of their own
    together: tuple[str, ...]  # paths of layers whose channels are the same ones, as along a residual stream
    weighted: tuple[str, ...]  # the types of its layers with weights
    prefix: str  # what the paths of the part begin with that is used after training; empty where that is all of it
    steps: int  # how many masks are chosen one after the other


def baseline_text(setting: Setting) -> str:
    """The dense network, from scratch or from trained weights."""
    start = "from trained weights" if setting.pretrained else "from scratch"
    return "\n".join(
        [
            "format = 1",
            f'about = "{setting.arch}, dense, {start}."',
            "",
            *_data(setting),
            "",
            *_task(setting),
            *_model(setting),
            "",
            "[train]",
            f'length = "{setting.epochs}ep"  # passes over the training images, {setting.per_epoch:,} steps each',
            f"batch = {setting.batch}",
            *_optimizer(setting),
            '# checkpoint_every = "10min"  # a run that was stopped goes on with --resume; else from its last epoch',
            "",
        ]
    )


def pruned_text(setting: Setting, sites: Sites, recipe: Recipe, name: str) -> str:
    """Channels are dropped, layer by layer."""
    assert recipe.dropped is not None
    rules = [
        [
            f"sparsity = {recipe.dropped / 100:.2g}  # share of the channels that is dropped, or one for each layer:",
            f'# sparsity = {{ "{paths[0]}" = 0.3, "*" = {recipe.dropped / 100:.2g} }}',
            'importance = "activation-l1"',
            *(["couple = true  # what is added has one mask for all of its places"] if coupled else []),
            'schedule = { kind = "layerwise", finish = "35%" }  # one site after the other in the first third',
        ]
        for coupled, paths in _rules(sites)
    ]
    return "\n".join(
        [
            *_head(f"{recipe.dropped} % of the channels dropped, layer by layer.", f"{name}/baseline"),
            "[train]",
            f'length = "{setting.epochs_to_prune(sites.steps)}ep"',
            f"optimizer = {{ lr = {_rate(setting, 0.4)} }}  # lower than from scratch: the network is trained",
            'shrink = "as-frozen"  # dropped channels leave the network while it trains, which then takes less time',
            *_prunes(sites, rules),
            "",
        ]
    )


def joint_text(setting: Setting, sites: Sites, recipe: Recipe, name: str) -> str:
    """Weights and activations get few bits; masks are taken over from the pruned network, if there is one."""
    epochs = setting.epochs_to_quantize
    pruned = recipe.dropped is not None
    bits = f"{recipe.weights}-bit weights and {recipe.values}-bit activations"
    about = f"{recipe.dropped} % of the channels dropped, then {bits}." if pruned else f"All channels, {bits}."
    inherited = ['schedule = { kind = "inherited" }  # the masks that came with the run it starts from']
    coupled = ["couple = true", *inherited]
    masks = _prunes(sites, [coupled if couple else inherited for couple, _ in _rules(sites)]) if pruned else []
    kinds = "types = " + json.dumps(sites.weighted)
    part = f', paths = ["{sites.prefix}*"]' if sites.prefix else ""
    return "\n".join(
        [
            *_head(about, f"{name}/a{recipe.dropped}" if pruned else f"{name}/baseline"),
            "complete = true  # what no rule names gets 8 bits, so that the exported file computes with integers",
            "",
            "[train]",
            f'length = "{epochs}ep"',
            f"optimizer = {{ lr = {_rate(setting, 0.1)} }}",
            *(['shrink = "as-frozen"'] if pruned else []),
            *masks,
            "",
            "[[quantize]]  # the weights, a step size for each channel",
            f'sites = [{{ {kinds}{part}, at = "weight" }}]',
            f"bits = {recipe.weights}",
            'per = "channel"',
            f'start = "{setting.after(0.2, epochs)}"',
            '# range = "learned"  # step sizes that are trained, which helps with 4 bits and fewer',
            "",
            "[[quantize]]  # the activations",
            *_sites([*sites.alone, *sites.together]),
            f"bits = {recipe.values}",
            f'start = "{setting.after(0.1, epochs)}"',
            '# range = "learned"',
            "",
        ]
    )


def _head(about: str, init: str) -> list[str]:
    extends = 'extends = "baseline.toml"  # what is not said here is as it is there'
    return ["format = 1", extends, f'about = "{about}"', f'init = "{init}"  # the run that it starts from', ""]


def _data(setting: Setting) -> list[str]:
    looked, size, resize = setting.looked, setting.size, setting.resize
    comments = [f"# {line}" for text in str(looked).splitlines() for line in wrap(text, 116)]
    lines = [*comments, "[data]", f'name = "{looked.name}"', f"root = {json.dumps(str(looked.root))}"]
    lines += [_how(setting)]
    if size is not None:
        shown = json.dumps(size if isinstance(size, int) else list(size))
        lines += [f"size = {shown}  # pixels; larger images may be told apart better, and take longer"]
    if resize is not None:
        lines += [f"resize = {resize}  # the shorter side; the middle is cut out"]
    return lines + _augment(setting)


def _how(setting: Setting) -> str:
    if setting.looked.name not in (FOLDER, SEGMENTATION):
        unpaired = "" if setting.looked.paired else "\nunpaired = true"
        return f'translate = "AtoB"  # or "BtoA"{unpaired}'
    return "validation = 0.1  # share of the training images that chooses, where there is no folder val"


def _augment(setting: Setting) -> list[str]:
    if setting.looked.name != FOLDER:
        return ['augment = [{ name = "RandomHorizontalFlip" }]  # of an image and its partner alike']
    flip = "# left and right may be exchanged? Add to augment: " + '{ name = "RandomHorizontalFlip" }'
    if "/" in setting.arch:
        return ["# augment = []  # by default RandomResizedCrop and RandomHorizontalFlip, as the network was trained"]
    if setting.resize is not None:
        return [f'augment = [{{ name = "RandomResizedCrop", size = {setting.size}, scale = [0.5, 1.0] }}]', flip]
    assert isinstance(setting.size, int)
    padding = max(1, setting.size // 8)
    return [f'augment = [{{ name = "RandomCrop", size = {setting.size}, padding = {padding} }}]', flip]


def _task(setting: Setting) -> list[str]:
    if setting.looked.name == FOLDER:
        return []
    if setting.looked.name == SEGMENTATION:
        return ["[task]", 'name = "segmentation"', ""]
    return ["[task]", f'name = "{setting.arch}"', ""]


def _model(setting: Setting) -> list[str]:
    lines = ["[model]", f'arch = "{setting.arch}"  # `qprune list --networks` shows others']
    if "/" in setting.arch:
        before = "" if setting.pretrained else "# "
        lines += [f'{before}weights = "DEFAULT"  # start from trained weights; fetched by fit --download']
    elif setting.looked.name != FOLDER:
        lines += ["width = 0.25  # of the published number of channels"]
    return lines


def _optimizer(setting: Setting) -> list[str]:
    if setting.looked.name == FOLDER:
        lines = [f'optimizer = {{ name = "sgd", lr = {_rate(setting)}, momentum = 0.9, weight_decay = 5e-4 }}']
    elif setting.looked.name == SEGMENTATION:
        lines = [f'optimizer = {{ name = "adam", lr = {_rate(setting)} }}']
    else:
        lines = [f'optimizer = {{ name = "adam", lr = {_rate(setting)}, betas = [0.5, 0.999] }}']
    return [*lines, 'lr_schedule = { name = "cosine", warmup = "1ep" }']


def _rate(setting: Setting, times: float = 1.0) -> str:
    if setting.looked.name == FOLDER:
        return f"{times * (0.01 if setting.pretrained else 0.05):.3g}"
    return f"{times * (0.001 if setting.looked.classes else 0.0002):.3g}"


def _rules(sites: Sites) -> list[tuple[bool, tuple[str, ...]]]:
    """Whether masks are shared, and where: a rule for each."""
    return [(couple, paths) for couple, paths in ((True, sites.together), (False, sites.alone)) if paths]


def _prunes(sites: Sites, rules: Iterable[Sequence[str]]) -> list[str]:
    """A rule for each of `_rules`, with these lines behind its sites."""
    rest = zip(_rules(sites), rules, strict=True)
    return list(chain.from_iterable(["", "[[prune]]", *_sites(paths), *lines] for (_, paths), lines in rest))


def _sites(paths: Iterable[str]) -> list[str]:
    listed = wrap(", ".join(map(json.dumps, paths)), 112, break_long_words=False, break_on_hyphens=False)
    return ['sites = [{ at = "output", paths = [', *(f"    {line}" for line in listed), "] }]"]
