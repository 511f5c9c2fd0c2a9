# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What a teacher made of each picture, kept on disk, so that it looks at a picture once and not once an epoch.

Entries are keyed by the pixels themselves and lie in one LMDB environment, whose transactions make an entry whole or
absent whatever happens to the process or the disk, and let several processes fill it at once. A value is a safetensors
file in bytes: nothing that could run code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import DataError, MissingExtraError, UsageError

__all__ = ["CacheForm", "FormCost", "TeacherCache", "content_key", "form_cost"]

CacheForm = Literal["half", "compact"]
Arrays = dict[str, NDArray[Any]]

_IDENTITY = b"identity"
_SCALE = ".scale"  # ends the name of the scales of a compact array
_LIMIT = 2**36


def content_key(rgb: NDArray[np.uint8], view: str = "") -> str:
    """Key of a picture by what it shows, not by where it lies.

    Args:
        rgb: (H, W, 3) uint8, as the teacher's `ImageSpec` is applied to.
        view: names a variation that can be made again, such as a seed of augmentation; empty for the picture itself.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{rgb.shape} {rgb.dtype} {view}\n".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


class TeacherCache:
    """Arrays of one teacher by content key; used as a context manager.

    Processes open it for themselves: an object that crosses a fork opens the environment anew on first use.

    Args:
        folder: made where it is missing.
        identity: what the arrays depend on besides the picture: the teacher's sha256, its `ImageSpec`, what is kept.
        form: `half` keeps 16-bit floats; `compact` 8-bit integers with a scale a channel, half of that.
        limit: bytes that the cache may grow to.

    Raises:
        UsageError: the folder holds what another teacher, or another form, made.
        DataError: the folder cannot be used.
        MissingExtraError: lmdb is not installed.
    """

    def __init__(
        self,
        folder: Path | str,
        identity: Mapping[str, Any],
        *,
        form: CacheForm = "half",
        limit: int = _LIMIT,
    ) -> None:
        if form not in get_args(CacheForm):
            raise UsageError(f"TeacherCache: form is '{form}', expected one of {get_args(CacheForm)}.")
        self.folder, self.form, self.limit = Path(folder), form, limit
        self.identity = json.dumps({**identity, "form": form}, sort_keys=True)
        self.hits = self.misses = 0
        self._process = -1
        self._environment: Any = None
        self._check_identity()

    def read(self, keys: Sequence[str]) -> list[Arrays | None]:
        """Arrays under each key as float32, None where there are none yet; counts hits and misses."""
        from safetensors.numpy import load

        with self._open().begin() as transaction:
            values = [transaction.get(key.encode()) for key in keys]
        found = [None if value is None else _unpacked(load(bytes(value))) for value in values]
        self.hits += sum(entry is not None for entry in found)
        self.misses += sum(entry is None for entry in found)
        return found

    def write(self, entries: Mapping[str, Mapping[str, NDArray[np.floating[Any]]]]) -> None:
        """Add entries, all of them or none.

        Args:
            entries: key -> name -> array of floats, channels first.

        Raises:
            DataError: the disk or the limit is full; what was there before stays readable.
        """
        from safetensors.numpy import save

        values = {key: save(_packed(arrays, self.form)) for key, arrays in entries.items()}
        environment, errors = self._open(), _lmdb()
        try:
            with environment.begin(write=True) as transaction:
                for key, value in values.items():
                    transaction.put(key.encode(), value)
        except errors.MapFullError as error:
            raise DataError(
                f"{self.folder}: teacher cache is full at {self.limit / 1e9:.3g} GB. Allow more, or use form 'compact'."
            ) from error
        except errors.Error as error:
            raise DataError(
                f"{self.folder}: teacher cache cannot be written ({error}). Free some space; what is there stays."
            ) from error

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that have no entry, in their order, each once; counts nothing."""
        with self._open().begin() as transaction:
            return [key for key in dict.fromkeys(keys) if transaction.get(key.encode()) is None]

    def __len__(self) -> int:
        """Number of entries."""
        return int(self._open().stat()["entries"]) - 1  # less the identity

    @property
    def size(self) -> int:
        """Bytes that the entries take on disk."""
        environment = self._open()
        return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])

    def close(self) -> None:
        """Let go of the environment; it opens again when it is needed."""
        if self._environment is not None and self._process == os.getpid():
            self._environment.close()
        self._environment = None

    def __enter__(self) -> TeacherCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Without the environment, which belongs to one process."""
        return {**self.__dict__, "_environment": None, "_process": -1}

    def _open(self) -> Any:
        if self._environment is None or self._process != os.getpid():
            lmdb = _lmdb()
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                # no read-ahead: entries are asked for in random order
                self._environment = lmdb.open(str(self.folder), map_size=self.limit, readahead=False)
            except (OSError, lmdb.Error) as error:
                raise DataError(
                    f"{self.folder}: teacher cache cannot be opened ({error}). Choose another folder."
                ) from error
            self._process = os.getpid()
        return self._environment

    def _check_identity(self) -> None:
        """Write the identity of a new cache, compare that of one that exists."""
        lmdb = _lmdb()
        try:
            with self._open().begin(write=True) as transaction:
                transaction.put(_IDENTITY, self.identity.encode(), overwrite=False)
                found = bytes(transaction.get(_IDENTITY)).decode()
        except lmdb.Error as error:
            raise DataError(
                f"{self.folder}: teacher cache cannot be written ({error}). Choose another folder."
            ) from error
        if found != self.identity:
            theirs, ours = json.loads(found), json.loads(self.identity)
            names = sorted(k for k in theirs.keys() | ours.keys() if theirs.get(k) != ours.get(k))
            self.close()
            raise UsageError(
                f"{self.folder}: holds what another teacher made (other {', '.join(names)}), expected the one given. "
                "Choose another folder for this one."
            )


class FormCost(NamedTuple):
    """What keeping something in a form costs.

    Attributes:
        bytes: that it takes.
        error: root mean square of what changes, over that of what is kept.
    """

    bytes: int
    error: float


def form_cost(array: NDArray[np.floating[Any]], form: CacheForm) -> FormCost:
    """Bytes and error of one array, channels first, in one form."""
    packed = _packed({"array": array}, form)
    change = _unpacked(packed)["array"] - array
    error = np.sqrt(np.square(change).mean() / np.square(array).mean())
    return FormCost(sum(part.nbytes for part in packed.values()), float(error))


def _packed(arrays: Mapping[str, NDArray[np.floating[Any]]], form: CacheForm) -> Arrays:
    """Arrays in the form in which they are kept."""
    out: Arrays = {}
    for name, array in arrays.items():
        if form == "half" or array.ndim < 2:
            out[name] = np.ascontiguousarray(array, np.float16)
            continue
        rest = tuple(range(1, array.ndim))
        scale = np.maximum(np.abs(array).max(rest, keepdims=True) / 127, 1e-12).astype(np.float32)
        # safetensors writes memory as it lies: an array of a channels-last network would come back shuffled
        out[name] = np.ascontiguousarray(np.rint(array / scale), np.int8)
        out[name + _SCALE] = scale
    return out


def _unpacked(stored: Arrays) -> Arrays:
    """The same as float32."""
    out: Arrays = {}
    for name, array in stored.items():
        if not name.endswith(_SCALE):
            scale = stored.get(name + _SCALE)
            out[name] = array.astype(np.float32) if scale is None else array * scale
    return out


def _lmdb() -> Any:
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise MissingExtraError("lmdb", "train") from error
    return lmdb
