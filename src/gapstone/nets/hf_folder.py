"""`hf:FOLDER`: what a model folder of Hugging Face says of its network; nothing in it is run, nothing is fetched."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from gapstone.console.formatting import display
from gapstone.nets.state_dicts import check_size
from gapstone.storage.paths import sentence

PREFIX = "hf:"

LONGEST_CONFIG = 4_000_000  # bytes; the names of 21,000 classes take 2 MB
LONGEST_KEPT = 100_000  # characters of the part that makes the network

UNUSED = (
    "auto_map", "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "_attn_implementation_autoset", "torch_dtype", "dtype", "_name_or_path", "transformers_version", "architectures",
    "id2label", "label2id", "num_labels",
    "return_dict", "use_return_dict", "torchscript", "output_hidden_states", "output_attentions", "problem_type",
)  # fmt: skip
"""Keys of config.json that do not change the network without its head, or that would load code: they are left out."""

Config = dict[str, Any]


def folder_of(backbone: str) -> Path:
    """The folder that `hf:FOLDER` names."""
    return Path(backbone.removeprefix(PREFIX)).expanduser()


def short_name(backbone: str) -> str:
    """`hf:` and the name of the folder, which says nothing of the machine it lay on.

    >>> short_name("hf:/home/me/models/dinov2-small")
    'hf:dinov2-small'
    """
    return f"{PREFIX}{folder_of(backbone).resolve().name[:100]}"


def read_config(folder: Path) -> Config:
    """The whole of config.json.

    Raises ValueError for a folder that is none, or that holds no network or one that gapstone does not open.
    """
    who = f"hf:{display(folder)}"
    if not folder.is_dir():
        what = "is a file; give the folder it lies in" if folder.exists() else "is no folder on this machine"
        raise ValueError(
            f"{who} {what}. hf: opens a folder with config.json and model.safetensors and downloads nothing: fetch a "
            f"model once, with `hf download NAME --local-dir FOLDER`"
        )
    config = read_json(folder / "config.json", who)
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{who} holds an adapter of another model: merge it into the model and save that")
    if not isinstance(config.get("model_type"), str):
        raise ValueError(f"{who}: its config.json names no model_type, so it is no model of transformers")
    if config.get("quantization_config") is not None:
        raise ValueError(f"{who} holds quantised weights; take the model in float32, bfloat16 or float16")
    return config


def read_json(path: Path, who: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError that begins with `who` for anything else."""
    try:
        if path.stat().st_size > LONGEST_CONFIG:
            raise ValueError(
                f"{who}: {path.name} has {path.stat().st_size:,} bytes, and at most {LONGEST_CONFIG:,} count"
            )
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(
            f"{who} has no {path.name}: copy the whole folder, as `hf download` or save_pretrained write it"
        ) from None
    except OSError as error:
        raise ValueError(f"{who}: {path.name}: {sentence(OSError(error.errno, error.strerror))}") from error
    except RecursionError as error:
        raise ValueError(f"{who}: {path.name} is damaged ({error}); copy it again") from error
    except ValueError as error:
        if str(error).startswith(who):
            raise
        raise ValueError(f"{who}: {path.name} is damaged ({error}); copy it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{who}: {path.name} is no JSON object; copy it again")
    return found


def kept(config: Config) -> str:
    """The part of a configuration that makes the network without its head, as text that a model file holds."""

    def clean(value: Any) -> Any:
        return {key: clean(v) for key, v in value.items() if key not in UNUSED} if isinstance(value, dict) else value

    text = json.dumps(clean(config), sort_keys=True)
    if len(text) > LONGEST_KEPT:
        raise ValueError(
            f"config.json describes a network in {len(text):,} characters; at most {LONGEST_KEPT:,} are kept"
        )
    return text


@cache
def _text(folder: Path, changed: int) -> str:
    return kept(read_config(folder))


def config_text(backbone: str) -> str:
    """`kept` of the folder that `hf:FOLDER` names. Raises as `read_config`."""
    folder = folder_of(backbone)
    file = folder / "config.json"
    return _text(folder, file.stat().st_mtime_ns if file.is_file() else 0)


def check_weights(folder: Path) -> None:
    """Raises ValueError where the folder has no weights as safetensors, or more than this machine can open."""
    who, index = f"hf:{display(folder)}", folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        check_size(folder / "model.safetensors")
        return
    if index.is_file():
        parts = read_json(index, who).get("weight_map")
        names = set(parts.values()) if isinstance(parts, dict) else {None}
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
                raise ValueError(
                    f"{who}: {index.name} names {display(str(name))}, which is no file of the folder; copy it again"
                )
            check_size(folder / name)
        return
    pickled = next(
        (p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.msgpack", "*.h5") for p in folder.glob(pattern)), None
    )
    if pickled:
        raise ValueError(
            f"{who} holds {display(pickled)}, and pickled or foreign weights are not opened: they can run code. Save "
            f"them once as safetensors, where they are trusted: AutoModel.from_pretrained(FOLDER).save_pretrained(NEW)"
        )
    raise ValueError(f"{who} has no model.safetensors: copy the whole folder, as `hf download` writes it")
