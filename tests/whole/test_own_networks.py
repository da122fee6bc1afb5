"""Networks and data that nobody here wrote go through every command, and are opened where their classes are not."""

import json
import signal
import threading
from pathlib import Path

import forked
import pytest
import torch
import torchmetrics
import torchvision
from click.testing import CliRunner
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

import qprune
from qprune.cli import main
from qprune.costs import chain_of
from qprune.errors import CheckpointError, DataError, QpruneError, SpecError
from qprune.layers import PrunedConv2d, sites
from qprune.schedules import OneShot
from qprune.spec import read_spec, spec_to_toml
from qprune.tasks import write_png
from qprune.training import LambdaCallback, load_model

CONVS = {"types": ["Conv2d"], "at": "input", "skip": [0]}
WEIGHTS = {"types": ["Conv2d", "Linear"], "at": "weight"}
HALF = {"sites": [CONVS], "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 2}}
KEPT = {"sites": [CONVS], "schedule": {"kind": "inherited"}}
EIGHT = {"sites": [WEIGHTS], "bits": 8, "per": "channel", "start": 2}

NO_DATA = (
    "The spec names no data (data.name), so it must be handed over, to fit, plan, evaluate and export alike: "
    'data={"train": ..., "val": ..., "test": ...}, in Python.'
)

MORNING = """
import sys
import torch
from torch import nn
from torch.utils.data import TensorDataset
import qprune


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.gain = nn.Parameter(torch.full((1, channels, 1, 1), 0.5))

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)) + x * self.gain)


class Morning(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.blocks = nn.Sequential(Block(6), Block(6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def pairs(count, seed):
    draw = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(count, 2, 9, 11, generator=draw), torch.arange(count) % 3)
"""


def spec(name="mine/first", **tables):
    """A spec that names neither a network nor data; 5 steps an epoch for 20 images."""
    train = {"length": "2ep", "batch": 4, "optimizer": {"name": "sgd", "lr": 0.01}}
    return {"name": name, "train": train | tables.pop("train", {})} | tables


def fit(source, **options):
    return qprune.fit(source, verbose=0, **options)


def told(kind, action, *arguments, **options):
    with pytest.raises(kind) as caught:
        action(*arguments, **options)
    return str(caught.value)


def pairs(count=20, shape=(3, 9, 11), classes=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(count, *shape, generator=draw), torch.arange(count) % classes)


def net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def data():
    return {"train": pairs(), "val": pairs(7, seed=1), "test": pairs(11, seed=2)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QPRUNE_RUNS", raising=False)
    return tmp_path


# rules


def test_rules_act_on_the_network_that_is_handed_over():
    history = fit(spec(prune=[HALF], quantize=[EIGHT]), model=net(), data=data())
    loaded = qprune.load(history.run)
    assert [(event["site"], event["step"]) for event in history.events if "bits" not in event] == [("3.input", 2)]
    assert [site.name for site in sites(loaded) if site.quant is not None] == ["0.weight", "3.weight", "8.weight"]
    assert int(loaded.get_submodule("3").input_mask.keep.sum()) == 3


def test_the_network_that_is_handed_over_stays_as_it_is():
    mine = net()
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    fit(spec(prune=[HALF]), model=mine, data=data())
    assert before.keys() == mine.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in mine.state_dict().items())
    assert type(mine[3]) is nn.Conv2d


def test_the_rules_are_those_of_swap():
    history = fit(spec(prune=[HALF], quantize=[EIGHT]), model=net(), data=data())
    swapped = qprune.swap(net(), torch.zeros(2, 3, 9, 11), prune=[HALF], quantize=[EIGHT])
    assert qprune.load(history.run, model=net()).state_dict().keys() == swapped.state_dict().keys()


def test_masks_that_the_network_has_stay_and_rules_add_to_them():
    mine = net()
    mine[3] = PrunedConv2d(6, 8, 3, padding=1, schedule=OneShot(sparsity=0.5, at=2))
    history = fit(spec(quantize=[EIGHT]), model=mine, data=data())
    loaded = qprune.load(history.run, model=mine)
    assert int(loaded[3].input_mask.keep.sum()) == 3
    assert bool(loaded[3].weight_quant.active)
    sentence = told(QpruneError, fit, spec("mine/twice", prune=[HALF]), model=mine, data=data())
    assert sentence == ('"3.input" already has a mask of its own; exclude it (prune[0].sites[0] in mine/twice).')
    assert not Path("runs/mine/twice").exists()


# what is recorded


def test_the_spec_of_the_run_names_neither_network_nor_data_that_others_took_the_place_of():
    source = spec(data={"name": "digits", "workers": 0}, model={"arch": "mobilenetv2"}, prune=[HALF])
    run = fit(source, model=net(), data=data()).run
    recorded = read_spec(run / "spec.toml")
    assert recorded.model.is_own
    assert recorded.data.name == ""
    assert len(recorded.prune) == 1


def test_shape_and_classes_are_those_of_the_data():
    run = fit(spec(), model=net(), data=data()).run
    content = load_model(run / "model.pt")
    assert content["shape"] == [3, 9, 11]
    assert content["classes"] == ["0", "1", "2", "3"]


def test_a_network_of_the_spec_is_made_for_the_data_that_is_handed_over():
    source = spec(data={"name": "digits"}, model={"arch": "mobilenetv2", "width": 0.1})
    run = fit(source, data={"train": pairs(20, (2, 9, 11), classes=3)}).run
    assert qprune.load(run)(torch.zeros(2, 2, 9, 11)).shape == (2, 3)
    nameless = [(torch.randn(2, 9, 11), torch.randn(1)) for _ in range(5)]
    assert told(DataError, fit, source | {"name": "other"}, data={"train": nameless}) == (
        'data["train"] does not say how many classes it has, which the network is made for. Give the data set an '
        "attribute classes, a list of their names."
    )


@pytest.mark.parametrize("name", ["squeezenet1_1", pytest.param("mobilenet_v3_small", marks=pytest.mark.slow)])
def test_a_network_of_another_library_is_named_pruned_and_opened_again(name, tmp_path):
    eight = {**EIGHT, "sites": [{"types": ["Conv2d"], "at": "weight"}]}
    tables = {"model": {"arch": f"torchvision/{name}"}, "prune": [HALF], "quantize": [eight]}
    handed = {part: pairs(8, (3, 32, 48), classes=3, seed=seed) for seed, part in enumerate(("train", "val", "test"))}
    run = fit(spec(train={"shrink": "after-pruning"}, **tables), data=handed).run
    opened = qprune.load(run)
    assert type(opened) is type(torchvision.models.get_model(name))
    assert opened(torch.zeros(2, 3, 32, 48)).shape == (2, 3)
    assert qprune.export(run, tmp_path / "model.onnx", data=handed).outputs[0].within_one == 1


def test_a_network_of_another_library_for_scenes_is_trained_and_opened_again():
    images, labels = torch.randn(4, 3, 32, 48), torch.arange(3).repeat(4, 32, 16)
    tables = {"model": {"arch": "torchvision/lraspp_mobilenet_v3_large"}, "task": {"name": "segmentation"}}
    scenes = TensorDataset(images, labels)
    scenes.classes = ["sky", "road", "tree"]
    run = fit(spec(**tables), data={"train": scenes}).run
    assert qprune.load(run)(images).shape == (4, 3, 32, 48)


def test_a_network_with_another_number_of_outputs_than_the_data_has_classes_is_refused():
    train = pairs()
    train.classes = ["ant", "bee", "cat", "dog", "emu"]
    assert told(SpecError, fit, spec(), model=net(), data={"train": train}) == (
        "The network gives 4 values per image, and the data has 5 classes; give the last layer 5 outputs."
    )


def test_what_is_missing_is_said():
    assert told(SpecError, fit, spec(), data=data()) == (
        "The spec names no network (model.arch, or [[model.layers]]), so it must be handed over: model=, in Python."
    )
    assert told(DataError, fit, spec(), model=net()) == NO_DATA
    assert told(SpecError, fit, spec(), model=nn.Sequential, data=data()) == (
        "model must be a network, an nn.Module; received the class Sequential. Make one, and hand that over."
    )


# the ways of training


def test_init_is_a_run_of_ones_own_network_that_was_cut_while_it_trained():
    first = fit(spec(prune=[HALF], train={"shrink": "as-frozen"}), model=net(), data=data()).run
    table = spec("mine/second", init="mine/first", prune=[KEPT], quantize=[EIGHT])
    assert qprune.plan(table, model=net(), data=data()).cost["parameters"] == "672 -> 366"
    second = fit(table, model=net(), data=data()).run
    one, other = qprune.load(first), qprune.load(second)
    assert one.get_submodule("3").weight.shape == other.get_submodule("3").weight.shape == (8, 3, 3, 3)
    x = torch.randn(2, 3, 9, 11)
    torch.testing.assert_close(qprune.load(second, model=net())(x), other(x))
    assert json.loads((second / "report.json").read_text())["costs"]["parameters"] == 672


def test_a_chain_trains_every_run_with_what_is_handed_over():
    Path("specs/mine").mkdir(parents=True)
    for table in (spec(prune=[HALF]), spec("mine/second", init="mine/first", prune=[KEPT], quantize=[EIGHT])):
        Path("specs", f"{table['name']}.toml").write_text(spec_to_toml(read_spec(table)))
    assert qprune.plan("mine/second", model=net(), data=data()).cost["parameters"] == "672 -> 366"
    fit("mine/second", model=net(), data=data(), chain=True)
    reports = chain_of("mine/second", Path("runs"))
    assert [report["name"] for report in reports] == ["mine/first", "mine/second"]
    assert [report["costs"]["parameters_kept"] for report in reports] == [366, 366]


def test_an_interrupted_run_of_ones_own_network_goes_on_to_the_same_bits():
    table, mine = spec(prune=[HALF], train={"shrink": "as-frozen"}), net()
    whole = fit(table, model=mine, data=data()).run

    def stop(batch, logs):
        if watch.trainer.step == 7:
            signal.raise_signal(signal.SIGINT)

    watch = LambdaCallback(on_train_batch_end=stop)
    assert fit(table | {"name": "mine/again"}, model=mine, data=data(), callbacks=[watch]).interrupted
    run = fit(table | {"name": "mine/again"}, model=mine, data=data(), resume=True).run
    one, other = (load_model(each / "model.pt")["state"] for each in (whole, run))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_exact_numerics_of_a_network_that_was_trained_before_it_is_handed_over():
    mine = net()
    inputs = {"types": ["Conv2d", "Linear"], "at": "input"}
    exact = spec("mine/exact", numerics="exact", quantize=[EIGHT, {"sites": [inputs], "bits": 8, "start": 2}])
    assert told(SpecError, fit, exact, model=mine, data=data()).startswith(
        'numerics = "exact" folds normalizations at the start of a run, and they have no statistics yet; name a '
        "trained run (init in mine/exact), or train the network before it is handed over"
    )
    with torch.no_grad():
        mine(torch.randn(16, 3, 9, 11))
    run = fit(exact, model=mine, data=data()).run
    certificate = qprune.export(run, "exact.onnx", data={"test": pairs(11, seed=2)})
    assert certificate.exact
    assert qprune.load(run, model=mine).state_dict().keys() == qprune.load(run).state_dict().keys()


class Undecided(nn.Module):
    """Its forward takes a Fourier transform, which is on no list of what a file may hold."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x) + 0 * torch.fft.rfft(x.flatten(1)).abs().mean()


def test_exact_numerics_of_a_network_that_cannot_be_followed_is_refused_before_training():
    mine = Undecided()
    mine(torch.randn(16, 3, 9, 11))
    exact = spec(numerics="exact", quantize=[EIGHT])
    sentence = told(SpecError, fit, exact, model=mine, data=data())
    assert sentence.startswith('In numerics = "exact" a network is opened by its calls alone. Undecided cannot be')
    assert not Path("runs").exists()


def test_a_network_that_cannot_be_followed_is_opened_and_scored_with_its_code():
    longer = {"length": "6ep", "shrink": "as-frozen"}
    history = fit(spec(prune=[HALF], train=longer), model=Undecided(), data=data())
    loaded = qprune.load(history.run, model=Undecided())
    assert loaded.net[3].weight.shape == (8, 3, 3, 3)
    again = qprune.evaluate(history.run, model=Undecided(), data={"test": data()["test"]})
    assert again == history.scores["test"]
    rules_do_not_fit = told(CheckpointError, qprune.load, history.run, model=nn.Sequential(nn.Conv2d(3, 4, 1)))
    assert "model.pt is of another network: " in rules_do_not_fit
    other = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1))
    sentence = told(CheckpointError, qprune.load, history.run, model=other)
    assert sentence.endswith("model= is the network as it was handed to fit, on which the rules of the run then act.")


def test_what_cannot_be_copied_is_said():
    mine = net()
    mine.lock = threading.Lock()
    assert told(SpecError, fit, spec(), model=mine, data=data()) == (
        "Sequential holds what cannot be copied (cannot pickle '_thread.lock' object), and a copy of it is trained. "
        "Keep that outside of the network, or give the network a __deepcopy__."
    )


def test_hooks_go_on_collecting_for_their_owner_while_a_copy_is_trained():
    class Owner:
        def __init__(self):
            self.lock, self.seen = threading.Lock(), 0

        def collect(self, module, inputs, output):
            self.seen += 1

    mine, owner = net(), Owner()
    mine[0].register_forward_hook(owner.collect)
    fit(spec(train={"length": 3}), model=mine, data={"train": pairs()})
    assert owner.seen >= 3


def test_a_run_that_was_cut_has_no_dense_time(tmp_path):
    run = fit(spec(prune=[HALF], train={"length": "6ep", "shrink": "as-frozen"}), model=net(), data=data()).run
    done = command(run.parents[1], "shrink", "mine/first", "--out", tmp_path / "small.pt")
    assert done.exit_code == 0, done.stderr
    assert "(the network was handed over and has been cut, so what it was before is not known here)" in done.stdout
    assert "dense" not in done.stdout.split("One forward pass")[1]


class Brightness:
    """Says how bright an image is."""

    monitor, mode = "error", "min"

    def loss(self, output, target):
        return nn.functional.l1_loss(output.mean(1), target.float())

    def step(self, net, batch):
        output = net(batch[0])
        return self.loss(output, batch[1]), output

    def metrics(self):
        return torchmetrics.MetricCollection({"error": Error()})


class Error(torchmetrics.MeanAbsoluteError):
    def update(self, output, target):
        super().update(output.mean(1), target.float())


def test_a_task_of_ones_own_is_handed_over_again(tmp_path):
    history = fit(spec(quantize=[EIGHT]), model=net(), data=data(), task=Brightness())
    assert history.scores["test"].keys() == {"loss", "error"}
    test = {"test": data()["test"]}
    assert qprune.evaluate(history.run, data=test, task=Brightness()) == history.scores["test"]
    assert told(SpecError, qprune.evaluate, history.run, data=test) == (
        "The task is one of the user's own, so it must be handed over: task=, in Python."
    )
    assert qprune.export(history.run, "a.onnx", data=test).scores == {}
    picture = tmp_path / "a.png"
    write_png(picture, torch.zeros(3, 9, 11, dtype=torch.uint8))
    done = command(history.run.parents[1], "predict", "mine/first", picture)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "qprune: What the network makes of an image is known to its own task alone; call qprune.predict in Python.\n"
    )


class Pair(nn.Module):
    """Teaches with a judge; only the maker is used afterwards."""

    deployed = "maker"

    def __init__(self):
        super().__init__()
        self.maker, self.judge = net(), nn.Linear(4, 2)

    def forward(self, x):
        made = self.maker(x)
        return self.judge(made) if self.training else made


def test_a_network_of_which_a_part_is_used_is_shrunk_in_its_place(tmp_path):
    run = fit(spec(prune=[HALF], train={"length": 3}), model=Pair(), data=data(), task=Brightness()).run
    done = command(run.parents[1], "shrink", "mine/first", "--out", tmp_path / "small.pt")
    assert done.exit_code == 0, done.stderr
    small, whole, x = qprune.load(tmp_path / "small.pt"), qprune.load(run), torch.randn(2, 3, 9, 11)
    torch.testing.assert_close(small(x), whole(x))
    assert small.state_dict().keys() >= {"maker.0.weight", "judge.weight"}
    assert small.get_submodule("maker.0").weight.shape == (3, 3, 3, 3)


# data as people write it


class Stream(IterableDataset):
    def __iter__(self):
        return iter(pairs())


class Sized(Stream):
    def __len__(self):
        return 20


def test_a_stream_validates_and_reports():
    parts = {"train": DataLoader(Sized(), batch_size=4), "val": DataLoader(Stream(), batch_size=4)}
    history = fit(spec(), model=net(), data=parts | {"test": DataLoader(Stream(), batch_size=5)})
    assert history.history["step"] == [5, 10]
    assert len(history.history["val_accuracy"]) == 2
    assert history.scores.keys() == {"val", "test"}
    certificate = qprune.export(history.run, "a.onnx", data={"test": DataLoader(Stream(), batch_size=5)})
    assert certificate.scores["accuracy"][0] == history.scores["test"]["accuracy"]


def test_a_list_of_pairs_and_a_loader():
    listed = [(image, int(label)) for image, label in pairs()]
    run = fit(spec(), model=net(), data=(listed, DataLoader(pairs(7), batch_size=3))).run
    assert qprune.evaluate(run, split="val", data={"val": listed}).keys() == {"loss", "accuracy"}


def test_an_image_folder_of_torchvision_names_its_classes(tmp_path):
    for name in ("ant", "bee", "cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            picture = torch.randint(0, 255, (3, 12, 13), dtype=torch.uint8)
            write_png(tmp_path / "photos" / name / f"{number}.png", picture)
    raw = torchvision.datasets.ImageFolder(tmp_path / "photos")
    assert told(DataError, fit, spec(), model=net(), data={"train": raw}) == (
        "Images must be tensors of float32; received PIL.Image. Of a data set of torchvision convert them with "
        "transform=torchvision.transforms.ToTensor(), a tensor with image.float()."
    )
    steps = [torchvision.transforms.RandomHorizontalFlip(), torchvision.transforms.ToTensor()]
    photos = torchvision.datasets.ImageFolder(tmp_path / "photos", torchvision.transforms.Compose(steps))
    run = fit(spec(), model=net(), data={"train": Subset(photos, range(1, 12)), "test": photos}).run
    content = load_model(run / "model.pt")
    assert content["classes"] == ["ant", "bee", "cat", "dog"]
    assert content["shape"] == [3, 12, 13]


def test_plan_counts_the_steps_of_what_is_handed_over():
    plan = qprune.plan(spec(prune=[HALF]), model=net(), data={"train": DataLoader(pairs(), batch_size=7)})
    assert (plan.steps_per_epoch, plan.steps) == (3, 6)
    assert plan.cost["parameters"] == "672 -> 366"
    assert qprune.plan(spec(prune=[HALF]), model=net(), data=data()).steps == 10


# opening without the class


@pytest.fixture(scope="module")
def morning(tmp_path_factory):
    """Runs of a class that this process does not have: on digits of a spec, and on data of its own."""
    root = tmp_path_factory.mktemp("morning")
    rules = {
        "prune": [HALF],
        "quantize": [
            EIGHT | {"start": 6},
        ],
    }
    table = spec("mine/morning", train={"length": "3ep"}, **rules)
    code = (
        MORNING
        + f"""
data = {{"train": pairs(20, 0), "val": pairs(7, 1), "test": pairs(11, 2)}}
torch.manual_seed(0)
qprune.fit({table!r}, model=Morning(), data=data, runs={str(root)!r}, verbose=0)
torch.save(data["test"].tensors, {str(root / "test.pt")!r})
print("fitted")
"""
    )
    script = root / "morning.py"
    script.write_text(code)
    done = forked.run(script)
    assert done.stdout == "fitted\n", done.stderr
    assert "Traceback" not in done.stderr
    return root


def command(root, *arguments):
    """What the command line says and does, in this process, which has not the class either."""
    return CliRunner().invoke(main, [*map(str, arguments), "--runs", str(root)])


def test_the_run_opens_and_is_scored_without_the_class(morning):
    test = TensorDataset(*torch.load(morning / "test.pt"))
    report = json.loads((morning / "mine/morning/report.json").read_text())
    assert qprune.evaluate("mine/morning", data={"test": test}, runs=morning) == report["scores"]["test"]
    loaded = qprune.load("mine/morning", runs=morning)
    assert {type(module).__module__.split(".")[0] for module in loaded.modules()} <= {"torch", "qprune"}


def test_summary_of_the_run_without_the_class(morning):
    done = command(morning, "summary", "mine/morning")
    assert done.exit_code == 0, done.stderr
    assert "blocks.0.conv" in done.stdout


def test_shrink_times_what_the_run_was_trained_as(morning, tmp_path):
    done = command(morning, "shrink", "mine/morning", "--out", tmp_path / "small.pt")
    assert done.exit_code == 0, done.stderr
    assert "dense" in done.stdout
    opened = qprune.training.open_model("mine/morning", morning)
    dense = opened.dense()
    assert {name: tuple(value.shape) for name, value in dense.state_dict().items() if "conv" in name} == {
        "blocks.0.conv.weight": (6, 6, 3, 3), "blocks.1.conv.weight": (6, 6, 3, 3),
    }  # fmt: skip
    small, x = qprune.load(tmp_path / "small.pt"), torch.randn(2, 2, 9, 11)
    torch.testing.assert_close(small(x), opened.net(x))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in opened.net.parameters())


def test_export_without_the_class(morning, tmp_path):
    done = command(morning, "export", "mine/morning", "--out", tmp_path / "a.onnx", "--require", "nothing")
    assert done.exit_code == 0, done.stderr
    assert "dense" in done.stdout
    test = TensorDataset(*torch.load(morning / "test.pt"))
    certificate = qprune.export("mine/morning", tmp_path / "b.onnx", data={"test": test}, runs=morning)
    report = json.loads((morning / "mine/morning/report.json").read_text())
    assert certificate.scores["accuracy"][0] == report["scores"]["test"]["accuracy"]
    again = qprune.evaluate(tmp_path / "b.onnx", data={"test": test})
    assert again["accuracy"] == certificate.scores["accuracy"][1]


def test_evaluate_and_predict_on_the_command_line_say_how_data_is_handed_over(morning, tmp_path):
    done = command(morning, "evaluate", "mine/morning")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"qprune: {NO_DATA}\n"
    picture = tmp_path / "a.png"
    write_png(picture, torch.zeros(3, 9, 11, dtype=torch.uint8))
    done = command(morning, "predict", "mine/morning", picture)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "qprune: The network was trained on data that was handed over, and nothing says how its images were "
        "normalized. Make tensors of the files as for that data, and call qprune.predict in Python.\n"
    )


@pytest.mark.slow
def test_a_class_that_is_elsewhere_on_data_of_a_spec(tmp_path):
    table = spec("mine/digits", data={"name": "digits", "train_images": 40}, prune=[HALF])
    code = MORNING.replace("nn.Conv2d(2, 6", "nn.Conv2d(1, 6").replace("nn.Linear(6, 3)", "nn.Linear(6, 10)")
    code += f'qprune.fit({table!r}, model=Morning(), runs={str(tmp_path)!r}, verbose=0)\nprint("fitted")\n'
    done = forked.run("-c", code)
    assert done.stdout == "fitted\n", done.stderr
    report = json.loads((tmp_path / "mine/digits/report.json").read_text())
    assert json.loads(command(tmp_path, "evaluate", "mine/digits").stdout) == report["scores"]["test"]
    done = command(tmp_path, "export", "mine/digits", "--require", "5")
    assert done.exit_code == 0, done.stderr


def test_resnet18_of_torchvision():
    torch.manual_seed(0)
    rule = HALF | {"sites": [CONVS | {"exclude": ["*.downsample.*"]}]}
    resnet = torchvision.models.resnet18(num_classes=4)
    train = pairs(6, (3, 64, 64))
    source = spec(prune=[rule | {"schedule": {"kind": "one-shot", "at": 1}}], train={"length": 2, "batch": 3})
    run = fit(source, model=resnet, data={"train": train, "test": train}).run
    loaded = qprune.load(run)
    assert qprune.evaluate(run, data={"test": train}).keys() == {"loss", "accuracy"}
    small, x = qprune.shrink(loaded, torch.zeros(1, 3, 64, 64)), torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(small(x), loaded(x), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in resnet.parameters())
