"""A checkpoint is restored from its file bit for bit. It is complete or unchanged, even if writing fails.
Corrupted and foreign files are rejected with one type of error."""

from __future__ import annotations

import collections
import enum
import errno
import json
import math
import os
import pickle
import re
import stat
import zipfile

import ml_dtypes
import numpy as np
import pytest

import fastopt
from array_libraries import each_library
from fastopt import checkpoint
from subprocesses import output

STATE = {
    "nothing": None,
    "switches": [True, False],
    "counts": [0, -1, 2**64 - 1],
    "reals": [0.1, -0.0, 5e-324, math.inf, -math.inf],
    "text": 'a "quoted" µ\n',
    "empty": [{}, [], ""],
    "arrays": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "none": np.zeros((0, 4))},
}


def image(value):
    """A value that is equal for bitwise identical states of the same types."""
    if isinstance(value, dict):
        return {key: image(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [image(entry) for entry in value]
    if isinstance(value, np.generic):
        return (type(value), str(value.dtype), value.tobytes())
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.flags.f_contiguous, value.tobytes("A"))
    return (type(value), repr(value))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.npz"


@pytest.fixture
def written(file):
    checkpoint.save(file, STATE)
    return file


# ---- what is restored ----

ARRAYS = {
    **{
        str(np.dtype(d)): np.array([1.5, -2.0, 3.0]).astype(d)
        for d in ("f2", "f4", "f8", "i8", "u1", "?")
    },
    "bfloat16": np.array([1.5, -2.0, np.nan], ml_dtypes.bfloat16),
    "other byte order": np.array([1.5, -2.0], ">f4"),
    **{name: np.ones(2, getattr(ml_dtypes, name)) for name in ("float8_e4m3fn", "int4")},
    "a struct": np.array([(1, [2.0, 3.0]), (4, [5.0, 6.0])], [("n", "i1"), ("x", ">f4", 2)]),
    "text": np.array(["a", "µ"]),
    "no letters": np.zeros(2, [("a", "U0")])["a"],
    "no axes": np.array(7.0),
    "Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "NaN's own bits": np.array([0x7FF0DEAD, 0x7F800000], np.uint32).view(np.float32),
}


def test_everything_in_a_state_is_restored(written):
    assert image(checkpoint.load(written)) == image(STATE)


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_array_is_restored_bit_for_bit(array, file):
    for state in (array, {"a": [array]}):
        checkpoint.save(file, state)
        assert image(checkpoint.load(file)) == image(state)


SCALARS = [
    *(np.dtype(d).type(1) for d in ("f2", "f4", "i1", "i8", "u8", "?", "c8")),
    ml_dtypes.bfloat16(1.5),
    np.datetime64("2026-01-02", "D"),
]


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda s: str(s.dtype))
def test_numpy_scalar_is_restored_as_numpy_scalar(scalar, file):
    for state in (scalar, {"best": scalar, "array": np.asarray(scalar), "all": [scalar]}):
        checkpoint.save(file, state)
        assert image(checkpoint.load(file)) == image(state)


@pytest.mark.parametrize(
    "value", [ARRAYS["bfloat16"], ml_dtypes.bfloat16(1.5)], ids=["array", "scalar"]
)
def test_bfloat16_comes_back_in_a_process_that_has_not_imported_ml_dtypes(value, file):
    checkpoint.save(file, value)
    load = f"import fastopt; value = fastopt.checkpoint.load({str(file)!r})"
    told = "value.dtype, value.shape, value.tobytes()"
    assert output(f"{load}; print(({told}))") == str((value.dtype, value.shape, value.tobytes()))


WITHOUT_ML_DTYPES = "import sys; sys.modules['ml_dtypes'] = None; import fastopt"
NEEDS_ML_DTYPES = "bfloat16 in NumPy requires ml_dtypes, which is not installed: pip install ml_dtypes"


def import_error_without_ml_dtypes(call):
    """Return the message of the ImportError where ml_dtypes cannot be imported."""
    return output(f"{WITHOUT_ML_DTYPES}\ntry:\n  {call}\nexcept ImportError as e:\n  print(e)")


def test_loading_bfloat16_without_ml_dtypes_raises_import_error(file):
    checkpoint.save(file, ARRAYS["bfloat16"])
    assert import_error_without_ml_dtypes(f"fastopt.checkpoint.load({str(file)!r})") == NEEDS_ML_DTYPES


def test_saving_torch_bfloat16_without_ml_dtypes_raises_import_error(torch, file):
    w = "__import__('torch').ones(3).bfloat16()"
    assert (
        import_error_without_ml_dtypes(f"fastopt.checkpoint.save({str(file)!r}, {w})")
        == NEEDS_ML_DTYPES
    )
    assert not file.exists()


def test_numpys_float64_and_str_come_back_as_pythons(file):
    checkpoint.save(file, [np.float64(0.1), np.str_("a")])
    assert image(checkpoint.load(file)) == image([0.1, "a"])


def test_a_file_without_a_list_of_scalars_is_read(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            "state.json", json.dumps({"fastopt": 1, "arrays": ["a.npy"], "state": {"a": "float32"}})
        )
        with archive.open("a.npy", "w") as member:
            np.lib.format.write_array(member, np.array(0.5, np.float32))
    assert image(checkpoint.load(file)) == image({"a": np.array(0.5, np.float32)})


def test_a_strided_view_comes_back(file):
    whole = np.arange(24.0).reshape(4, 6)
    checkpoint.save(file, whole[::2, 1::3])
    np.testing.assert_array_equal(checkpoint.load(file), whole[::2, 1::3])


def test_nan_comes_back(file):
    checkpoint.save(file, math.nan)
    assert math.isnan(checkpoint.load(file))


def test_no_two_keys_share_an_array(file):
    state = {
        "a/b": np.zeros(1),
        "a": {"b": np.ones(1)},
        "a~1b": np.full(1, 2.0),
        "state.json": np.full(1, 3.0),
    }
    checkpoint.save(file, state)
    assert image(checkpoint.load(file)) == image(state)


@each_library
def test_arrays_of_any_library_come_back_as_numpys(library, file):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    checkpoint.save(file, [library.array(values)])
    assert image(checkpoint.load(file)) == image([values])


def test_torchs_bfloat16_comes_back_as_numpys(torch, file):
    saved = torch.tensor([[1.5, -2.0], [math.nan, 3e38]], dtype=torch.bfloat16)
    checkpoint.save(file, [saved, saved.T, saved[0, 0]])
    whole = saved.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    for read, expected in zip(checkpoint.load(file), (whole, whole.T, whole[0, 0]), strict=True):
        assert (read.dtype, read.tobytes()) == (expected.dtype, expected.tobytes())


def test_a_memory_map_comes_back_as_an_array(file):
    mapped = np.memmap(file.with_name("data"), np.float32, "w+", shape=(2, 3))
    mapped[:] = STATE["arrays"]["w"]
    checkpoint.save(file, mapped)
    assert image(checkpoint.load(file)) == image(STATE["arrays"]["w"])
    assert type(checkpoint.load(file)) is np.ndarray


@each_library
def test_every_stateful_object_loads_a_state_of_numpy_arrays(library, file):
    """A checkpoint's arrays are NumPy arrays; they are loaded into arrays of any library."""

    def parts():
        w = library.array(np.zeros(3, np.float32))
        x = library.array(np.arange(6, dtype=np.float32).reshape(2, 3) ** 2)
        opt, norm = fastopt.Adam([w]), fastopt.BatchNorm(3, like=w)
        return (
            w,
            x,
            opt,
            norm,
            fastopt.EMA([w], 0.5),
            fastopt.EarlyStopping(),
            fastopt.data.Standardizer(),
        )

    def states(parts):
        return [part.state_dict() for part in parts[2:]]

    old, new = parts(), parts()
    w, x, opt, norm, ema, stopper, standardizer = old
    opt.step([x[0] + 1])
    norm(x)
    ema.update()
    stopper.update(1.0, [w])
    standardizer.fit(x)
    checkpoint.save(file, states(old))
    for part, state in zip(new[2:], checkpoint.load(file), strict=True):
        part.load_state_dict(state)
    checkpoint.save(file.with_name("again.npz"), states(new))
    assert file.read_bytes() == file.with_name("again.npz").read_bytes()
    new[5].restore([new[0]])
    assert library.host(new[0]).tobytes() == library.host(w).tobytes()
    for _ in range(2):
        transformed = [library.host(s.transform(x)) for s in (standardizer, new[6])]
        np.testing.assert_array_equal(*transformed)
        for s in (standardizer, new[6]):
            s.partial_fit(x + 1)


def test_numpy_reads_the_file_and_the_same_state_gives_the_same_bytes(written, tmp_path, monkeypatch):
    with np.load(written, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["arrays/w"], STATE["arrays"]["w"])
    monkeypatch.setattr("time.time", lambda: 1e9)  # the time of writing does not change the bytes
    checkpoint.save(tmp_path / "other.npz", STATE)
    assert (tmp_path / "other.npz").read_bytes() == written.read_bytes()


# ---- states that cannot be saved ----


class Number(enum.IntEnum):
    one = 1


class Word(str, enum.Enum):
    one = "one"


class Mine(np.float32):
    pass


# Subclasses of the supported types.
DERIVED = [
    collections.OrderedDict(a=1),
    collections.defaultdict(list, a=[1]),
    collections.Counter("aab"),
    type("Listed", (list,), {})([1]),
    Number.one,
    Word.one,
    Mine(1),
    np.ma.array([1.0, 2.0], mask=[False, True]),
    np.ma.masked,
    np.ones(1).view(type("Arrayed", (np.ndarray,), {})),
    np.rec.array([(1, 2.0)], dtype="i4,f8"),
]

DTYPES = {
    "objects": object,
    "objects in a record": "O,i4",
    "a gap for alignment": np.dtype("i1,f8", align=True),
    "a record": np.dtype((np.record, "i4,f8")),
    "bfloat16 in a record": [("a", ml_dtypes.bfloat16)],
    "fields that overlap": {"names": ["a", "b"], "formats": ["f4", "f4"], "offsets": [0, 2]},
    "a kind NumPy's format lacks": ml_dtypes.float8_e5m2,
    "more fields than a header may have": [(f"field {i}", "f4") for i in range(1000)],
    "metadata": np.dtype("f4", metadata={"unit": "m"}),
}

UNSAVED = {
    "a tuple": (
        {"a": [(1, 2)]},
        r"state\['a'\]\['0'\] has type tuple, expected a dict, list, array, .*; convert it to a list$",
    ),
    "a key": ({"a": {3: 1}}, r"state\['a'\] has the key 3, expected strings"),
    "a word for a key": (
        {Word.one: 1},
        rf"state has the key {re.escape(repr(Word.one))}, expected strings",
    ),
    "an object": ({"a": object()}, r"state\['a'\] has type object"),
    "bytes": ([b"abc"], r"state\['0'\] has type bytes"),
    "bytes of NumPy's": ([np.bytes_(b"abc")], r"state\['0'\] has type bytes_"),
    **{
        type(value).__name__: (
            {"a": value},
            rf"state\['a'\] has type {type(value).__name__}, expected .* and no subclass of these$",
        )
        for value in DERIVED
    },
    **{
        name: (
            {"a": np.zeros(1, dtype)},
            r"state\['a'\] has dtype .*, which a file cannot restore$",
        )
        for name, dtype in DTYPES.items()
    },
    "a scalar record of objects": (
        {"a": np.array([(None, 1)], "O,i4")[0]},
        r"state\['a'\] has dtype .*'O'.*, which a file cannot restore$",
    ),
    "a key with a NUL": (
        {"a\0b": np.ones(1)},
        r"state\['a\\x00b'\] is an array whose keys cannot be stored",
    ),
    "half a surrogate pair": ({"\ud800": np.ones(1)}, r"state\['\\ud800'\] is an array whose keys"),
    "keys too long": (
        {"µ" * 2**15: {"a": np.ones(1)}},
        r"state\['µ+'\]\['a'\] is an array whose keys",
    ),
}


@pytest.mark.parametrize(("state", "says"), UNSAVED.values(), ids=UNSAVED)
def test_state_that_cannot_be_restored_is_rejected_and_not_written(state, says, written):
    before = written.read_bytes()
    with pytest.raises(TypeError, match="^" + says):
        checkpoint.save(written, state)
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == [written.name]


PARTS = {
    "Standardizer": lambda n: fastopt.data.Standardizer(n),
    "MiniBatches": lambda n: fastopt.data.minibatches(np.ones(3), batch_size=n, seed=n),
    "Generator": lambda n: fastopt.Generator(n, stream=n),
}


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("number", [Number.one, np.int64(1)], ids=["enumeration", "NumPy's"])
def test_numbers_of_derived_types_are_stored_as_python_numbers(number, make, file):
    state = make(number).state_dict()
    checkpoint.save(file, state)
    assert image(checkpoint.load(file)) == image(make(1).state_dict())


def test_keys_that_name_no_array_may_be_any_strings(file):
    state = {"a\0b": 1, "\ud800": "\ud800", "µ" * 2**15: None}
    checkpoint.save(file, state)
    assert image(checkpoint.load(file)) == image(state)


def test_the_longest_keys_come_back(file):
    state = {"a" * (2**16 - 5): np.ones(1)}
    checkpoint.save(file, state)
    assert image(checkpoint.load(file)) == image(state)


# ---- atomic writes ----


@pytest.mark.parametrize("place", ["zipfile.ZipFile", "os.fsync", "os.replace"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_failed_write_leaves_the_old_file_unchanged(place, kind, written, monkeypatch):
    before = written.read_bytes()

    def fail(*_):
        raise kind

    monkeypatch.setattr(place, fail)
    with pytest.raises(kind):
        checkpoint.save(written, {})
    monkeypatch.undo()
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == [written.name]


def test_the_new_file_is_on_the_disk_before_it_takes_the_name(written, monkeypatch):
    """The folder, which contains the name, is flushed afterwards."""
    done, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        done.append("folder" if os.path.isdir(target) else os.path.getsize(target))
        fsync(descriptor)

    def replaced(old, new):
        done.append((os.path.dirname(old) == os.path.dirname(new), os.path.getsize(old)))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    checkpoint.save(str(written), STATE)
    size = written.stat().st_size
    assert done == [size, (True, size), "folder"]


def test_path_without_a_folder_is_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save("run.npz", STATE)
    assert image(checkpoint.load("run.npz")) == image(STATE)


def test_new_file_has_default_permissions(written):
    plain = written.with_name("plain")
    plain.touch()
    assert written.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o777], ids=oct)
def test_existing_file_keeps_its_permissions(mode, written):
    written.chmod(mode)
    checkpoint.save(written, {})
    assert stat.S_IMODE(written.stat().st_mode) == mode


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to none yet"])
def test_a_link_is_followed(there, file):
    target = file.with_name("elsewhere") / "real.npz"
    target.parent.mkdir()
    if there:
        checkpoint.save(target, {})
    file.symlink_to(target)
    checkpoint.save(file, STATE)
    assert file.is_symlink()
    assert image(checkpoint.load(target)) == image(STATE)
    assert os.listdir(target.parent) == [target.name]


def test_a_state_that_contains_itself_is_refused(written):
    before, state = written.read_bytes(), {}
    state["again"] = [state]
    with pytest.raises(ValueError, match=r"^state is nested too deeply, or contains itself$"):
        checkpoint.save(written, state)
    assert written.read_bytes() == before


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_fifo_is_not_replaced(through_a_link, file):
    os.mkfifo(file)
    name = file.with_name("link") if through_a_link else file
    if through_a_link:
        name.symlink_to(file)
    with pytest.raises(OSError, match="Is a FIFO, device or socket, expected a regular file") as raised:
        checkpoint.save(name, STATE)
    assert raised.value.filename == str(name)
    assert stat.S_ISFIFO(file.stat().st_mode)


def test_a_device_is_not_replaced():
    before = os.stat("/dev/null")
    with pytest.raises(OSError, match="Is a FIFO, device or socket, expected a regular file"):
        checkpoint.save("/dev/null", STATE)
    assert os.stat("/dev/null").st_ino == before.st_ino


@pytest.mark.parametrize("name", ["", "folder"])
def test_path_that_is_not_a_file_is_rejected(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    kind = IsADirectoryError if name else FileNotFoundError
    with pytest.raises(kind) as raised:
        checkpoint.save(name, STATE)
    assert raised.value.filename == name
    assert os.listdir(tmp_path) == ["folder"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        checkpoint.save(tmp_path / "missing" / "run.npz", STATE)
    assert raised.value.filename == str(tmp_path / "missing")


def test_a_path_may_be_bytes(file):
    checkpoint.save(os.fsencode(file), STATE)
    assert image(checkpoint.load(os.fsencode(file))) == image(STATE)
    assert os.listdir(file.parent) == [file.name]
    file.write_text("epoch 3")
    with pytest.raises(ValueError, match=f"^{file} is not a fastopt checkpoint"):
        checkpoint.load(os.fsencode(file))


def test_save_to_a_folder_that_is_writable_but_not_readable(written, monkeypatch):
    """The error is simulated, because root can read every folder."""
    real = os.open

    def denied(path, *args, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", denied)
    checkpoint.save(written, {"a": 1})
    monkeypatch.undo()
    assert checkpoint.load(written) == {"a": 1}
    assert os.listdir(written.parent) == [written.name]


@pytest.mark.parametrize("kind", [PermissionError, FileExistsError])
def test_a_temporary_file_of_another_process_is_not_removed(kind, file, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda n: "0" * 2 * n)
    other, real = file.with_name(file.name + ".00000000.tmp"), open
    other.write_text("another's")

    def refuse(path, *args, **options):
        if str(path).endswith(".tmp"):
            raise kind(13, "refused")
        return real(path, *args, **options)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(kind):
        checkpoint.save(file, {})
    monkeypatch.undo()
    assert other.read_text() == "another's"


# ---- files that cannot be loaded ----


def test_every_truncation_is_refused(written, file):
    whole = written.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is not a fastopt checkpoint, or is corrupted"):
            checkpoint.load(file)


def test_no_flipped_bit_changes_a_value(file):
    """Every flipped bit is detected, or is in bytes that are never read, such as a date."""
    state = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": 1}
    checkpoint.save(file, state)
    whole, told = file.read_bytes(), 0
    for i in range(8 * len(whole)):
        flipped = bytes([whole[i // 8] ^ 1 << i % 8])
        file.write_bytes(whole[: i // 8] + flipped + whole[i // 8 + 1 :])
        try:
            assert image(checkpoint.load(file)) == image(state)
        except ValueError as e:
            told += str(e).startswith(str(file))
    assert told > 4 * len(whole)


def test_array_shortened_by_its_header_is_detected(file):
    checkpoint.save(file, {"a": np.zeros((40, 40))})
    file.write_bytes(file.read_bytes().replace(b"(40, 40)", b"(40, 39)"))
    with pytest.raises(ValueError, match="Bad CRC-32"):
        checkpoint.load(file)


def zipped(members):
    def write(file):
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    return write


def declared_as_compressed(file):
    """Write an archive whose directory declares its member as compressed with bz2."""
    zipped({"state.json": "{}"})(file)
    directory = b"PK\x01\x02\x14\x03\x14\0\0\0"
    whole = file.read_bytes()
    assert directory + b"\0" in whole
    file.write_bytes(whole.replace(directory + b"\0", directory + b"\x0c"))


class Bomb:
    def __reduce__(self):
        return os._exit, (1,)


FOREIGN = {
    "empty": lambda file: file.touch(),
    "text": lambda file: file.write_text("epoch 3"),
    "a pickle": lambda file: file.write_bytes(pickle.dumps(Bomb())),
    "an npz": lambda file: np.savez(file, w=np.ones(3)),
    "no bz2": declared_as_compressed,
    "another JSON": zipped({"state.json": "[]"}),
    "no JSON": zipped({"state.json": "{"}),
    "another's JSON": zipped({"state.json": json.dumps({"state": 1})}),
    "a later format": zipped({"state.json": json.dumps({"fastopt": 2, "arrays": [], "state": 1})}),
    "an array gone": zipped(
        {"state.json": json.dumps({"fastopt": 1, "arrays": ["a.npy"], "state": ["f4"]})}
    ),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_another_file_is_refused_and_left_alone(make, file):
    make(file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=f"^{file} is not a fastopt checkpoint, or is corrupted"):
        checkpoint.load(file)
    assert file.read_bytes() == before


def test_a_pickle_among_the_arrays_is_not_opened(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            "state.json", json.dumps({"fastopt": 1, "arrays": ["a.npy"], "state": {"a": "object"}})
        )
        with archive.open("a.npy", "w") as member:
            np.lib.format.write_array(member, np.array([Bomb()]), allow_pickle=True)
    with pytest.raises(ValueError, match="is not a fastopt checkpoint, or is corrupted"):
        checkpoint.load(file)


def test_a_missing_file_raises_file_not_found(file):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(file)


@pytest.mark.parametrize("kind", [MemoryError(), OSError(errno.EIO, "Input/output error")], ids=repr)
def test_errors_from_elsewhere_are_not_reported_as_corruption(kind, written, monkeypatch):
    def fail(*_):
        raise kind

    monkeypatch.setattr(zipfile.ZipExtFile, "read", fail)
    with pytest.raises(type(kind)) as raised:
        checkpoint.load(written)
    assert raised.value is kind
