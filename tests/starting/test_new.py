"""What `qprune new` writes is accepted by `plan`, trains, and replaces nothing."""

import json
from pathlib import Path

import forked
import pytest
from click.testing import CliRunner
from folders_of_images import digits, noise, photos, scenes

import qprune
from qprune.cli import main
from qprune.errors import SpecError
from qprune.spec import read_spec
from qprune.starting import write_specs


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("QPRUNE_RUNS", raising=False)
    return folder


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return photos(tmp_path / "birds", {"crow": 9, "owl": 12, "tit": 10})


def test_digits_of_a_folder_are_trained_pruned_and_quantized(tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["new", "pen", "--data", str(digits(tmp_path / "png")), "--recipe", "a50_w8a8"])
    assert told.exit_code == 0, told.output
    commands = [line.strip() for line in told.output.splitlines() if line.startswith("  qprune ")]
    assert commands == ["qprune plan pen/a50_w8a8", "qprune fit pen/a50_w8a8 --chain", "qprune export pen/a50_w8a8"]
    for name in ("baseline", "a50", "a50_w8a8"):  # what is written trains some 5,000 steps
        file = Path(f"specs/pen/{name}.toml")
        length = read_spec(file).train.length
        short = {"baseline": "4ep", "a50": "5ep", "a50_w8a8": "3ep"}[name]
        text = file.read_text().replace(f'length = "{length}"', f'length = "{short}"')
        file.write_text(text.replace('start = "5.4ep"', 'start = "1ep"').replace('start = "2.7ep"', 'start = "0.5ep"'))
    history = qprune.fit("pen/a50_w8a8", chain=True, verbose=0)
    assert history.scores["test"]["accuracy"] > 0.6  # by chance it would be 0.1
    assert history.run is not None
    costs = json.loads((history.run / "report.json").read_text())["costs"]
    assert costs["parameters_kept"] < 0.4 * costs["parameters"]
    assert (costs["weight_bits"], costs["activation_bits"]) == ([8], [8])


@pytest.mark.parametrize(
    ("arch", "recipe", "names"),
    [
        (None, "a50_w8a8", ["a50", "a50_w8a8", "baseline"]),
        ("mobilenetv2", "a75", ["a75", "baseline"]),
        ("torchvision/resnet18", "a75_w4a8", ["a75", "a75_w4a8", "baseline"]),
        ("torchvision/mobilenet_v3_small", "w8a8", ["baseline", "w8a8"]),
        ("densenet121", "budget", ["baseline"]),
    ],
)
def test_what_is_written_can_be_planned(birds: Path, arch: str | None, recipe: str, names: list[str]) -> None:
    written = write_specs("birds", birds, arch=arch, recipe=recipe)
    assert sorted(file.stem for file in written.files) == names
    assert sorted(file.stem for file in Path("specs/birds").iterdir()) == names
    plan = qprune.plan(written.commands[0].removeprefix("qprune plan "))
    assert bool(plan.sites) == (recipe != "budget")


def test_scenes_and_pairs_have_tasks_of_their_own(tmp_path: Path) -> None:
    written = write_specs("scenes", scenes(tmp_path / "scenes"), recipe="a50_w8a8")
    spec = read_spec("scenes/a50_w8a8")
    assert (spec.task.name, spec.model.arch, spec.data.size) == ("segmentation", "unet", (32, 64))
    assert len(written.files) == 3
    for split in ("trainA", "trainB", "testA", "testB"):
        for number in range(10):
            noise(tmp_path / "kinds" / split / f"{split}{number}.png", 64, 64)
    write_specs("kinds", tmp_path / "kinds", recipe="a50")
    assert (read_spec("kinds/a50").task.name, read_spec("kinds/a50").data.unpaired) == ("cyclegan", True)
    assert all(path.startswith("generator_ab.") for rule in read_spec("kinds/a50").prune
               for selector in rule.sites for path in selector.paths)  # fmt: skip


def test_a_file_that_is_there_is_never_replaced(birds: Path) -> None:
    ours = Path("specs/birds/a50.toml")
    ours.parent.mkdir(parents=True)
    ours.write_text("ours")
    with pytest.raises(
        SpecError, match=r"specs/birds/a50.toml is there already. Choose another name, or move it away."
    ):
        write_specs("birds", birds)
    assert [(file.name, file.read_text()) for file in ours.parent.iterdir()] == [("a50.toml", "ours")]


def test_what_cannot_be_trained_is_not_written(birds: Path) -> None:
    with pytest.raises(SpecError, match="unknown network 'torchvision/resnet81'; nearest: 'torchvision/resnet18'"):
        write_specs("birds", birds, arch="torchvision/resnet81", recipe="budget")
    with pytest.raises(SpecError, match="unknown network 'resnet2'; nearest: 'resnet20'"):
        write_specs("birds", birds, arch="resnet2")
    assert list(Path("specs").rglob("*.toml")) == []


@pytest.mark.parametrize("name", ["../birds", "/birds", "", "bi\0rds"])
def test_a_name_that_cannot_be_one_of_runs(birds: Path, name: str) -> None:
    with pytest.raises(SpecError, match="NAME must be a short relative path"):
        write_specs(name, birds)


def test_the_name_of_specs_that_come_with_qprune(birds: Path) -> None:
    with pytest.raises(SpecError, match=r"digits is what specs are called that come with qprune. Choose another name"):
        write_specs("digits", birds)


def test_trained_weights_are_of_libraries(birds: Path) -> None:
    with pytest.raises(SpecError, match="Trained weights are those of networks of torchvision/ and timm/; received"):
        write_specs("birds", birds, pretrained=True)
    written = write_specs("birds", birds, arch="torchvision/resnet18", pretrained=True)
    assert read_spec("birds/baseline").model.weights == "DEFAULT"
    assert written.commands[1] == "qprune fit birds/a50_w8a8 --chain --download"


def test_a_folder_with_quotes_and_accents_in_its_name(tmp_path: Path) -> None:
    data = photos(tmp_path / 'Ra"ben \\ é', {"crow": 9, 'o"wl': 12})
    write_specs("birds", data, recipe="w8a8")
    assert read_spec("birds/w8a8").data.root == str(data)


def test_a_mistake_is_told_in_a_sentence(birds: Path) -> None:
    run = forked.run("-m", "qprune", "new", "mine", "--data", birds, "--arch", "mobilenetv3")
    assert (run.returncode, run.stdout) == (2, "")
    assert "unknown network 'mobilenetv3'; nearest: 'mobilenetv2'" in run.stderr
    assert run.stderr.count("\n") == 1
