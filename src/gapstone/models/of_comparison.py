"""The models in the folder of a comparison, wherever a command takes a model."""

from pathlib import Path

from gapstone.console.formatting import display
from gapstone.models.model_file import ModelFileError
from gapstone.storage.sealed_json import DamagedError, read_sealed


def model_of(model: str, head: str | None = None) -> str:
    """The name of a model as it is; of a comparison's folder the file of its best model, or of a head's.

        >>> model_of("photos.safetensors"), model_of("runs/flowers", "gap")
        ('photos.safetensors', 'runs/flowers/m…')

    Raises:
        ModelFileError: a folder without such a model; says which there are.
        ValueError: a head, and a model that is no folder.
    """
    folder = Path(model)
    if not folder.is_dir():
        if head is not None:
            raise ValueError(f"--head {display(head)} goes with the folder of a comparison; {display(model)} is none.")
        return model
    try:
        results = read_sealed(folder / "results.json", "results")
    except FileNotFoundError:
        raise ModelFileError(
            f"{display(model)} is a folder without the results of a comparison: give a model's file, or the folder "
            f"that gapstone compare wrote its report into."
        ) from None
    except DamagedError as error:
        raise ModelFileError(f"{error}; the same gapstone compare again mends it.") from error
    kept = [(str(one["head"]), str(one["file"])) for one in results.get("models", [])]
    found = [file for spec, file in kept if head in (None, spec)]
    if not found:
        heads = ", ".join(display(spec) for spec in dict.fromkeys(spec for spec, _ in kept)) or "none"
        wanted = "no model" if head is None else f"no model of {display(head)}"
        raise ModelFileError(f"{display(model)} holds {wanted}; it holds those of: {heads}.")
    return str(folder / found[0])
