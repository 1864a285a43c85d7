"""State on disk: a file that is there whole or not at all, and that holds no code.

A state is made of what ``state_dict`` methods return and of what else is to be kept: dicts with strings for
keys, lists, arrays, numbers, strings, ``True``, ``False`` and ``None``. A type derived from these, as
``OrderedDict`` is, or ``IntEnum``, or an array with a mask, would come back without what it adds, so it is
refused. Arrays come back as NumPy's, memory maps too. NumPy's scalars come back as what they were, but for
``float64`` and ``str_``, which are Python's ``float`` and ``str`` and come back as those.

The file is a zip archive: each array in NumPy's own format under its path, ``optimizer/state/m/0.npy``, and all
else in ``state.json``, where an array's place holds the name of its dtype; a scalar is an array without axes
that is listed there as one. So ``np.load`` reads it as it reads any ``.npz``, and no pickle is ever opened. The
same state gives the same bytes.
"""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import stat
import zipfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import numpy as np

from fastopt._array_api import ml_dtype, to_numpy
from fastopt._array_utils import is_array

__all__ = ["load", "save"]

_FORMAT = 1
_JSON = "state.json"
_PLAIN = type(None), bool, int, float, str, np.float64, np.str_


def save(file: str | os.PathLike[str], state: Any) -> None:
    """Write a state; what was in the file before stays there until all of the new one is on the disk.

    Args:
        file: its path. It is written under another name beside it (``FILE.xxxxxxxx.tmp``), flushed to the disk
            and renamed, which happens whole or not at all, even if the program is killed or the power fails.
            Of a symbolic link it is the target that is replaced. A file that was there keeps its mode.
        state: as above; only read. Arrays of other libraries are copied to the host.

    Raises:
        TypeError: something that a file cannot give back as it was, a tuple for one; nothing is written.
        ImportError: torch's bfloat16, where ``ml_dtypes`` is not installed, from which NumPy has it; likewise.
        OSError: the file cannot be written; what was there before is still there.

    >>> import os, tempfile
    >>> import numpy as np, fastopt
    >>> opt = fastopt.Adam([np.ones(2)])
    >>> opt.step([np.ones(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "run.npz")
    ...     fastopt.checkpoint.save(file, {"params": opt.params, "optimizer": opt.state_dict()})
    ...     state = fastopt.checkpoint.load(file)
    >>> state["optimizer"]["step_count"], state["optimizer"]["state"]["m"]
    (1, [array([0.1, 0.1])])
    """
    arrays: dict[str, Any] = {}
    plain = _plain(state, (), arrays)
    scalars = [name for name, array in arrays.items() if isinstance(array, np.generic)]
    document = {"fastopt": _FORMAT, "arrays": list(arrays), "scalars": scalars, "state": plain}
    text = json.dumps(document, indent=1)

    def write(f: IO[bytes]) -> None:
        with zipfile.ZipFile(f, "w") as archive:
            archive.writestr(zipfile.ZipInfo(_JSON), text)  # which has 1980 for its date, not now
            for name, array in arrays.items():
                with archive.open(name, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)

    _replace(os.fspath(file), write)


def load(file: str | os.PathLike[str]) -> Any:
    """Read a state back. Its arrays are NumPy's; every ``load_state_dict`` takes them, whatever the library of
    its own arrays.

    Raises:
        ValueError: the file was not written by :func:`save`, or is damaged: each array has a check sum.
        ImportError: it holds bfloat16, and ``ml_dtypes``, from which NumPy has it, is not installed.
        OSError: it cannot be read, or there is none.
    """
    with open(file, "rb") as f:
        try:
            return _state(f)
        except Exception as e:  # zipfile and NumPy raise almost any
            if _is_elsewhere(e):
                raise
            raise ValueError(
                f"{os.fspath(file)} is no checkpoint of fastopt, or is damaged: {e}"
            ) from None


def _is_elsewhere(error: Exception) -> bool:
    """Whether the fault is not the content's."""
    if isinstance(error, OSError):
        # A damaged offset gives EINVAL; what is no compressed data, to bz2, an error without a number.
        return error.errno not in (None, errno.EINVAL)
    return isinstance(error, (ImportError, MemoryError))


def _plain(value: Any, path: tuple[str, ...], arrays: dict[str, Any]) -> Any:
    """``value`` as JSON has it; its arrays and NumPy's scalars go into ``arrays``."""
    if type(value) in _PLAIN:
        return value
    if type(value) is dict:
        if others := [key for key in value if type(key) not in (str, np.str_)]:
            raise TypeError(f"{_place(path)} has the key {others[0]!r}, expected strings")
        return {key: _plain(entry, (*path, key), arrays) for key, entry in value.items()}
    if type(value) is list:
        return [_plain(entry, (*path, str(i)), arrays) for i, entry in enumerate(value)]
    if _is_kept(value):
        array = value if isinstance(value, np.generic) else to_numpy(value)
        _require_name(path)
        _require_dtype(path, array.dtype)
        arrays[_member(path)] = array
        return str(array.dtype)
    raise TypeError(
        f"{_place(path)} has type {type(value).__name__}, expected a dict, a list, an array, a number, "
        "a string, True, False or None, and no type derived from these"
    )


def _is_kept(value: Any) -> bool:
    """Whether it is an array or a scalar of NumPy's, and nothing more that an array's file has no room for."""
    if isinstance(value, (bytes, bytearray)):
        return False
    if isinstance(value, np.generic):
        return type(value) is value.dtype.type
    return type(value) in (np.ndarray, np.memmap) if isinstance(value, np.ndarray) else is_array(value)


def _require_name(path: tuple[str, ...]) -> None:
    """An array's keys make a name that the archive keeps."""
    name = _member(path)
    try:
        if "\0" not in name and len(name.encode()) < 2**16:
            return
    except UnicodeEncodeError:  # half of a pair of surrogates
        pass
    raise TypeError(
        f"{_place(path)} is an array, but its keys make no name in an archive: expected less than 64 KiB "
        "of UTF-8, without NUL"
    )


def _require_dtype(path: tuple[str, ...], dtype: np.dtype[Any]) -> None:
    """An array's dtype comes back: it is tried, for there are many that NumPy's format does not keep."""
    if dtype.metadata or repr(_read_back(dtype)) != repr(dtype):
        text = f"{dtype} with metadata" if dtype.metadata else str(dtype)
        raise TypeError(f"{_place(path)} has dtype {text}, which a file does not give back")


def _read_back(dtype: np.dtype[Any]) -> Any:
    """An empty array's dtype after it was written and read; ``None`` if it cannot be."""
    content = io.BytesIO()
    try:
        np.lib.format.write_array(content, np.ndarray(0, dtype), allow_pickle=False)
        content.seek(0)
        return _named(np.lib.format.read_array(content, allow_pickle=False), str(dtype)).dtype
    except Exception:  # of as many kinds as for a file that is damaged
        return None


def _state(f: IO[bytes]) -> Any:
    with zipfile.ZipFile(f) as archive:
        document = json.loads(archive.read(_JSON))
        if document["fastopt"] != _FORMAT:
            raise ValueError(f"its format is {document['fastopt']!r}, expected {_FORMAT}")
        arrays = {}
        # Those listed, not those found: one whose entry is lost from the archive must be missed.
        for name in document["arrays"]:
            content = io.BytesIO(archive.read(name))  # to the end, where zipfile compares the check sum
            arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
    scalars = set(document.get("scalars", ()))  # which older files do not tell from arrays
    return _filled(document["state"], (), arrays, scalars)


def _filled(
    value: Any, path: tuple[str, ...], arrays: dict[str, np.ndarray[Any, Any]], scalars: set[str]
) -> Any:
    """JSON with the arrays and scalars back in their places."""
    if isinstance(value, dict):
        return {key: _filled(entry, (*path, key), arrays, scalars) for key, entry in value.items()}
    if isinstance(value, list):
        return [_filled(entry, (*path, str(i)), arrays, scalars) for i, entry in enumerate(value)]
    if (array := arrays.get(_member(path))) is None:
        return value
    array = _named(array, value)
    return array[()] if _member(path) in scalars else array


def _named(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """What was read as raw bytes, as bfloat16 is, as the dtype that it had."""
    if array.dtype.kind == "V" and str(array.dtype) != dtype:
        return array.view(ml_dtype(dtype))
    return array


def _member(path: tuple[str, ...]) -> str:
    """An array's name in the archive; slashes in keys are written as in RFC 6901, so that no two are alike."""
    return "/".join(key.replace("~", "~0").replace("/", "~1") for key in path) + ".npy"


def _place(path: tuple[str, ...]) -> str:
    return "state" + "".join(f"[{key!r}]" for key in path)


def _replace(file: str, write: Callable[[IO[bytes]], None]) -> None:
    """A file's new content, or its old one."""
    file = os.path.realpath(file)  # else a link would be replaced, not what it leads to
    temporary = f"{file}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as f:
            with suppress(FileNotFoundError):
                os.fchmod(f.fileno(), stat.S_IMODE(os.stat(file).st_mode))
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, file)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    folder = os.open(os.path.dirname(file), os.O_RDONLY)
    try:
        os.fsync(folder)  # which holds the new name
    finally:
        os.close(folder)
