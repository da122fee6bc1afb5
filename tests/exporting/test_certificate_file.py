"""A certificate is read back from its file, and what is none is refused."""

import contextlib
import json

import pytest

from qprune.errors import ExportError
from qprune.exporting import Agreement, Certificate, Elsewhere, Environment, read_certificate
from qprune.exporting.running import Operators


def certificate() -> Certificate:
    agreement = Agreement("output", 80, 0.5, 1.0, 0.25, 3.5)
    return Certificate(
        file="it.onnx", bytes=1500, environment=Environment("onnxruntime 1", "a processor", "all", False, "2"),
        inputs={"random": 8}, outputs=(agreement,), quantizers=(Agreement("act.output", 30, 1.0, 1.0, 0.0),),
        scores={"accuracy": (0.97, 0.96)}, operators=Operators({"ConvInteger": 1}, {}, {"Cast": 2}),
        milliseconds={"exported": 0.25}, elsewhere={"openvino": Elsewhere("OpenVINO 1", (agreement,), 0.9)},
    )  # fmt: skip


def test_what_was_written_is_read_back(tmp_path):
    (tmp_path / "it.json").write_text(certificate().to_json())
    found = read_certificate(tmp_path / "it.json")
    assert found == certificate()
    assert str(found) == str(certificate())


@pytest.mark.parametrize("content", ["", "[]", "5", '{"outputs": 3}', "[" * 100_000, "\xff"])
def test_what_is_no_certificate_is_refused(tmp_path, content):
    (tmp_path / "it.json").write_text(content, encoding="latin-1")
    with pytest.raises(ExportError, match=r"it\.json holds no certificate as qprune writes it\. Export"):
        read_certificate(tmp_path / "it.json")


KEYS = sorted(json.loads(certificate().to_json()))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [None, 5, "text", [], {}, [5], {"a": 5}, {"a": "b"}])
def test_a_wrong_entry_is_refused_or_can_be_shown(tmp_path, key, value):
    (tmp_path / "it.json").write_text(json.dumps(json.loads(certificate().to_json()) | {key: value}))
    found = None
    with contextlib.suppress(ExportError):
        found = read_certificate(tmp_path / "it.json")
    assert found is None or (str(found) and found._repr_html_())


def test_a_file_that_is_missing_is_told(tmp_path):
    with pytest.raises(ExportError, match=r"it\.json cannot be used: No such file or directory"):
        read_certificate(tmp_path / "it.json")
