import warnings

import pytest
import torch
from click.testing import CliRunner

import qprune
from qprune.cli import main
from qprune.training import Callback, determined

OTHER = "put_"  # an operation that torch has no deterministic form of, even on a CPU
SENTENCE = "put_ has no deterministic form: results may differ from run to run."
SMALL = {"data.train_images": 135, "train.length": "2ep"}


def put():
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


def settings():
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return *algorithms, torch.backends.cudnn.benchmark, warnings.showwarning, list(warnings.filters)


def fails_in_between():
    with determined():
        assert settings()[:3] == (True, True, False)
        raise LookupError


class Puts(Callback):
    """Uses the operation in every step, and notes what torch was told."""

    def on_train_batch_end(self, batch, logs):
        put()
        self.settings = settings()


def test_an_operation_without_a_deterministic_form_is_named_once(caplog):
    with determined() as others:
        put()
        put()
    assert others == [OTHER]
    assert caplog.messages == [SENTENCE]


def test_it_is_named_in_every_training_of_a_process(caplog):
    for _ in range(2):
        with determined() as others:
            put()
        assert others == [OTHER]
    assert caplog.messages == [SENTENCE] * 2


def test_other_warnings_stay_warnings():
    with pytest.warns(UserWarning, match="of another kind"), determined() as others:
        warnings.warn("of another kind", stacklevel=1)
    assert others == []


def test_what_was_set_before_is_set_afterwards():
    before = settings()
    torch.backends.cudnn.benchmark = True
    try:
        with pytest.raises(LookupError):
            fails_in_between()
        assert settings()[:3] == (False, False, True)
    finally:
        torch.backends.cudnn.benchmark = before[2]
    assert settings() == before


def test_nothing_changes_where_it_is_not_wanted():
    before = settings()
    with determined(False) as others:
        assert settings() == before
        put()
    assert others == []


def test_digits_train_deterministically_on_a_cpu(tmp_path, caplog):
    options = {"overrides": SMALL, "device": "cpu", "verbose": 0, "deterministic": True}
    runs = [qprune.fit("digits/baseline", runs=tmp_path / str(run), **options) for run in range(2)]
    assert caplog.messages == []
    states = [qprune.load(history.run).state_dict() for history in runs]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_fit_names_what_a_callback_does(tmp_path, caplog):
    puts = Puts()
    options = {"overrides": SMALL, "device": "cpu", "verbose": 0, "callbacks": [puts]}
    qprune.fit("digits/baseline", runs=tmp_path, deterministic=True, **options)
    assert puts.settings[:2] == (True, True)
    assert caplog.messages == [SENTENCE]


def test_command_line_has_the_switch(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(qprune.api, "train", lambda *arguments, **options: seen.append(settings()[:2]) or 1 / 0)
    for flags in (["--deterministic"], []):
        command = ["fit", "digits/baseline", "--quiet", "--runs", str(tmp_path), "--overwrite", *flags]
        result = CliRunner().invoke(main, command)
        assert isinstance(result.exception, ZeroDivisionError)
    assert seen == [(True, True), (False, False)]
