"""Any file that qprune reads ends in success or in a `QpruneError`: never in another exception, never in a hang."""

import copy
import io
import json
import pickle
import signal
import tomllib
from contextlib import contextmanager
from zipfile import ZIP_STORED, ZipFile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import qprune
from qprune.costs import chain_of, chain_table
from qprune.data.class_file import read_class_file
from qprune.data.decode import read_image, read_size
from qprune.data.labels import LabelIds, read_labels
from qprune.errors import QpruneError
from qprune.exporting.about import check_about, parse_about
from qprune.spec import read_spec, spec_to_toml
from qprune.training import Run
from qprune.training.checkpoint import load, save

PATIENCE = 30  # seconds for one input on a busy machine; nearly all take milliseconds
SHIPPED = ("baseline", "a75_w4a4", "a75_layerwise", "w75_stepwise", "joint_single_run")
TABLES = [tomllib.loads(spec_to_toml(read_spec(f"digits/{name}"))) for name in SHIPPED]
TEXTS = [spec_to_toml(read_spec(f"digits/{name}")) for name in SHIPPED]

ODD = st.sampled_from(
    [
        *(0, 1, -1, 2, 3, 7, 1000, 2**31, 2**63, 10**30, -(10**30), 0.5, 1.5, -0.5, 1e308, 1e-308),
        *(float("nan"), float("inf"), -float("inf"), True, False),
        *("", "x", "é\u202e", "\0", "a" * 300, "*", "[", "../..", "/", "input", "output", "weight"),
        *("1ep", "0ep", "-1ep", "0.1ep", "999999999999ep", "1it", "999999999999it", "nanep", "1e9ep"),
        *("Conv2d", "Linear", "LSTM", "Add", "Concat", "PrunedConv2d", "cifar100", "mobilenetv2"),
        *([], [[]], [1, 2], ["a"], [{}], [0, -1], [float("nan")], {}, {"a": 1}, {"a": {"a": {"a": []}}}),
        *({"kind": "layerwise"}, {"kind": "stepwise", "times": 10**9}, {"name": "adam", "lr": 1e300}),
    ]
)  # fmt: skip
KEYS = st.sampled_from(
    [
        *("x", "name", "type", "from", "repeat", "layers", "sparsity", "bits", "kind", "init", "width", "arch", "at"),
        *("groups", "dilation", "padding", "stride", "kernel_size", "out_channels", "num_features", "inplace", "eps"),
        *("schedule", "types", "paths", "exclude", "skip", "numerics", "multiple_of", "order", "momentum"),
    ]
)
TOKENS = st.sampled_from(
    [
        '"',
        "[",
        "]",
        "{",
        "\n",
        "=",
        "[[prune]]\n",
        "nan",
        "-inf",
        "1979-05-27",
        "0x1F",
        "'''",
        "é",
        "\0",
        "9" * 30,
        "true",
    ]
)


class Hang(BaseException):
    """An input took too long; not an `Exception`, so that nothing takes it for the input's fault."""


@contextmanager
def patience():
    """Fails the test where an input takes too long."""

    def late(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def survives(act, *args):
    """Run it; a sentence is as good as success."""
    with patience():
        try:
            return act(*args)
        except QpruneError:
            return None


def often(examples):
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))


# specs


def places(value, place=()):
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*place, key)
        yield from places(entry, (*place, key))


def entry(table, place):
    for key in place:
        table = table[key]
    return table


@st.composite
def changed_tables(draw):
    """A shipped spec with one to three entries replaced, removed, doubled, added or moved."""
    table = copy.deepcopy(draw(st.sampled_from(TABLES)))
    for _ in range(draw(st.integers(1, 3))):
        known = list(places(table))
        *above, key = draw(st.sampled_from(known))
        holder, how = (
            entry(table, above),
            draw(st.sampled_from(["replace", "replace", "remove", "double", "add", "move"])),
        )
        if how == "replace":
            holder[key] = copy.deepcopy(draw(ODD))
        elif how == "remove":
            del holder[key]
        elif how == "move":
            holder[key] = copy.deepcopy(entry(table, draw(st.sampled_from(known))))
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[draw(KEYS)] = copy.deepcopy(draw(ODD))
    return table


@st.composite
def changed_texts(draw):
    """A shipped spec's TOML with a few words removed, doubled, swapped or replaced."""
    words = draw(st.sampled_from(TEXTS)).split(" ")
    for _ in range(draw(st.integers(1, 4))):
        at, other = (draw(st.integers(0, len(words) - 1)) for _ in range(2))
        how = draw(st.sampled_from(["remove", "double", "swap", "replace"]))
        if how == "remove" and len(words) > 1:
            del words[at]
        elif how == "double":
            words.insert(at, words[at])
        elif how == "swap":
            words[at], words[other % len(words)] = words[other % len(words)], words[at]
        else:
            words[at] = draw(TOKENS | st.text(max_size=8))
    return " ".join(words)


def reads_and_plans(source):
    qprune.plan(read_spec(source))


@often(120)
@given(changed_tables())
def test_any_table_is_planned_or_refused(table):
    survives(reads_and_plans, table)


@often(120)
@given(changed_texts())
def test_any_text_is_planned_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    survives(reads_and_plans, path)


@pytest.mark.slow
@often(3000)
@given(changed_tables() | changed_texts().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_thousands_of_specs_are_planned_or_refused(tmp_path_factory, source):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    if isinstance(source, bytes):
        path.write_bytes(source)
    survives(reads_and_plans, path if isinstance(source, bytes) else source)


# checkpoints

SPEC = {
    "name": "tiny",
    "data": {"name": "digits"},
    "model": {"layers": [{"type": "PrunedConv2d", "out_channels": 2, "kernel_size": 3, "schedule": {
        "kind": "one-shot", "sparsity": 0.5, "at": 3}}, {"type": "Flatten"}, {"type": "Linear", "out_features": 10}]},
    "train": {"length": "1ep", "batch": 64, "optimizer": {"name": "sgd", "lr": 0.05}},
}  # fmt: skip
STATE = {"state": qprune.build(SPEC).state_dict(), "spec": spec_to_toml(read_spec(SPEC))}
MODEL = STATE | {"classes": list("0123456789"), "shape": [1, 8, 8], "palette": [], "step": 5, "scores": {"loss": 0.5}}
TRAINING = {"step": 5, "net": STATE["state"], "history": [{"loss": 0.5, "step": 5}], "lr": 0.1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose `previous.pt` stays good."""
    run = Run(tmp_path_factory.mktemp("fuzz"))
    save(run.model, MODEL)
    save(run.last, TRAINING)
    save(run.last, TRAINING, keep_as="previous.pt")
    return run


@pytest.fixture(scope="module")
def whole(run):
    return {path: path.read_bytes() for path in (run.model, run.last)}


def reads_in_every_way(run, content):
    """Through `load`, `Run.read_last` and `qprune.load`; what is resumed from is always the training."""
    for path in (run.model, run.last):
        path.write_bytes(content)
        survives(load, path)
    survives(qprune.load, run.path)
    found = survives(run.read_last)
    assert found is None or isinstance(found["step"], int)


@st.composite
def changed_bytes(draw, content):
    """The bytes with some overwritten, removed, inserted, moved, or cut off."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start, length = draw(st.integers(0, max(len(changed) - 1, 0))), draw(st.integers(0, 40))
        how = draw(st.sampled_from(["overwrite", "flip", "remove", "insert", "cut", "splice"]))
        if how == "overwrite":
            changed[start : start + length] = draw(st.binary(min_size=length, max_size=length))
        elif how == "flip" and changed:
            changed[start] ^= 1 << draw(st.integers(0, 7))
        elif how == "remove":
            del changed[start : start + length]
        elif how == "insert":
            changed[start:start] = draw(st.binary(max_size=40))
        elif how == "cut":
            del changed[start:]
        else:
            other = draw(st.integers(0, len(content)))
            changed[start : start + length * 20] = content[other : other + length * 20]
    return bytes(changed)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
TENSORS = st.sampled_from([torch.zeros(2, 3), torch.tensor(1.5)])
OPCODES = st.sampled_from(
    [
        *(b"}", b"]", b"(", b")", b"u", b"a", b"e", b"s", b"t", b"0", b"1", b"2", b"N", b"R", b"Q", b"b", b"\x81"),
        *(b"K\x02", b"J\xff\xff\xff\x7f", b"\x8a\x01\x02", b"q\x01", b"h\x01", b"\x85", b"\x86", b"\x87", b"\x88"),
        *(b"X\x06\0\0\0format", b"X\x07\0\0\0storage", b"X\x01\0\0\x000", b"X\xff\xff\xff\xff"),
        *(b"G\x7f\xf8" + bytes(6), b"\x93", b"cbuiltins\nbytearray\n"),
        *(b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n"),
        *(b"ctorch.storage\nUntypedStorage\n", b"ctorch\nfloat32\n", b"cos\nsystem\n"),
    ]
)  # fmt: skip


def nested(leaves):
    """Dicts, lists and tuples of them."""
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3) | st.tuples(inner, inner),
        max_leaves=8,
    )


NAMES = st.sampled_from([*MODEL, *TRAINING, "format", "checksum", "written_by"])


def packed(path, pickled, records=()):
    with ZipFile(path, "w", ZIP_STORED) as archive:
        for name, content in [("data.pkl", pickled), ("version", b"3\n"), ("byteorder", b"little"), *records]:
            archive.writestr(f"archive/{name}", content)
    return path.read_bytes()


@often(250)
@given(st.data())
def test_any_bytes_are_loaded_or_refused(run, whole, data):
    reads_in_every_way(run, data.draw(changed_bytes(whole[data.draw(st.sampled_from(sorted(whole)))])))


@often(120)
@given(st.dictionaries(NAMES, nested(PLAIN | TENSORS), max_size=4), st.sampled_from([MODEL, TRAINING, {}]))
def test_any_content_is_loaded_or_refused(run, changes, base):
    """Content that is wrong but verified: written by `save` itself."""
    path = run.path / "content.pt"
    if survives(save, path, base | changes) is None and path.is_file():
        reads_in_every_way(run, path.read_bytes())


@often(150)
@given(st.data())
def test_any_pickle_is_loaded_or_refused(run, whole, data):
    """Hand-written pickles in an archive that is whole: opcodes changed, and records with them or without."""
    with ZipFile(run.previous) as archive:
        records = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    written = st.lists(OPCODES, max_size=25).map(lambda opcodes: b"\x80\x02" + b"".join(opcodes) + b".")
    dumped = nested(PLAIN).map(lambda value: pickle.dumps({"format": 2, "net": value}, 2))
    pickled = data.draw(changed_bytes(records["data.pkl"]) | written | dumped)
    storages = [(name, content) for name, content in records.items() if name.startswith("data/")]
    reads_in_every_way(
        run, packed(run.path / "pickle.pt", pickled, storages[: data.draw(st.integers(0, len(storages)))])
    )


@pytest.mark.slow
@often(10_000)
@given(st.data())
def test_thousands_of_files_are_loaded_or_refused(run, whole, data):
    reads_in_every_way(run, data.draw(changed_bytes(whole[data.draw(st.sampled_from(sorted(whole)))])))


def test_the_untouched_files_load(run, whole):
    for path, content in whole.items():
        path.write_bytes(content)
    assert qprune.load(run.path).training is False
    assert run.read_last()["step"] == 5


# exported files

ABOUT = {
    "spec": read_spec(SPEC).to_dict(),
    "classes": list("0123456789"),
    "shape": [1, 8, 8],
    "palette": [[0, 0, 255]],
    "stride": 1,
}
IMAGES = torch.zeros(2, 1, 8, 8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The contents of an ONNX file and of a program, which came of a run."""
    folder = tmp_path_factory.mktemp("exported")
    layers = [{"type": "Conv2d", "out_channels": 2, "kernel_size": 3}, *SPEC["model"]["layers"][1:]]
    short = {"model": {"layers": layers}, "train": SPEC["train"] | {"length": "2it"}}
    run = qprune.fit(SPEC | short, runs=folder, verbose=0).run
    for name in ("model.onnx", "model.pt2"):
        qprune.export(run, folder / name)
    return {name: (folder / name).read_bytes() for name in ("model.onnx", "model.pt2")}


def opens_and_runs(path):
    qprune.predict(path, IMAGES)


@often(150)
@given(st.data())
def test_any_onnx_file_is_run_or_refused(tmp_path_factory, exported, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.onnx"
    path.write_bytes(data.draw(changed_bytes(exported["model.onnx"])))
    survives(opens_and_runs, path)


@pytest.mark.slow
@often(5000)
@given(st.data())
def test_thousands_of_onnx_files_are_run_or_refused(tmp_path_factory, exported, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.onnx"
    path.write_bytes(data.draw(changed_bytes(exported["model.onnx"])))
    survives(opens_and_runs, path)


@often(150)
@given(st.data())
def test_any_program_is_refused_unread(tmp_path_factory, exported, data):
    path = tmp_path_factory.getbasetemp() / data.draw(st.sampled_from(["fuzz.pt2", "fuzz.pt", "fuzz.onnx", "fuzz"]))
    path.write_bytes(data.draw(changed_bytes(exported["model.pt2"])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.export, "load", lambda *_, **__: pytest.fail("the program was opened"))
        with pytest.raises(QpruneError):
            opens_and_runs(path)


@st.composite
def changed_json(draw, table):
    """The table as JSON, with entries replaced, removed, added or moved, or words of its text changed."""
    table = copy.deepcopy(table)
    for _ in range(draw(st.integers(0, 3))):
        *above, key = draw(st.sampled_from(list(places(table))))
        holder = entry(table, above)
        if draw(st.booleans()):
            holder[key] = copy.deepcopy(draw(ODD))
        elif isinstance(holder, dict) and len(table) > 1:
            del holder[key]
            if not table:
                break
    text = json.dumps(table)
    return text if draw(st.booleans()) else draw(changed_bytes(text.encode())).decode("utf-8", "replace")


@often(200)
@given(changed_json(ABOUT))
def test_anything_that_a_file_says_about_its_network_is_taken_or_refused(text):
    survives(lambda: check_about(parse_about(text, "a file"), "a file"))


# reports, class names, images

COSTS = {"parameters": 80, "parameters_kept": 20, "weight_bits": [4], "activation_bits": [4, 32], "packed_bytes": 10}
REPORT = {
    "name": "mine",
    "init": "base",
    "monitor": "accuracy",
    "mode": "max",
    "scores": {"test": {"accuracy": 0.75, "loss": 0.5}},
    "costs": COSTS | {"megabytes": 0.5},
}


@often(200)
@given(changed_json(REPORT))
def test_any_report_is_shown_or_left_out(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "reports"
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with patience():
        assert "\x1b" not in chain_table(chain_of("reports", folder.parent))


CLASSES = 'names = ["road", "sky", "car"]\npalette = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]\nignore = 11\n'


@often(200)
@given(st.data())
def test_any_class_names_are_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "classes"
    folder.mkdir(exist_ok=True)
    (folder / "classes.toml").write_bytes(data.draw(changed_bytes(CLASSES.encode())))
    survives(read_class_file, folder)


def image(kind, mode):
    content = io.BytesIO()
    Image.linear_gradient("L").resize((9, 7)).convert(mode).save(content, kind)
    return content.getvalue()


PICTURES = [image(kind, mode) for kind, mode in (
    ("PNG", "RGB"), ("PNG", "P"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("BMP", "RGB"), ("GIF", "P"), ("PPM", "L"),
    ("TIFF", "RGB"), ("WEBP", "RGB"), ("EPS", "RGB"),
)]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damage that it can live with
@often(300)
@given(st.data())
def test_any_image_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.png"
    path.write_bytes(data.draw(changed_bytes(data.draw(st.sampled_from(PICTURES)))))
    survives(read_size, path)
    survives(read_image, path, 5)
    survives(read_labels, path, LabelIds({0: 0, 1: 1}, strict=False))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@often(5000)
@given(st.data())
def test_thousands_of_images_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.png"
    path.write_bytes(data.draw(changed_bytes(data.draw(st.sampled_from(PICTURES)))))
    survives(read_image, path, 5)
