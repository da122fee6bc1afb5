"""Weights of torchvision and timm: files as the libraries' own networks write them, where their caches keep them."""

import logging
from pathlib import Path

import pytest
import torch
import torchvision
from click.testing import CliRunner
from torch import nn
from torchvision import models

import qprune
from qprune.assemble import dense_network
from qprune.cli import main
from qprune.errors import CheckpointError, SpecError
from qprune.layers import Apart
from qprune.spec import read_spec, spec_to_toml
from qprune.training import start_from_weights

NAME, FILE = "torchvision/squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"
TRAIN = {"length": "2it", "batch": 4, "optimizer": {"name": "sgd", "lr": 0.01}}


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty cache of torch.hub and of the Hugging Face hub, and no way out."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(torch.hub, "_hub_dir", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def refuse(*_, **__):
        raise AssertionError("somebody asked the network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.chdir(tmp_path)
    (folder / "checkpoints").mkdir(parents=True)
    return folder / "checkpoints"


def seeded(seed, make, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(**options)


def spec(arch=NAME, rules=(), **model):
    table = {"name": "mine", "model": {"arch": arch, **model}, "train": TRAIN}
    return read_spec(table | dict(rules))


def started(chosen, classes=5, channels=3, **options):
    net = qprune.zoo.create(str(chosen.model.arch), classes=classes, in_channels=channels, **chosen.model.options)
    fresh = {key: value.clone() for key, value in net.state_dict().items()}
    start_from_weights(net, chosen, classes, channels, **options)
    return net, fresh


def equal(one, other, keys):
    return all(torch.equal(one[key], other[key]) for key in keys)


def test_named_weights_are_taken_from_the_librarys_cache_and_the_head_stays_fresh(hub, caplog):
    theirs = seeded(7, models.squeezenet1_1).state_dict()
    torch.save(theirs, hub / FILE)
    with caplog.at_level(logging.WARNING):
        net, fresh = started(spec(weights="DEFAULT"))
    head = {"classifier.1.weight", "classifier.1.bias"}
    assert equal(net.state_dict(), theirs, theirs.keys() - head)
    assert equal(net.state_dict(), fresh, head)
    assert caplog.messages == [
        f"mine: of {hub / FILE} all is taken but the head: classifier.1.weight, classifier.1.bias, which stays fresh "
        "for the data's classes"
    ]


def test_with_equal_classes_the_head_is_taken_too(hub, caplog):
    theirs = seeded(7, models.squeezenet1_1).state_dict()
    torch.save(theirs, hub / FILE)
    net, _ = started(spec(weights="IMAGENET1K_V1"), classes=1000)
    assert equal(net.state_dict(), theirs, theirs)
    assert not caplog.messages


def test_a_local_file_is_named_from_the_folder_of_the_spec(tmp_path, monkeypatch):
    theirs = seeded(7, models.squeezenet1_1, num_classes=5).state_dict()
    (tmp_path / "specs").mkdir()
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in theirs.items()}}, "specs/mine.pth")
    file = tmp_path / "specs" / "mine.toml"
    file.write_text(f'format = 1\n[model]\narch = "{NAME}"\nweights = "mine.pth"\n' + _TRAIN)
    chosen = read_spec(file)
    assert chosen.model.weights == str(tmp_path / "specs" / "mine.pth")
    net, _ = started(chosen)
    assert equal(net.state_dict(), theirs, theirs)


_TRAIN = '[train]\nlength = "2it"\nbatch = 4\noptimizer = { name = "sgd", lr = 0.01 }\n'


def test_masks_and_quantizers_stay_as_they_are(hub):
    theirs = seeded(7, models.squeezenet1_1, num_classes=5).state_dict()
    torch.save(theirs, "mine.pth")
    weights = {"types": ["Conv2d"], "at": "weight"}
    rules = {"quantize": [{"sites": [weights], "bits": 4, "start": 1}]}
    chosen = spec(weights="mine.pth", rules=rules)
    plain = qprune.zoo.create(NAME, classes=5)
    net = qprune.swap(plain, torch.zeros(1, 3, 64, 64), **rules)
    start_from_weights(net, chosen, 5, 3)
    assert equal(net.state_dict(), theirs, theirs)
    assert sum("weight_quant" in key for key in net.state_dict())


def message(chosen, error=CheckpointError, **options):
    with pytest.raises(error) as caught:
        started(chosen, **options)
    return str(caught.value)


def test_a_file_that_is_not_there_is_named_with_the_way_to_get_it(hub):
    assert message(spec(weights="DEFAULT")) == (
        f"the weights IMAGENET1K_V1 of {NAME} must be on this machine; looked for {hub / FILE} "
        f"(https://download.pytorch.org/models/{FILE}). Fetch the file with --download (download=True in Python), put "
        "it there, or name one that is here."
    )
    assert message(spec(weights="nowhere.pth")) == (
        f"There is no file nowhere.pth, which is to hold the weights of {NAME}."
    )


def test_it_is_fetched_when_that_is_asked_for(hub, monkeypatch):
    theirs, asked = seeded(7, models.squeezenet1_1).state_dict(), []

    def fetch(url, file, prefix, progress):
        asked.append((url, prefix))
        torch.save(theirs, file)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    net, _ = started(spec(weights="DEFAULT"), classes=1000, download=True)
    assert equal(net.state_dict(), theirs, theirs)
    assert asked == [(f"https://download.pytorch.org/models/{FILE}", "b8a52dc0")]


def test_what_cannot_be_fetched_is_told(hub, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host\nfor long")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    assert message(spec(weights="DEFAULT"), download=True) == (
        f"the weights IMAGENET1K_V1 of {NAME} could not be fetched: no route to host. Check the network, or put the "
        f"file there yourself: {hub / FILE} (https://download.pytorch.org/models/{FILE})."
    )


def test_a_file_of_another_network_names_the_first_keys_that_differ(hub):
    torch.save(models.squeezenet1_0(num_classes=5).state_dict(), hub / FILE)
    told = message(spec(weights="DEFAULT"))
    assert told.startswith(f"{hub / FILE} is of another network than {NAME}: missing: ")
    assert "; of another shape: features.0.weight, features.0.bias, " in told
    assert told.endswith(". Name the file of this network, or the network of this file (model.arch and its options).")
    torch.save({"stem.weight": torch.zeros(3), "stem.bias": torch.zeros(3)}, hub / FILE)
    told = message(spec(weights="DEFAULT"))
    assert "missing: features.0.weight, features.0.bias, features.3.squeeze.weight and 47 more" in told
    assert "unknown: stem.weight, stem.bias." in told


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int8])
def test_weights_of_another_kind_of_number_are_refused(hub, dtype):
    state = seeded(7, models.squeezenet1_1, num_classes=5).state_dict()
    torch.save(state | {"features.0.weight": state["features.0.weight"].to(dtype)}, hub / FILE)
    assert "of another kind of number: features.0.weight." in message(spec(weights="DEFAULT"))


def test_weights_in_half_precision_are_taken(hub):
    theirs = seeded(7, models.squeezenet1_1, num_classes=5).state_dict()
    torch.save({key: value.half() for key, value in theirs.items()}, hub / FILE)
    net, _ = started(spec(weights="DEFAULT"))
    assert all(torch.equal(net.state_dict()[key], value.half().float()) for key, value in theirs.items())


def test_normalizations_need_no_count_of_batches(hub):
    theirs = seeded(7, models.shufflenet_v2_x0_5, num_classes=5).state_dict()
    old = {key: value for key, value in theirs.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, "old.pth")
    net, _ = started(spec("torchvision/shufflenet_v2_x0_5", weights="old.pth"))
    assert equal(net.state_dict(), theirs, old)


def test_densenets_published_files_have_names_of_an_older_torch(hub):
    theirs = seeded(7, models.densenet121).state_dict()
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value for key, value in theirs.items()}
    torch.save(old, hub / "densenet121-a639ec97.pth")
    net, _ = started(spec("torchvision/densenet121", weights="DEFAULT"), classes=1000)
    assert equal(net.state_dict(), theirs, theirs)


def test_heads_for_training_alone_are_left_out_of_googlenet(hub):
    theirs = seeded(7, models.googlenet, init_weights=False).state_dict()
    assert any(key.startswith("aux1") for key in theirs)
    torch.save(theirs, hub / "googlenet-1378be20.pth")
    chosen = spec("torchvision/googlenet", weights="DEFAULT")
    net = qprune.assemble.dense_network(chosen.model, 5, (3, 64, 64))
    start_from_weights(net, chosen, 5, 3)
    assert torch.equal(net.conv1.conv.weight, theirs["conv1.conv.weight"])
    assert net.transform_input  # as torchvision sets it beside these weights
    assert not qprune.assemble.dense_network(spec("torchvision/googlenet").model, 5, (3, 64, 64)).transform_input


SCENES = "torchvision/lraspp_mobilenet_v3_large"


def test_a_network_for_scenes_starts_from_weights_of_the_whole(hub):
    make = models.segmentation.lraspp_mobilenet_v3_large
    theirs = seeded(7, make, weights_backbone=None, num_classes=21).state_dict()
    torch.save(theirs, hub / "lraspp_mobilenet_v3_large-d234d4ea.pth")
    net, fresh = started(spec(SCENES, weights="DEFAULT"))
    heads = {key for key in theirs if key.startswith(("classifier.low_classifier", "classifier.high_classifier"))}
    assert len(heads) == 4
    assert equal(net.net.state_dict(), theirs, theirs.keys() - heads)
    assert all(torch.equal(net.state_dict()[f"net.{key}"], fresh[f"net.{key}"]) for key in heads)


@pytest.mark.parametrize(
    ("arch", "make", "file", "features"),
    [
        (SCENES, models.mobilenet_v3_large, "mobilenet_v3_large-8738ca79.pth", "features."),
        ("torchvision/fcn_resnet50", models.resnet50, "resnet50-0676ba61.pth", ""),
    ],
)
def test_or_from_weights_of_its_backbone(arch, make, file, features, hub):
    theirs = seeded(7, make).state_dict()
    torch.save(theirs, hub / file)
    net, fresh = started(spec(arch, weights_backbone="IMAGENET1K_V1"))
    backbone = net.net.backbone.state_dict()
    assert all(torch.equal(backbone[key], theirs[f"{features}{key}"]) for key in backbone)
    assert equal(net.state_dict(), fresh, [key for key in fresh if ".classifier." in key])


def test_a_backbone_of_another_network_is_refused(hub):
    torch.save(models.resnet34().state_dict(), "other.pth")
    told = message(spec("torchvision/fcn_resnet50", weights_backbone="other.pth"))
    assert told.startswith(
        "other.pth is of another network than torchvision/fcn_resnet50: missing: net.backbone.layer1"
    )


def test_build_takes_what_is_there_and_says_what_is_not(hub, caplog):
    table = {"data": {"name": "cifar10"}, "model": {"arch": NAME, "weights": "DEFAULT"}, "train": TRAIN}
    net = qprune.build(table)
    assert caplog.messages == [
        f"unnamed is made with fresh weights, as the weights IMAGENET1K_V1 of {NAME} are not on this machine"
    ]
    theirs = seeded(7, models.squeezenet1_1).state_dict()
    torch.save(theirs, hub / FILE)
    assert not torch.equal(net.features[0].weight, theirs["features.0.weight"])
    assert torch.equal(qprune.build(table).features[0].weight, theirs["features.0.weight"])


def photos(count=8):
    pixels = torch.randn(count, 3, 40, 40, generator=torch.Generator().manual_seed(3))
    return torch.utils.data.TensorDataset(pixels, torch.arange(count) % 5)


def test_a_run_starts_from_weights_and_is_opened_and_resumed_without_their_file(hub):
    theirs = seeded(7, models.squeezenet1_1).state_dict()
    torch.save(theirs, hub / FILE)
    still = TRAIN | {"optimizer": {"name": "sgd", "lr": 1e-30}}
    table = {"name": "start", "model": {"arch": NAME, "weights": "DEFAULT"}, "train": still}
    history = qprune.fit(table, data={"train": photos(), "test": photos()}, runs="runs", verbose=0)
    assert torch.equal(qprune.load(history.run).features[0].weight, theirs["features.0.weight"])
    (hub / FILE).unlink()
    assert torch.equal(qprune.load(history.run).features[0].weight, theirs["features.0.weight"])
    again = qprune.fit(table, data={"train": photos(), "test": photos()}, runs="runs", verbose=0, resume=True)
    assert again.scores == history.scores
    assert 'weights = "DEFAULT"' in (Path(history.run) / "spec.toml").read_text()


def test_download_is_an_option_of_fit_here_and_on_the_command_line(hub, monkeypatch):
    theirs = seeded(7, models.squeezenet1_1, num_classes=1000).state_dict()
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, file, *_, **__: torch.save(theirs, file))
    table = {"name": "start", "model": {"arch": NAME, "weights": "DEFAULT"}, "train": TRAIN}
    data = {"train": photos(), "test": photos()}
    with pytest.raises(CheckpointError, match=r"must be on this machine; .* --download"):
        qprune.fit(table, data=data, runs="runs", verbose=0)
    assert not Path("runs").exists()
    qprune.fit(table, data=data, runs="runs", verbose=0, download=True)
    assert (hub / FILE).is_file()

    asked = []

    def cifar(root, train, download):
        asked.append(download)
        raise RuntimeError("no route to host")

    cifar.base_folder = "cifar-10-batches-py"
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", cifar)
    small = {"data": {"name": "cifar10"}, "model": {"arch": "vgg7", "width": 0.1}, "train": TRAIN, "name": "mine"}
    Path("mine.toml").write_text(spec_to_toml(read_spec(small)))
    said = CliRunner().invoke(main, ["fit", "mine.toml", "--download"])
    assert asked == [True]
    assert said.exit_code == 2
    assert "cifar10 could not be downloaded" in said.output


def test_a_run_with_init_needs_no_weights(hub):
    torch.save(seeded(7, models.squeezenet1_1).state_dict(), hub / FILE)
    table = {"name": "first", "model": {"arch": NAME, "weights": "DEFAULT"}, "train": TRAIN}
    data = {"train": photos(), "test": photos()}
    first = qprune.load(qprune.fit(table, data=data, runs="runs", verbose=0).run)
    (hub / FILE).unlink()
    still = TRAIN | {"optimizer": {"name": "sgd", "lr": 1e-30}}
    second = qprune.fit(table | {"name": "second", "init": "first", "train": still}, data=data, runs="runs", verbose=0)
    assert torch.equal(qprune.load(second.run).features[0].weight, first.features[0].weight)


def test_a_plan_needs_no_file_and_says_where_it_would_be(hub):
    table = {
        "name": "start",
        "model": {"arch": NAME, "weights": "DEFAULT"},
        "data": {"name": "cifar10"},
        "train": TRAIN,
    }
    note = f"note: starts from the weights IMAGENET1K_V1 of {NAME}, "
    assert f"{note}which are not on this machine (fit --download)" in str(qprune.plan(table))
    torch.save({}, hub / FILE)
    assert f"{note}in {hub / FILE}" in str(qprune.plan(table))


@pytest.mark.parametrize(
    ("arch", "model", "sentence"),
    [
        (
            NAME, {"weights": "IMAGENET1K_V2"},
            f"model: {NAME} has no weights 'IMAGENET1K_V2'; nearest: 'IMAGENET1K_V1'; it has 'IMAGENET1K_V1', "
            "'DEFAULT'; a file is named by a path that ends in .pth, .pt or .safetensors (model in mine).",
        ),
        (
            NAME, {"weights_backbone": "DEFAULT"},
            f"model: weights_backbone is of torchvision's networks for segmentation; {NAME} takes weights (model in "
            "mine).",
        ),
        (
            "vgg7", {"weights": "DEFAULT"},
            "model: weights are of networks of torchvision/ and timm/; vgg7 of the zoo starts from a run, init (model "
            "in mine).",
        ),
    ],
)  # fmt: skip
def test_weights_that_nobody_has_are_a_sentence(arch, model, sentence):
    table = {"name": "mine", "model": {"arch": arch, **model}, "data": {"name": "cifar10"}, "train": TRAIN}
    with pytest.raises(SpecError) as caught:
        qprune.plan(table)
    assert str(caught.value) == sentence


def test_weights_are_told_in_the_spec_of_the_run():
    assert 'weights_backbone = "DEFAULT"' in spec_to_toml(spec(SCENES, weights_backbone="DEFAULT"))


TIMM = "timm/mobilenetv3_small_050"


def test_weights_of_timm_are_taken_as_timm_takes_them(caplog):
    timm = pytest.importorskip("timm")
    theirs = seeded(7, timm.create_model, model_name="mobilenetv3_small_050").state_dict()
    torch.save(theirs, "mine.pth")
    net, fresh = started(spec(TIMM, weights="mine.pth"), channels=1)
    grey = theirs["conv_stem.weight"].sum(1, keepdim=True)
    assert torch.allclose(net.conv_stem.weight, grey)
    rest = theirs.keys() - {"conv_stem.weight", "classifier.weight", "classifier.bias"}
    assert equal(net.state_dict(), theirs, rest)
    assert torch.equal(net.classifier.weight, fresh["classifier.weight"])
    assert caplog.messages[-1].startswith(
        "mine: of mine.pth all is taken but the head: classifier.weight, classifier.bias"
    )


def test_weights_of_timm_go_into_layers_that_were_taken_apart():
    timm = pytest.importorskip("timm")
    theirs = seeded(7, timm.create_model, model_name="mobilenetv3_small_050").eval()
    torch.save(theirs.state_dict(), "mine.pth")
    chosen, images = spec(TIMM, weights="mine.pth"), torch.randn(2, 3, 64, 64)
    net = dense_network(chosen.model, 1000, (3, 64, 64)).eval()
    assert isinstance(net.bn1, Apart)
    assert net.state_dict().keys() != theirs.state_dict().keys()
    start_from_weights(net, chosen, 1000, 3)
    assert torch.equal(net(images), theirs(images))


def test_weights_of_timm_lie_in_the_cache_of_the_hugging_face_hub(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    import huggingface_hub
    from safetensors.torch import save_file

    theirs = seeded(7, timm.create_model, model_name="mobilenetv3_small_050").state_dict()
    save_file(theirs, "model.safetensors")
    found = {"timm/mobilenetv3_small_050.lamb_in1k": str(tmp_path / "model.safetensors")}

    def look(repository, name, revision=None):
        return found.get(repository) if name == "model.safetensors" else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    net, _ = started(spec(TIMM, weights="lamb_in1k"), classes=1000)
    assert equal(net.state_dict(), theirs, theirs)
    found.clear()
    assert message(spec(TIMM, weights="DEFAULT")).startswith(
        f"the weights lamb_in1k of {TIMM} must be on this machine; looked for model.safetensors of "
        "timm/mobilenetv3_small_050.lamb_in1k in the cache of the Hugging Face hub or "
    )


def test_a_file_of_another_network_of_timm_names_keys_too():
    pytest.importorskip("timm")
    torch.save(nn.Linear(3, 5).state_dict(), "other.pth")
    told = message(spec(TIMM, weights="other.pth"))
    assert told.startswith(f"other.pth is of another network than {TIMM}: missing: conv_stem.weight, ")
    assert "unknown: weight, bias." in told


def test_weights_in_a_format_of_timms_own_are_refused():
    timm = pytest.importorskip("timm")
    assert timm.get_pretrained_cfg("resnetv2_50x1_bit").custom_load
    table = {"name": "mine", "model": {"arch": "timm/resnetv2_50x1_bit", "weights": "DEFAULT"}, "train": TRAIN}
    with pytest.raises(SpecError) as caught:
        qprune.plan(table | {"data": {"name": "cifar10"}})
    tag = timm.get_pretrained_cfg("resnetv2_50x1_bit").tag
    assert str(caught.value) == (
        f"model: the weights {tag} of timm/resnetv2_50x1_bit are in a format that timm alone reads: make the network "
        "in Python, with pretrained=True, and hand it to fit as model= (model in mine)."
    )


def test_weights_of_the_whole_and_of_the_backbone_exclude_each_other():
    with pytest.raises(
        SpecError, match=r"weights are of the whole network, so weights_backbone has no effect beside them"
    ):
        spec(SCENES, weights="DEFAULT", weights_backbone="DEFAULT")
    with pytest.raises(SpecError, match=r'^A model with "weights" needs "arch", a name of the zoo'):
        read_spec({"model": {"weights": "DEFAULT"}, "train": TRAIN})
