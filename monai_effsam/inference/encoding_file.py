# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""An `Encoding` as the bytes of one safetensors file, whichever runtime made it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_effsam.inference.answers import Encoding
from monai_effsam.specs import Placement

__all__ = ["encoding_bytes", "pack_encoding", "unpack_encoding"]

_FORMAT = 1
_ARRAY = "array"
Arrays = dict[str, NDArray[Any]]


def encoding_bytes(encoding: Encoding) -> int:
    """What its arrays take in memory."""
    return sum(int(part.nbytes) for part in _parts(encoding.encoded))


def pack_encoding(encoding: Encoding) -> bytes | None:
    """The content of a file, exact; None for an encoder's answer of a form that is not known here."""
    from safetensors.numpy import save

    taken = _taken_apart(encoding.encoded)
    if taken is None:
        return None
    arrays, form = taken
    told = {
        "format": _FORMAT,
        "form": form,
        "placement": asdict(encoding.placement),
        "modality": encoding.modality,
        "slices": encoding.slices,
    }
    plain = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    return save(plain, metadata={"encoding": json.dumps(told)})


def unpack_encoding(content: bytes) -> Encoding | None:
    """The encoding of a file's content; None where it is damaged or of another version."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        told = json.loads(_metadata(content)["encoding"])
        if told["format"] != _FORMAT:
            return None
        placement: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in told["placement"].items()
        }
        encoded = _put_together(load(content), told["form"])
        return Encoding(encoded, Placement(**placement), told["modality"], told["slices"], {})
    except (SafetensorError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _metadata(content: bytes) -> dict[str, str]:
    """The strings in the header of a safetensors file: a length of 8 bytes, then JSON."""
    length = int.from_bytes(content[:8], "little")
    values: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return values


def _parts(encoded: Any) -> Iterator[Any]:
    """Every array or tensor in an encoder's answer."""
    if hasattr(encoded, "nbytes"):
        yield encoded
    elif isinstance(encoded, dict):
        for value in encoded.values():
            yield from _parts(value)
    elif isinstance(encoded, tuple | list):
        for value in encoded:
            yield from _parts(value)
    elif hasattr(encoded, "__dict__"):
        yield from _parts(vars(encoded))


def _taken_apart(encoded: Any) -> tuple[Arrays, dict[str, Any]] | None:
    """Arrays by name, and what it takes to put them together."""
    if isinstance(encoded, np.ndarray):
        return {_ARRAY: encoded}, {"kind": "array"}
    if isinstance(encoded, dict):
        known = all(isinstance(value, np.ndarray) for value in encoded.values())
        return (dict(encoded), {"kind": "arrays"}) if known else None
    from monai_effsam.networks.encoders import Encoded  # torch, only where torch made it

    if not isinstance(encoded, Encoded):
        return None
    import torch

    tensors = {"embedding": encoded.embedding, **{f"skip_{i}": s for i, s in enumerate(encoded.skips)}}
    last = [
        name
        for name, value in tensors.items()
        if value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
    ]
    form = {"kind": "encoded", "device": str(encoded.embedding.device), "channels_last": last}
    return {name: value.cpu().numpy() for name, value in tensors.items()}, form


def _put_together(arrays: Arrays, form: dict[str, Any]) -> Any:
    if form["kind"] == "array":
        return arrays[_ARRAY]
    if form["kind"] == "arrays":
        return arrays
    import torch

    from monai_effsam.networks.encoders import Encoded

    def tensor(name: str) -> torch.Tensor:
        value = torch.from_numpy(arrays[name]).to(form["device"])
        # the order in memory decides which kernels run, so the last digits of a mask's logits
        return value.contiguous(memory_format=torch.channels_last) if name in form["channels_last"] else value

    skips = tuple(tensor(f"skip_{i}") for i in range(len(arrays) - 1))
    return Encoded(tensor("embedding"), skips)
