"""`write_specs`: specs of a baseline, a pruned and a quantized network for a folder of images."""

from collections.abc import Mapping
from pathlib import Path

import torch
from attrs import evolve, frozen

from qprune.assemble import assemble
from qprune.budget import find_groups
from qprune.data import describe, with_presets
from qprune.data.opening import FOLDER, SEGMENTATION
from qprune.errors import SpecError
from qprune.spec import list_specs, parse_toml, read_spec
from qprune.starting.looking import Looked, look
from qprune.starting.recipe import Recipe
from qprune.starting.setting import Setting
from qprune.starting.texts import Sites, baseline_text, joint_text, pruned_text
from qprune.training import missing_links, plan_chain
from qprune.zoo import deployed, deployed_prefix, is_of_library

USUAL = {FOLDER: "resnet20", SEGMENTATION: "unet"}  # fast on a CPU, and train well from scratch
FOLDER_OF_SPECS = Path("specs")


@frozen
class Written:
    """What was written, and what to type next."""

    looked: Looked
    files: Mapping[Path, str]  # the specs, in the order in which they are trained
    commands: tuple[str, ...]  # three lines for the shell

    def __str__(self) -> str:
        width = max(len(str(file)) for file in self.files)
        files = [f"{file!s:<{width}}  {about}" for file, about in self.files.items()]
        return "\n".join([str(self.looked), "", *files, "", *(f"  {command}" for command in self.commands)])


def write_specs(
    name: str, data: Path, *, arch: str | None = None, recipe: str = "a50_w8a8", pretrained: bool = False
) -> Written:
    """Write specs for a folder of images below ``./specs``, and check that they can be trained.

    What is given is as for ``qprune new``: the specs are ``name/baseline`` and so on.

    Raises:
        DataError: for a folder that is none of images.
        SpecError: for an unknown recipe or network, a name that is taken, or a file that is there already. Nothing is
            written then.
        PlanError: if the network cannot be pruned like this.

    Example:
        >>> write_specs("birds", Path("photos"), recipe="a75_w8a8").commands[1]
        'qprune fit birds/a75_w8a8 --chain'
    """
    wanted = Recipe.of(recipe)
    _check_name(name)
    looked = look(data)
    usual = USUAL.get(looked.name, "pix2pix" if looked.paired else "cyclegan")
    setting = Setting(looked, arch or usual, pretrained)
    if pretrained and not is_of_library(setting.arch):
        raise SpecError(
            f"Trained weights are those of networks of torchvision/ and timm/; received {setting.arch}. Choose one of "
            "those with --arch, or leave --pretrained out."
        )
    texts = {"baseline": baseline_text(setting)}
    if not wanted.searched:
        sites = _sites_of(f"{name}/baseline", texts["baseline"])
        if wanted.dropped is not None:
            texts[f"a{wanted.dropped}"] = pruned_text(setting, sites, wanted, name)
        if wanted.bits:
            texts[wanted.word] = joint_text(setting, sites, wanted, name)
    files = {FOLDER_OF_SPECS / name / f"{word}.toml": text for word, text in texts.items()}
    _write(files)
    abouts = {file: str(parse_toml(text)["about"]) for file, text in files.items()}
    return Written(looked, abouts, _commands(name, wanted, pretrained))


def _check_name(name: str) -> None:
    try:
        read_spec({"name": name, **parse_toml(_ANY)})
    except SpecError as error:
        raise SpecError(f'NAME must be a short relative path, such as "birds"; received "{name}".') from error
    taken = [spec.path for spec in list_specs() if spec.name.startswith(f"{name}/")]
    ours = (Path.cwd() / FOLDER_OF_SPECS).resolve()
    if any(not path.resolve().is_relative_to(ours) for path in taken):
        raise SpecError(f"{name} is what specs are called that come with qprune. Choose another name.")


_ANY = """
format = 1
data = { name = "digits" }
model = { arch = "resnet20" }
train = { length = "1ep", batch = 8, optimizer = { name = "sgd", lr = 0.1 } }
"""


@torch.no_grad()
def _sites_of(name: str, text: str) -> Sites:
    """Where the channels of the baseline's network can be masked, as a search finds them."""
    spec = with_presets(evolve(read_spec(parse_toml(text)), name=name))
    info = describe(spec.data)
    with torch.random.fork_rng(devices=[]):
        net = assemble(spec, len(info.classes), info.shape)
    prefix = deployed_prefix(net)
    groups = [group for group in find_groups(deployed(net), torch.zeros(1, *info.shape)) if group.members]
    alone, together = (
        tuple(f"{prefix}{path}" for group in groups if group.coupled == coupled for path in group.members)
        for coupled in (False, True)
    )
    kinds = {type(layer).__name__ for layer in deployed(net).modules()}
    weighted = tuple(kind for kind in ("Conv2d", "ConvTranspose2d", "Linear") if kind in kinds)
    return Sites(alone, together, weighted, prefix, len(groups))


def _write(files: Mapping[Path, str]) -> None:
    there = next((file for file in files if file.exists()), None)
    if there is not None:
        raise SpecError(f"{there} is there already. Choose another name, or move it away.")
    made: list[Path] = []
    try:
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as opened:
                made.append(file)
                opened.write(text)
        last = read_spec(list(files)[-1])
        runs = Path("runs/of/nobody")  # so that no run that is there counts
        plan_chain([*missing_links(last, runs), last], runs)
    except BaseException:
        for file in made:
            file.unlink(missing_ok=True)
        raise


def _commands(name: str, wanted: Recipe, pretrained: bool) -> tuple[str, ...]:
    fetch = " --download" if pretrained else ""
    if wanted.searched:
        return (
            f"qprune plan {name}/baseline",
            f"qprune fit {name}/baseline{fetch}",
            f"qprune search {name}/baseline --budget macs=0.25 --bits 4,8",
        )
    last = f"{name}/{wanted.word}"
    return f"qprune plan {last}", f"qprune fit {last} --chain{fetch}", f"qprune export {last}"
