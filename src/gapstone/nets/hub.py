"""Can timm's pretrained weights be had? Asked before any work: the hub's client alone tries for minutes.

On this machine already (the hub's cache), or a server that answers within seconds.
"""

import os
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from gapstone.nets.packaged_weights import package_of

SECONDS = 5.0  # a server that says nothing for so long is none
FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
"""What timm looks for in a repository of the hub."""


def check_pretrained(name: str) -> None:
    """Raises ValueError where nobody has published weights for timm's `name`; OSError where they are neither here nor
    within reach.
    """
    import timm

    if package_of(name):
        return
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if config is None or not config.has_weights:
        some = timm.list_pretrained(f"{name.partition('.')[0].rstrip('0123456789')}*")[:3]
        way = f"such as {', '.join(f'timm:{similar}' for similar in some)}" if some else "see timm.list_pretrained()"
        raise ValueError(f"timm:{name} has no pretrained weights; take one that has, {way}, or leave --pretrained out.")
    if _is_here(config):
        return
    url = _url(config)
    if url is None:  # a file or folder of this machine's
        return
    try:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise OSError("HF_HUB_OFFLINE is set")
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers; whether it gives them is seen when they are fetched
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise OSError(
            f"timm:{name}: its pretrained weights are not on this machine, and {url.split('/')[2]} cannot be reached "
            f"({why}): connect this machine once, or give a file of them with --weights FILE."
        ) from error


def weights_on_this_machine(name: str) -> str | None:
    """Where timm's `name` has pretrained weights that need no download, in words; None if nowhere, or without timm."""
    if package := package_of(name):
        return f"the package {package.distribution} {package.version}"
    try:
        import timm
    except ImportError:
        return None
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    return "timm's hub, downloaded before" if config is not None and config.has_weights and _is_here(config) else None


def _is_here(config: Any) -> bool:
    if config.hf_hub_id:
        with suppress(ImportError):
            from huggingface_hub import try_to_load_from_cache

            names = (config.hf_hub_filename,) if config.hf_hub_filename else FILES
            repository, _, revision = config.hf_hub_id.partition("@")
            return any(
                isinstance(try_to_load_from_cache(repository, file, revision=revision or None), str) for file in names
            )
    if config.url:
        return bool((Path(torch.hub.get_dir()) / "checkpoints" / config.url.rpartition("/")[2]).is_file())
    return False


def _url(config: Any) -> str | None:
    if config.hf_hub_id:
        return f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{config.hf_hub_id.partition('@')[0]}"
    return config.url or None
