"""Save and load checkpoints: files that are written completely or not at all, and that contain no code.

A state consists of the results of ``state_dict`` methods and of anything else to be saved with them: dicts with
string keys, lists, arrays, numbers, strings, ``True``, ``False`` and ``None``. Subclasses (such as
``OrderedDict``, ``IntEnum`` or masked arrays) are rejected, because the file could not restore what they add.
Arrays, including memory maps, are loaded as NumPy arrays. NumPy scalars keep their type, except ``float64`` and
``str_``, which are subclasses of Python's ``float`` and ``str`` and are loaded as those.

The file is a zip archive. Each array is stored in NumPy's own format under its path, for example
``optimizer/state/m/0.npy``. Everything else is in ``state.json``, where an array is replaced by the name of its
dtype; a scalar is an array without axes that is listed there as a scalar. Therefore ``np.load`` reads the file
like any ``.npz``, and no pickle is ever opened. The same state gives the same bytes.
"""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import numpy as np

from fastopt._array_api import ml_dtype, to_numpy
from fastopt._array_utils import is_array

__all__ = ["load", "save"]

_FORMAT = 1
_JSON = "state.json"
_PLAIN = type(None), bool, int, float, str, np.float64, np.str_


def save(file: str | os.PathLike[str], state: Any) -> None:
    """Write a state to a file, which keeps its old content until all of the new one is on the disk.

    Args:
        file: the path. The state is written to a temporary file in the same folder (``FILE.xxxxxxxx.tmp``),
            flushed to the disk and renamed. The rename happens completely or not at all, even if the program is
            killed or the power fails. If ``file`` is a symbolic link, its target is replaced. An existing file
            keeps its mode. A folder, FIFO, device or socket is rejected.
        state: as described above; read only. Arrays of other libraries are copied to the host.

    Raises:
        TypeError: if the state contains something that a file could not restore exactly, such as a tuple.
            Nothing is written.
        ValueError: if the state contains itself. Nothing is written.
        ImportError: if it contains torch's bfloat16 and ``ml_dtypes``, which provides that dtype to NumPy, is
            not installed. Nothing is written.
        OSError: if the file cannot be written. An existing file keeps its content.

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
    try:
        plain = _plain(state, (), arrays)
    except RecursionError:
        raise ValueError("state is nested too deeply, or contains itself") from None
    scalars = [name for name, array in arrays.items() if isinstance(array, np.generic)]
    document = {"fastopt": _FORMAT, "arrays": list(arrays), "scalars": scalars, "state": plain}
    text = json.dumps(document, indent=1)

    def write(f: IO[bytes]) -> None:
        with zipfile.ZipFile(f, "w") as archive:
            archive.writestr(zipfile.ZipInfo(_JSON), text)  # ZipInfo's date is 1980, not now
            for name, array in arrays.items():
                with archive.open(name, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)

    _replace(os.fsdecode(file), write)


def load(file: str | os.PathLike[str]) -> Any:
    """Read a state from a file. Its arrays are NumPy arrays, which every ``load_state_dict`` accepts, whatever
    the library of its own arrays.

    Raises:
        ValueError: if the file was not written by :func:`save`, or is corrupted: each array has a checksum.
        ImportError: if it contains bfloat16 and ``ml_dtypes``, which provides that dtype to NumPy, is not
            installed.
        OSError: if the file does not exist or cannot be read.
    """
    with open(file, "rb") as f:
        try:
            return _state(f)
        except Exception as e:  # zipfile and NumPy raise exceptions of many types
            if _is_external(e):
                raise
            raise ValueError(
                f"{os.fsdecode(file)} is not a fastopt checkpoint, or is corrupted: {e}"
            ) from None


def _is_external(error: Exception) -> bool:
    """Return whether the cause is something else than the content of the file."""
    if isinstance(error, OSError):
        # A corrupted offset gives EINVAL; bz2 raises an error without a number for invalid data.
        return error.errno not in (None, errno.EINVAL)
    return isinstance(error, (ImportError, MemoryError))


def _plain(value: Any, path: tuple[str, ...], arrays: dict[str, Any]) -> Any:
    """Convert ``value`` for JSON; its arrays and NumPy scalars are added to ``arrays``."""
    if type(value) in _PLAIN:
        return value
    if type(value) is dict:
        if others := [key for key in value if type(key) not in (str, np.str_)]:
            raise TypeError(f"{_place(path)} has the key {others[0]!r}, expected strings")
        return {key: _plain(entry, (*path, key), arrays) for key, entry in value.items()}
    if type(value) is list:
        return [_plain(entry, (*path, str(i)), arrays) for i, entry in enumerate(value)]
    if _is_saved(value):
        array = value if isinstance(value, np.generic) else to_numpy(value)
        _require_name(path)
        _require_dtype(path, array.dtype)
        arrays[_member(path)] = array
        return str(array.dtype)
    raise TypeError(
        f"{_place(path)} has type {type(value).__name__}, expected a dict, list, array, int, float, str, bool "
        f"or None, and no subclass of these{'; convert it to a list' if type(value) is tuple else ''}"
    )


def _is_saved(value: Any) -> bool:
    """Return whether ``value`` is an array or a NumPy scalar that its file restores completely."""
    if isinstance(value, (bytes, bytearray)):
        return False
    if isinstance(value, np.generic):
        return type(value) is value.dtype.type
    return type(value) in (np.ndarray, np.memmap) if isinstance(value, np.ndarray) else is_array(value)


def _require_name(path: tuple[str, ...]) -> None:
    """Check that the keys that lead to an array give a name that the archive can store."""
    name = _member(path)
    try:
        if "\0" not in name and len(name.encode()) < 2**16:
            return
    except UnicodeEncodeError:  # half of a surrogate pair
        pass
    raise TypeError(
        f"{_place(path)} is an array whose keys cannot be stored as a name in the archive; expected less "
        "than 64 KiB of UTF-8, without NUL"
    )


def _require_dtype(path: tuple[str, ...], dtype: np.dtype[Any]) -> None:
    """Check by a trial that NumPy's format restores the dtype of an array; there are many that it does not."""
    if dtype.metadata or repr(_read_back(dtype)) != repr(dtype):
        text = f"{dtype} with metadata" if dtype.metadata else str(dtype)
        raise TypeError(f"{_place(path)} has dtype {text}, which a file cannot restore")


def _read_back(dtype: np.dtype[Any]) -> Any:
    """Return the dtype of an empty array after writing and reading it; ``None`` if that fails."""
    content = io.BytesIO()
    try:
        np.lib.format.write_array(content, np.ndarray(0, dtype), allow_pickle=False)
        content.seek(0)
        return _named(np.lib.format.read_array(content, allow_pickle=False), str(dtype)).dtype
    except Exception:  # of as many types as for a corrupted file
        return None


def _state(f: IO[bytes]) -> Any:
    with zipfile.ZipFile(f) as archive:
        document = json.loads(archive.read(_JSON))
        if document["fastopt"] != _FORMAT:
            raise ValueError(f"its format is {document['fastopt']!r}, expected {_FORMAT}")
        arrays = {}
        # Iterate over the listed names, not the archive's: a missing entry must raise.
        for name in document["arrays"]:
            content = io.BytesIO(archive.read(name))  # to the end, where zipfile compares the checksum
            arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
    scalars = set(document.get("scalars", ()))  # older files do not list their scalars
    return _filled(document["state"], (), arrays, scalars)


def _filled(
    value: Any, path: tuple[str, ...], arrays: dict[str, np.ndarray[Any, Any]], scalars: set[str]
) -> Any:
    """Put the arrays and scalars back into a state read from JSON."""
    if isinstance(value, dict):
        return {key: _filled(entry, (*path, key), arrays, scalars) for key, entry in value.items()}
    if isinstance(value, list):
        return [_filled(entry, (*path, str(i)), arrays, scalars) for i, entry in enumerate(value)]
    if (array := arrays.get(_member(path))) is None:
        return value
    array = _named(array, value)
    return array[()] if _member(path) in scalars else array


def _named(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Give an array that was read as raw bytes, as bfloat16 is, its dtype back."""
    if array.dtype.kind == "V" and str(array.dtype) != dtype:
        return array.view(ml_dtype(dtype))
    return array


def _member(path: tuple[str, ...]) -> str:
    """Return an array's name in the archive. Slashes in keys are escaped as in RFC 6901: names are unique."""
    return "/".join(key.replace("~", "~0").replace("/", "~1") for key in path) + ".npy"


def _place(path: tuple[str, ...]) -> str:
    return "state" + "".join(f"[{key!r}]" for key in path)


def _replace(file: str, write: Callable[[IO[bytes]], None]) -> None:
    """Replace a file's content, or leave it as it is on any error."""
    mode = _regular_mode(file)
    file = os.path.realpath(file)  # replace the target of a link, not the link
    folder = os.path.dirname(file)
    temporary = f"{file}.{secrets.token_hex(4)}.tmp"
    with _new_file(temporary, folder) as f:
        try:
            if mode is not None:
                os.fchmod(f.fileno(), mode)
            write(f)
            f.flush()
            os.fsync(f.fileno())
            with _opened_folder(folder) as descriptor:
                os.replace(temporary, file)
                if descriptor is not None:
                    os.fsync(descriptor)  # the folder holds the new name
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def _regular_mode(file: str) -> int | None:
    """Return the mode of a regular file, ``None`` if there is none, and reject everything else."""
    if not file:
        raise FileNotFoundError(errno.ENOENT, "The name of the file is empty", file)
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "Is a folder, expected a file", file)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Is a FIFO, device or socket, expected a regular file", file)
    return stat.S_IMODE(mode)


def _new_file(temporary: str, folder: str) -> IO[bytes]:
    try:
        return open(temporary, "xb")
    except (FileNotFoundError, NotADirectoryError, PermissionError) as e:
        raise type(e)(e.errno, e.strerror, folder) from None  # the user did not name the temporary file


@contextmanager
def _opened_folder(folder: str) -> Iterator[int | None]:
    """A descriptor of the folder to flush it, opened before anything is replaced; ``None`` if the folder may be
    written but not read."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
