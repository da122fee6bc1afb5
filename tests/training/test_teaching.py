import copy
import csv
import os
import signal

import forked
import pytest
import torch
from attrs import evolve
from comparing import same
from few_streets import draw_few_streets
from torch import nn

import qprune
from qprune.data import load_data
from qprune.errors import CheckpointError, PlanError, SpecError
from qprune.spec import DataSpec, TeacherSpec, read_spec, spec_to_toml
from qprune.tasks import Distilled
from qprune.training import Callback, load_checkpoint, shrinking

SHORT = ["data.train_images=200", "train.length=8it", "train.validate_every=4it", "train.batch=40"]
OPTIMIZER = {"name": "sgd", "lr": 0.05}


class CtrlC(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_begin(self, batch, logs):
        if self.trainer.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def fit(spec, runs, **options):
    return qprune.fit(spec, runs=runs, verbose=0, device="cpu", **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of the digits: a dense one, one that was pruned."""
    root = tmp_path_factory.mktemp("runs")
    fit("digits/baseline", root, overrides=["data.train_images=600", "train.length=60it"])
    pruned = [*SHORT, 'prune.0.schedule={kind="one-shot", at="2it"}']
    fit("digits/a75_layerwise", root, overrides=pruned, name="pruned")
    return root


@pytest.fixture
def student():
    """A small network of the user's own and the spec it is trained by; without normalization."""
    torch.manual_seed(6)
    net = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(180, 10))
    train = {"length": "8it", "batch": 40, "validate_every": "4it", "optimizer": OPTIMIZER}
    table = {"name": "small", "data": {"name": "digits", "train_images": 200}, "train": train}
    return net, read_spec(table)


def with_teacher(spec, run="digits/baseline", **options):
    return evolve(spec, train=evolve(spec.train, teacher=TeacherSpec(run, **options)))


def model_of(history):
    return load_checkpoint(history.run / "model.pt")["state"]


def test_a_small_network_comes_nearer_to_its_teacher(runs, student):
    net, spec = student
    longer = evolve(with_teacher(spec, weight=1.0), train=evolve(with_teacher(spec, weight=1.0).train, length="60it"))
    history = fit(longer, runs, model=net, name="nearer")
    falling = history.history["distillation"]
    assert len(falling) == 15
    assert falling[-1] < falling[0] / 2
    assert history.history["loss"] == pytest.approx(falling, rel=1e-5)  # with weight 1 it is all of the loss
    assert "distillation" in (history.run / "history.csv").read_text().splitlines()[0].split(",")
    assert "val_distillation" not in history.history


def test_the_teacher_changes_what_is_learned_and_is_no_part_of_any_file(runs, student):
    net, spec = student
    alone = fit(spec, runs, model=net, name="alone")
    taught = fit(with_teacher(spec), runs, model=net, name="taught")
    assert not same(model_of(taught), model_of(alone))
    for name in ("model.pt", "last.pt"):
        sizes = [(history.run / name).stat().st_size for history in (alone, taught)]
        assert abs(sizes[1] - sizes[0]) < 4000
    state = load_checkpoint(taught.run / "last.pt")
    assert state["net"].keys() == net.state_dict().keys()
    assert qprune.evaluate(taught.run, runs=runs)["accuracy"] == taught.scores["test"]["accuracy"]


def test_a_weight_of_nothing_leaves_the_training_as_it_is(runs, student):
    net, spec = student
    alone = fit(spec, runs, model=net, name="alone-too")
    watched = fit(with_teacher(spec, weight=0.0), runs, model=net, name="watched")
    assert same(model_of(watched), model_of(alone))
    assert watched.history["loss"] == alone.history["loss"]


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_resumed_training_equals_the_unbroken_one_to_the_bit(runs, student, stop):
    net, spec = student
    spec = with_teacher(spec)
    whole = fit(spec, runs, model=net, name=f"whole-{stop}")
    assert fit(spec, runs, model=net, name=f"broken-{stop}", callbacks=[CtrlC(stop - 1)]).interrupted
    torch.manual_seed(99)
    resumed = fit(spec, runs, model=net, name=f"broken-{stop}", resume=True)
    ours, theirs = (load_checkpoint(history.run / "last.pt") for history in (resumed, whole))
    for name in ("net", "optimizer", "meter", "ranks"):
        assert same(ours[name], theirs[name]), name
    assert resumed.history["distillation"] == whole.history["distillation"]


def test_parts_of_a_batch_give_the_gradients_of_the_whole(runs, student):
    net, spec = student
    spec = with_teacher(spec)
    net[2] = nn.Identity()  # dropout draws other numbers for other parts
    whole = fit(spec, runs, model=net, name="whole")
    parts = fit(evolve(spec, train=evolve(spec.train, accumulate=3)), runs, model=net, name="parts")
    for name, value in model_of(whole).items():
        torch.testing.assert_close(model_of(parts)[name], value, rtol=1e-5, atol=1e-6)
    assert parts.history["distillation"] == pytest.approx(whole.history["distillation"], rel=1e-5)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(runs, student, tmp_path):
    _, spec = student
    layers = [
        {"type": "Conv2d", "out_channels": 5, "kernel_size": 3},
        {"type": "ReLU"},
        {"type": "Flatten"},
        {"type": "Linear", "out_features": 10},
    ]
    table = with_teacher(spec, str(runs / "digits" / "baseline")).to_dict()
    path = tmp_path / "shared.toml"
    path.write_text(spec_to_toml(read_spec(table | {"model": {"layers": layers}, "name": "shared"})))
    one = fit(path, tmp_path / "1")
    for process in forked.together(2, "-m", "qprune", "fit", path, "--runs", tmp_path / "2", "--device", "cpu"):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    two = load_checkpoint(tmp_path / "2" / "shared" / "model.pt")["state"]
    for name, value in model_of(one).items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)
    with (tmp_path / "2" / "shared" / "history.csv").open() as file:
        terms = [float(row["distillation"]) for row in csv.DictReader(file)]
    assert terms == pytest.approx(one.history["distillation"], rel=1e-4)


def test_the_teacher_computes_in_the_precision_of_training(runs, student):
    net, spec = student
    seen = []

    class Watch(Callback):
        def on_train_begin(self, logs):
            task = self.trainer.task
            assert isinstance(task, Distilled)
            assert not any(module.training for module in task.teacher.modules())
            assert not any(parameter.requires_grad for parameter in task.teacher.parameters())
            task.teacher.register_forward_hook(lambda *call: seen.append(call[2].dtype))

    low = evolve(with_teacher(spec), train=evolve(with_teacher(spec).train, precision="bfloat16", accumulate=2))
    fit(low, runs, model=net, name="low", callbacks=[Watch()])
    assert seen == [torch.bfloat16] * 16  # none of them in validation


def test_the_run_that_training_starts_from_is_the_teacher_by_default(runs):
    spec = read_spec("digits/a75_layerwise", [*SHORT, 'prune.0.schedule={kind="one-shot", at="2it"}'])
    default = fit(with_teacher(spec, None), runs, name="default")
    named = fit(with_teacher(spec), runs, name="named")
    assert same(model_of(default), model_of(named))
    assert len(default.history["distillation"]) == 2


def test_a_run_that_is_pruned_teaches_only_where_it_is_named(runs):
    spec = read_spec("digits/a75_w4a4", ["init=pruned", *SHORT, "quantize.0.start=4it", "quantize.1.start=4it"])
    sentence = (
        r"^\[train.teacher\] names no run, and pruned, which init names, is pruned or quantized already: name a "
        r"trained run \(train.teacher.run\), or hand a network over: teacher=, in Python"
    )
    for ask in (qprune.plan, fit):
        with pytest.raises(PlanError, match=sentence):
            ask(with_teacher(spec, None), runs=runs)
    assert qprune.plan(with_teacher(spec, "pruned"), runs=runs).steps == 8


def test_a_network_of_the_users_own_that_is_pruned_teaches_only_where_it_is_named(runs, student):
    net, spec = student
    half = {"sites": [{"types": ["ReLU"], "at": "output"}], "sparsity": 0.5}
    table = spec.to_dict() | {"name": "own", "prune": [half | {"schedule": {"kind": "one-shot", "at": "2it"}}]}
    fit(table, runs, model=net)
    inherited = {"sites": half["sites"], "schedule": {"kind": "inherited"}}
    later = read_spec(table | {"name": "later", "init": "own", "prune": [inherited]})
    with pytest.raises(PlanError, match=r"names no run, and own, which init names, is pruned or quantized already"):
        qprune.plan(with_teacher(later, None), model=net, runs=runs)
    assert qprune.plan(with_teacher(later, "own"), model=net, runs=runs).steps == 8


def test_a_chain_trains_the_teacher_that_it_starts_from(tmp_path):
    spec = with_teacher(read_spec("digits/a75_layerwise"), None)
    assert qprune.plan(spec, runs=tmp_path).cost["parameters"] == "83,434 -> 5,506"
    later = evolve(with_teacher(read_spec("digits/a75_w4a4"), None))
    with pytest.raises(PlanError, match="digits/a75_layerwise, which init names, is pruned or quantized already"):
        qprune.plan(later, runs=tmp_path)


def test_a_run_that_is_not_there_or_not_finished_is_refused(runs, student, tmp_path):
    net, spec = student
    way_out = r"Train it first, name a trained run \(train.teacher.run\), or hand a network over: teacher=, in Python\."
    with pytest.raises(CheckpointError, match=rf"^The teacher of small cannot be opened: .*no/such.* {way_out}$"):
        qprune.plan(with_teacher(spec, "no/such"), model=net, runs=runs)
    fit(spec, runs, model=net, name="unfinished", callbacks=[CtrlC(1)])
    with pytest.raises(CheckpointError, match=rf"^The teacher of small .*unfinished is not finished.* {way_out}$"):
        fit(with_teacher(spec, "unfinished"), runs, model=net)
    assert not (runs / "small").exists()


def test_a_teacher_that_went_missing_is_told_when_the_run_goes_on(runs, student, tmp_path):
    net, spec = student
    fit("digits/baseline", tmp_path, overrides=SHORT, name="gone")
    fit(with_teacher(spec, "gone"), tmp_path, model=net, callbacks=[CtrlC(2)])
    (tmp_path / "gone").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"^The teacher of small cannot be opened: .*gone"):
        fit(with_teacher(spec, "gone"), tmp_path, model=net, resume=True)
    (tmp_path / "moved").rename(tmp_path / "gone")
    assert not fit(with_teacher(spec, "gone"), tmp_path, model=net, resume=True).interrupted


def test_a_table_without_any_run_is_refused(runs, student):
    net, spec = student
    with pytest.raises(
        SpecError, match=r"^\[train.teacher\] names no run, and small starts from none \(init\): name a"
    ):
        qprune.plan(with_teacher(spec, None), model=net, runs=runs)
    with pytest.raises(SpecError, match=r"so it must be handed over: teacher=, in Python\.$"):
        qprune.plan(with_teacher(spec, ""), model=net, runs=runs)


def test_a_teacher_of_other_classes_is_refused(runs, student):
    _, spec = student
    data = load_data(DataSpec("digits", train_images=60))
    items = [(data.train[index][0], data.train[index][1] % 4) for index in range(60)]
    four = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    sentence = (
        r"^The teacher, digits/baseline, has other classes than the data: 10 \(0, 1, 2, ...\); the data has 4 "
        r"\(0, 1, 2, ...\)\. Name a run on the same data: train.teacher.run\.$"
    )
    with pytest.raises(PlanError, match=sentence):
        qprune.plan(with_teacher(spec), model=four, data={"train": items}, runs=runs)


def test_a_teacher_of_other_images_is_refused(runs, student):
    _, spec = student
    larger = evolve(spec, data=evolve(spec.data, size=9))
    net = nn.Sequential(nn.Flatten(), nn.Linear(81, 10))
    sentence = (
        r"^The teacher, digits/baseline, was trained on images of 1x8x8 \(channels x height x width\); the data has "
        r"1x9x9\. Name a run on images of that shape: train.teacher.run\.$"
    )
    with pytest.raises(PlanError, match=sentence):
        qprune.plan(with_teacher(larger), model=net, runs=runs)


def test_a_temperature_means_nothing_to_generators(runs):
    spec = read_spec("streets/cyclegan/baseline")
    with pytest.raises(SpecError, match=r"^train.teacher.temperature has no effect on generators, .* received 2.0"):
        qprune.plan(with_teacher(spec, temperature=2.0), runs=runs)


@pytest.mark.slow
def test_generators_learn_from_a_run_of_generators(tmp_path, monkeypatch):
    draw_few_streets(monkeypatch)
    overrides = [
        *("data.size=32", "data.train_images=8", "train.batch=2", "train.length=4it", "train.validate_every=2it"),
        *("model.width=0.1", 'train.lr_schedule={name="constant"}'),
    ]
    spec = read_spec("streets/cyclegan/baseline", overrides)
    fit(spec, tmp_path, name="large")
    history = fit(with_teacher(spec, "large", weight=0.5), tmp_path, name="small")
    assert len(history.history["distillation"]) == 2
    assert {"generator", "cycle", "distillation"} <= history.history.keys()
    lone = nn.Conv2d(3, 3, 1)
    with pytest.raises(
        PlanError, match=r"has no generator_ab and no generator_ba, whose images CycleGAN compares\. Name"
    ):
        qprune.plan(spec, teacher=lone, runs=tmp_path)


@pytest.fixture
def pruned():
    """A network of the user's own that loses half of its channels, and a wider teacher with the same paths."""
    torch.manual_seed(6)

    def make(width):
        layers = [nn.Conv2d(1, width, 3), nn.ReLU(), nn.Conv2d(width, 6, 3), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 10))

    train = {"length": "8it", "batch": 40, "validate_every": "4it", "optimizer": OPTIMIZER}
    train["teacher"] = {"run": "", "layers": ["1", "3"]}
    half = {"sites": [{"types": ["ReLU"], "at": "output"}], "sparsity": 0.5}
    half["schedule"] = {"kind": "layerwise", "start": 0, "interval": 1, "refresh": 1}
    data = {"name": "digits", "train_images": 200}
    table = {"name": "halved", "data": data, "train": train, "prune": [half]}
    return make(4), make(5), table


@pytest.mark.parametrize("shrink", ["never", "as-frozen"])
def test_layers_are_compared_while_channels_go_and_resumed_to_the_bit(runs, pruned, shrink, monkeypatch):
    monkeypatch.setattr(shrinking, "COST", 0.01)  # so that every cut pays at once
    net, teacher, table = pruned
    spec = read_spec(table | {"train": table["train"] | {"shrink": shrink, "accumulate": 2}})
    whole = fit(spec, runs, model=net, teacher=teacher, name=f"layers-{shrink}")
    broken = {"model": net, "teacher": teacher, "name": f"layers-{shrink}-broken"}
    assert fit(spec, runs, **broken, callbacks=[CtrlC(6)]).interrupted
    torch.manual_seed(99)
    resumed = fit(spec, runs, **broken, resume=True)
    ours, theirs = (load_checkpoint(history.run / "last.pt") for history in (resumed, whole))
    for name in ("net", "optimizer", "meter"):
        assert same(ours[name], theirs[name]), name
    assert resumed.history["distillation"] == whole.history["distillation"]
    weight = qprune.load(whole.run).get_submodule("0").weight
    assert len(weight) == {"never": 4, "as-frozen": 2}[shrink]
    plain = read_spec(table | {"train": table["train"] | {"teacher": {"run": ""}}})
    alone = fit(plain, runs, model=net, teacher=teacher, name=f"layers-{shrink}-alone")
    assert not same(model_of(alone), model_of(whole))
    assert alone.history["distillation"][0] < whole.history["distillation"][0] < alone.history["distillation"][0] + 2


def test_layers_that_one_of_the_networks_has_not_are_refused(runs, pruned):
    net, teacher, table = pruned
    net.add_module("middle", nn.Identity())
    teacher.add_module("other", nn.Identity())

    def told(layers, **train):
        changed = table["train"] | {"teacher": {"run": "", "layers": layers}} | train
        for ask in (qprune.plan, fit):
            with pytest.raises(PlanError) as caught:
                ask(table | {"train": changed}, model=net, teacher=teacher, runs=runs)
            yield str(caught.value)

    named = "train.teacher.layers names"
    theirs = f'{named} "middle", and the teacher, teacher= (Sequential), has no such layer. Name paths that both'
    assert all(line.startswith(theirs) for line in told(["middle"]))
    near = f'{named} "othre", and the teacher, teacher= (Sequential), has no such layer; nearest: "other"'
    assert all(line.startswith(near) for line in told(["othre"]))
    ours = f'{named} "other", and the network has no such layer'
    assert all(line.startswith(ours) for line in told(["1", "other"]))
    compiled = "train.teacher.layers reads what single layers give, which compiled steps do not show: leave out"
    assert all(line.startswith(compiled) for line in told(["1"], compile=True))


def test_layers_of_other_positions_are_refused_in_the_first_step(runs, pruned):
    net, _, table = pruned
    layers = [nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 6, 1), nn.ReLU()]
    teacher = nn.Sequential(*layers, nn.Flatten(), nn.Linear(54, 10))
    sentence = r'equal but for C; "1" gives \(40, 4, 6, 6\) in the network and \(40, 4, 3, 3\) in the teacher'
    with pytest.raises(PlanError, match=sentence):
        fit(table, runs, model=net, teacher=teacher, name="positions")


def test_a_task_that_cannot_learn_from_a_teacher_is_refused(runs, student):
    net, spec = student

    class Own:
        monitor, mode = "loss", "min"

    with pytest.raises(SpecError, match=r"needs a task with a method distillation\(.*\), and Own has none: add it, or"):
        qprune.plan(with_teacher(spec), model=net, task=Own(), runs=runs)


def test_a_network_that_is_handed_over_is_copied(runs, student):
    net, spec = student
    torch.manual_seed(8)
    teacher = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)).train()
    before = copy.deepcopy(teacher.state_dict())
    history = fit(spec, runs, model=net, teacher=teacher, name="handed")
    assert len(history.history["distillation"]) == 2
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert all(module.training for module in teacher.modules())
    assert same(dict(teacher.state_dict()), dict(before))
    assert read_spec(history.run / "spec.toml").train.teacher == TeacherSpec("")
    with pytest.raises(SpecError, match=r"so it must be handed over: teacher=, in Python"):
        fit(read_spec(history.run / "spec.toml"), runs, model=net, name="handed", resume=True)


def test_the_weight_of_a_table_holds_for_a_network_that_is_handed_over(runs, student):
    net, spec = student
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    history = fit(with_teacher(spec, None, weight=0.25), runs, model=net, teacher=teacher, name="quarter")
    assert read_spec(history.run / "spec.toml").train.teacher == TeacherSpec("", weight=0.25)


def test_a_network_of_torchvision_teaches(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    teacher = torchvision.models.shufflenet_v2_x0_5(num_classes=4)
    items = [(torch.randn(3, 32, 33), index % 4) for index in range(12)]
    net = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    train = {"length": "4it", "batch": 6, "optimizer": OPTIMIZER, "validate_every": "2it"}
    spec = {"name": "taught", "train": train}
    history = fit(spec, tmp_path, model=net, data={"train": items}, teacher=teacher)
    assert len(history.history["distillation"]) == 2


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 7)),
            r"^The teacher, teacher= \(Sequential\), does not fit the data: for one image its output must have shape "
            r"\(N, 10\), one value per class; received \(1, 7\)\.$",
        ),
        (
            nn.Conv2d(3, 10, 8),
            r"^The teacher, teacher= \(Conv2d\), does not take the images of the data\. The network .* compute conv2d",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_refused(student, tmp_path, teacher, sentence):
    net, spec = student
    for ask in (qprune.plan, fit):
        with pytest.raises(PlanError, match=sentence):
            ask(spec, runs=tmp_path, model=net, teacher=teacher)


def test_a_dict_is_no_output_of_a_teacher(student, tmp_path):
    class Segmenter(nn.Module):
        def forward(self, images):
            return {"out": images.flatten(1)[:, :10]}

    net, spec = student
    sentence = r"must give one tensor; received dict\. Put a module around it that picks the one to compare\.$"
    with pytest.raises(PlanError, match=sentence):
        qprune.plan(spec, runs=tmp_path, model=net, teacher=Segmenter())


def test_what_is_no_network_or_cannot_be_copied_is_refused(student, tmp_path):
    net, spec = student

    class Held(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle a lock")

    with pytest.raises(SpecError, match=r"^teacher must be a network, an nn.Module; received the class Linear\. Make"):
        fit(spec, tmp_path, model=net, teacher=nn.Linear)
    with pytest.raises(SpecError, match=r"^teacher= \(Held\) holds what cannot be copied \(cannot pickle a lock\)"):
        fit(spec, tmp_path, model=net, teacher=Held(64, 10))


def test_a_plan_with_a_teacher_draws_no_random_numbers(runs, student):
    net, spec = student
    torch.manual_seed(5)
    before = torch.get_rng_state()
    qprune.plan(with_teacher(spec), model=net, runs=runs)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_spec_in_a_file_names_its_teacher(runs, student, tmp_path):
    net, spec = student
    path = tmp_path / "mine.toml"
    path.write_text(spec_to_toml(with_teacher(spec, "no/such")))
    with pytest.raises(CheckpointError, match="no/such"):
        qprune.plan(path, model=net, runs=runs)
