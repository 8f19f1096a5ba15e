"""Model files: safetensors with gapstone's JSON in the metadata. Reads, checks and writes them.

The format: the header's length (8 bytes, little-endian), the header (JSON: name → dtype, shape, offsets), the numbers.
The header is checked before the numbers are read.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from gapstone.console.formatting import count_noun
from gapstone.nets.state_dicts import LONGEST_HEADER, not_sound
from gapstone.runtime.environment import memory
from gapstone.storage.atomic import write_atomic
from gapstone.storage.paths import sentence

KEY = "gapstone"
"""The entry of the metadata that holds gapstone's JSON."""

CHECKSUM = "sha256"
"""The field of that JSON that holds the SHA-256 of all other fields and of all tensors."""

SAFETENSORS_LIMIT = 100_000_000  # bytes of a header

DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""Name of a tensor → its dtype as safetensors names it, and its shape."""

WRONG_WEIGHTS = "its weights are not those of the model it describes"

# Files that are often given by mistake, by their first bytes.
SIGNATURES = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes (.pt, .pth, .ckpt)"),
    (b"\x80", "a Python pickle, as old torch.save and joblib write"),
    (b"\x89HDF", "an HDF5 file, as Keras writes"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer (`git lfs pull` fetches the file itself)"),
    (b"<", "a web page or XML: the download was not the file itself"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"\x08", "perhaps an ONNX file"),
)


class ModelFileError(ValueError):
    """The file is not a valid model of gapstone's; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class ModelFile:
    """The header of a complete file; the numbers are not read yet."""

    path: Path
    about: dict[str, Any]
    """gapstone's JSON, without the checksum."""
    shapes: Shapes
    checksum: object = None
    """As the file gives it; None in files written before there was one, which are accepted."""

    def weights(self) -> dict[str, Tensor]:
        """Read the numbers.

        Raises ModelFileError if they do not match the header or the checksum, or are not finite.
        """
        try:
            weights = safetensors.torch.load(self.path.read_bytes())
        except OSError as error:
            raise ModelFileError(sentence(OSError(error.errno, error.strerror)).rstrip(".")) from error
        except Exception as error:  # SafetensorError, and errors that its torch part does not catch
            raise ModelFileError(f"damaged: {error}; copy it again, or save the model again") from error
        if self.checksum not in (None, checksum(self.about, weights)):
            raise ModelFileError(
                "damaged: its content does not fit its checksum; copy it again, or save the model again"
            )
        check_shapes(self.shapes, shapes(weights))
        check_finite(weights)
        return weights


def read(path: Path) -> ModelFile:
    """Read the header. Raises ModelFileError unless this is a complete safetensors file with gapstone's JSON."""
    if not path.exists():
        raise ModelFileError("there is no such file")
    if not path.is_file():
        raise ModelFileError("this is a folder or device, not a model file")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(64)
            length = int.from_bytes(start[:8], "little")
            if len(start) < 9 or start[8:9] != b"{" or length > SAFETENSORS_LIMIT:
                raise ModelFileError(_wrong_format(start))
            if 8 + length > size:
                raise ModelFileError(_cut_short(size, 8 + length))
            if length > LONGEST_HEADER:
                raise ModelFileError(
                    f"its header claims {length:,} bytes, and a model's has at most {LONGEST_HEADER:,}; copy it again"
                )
            if 3 * size > memory():  # as bytes, as tensors, and as a model
                raise ModelFileError(
                    f"it has {size / 1e9:.1f} GB, and opening it takes three times that; this machine has "
                    f"{memory() / 1e9:.1f} GB"
                )
            file.seek(8)
            header = _header(file.read(length))
            end = 8 + length + max((entry["data_offsets"][1] for _, entry in _tensors(header)), default=0)
            if end > size:
                raise ModelFileError(_cut_short(size, end))
            if end < size:
                raise ModelFileError(f"{size - end:,} bytes follow its end; copy it again")
    except OSError as error:
        raise ModelFileError(sentence(OSError(error.errno, error.strerror)).rstrip(".")) from error
    about = _about(header)
    checksum = about.pop(CHECKSUM, None)
    return ModelFile(path, about, {name: (e["dtype"], tuple(e["shape"])) for name, e in _tensors(header)}, checksum)


def write(path: Path, weights: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write the file atomically; the same weights and JSON give the same bytes."""
    # the checksum stands inside the JSON: safetensors writes the entries of its metadata in no fixed order
    data = safetensors.torch.save(weights, {KEY: _as_text({**about, CHECKSUM: checksum(about, weights)})})
    write_atomic(path, data)


def checksum(about: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """SHA-256, in hex, of the JSON and of every tensor's name, dtype, shape and bytes."""
    # NaN is allowed: JSON of a foreign file may hold it, and other checks report that
    digest = hashlib.sha256(_as_text(about, allow_nan=True).encode("ascii"))
    for name, tensor in sorted(weights.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode("utf-8", "backslashreplace"))
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _as_text(about: dict[str, Any], allow_nan: bool = False) -> str:
    # ASCII escapes: a label from a file name that is not UTF-8 (a lone surrogate) survives too.
    return json.dumps(about, sort_keys=True, ensure_ascii=True, allow_nan=allow_nan)


def shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """The dtype and shape of every tensor."""
    return {name: (DTYPES.get(t.dtype, str(t.dtype)), tuple(t.shape)) for name, t in tensors.items()}


def check_shapes(expected: Shapes, actual: Shapes) -> None:
    """Raises ModelFileError that names the first three differences."""
    wrong = [f"{name} is missing" for name in expected if name not in actual]
    wrong += [f"{name} does not belong" for name in actual if name not in expected]
    for name, (dtype, shape) in expected.items():
        # older versions stored a single learned number with shape (); the layer loads both
        allowed = ((dtype, shape), (dtype, ())) if shape == (1,) else ((dtype, shape),)
        if name in actual and actual[name] not in allowed:
            wrong.append(f"{name} is {_show(*actual[name])}, not {_show(dtype, shape)}")
    if wrong:
        raise ModelFileError(
            f"{WRONG_WEIGHTS}: {'; '.join(wrong[:3])[:400]}"
            + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            + ". Weights are kept in float32 (model.float()), under the names the model was made with; save it again"
        )


def check_finite(weights: dict[str, Tensor]) -> None:
    """Raises ModelFileError for NaN or infinity: one NaN makes every logit NaN, and argmax still returns a class."""
    if wrong := not_sound(weights):
        raise ModelFileError(
            f"{wrong}: the training diverged or the file is damaged; train with a smaller learning rate, or copy it "
            f"again"
        )


class NotFiniteError(ModelFileError):
    """The model's logits are NaN or infinite, so there is no prediction; the images are not at fault."""


def finite_logits(logits: Tensor, whose: str = "the model") -> Tensor:
    """Return the logits, checked.

    Raises NotFiniteError if one is NaN or infinite: softmax would give NaN, and argmax would still return a class.
    """
    if bool(torch.isfinite(logits).all()):
        return logits
    rows = int((~torch.isfinite(logits)).flatten(1).any(1).sum()) if logits.dim() > 1 else 1
    raise NotFiniteError(
        f"{whose} gives logits that are NaN or infinite for {rows:,} of {count_noun(len(logits), 'image')}: an error "
        f"of the model, whose numbers overflow, not of the images; train it again with a smaller learning rate, or "
        f"take another file"
    )


@torch.inference_mode()
def check_dry_run(model: nn.Module, images: Tensor) -> None:
    """Run one forward pass and check its logits: finite weights can overflow, as 1e30 in two layers does.

    Raises NotFiniteError.
    """
    logits: Tensor = model(images)
    if not bool(torch.isfinite(logits).all()):
        raise NotFiniteError(
            "its weights are finite, but the logits they give are NaN or infinite: its numbers overflow. The training "
            "diverged or the file is damaged; train it again with a smaller learning rate, or take another file"
        )


def kind(value: object) -> str:
    """The type and the start of a JSON value, for error messages."""
    return "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def _wrong_format(start: bytes) -> str:
    """The error message for a file that starts like this."""
    if len(start) < 9:
        return f"only {len(start)} bytes: an empty or cut file; copy it again"
    kind_of_file = next((text for signature, text in SIGNATURES if start.startswith(signature)), "no safetensors file")
    return (
        f"this is {kind_of_file}. gapstone loads what Classifier.save wrote (.safetensors), and never unpickles: "
        f"that would run whatever code the file holds"
    )


def _cut_short(size: int, expected: int) -> str:
    return f"cut short: {size:,} bytes of at least {expected:,}; copy or download it again"


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"its header is damaged ({error}); copy it again") from error
    if not isinstance(header, dict):
        raise ModelFileError("its header is no object; copy it again")
    for name, entry in _tensors(header):
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("dtype"), str)
            and _whole_numbers(entry.get("shape"))
            and _whole_numbers(entry.get("data_offsets"))
            and len(entry["data_offsets"]) == 2
        ):
            raise ModelFileError(f"its header is damaged at tensor {name[:80]!r}; copy it again")
    return header


def _tensors(header: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, entry) for name, entry in header.items() if name != "__metadata__")


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _about(header: dict[str, Any]) -> dict[str, Any]:
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        raise ModelFileError(
            "a safetensors file, but not of gapstone's: it names no backbone, head and labels. To use its weights, "
            "build a Classifier and give them to model.features.load_state_dict(safetensors.torch.load_file(…))"
        )
    try:
        about = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"its description is not JSON ({error}); copy it again") from error
    if not isinstance(about, dict):
        raise ModelFileError(f"its description is {kind(about)}, not an object; save the model again")
    return about


def _show(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype}[{', '.join(map(str, shape))}]"
