import os
import socket

import pytest

from qprune.regular_files import open_regular, read_regular


def test_a_regular_file_is_read_through_a_link_too(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for name in ("a", "b"):
        assert read_regular(tmp_path / name, 5) == b"12345"
        with open_regular(str(tmp_path / name), 5) as file:
            assert file.read(2) == b"12"


def test_a_larger_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="it is 1,099,511,627,776 bytes long, and at most 5 are read"):
        read_regular(tmp_path / "a", 5)


def test_pipes_devices_and_sockets_are_neither_waited_for_nor_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path, kind in (("pipe", "a named pipe"), ("socket", "a socket"), ("/dev/zero", "a device")):
            with pytest.raises(OSError, match=f"it is {kind}, and only regular files are read") as error:
                read_regular(path, 5)
            assert error.value.filename == path


def test_a_pipe_that_takes_the_place_of_the_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    regular = os.stat(tmp_path / "a")
    monkeypatch.setattr(os, "stat", lambda *_, **__: regular)
    with pytest.raises(OSError, match="it is a named pipe"):
        read_regular(tmp_path / "pipe", 5)


def test_folders_and_missing_files_are_told_apart(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, 5)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "a", 5)
