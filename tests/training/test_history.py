import pytest

from qprune.training import History


def test_entries_become_lists_by_name() -> None:
    history = History()
    history.add({"step": 3, "loss": 0.5})
    history.add({"step": 6, "loss": 0.25})
    assert history.history == {"step": [3, 6], "loss": [0.5, 0.25]}
    assert (len(history), history.last()) == (2, {"step": 6, "loss": 0.25})


def test_empty_history_has_no_last_entry() -> None:
    assert (len(History()), History().last()) == (0, {})


def test_entry_with_other_names_is_refused() -> None:
    history = History()
    history.add({"step": 3, "loss": 0.5})
    with pytest.raises(ValueError, match="entries must have the names step, loss; received step, accuracy"):
        history.add({"step": 6, "accuracy": 0.5})


def test_state_goes_through_a_copy() -> None:
    history, other = History(), History()
    history.add({"loss": 0.5})
    history.events.append({"step": 4, "site": "0.input", "bits": 4})
    other.load_state_dict(history.state_dict())
    history.add({"loss": 0.25})
    assert other.history == {"loss": [0.5]}
    assert other.events == history.events
