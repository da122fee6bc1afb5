from pathlib import Path

import pytest

from qprune.errors import CheckpointError
from qprune.training import Run, runs_root
from qprune.training.checkpoint import save

SPEC = 'format = 1\n[data]\nname = "digits"\nroot = "here"\n[train]\nbatch = 64\n'


def test_root_is_the_argument_then_the_variable_then_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QPRUNE_RUNS", raising=False)
    assert runs_root() == Path("runs")
    monkeypatch.setenv("QPRUNE_RUNS", "elsewhere")
    assert (runs_root(), runs_root("mine")) == (Path("elsewhere"), Path("mine"))


def test_new_run_holds_its_spec(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "digits/baseline", SPEC)
    assert run.path == tmp_path / "digits" / "baseline"
    assert run.spec.read_text() == SPEC
    assert not run.finished


def test_finished_run_is_refused(tmp_path: Path) -> None:
    Run.create(tmp_path, "a", SPEC).model.touch()
    with pytest.raises(CheckpointError) as error:
        Run.create(tmp_path, "a", SPEC)
    assert str(error.value) == (
        f"{tmp_path / 'a'} holds a finished run. Use --resume to score it again, --overwrite to train it anew, "
        "or a new --name."
    )


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    Run.create(tmp_path, "a", SPEC).last.touch()
    with pytest.raises(CheckpointError, match=r"not finished\. Use --resume to go on, --overwrite to begin anew"):
        Run.create(tmp_path, "a", SPEC)


def test_resumed_run_keeps_its_files(tmp_path: Path) -> None:
    Run.create(tmp_path, "a", SPEC).last.write_bytes(b"x")
    run = Run.create(tmp_path, "a", SPEC.replace("here", "there"), resume=True)
    assert run.last.read_bytes() == b"x"
    assert run.spec.read_text() == SPEC


def test_resume_without_a_run_begins_it(tmp_path: Path) -> None:
    assert Run.create(tmp_path, "a", SPEC, resume=True).spec.is_file()


def test_finished_run_without_a_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    model = Run.create(tmp_path, "a", SPEC).model
    model.touch()
    with pytest.raises(CheckpointError, match=r"holds a finished run, but no last\.pt to go on from\. Use --overwrite"):
        Run.create(tmp_path, "a", SPEC, resume=True)
    assert model.is_file()


def test_what_was_left_before_the_first_checkpoint_is_dropped(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "a", SPEC)
    run.tensorboard.mkdir()
    for path in (run.tensorboard / "events", run.history, run.best, run.path / ".last.pt.7.part", run.path / "mine"):
        path.touch()
    run.drop_unsaved()
    assert sorted(path.name for path in run.path.iterdir()) == ["mine", "spec.toml"]


def test_nothing_is_dropped_where_there_is_a_checkpoint(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "a", SPEC)
    for path in (run.previous, run.history, run.best):
        path.touch()
    run.drop_unsaved()
    assert sorted(path.name for path in run.path.iterdir()) == ["best.pt", "history.csv", "previous.pt", "spec.toml"]


def test_resume_with_another_spec_is_refused(tmp_path: Path) -> None:
    Run.create(tmp_path, "a", SPEC)
    with pytest.raises(
        CheckpointError, match=r"begun with another spec: train\.batch was 64 and is 32 now\. Resume it"
    ):
        Run.create(tmp_path, "a", SPEC.replace("64", "32"), resume=True)


def test_the_differences_of_another_spec_are_named_by_key(tmp_path: Path) -> None:
    rules = '[[prune]]\nsparsity = {}\nsites = [{{ at = "output", paths = ["a{}"] }}]\n'
    Run.create(tmp_path, "a", SPEC + "length = '5ep'\n" + rules.format(0.5, 1))
    with pytest.raises(CheckpointError) as error:
        Run.create(tmp_path, "a", SPEC.replace("64", "32") + "ema = 0.9\n" + rules.format(0.75, 2), resume=True)
    assert str(error.value) == (
        f'{tmp_path / "a"} was begun with another spec: train.batch was 64 and is 32 now; train.length was "5ep" and '
        "is not set now; prune.0.sparsity was 0.5 and is 0.75 now; and 2 more. Resume it with the spec it was begun "
        f"with ({tmp_path / 'a/spec.toml'}), or use --overwrite or a new --name."
    )


def test_a_checkpoint_that_was_written_with_another_spec_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "a", SPEC)
    save(run.last, {"step": 5, "net": {}, "spec": SPEC.replace("64", "32")})
    with pytest.raises(
        CheckpointError, match=r"last\.pt was written with another spec: train\.batch was 32 and is 64 "
    ):
        run.read_last(SPEC)


def test_a_checkpoint_may_have_been_written_elsewhere_and_with_other_loaders(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "a", SPEC)
    other = 'name = "b"\n' + SPEC.replace('"here"', '"there"\nworkers = 3') + 'checkpoint_every = "2ep"\n'
    save(run.last, {"step": 5, "net": {}, "spec": other})
    assert run.read_last(SPEC)["step"] == 5


@pytest.mark.parametrize("spec", [{}, {"spec": 5}, {"spec": "a ="}, {"spec": "a = " + "[" * 5000}])
def test_a_checkpoint_that_tells_of_no_spec_is_refused(tmp_path: Path, spec: dict[str, object]) -> None:
    run = Run.create(tmp_path, "a", SPEC)
    save(run.last, {"step": 5, "net": {}} | spec)
    with pytest.raises(
        CheckpointError, match=r"last\.pt does not tell with which spec it was written\. Begin anew with"
    ):
        run.read_last(SPEC)


def test_overwrite_deletes_the_run_and_no_run_below_it(tmp_path: Path) -> None:
    outer, inner = Run.create(tmp_path, "a", SPEC), Run.create(tmp_path, "a/b", SPEC)
    outer.tensorboard.mkdir()
    (outer.tensorboard / "events").touch()
    outer.model.touch()
    inner.model.touch()
    (outer.path / "notes.txt").touch()
    Run.create(tmp_path, "a", SPEC.replace("64", "32"), overwrite=True)
    assert sorted(path.name for path in outer.path.iterdir()) == ["b", "notes.txt", "spec.toml"]
    assert "32" in outer.spec.read_text()
    assert inner.finished


def test_resume_and_overwrite_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="resume and overwrite exclude each other"):
        Run.create(tmp_path, "a", SPEC, resume=True, overwrite=True)


def test_run_opens_by_folder_and_by_name(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "digits/a", SPEC)
    assert Run.open(run.path) == Run.open("digits/a", root=tmp_path) == run


def test_unknown_run_names_the_nearest(tmp_path: Path) -> None:
    Run.create(tmp_path, "digits/a75_w4a4", SPEC)
    with pytest.raises(CheckpointError, match=r"There is no run digits/a75_w4a5.*Nearest: digits/a75_w4a4\."):
        Run.open("digits/a75_w4a5", root=tmp_path)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), r"No run is there: qprune fit SPEC makes one\.$"),
        (("digits/a",), r"There are: digits/a\.$"),
        (("d", "c", "b", "a"), r"There are: a, b, c and 1 more\.$"),
    ],
)
def test_unknown_run_that_is_like_none_names_those_that_are_there(
    names: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    for name in names:
        Run.create(tmp_path, name, SPEC)
    with pytest.raises(CheckpointError, match=told):
        Run.open("nothing/here", root=tmp_path)


def test_resuming_may_change_where_and_how_often_but_not_what(tmp_path: Path) -> None:
    Run.create(tmp_path, "a", SPEC)
    other = SPEC.replace("[train]", "prefetch = 4\n[train]\ncheckpoint_every = '5ep'")
    assert Run.create(tmp_path, "a", other, resume=True).spec.read_text() == SPEC


def test_overwrite_removes_the_link_to_event_files_not_the_files(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "events").touch()
    run = Run.create(tmp_path, "a", SPEC)
    run.tensorboard.symlink_to(elsewhere)
    Run.create(tmp_path, "a", SPEC, overwrite=True)
    assert not run.tensorboard.is_symlink()
    assert (elsewhere / "events").is_file()


def test_overwrite_removes_what_killed_processes_left(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "a", SPEC)
    (run.path / ".last.pt.123.part").touch()
    Run.create(tmp_path, "a", SPEC, overwrite=True)
    assert [path.name for path in run.path.iterdir()] == ["spec.toml"]


def test_run_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(
        CheckpointError, match=r"a/b cannot be written: Not a directory\. .* another folder with --runs"
    ):
        Run.create(tmp_path, "a/b", SPEC)


def test_links_within_a_run_and_to_a_run_are_followed(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "a", SPEC)
    save(run.path / "step5.pt", {"step": 5, "net": {}})
    run.last.symlink_to("step5.pt")
    (tmp_path / "b").symlink_to(run.path)
    assert Run.open(tmp_path / "b").read_last()["step"] == 5


def test_last_is_read_while_it_is_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run.create(tmp_path, "a", SPEC)
    assert not run.resumable
    for step in (5, 6):
        save(run.last, {"step": step, "net": {}}, keep_as=run.previous.name)
    assert run.resumable
    assert run.read_last()["step"] == 6
    assert caplog.records == []
