# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The settings of the app, which come as text: `--conf KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from monai_effsam.errors import UsageError
from monai_effsam.inference.embedding_cache import EmbeddingCache
from monai_effsam.inference.model_path import find_model_path
from monai_effsam.labelling.service import LabellingService

__all__ = ["CONF_KEYS", "check_conf", "conf_count", "open_service"]

CONF_KEYS: Mapping[str, str] = {
    "modality": "of images that do not tell it",
    "targets": "A,B: those that this project labels; the others that the model knows are left alone",
    "model": "path of the self-prompting model",
    "prompted_model": "path of the model for boxes and clicks",
    "cache": "folder of embeddings",
    "cache_mb": "largest size of that folder [MB]",
    "train_every": "train after so many submitted labels; 0: only when asked",
    "fetch_all": "1: fetch every series of a PACS in the background, so that strategies know all of them",
}
"""What `--conf` may hold, and what it means."""

_STOCK_KEYS = frozenset({"server_mode", "models", "name"})
_CACHE_MB = 4096


def check_conf(conf: Mapping[str, str]) -> None:
    """Refuse keys that nobody reads.

    Raises:
        UsageError: a key that is unknown.
    """
    unknown = sorted(set(conf) - set(CONF_KEYS) - _STOCK_KEYS)
    if unknown:
        raise UsageError(f"conf: '{unknown[0]}' is unknown, expected one of {', '.join(CONF_KEYS)}.")


def conf_count(conf: Mapping[str, str], name: str, default: int) -> int:
    """A setting that is a whole number.

    Raises:
        UsageError: it is none.
    """
    text = conf.get(name, str(default))
    if not text.isdecimal():
        raise UsageError(f"conf: {name} is '{text}', expected a whole number: {CONF_KEYS[name]}.")
    return int(text)


def open_service(app_dir: Path, conf: Mapping[str, str]) -> LabellingService:
    """The models and caches that the settings ask for.

    Args:
        app_dir: where the cache lies, unless they say otherwise.
        conf: settings.

    Raises:
        UsageError: the model answers prompts only, or a number is none.
        UnknownNameError: a modality or target that the model does not know.
        WeightsError: a model is missing or cannot be loaded.
    """
    model, prompted = (
        find_model_path(Path(conf[name]), f"conf {name}") if conf.get(name) else None
        for name in ("model", "prompted_model")
    )
    folder = Path(conf.get("cache") or app_dir / "cache")
    service = LabellingService(
        model,
        prompted,
        modality=conf.get("modality"),
        targets=[name.strip() for name in conf.get("targets", "").split(",") if name.strip()],
        cache=EmbeddingCache(folder, disk_bytes=conf_count(conf, "cache_mb", _CACHE_MB) * 10**6),
    )
    if service.model.segmenter.promptable:
        raise UsageError(
            f"conf: model {model} answers prompts only, expected a self-prompting one. Name another."
        )
    return service
