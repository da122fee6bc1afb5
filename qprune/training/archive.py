"""Checks a checkpoint's file before torch reads it: plain records, no larger than the file, no code."""

import pickletools
import re
from struct import Struct
from typing import IO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

_NEAR, _FAR = Struct("<4s4H2LH"), Struct("<4sQ2H2L4Q4sLQL")  # the last records of a zip file, APPNOTE 4.3.14 to 4.3.16
_NAMES = re.compile(
    r"torch\._utils _rebuild_tensor_v[23]|collections OrderedDict"
    r"|torch\.storage UntypedStorage|torch \w+Storage|torch (?:u?int|float|bfloat|complex)\d\w*"
)


class UnsafeError(Exception):
    """Why a file must not be read; without the file's name, which the caller knows."""


def check_archive(file: IO[bytes]) -> list[int]:
    """Refuse a checkpoint's file that is a bomb or names code, before it is built; bytes of each tensor storage."""
    with ZipFile(file) as archive:
        records = archive.infolist()
        _check_records(records, file)
        pickles = [record.filename for record in records if record.filename.lower().endswith(".pkl")]
        if len(pickles) != 1 or not re.fullmatch(r"[^/]+/data\.pkl", pickles[0]):
            raise UnsafeError("it is a zip file, but not one of tensors and plain types")
        _check_names(archive.read(pickles[0]))
    return [record.file_size for record in records if re.fullmatch(r"[^/]+/data/\d+", record.filename)]


def _check_records(records: list[ZipInfo], file: IO[bytes]) -> None:
    size = file.seek(0, 2)
    declared = sum(record.file_size for record in records)
    if declared > size:
        raise UnsafeError(f"it is {size:,} bytes long and declares to hold {declared:,}")
    if any(record.compress_type != ZIP_STORED or record.file_size != record.compress_size for record in records):
        raise UnsafeError("it is compressed, and a checkpoint never is")
    # what two readers of zip files could understand differently
    names = {record.orig_filename.lower() for record in records}
    roots = {name.split("/")[0] for name in names}
    if len(names) < len(records) or len(roots) > 1 or any("\0" in name for name in names) or not _ends_once(file, size):
        raise UnsafeError("it is a zip file with two meanings")


def _ends_once(file: IO[bytes], size: int) -> bool:
    """Whether the list of records is told of in one place, the end, and lies right before it."""
    file.seek(-min(size, _FAR.size + _NEAR.size), 2)
    end = file.read()
    *_, length, offset, comment = _NEAR.unpack(end[-_NEAR.size :])
    told = _NEAR.size
    if end[:4] == b"PK\6\6":  # torch also writes the record of zip files beyond 4 GiB
        *_, length, offset, _, _, start, _ = _FAR.unpack(end[: _FAR.size])
        told = len(end) if start + len(end) == size else 0
    return comment == 0 and offset + length + told == size


def _check_names(pickle: bytes) -> None:
    for opcode, name, _ in pickletools.genops(pickle):
        if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            raise UnsafeError("it refers to code, and a checkpoint never does")
        if opcode.name == "GLOBAL" and not _NAMES.fullmatch(str(name)):
            known = str(name).replace(" ", ".")[:60]
            raise UnsafeError(f'it refers to code, "{known}", of which nothing was run; a checkpoint never does')
