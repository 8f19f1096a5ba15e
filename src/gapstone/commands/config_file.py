"""`--config FILE.toml`: options in a file, which those on the command line replace."""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from gapstone.commands.option_types import path_option
from gapstone.console.formatting import display
from gapstone.storage.paths import open_input

LISTS = {"heads": ",", "trackers": ",", "curve": ",", "size": "x", "split": "/"}
"""Keys whose value may be a list, and what stands between its parts on the command line."""
IN_PYTHON = {"groups": "group"}
"""What `gs.compare` calls otherwise: one file serves both."""


def _read(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of the file the defaults of the command's options."""
    if path is None:
        return None
    name = f"--config {display(path)}"
    try:
        with open_input(name, path) as file:
            content = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{display(path)} is no TOML: {display(str(error))}.") from error
    options: dict[str, Any] = {option.name: option for option in context.command.params if option.name != "config"}
    defaults = {}
    for key, value in content.items():
        option = IN_PYTHON.get(key, key)
        if option not in options:
            near = difflib.get_close_matches(key, [*options, *IN_PYTHON], 1, 0.5)
            raise typer.BadParameter(
                f"{display(path)}: {context.info_name} has no option {display(key)}. "
                + (f"Did you mean {near[0]}?" if near else "Keys are the names of its options, with _ for -.")
            )
        if option in defaults:
            raise typer.BadParameter(f"{display(path)} has {option} and {key}, which are the same: leave one out.")
        try:
            text = _as_typed(option, value, getattr(options[option], "is_flag", False))
            options[option].process_value(context, text)
        except (typer.BadParameter, ValueError) as error:
            why = getattr(error, "message", str(error)).rstrip(".")
            raise typer.BadParameter(f"{display(path)}: {key} = {display(str(value))}: {display(why)}.") from error
        defaults[option] = text
    context.default_map = defaults
    return path


def _as_typed(key: str, value: object, is_flag: bool) -> str | bool:
    """The value as it would be typed; of a flag, whether it is."""
    if is_flag or isinstance(value, bool):
        if not is_flag or not isinstance(value, bool):
            raise ValueError("expected true or false" if is_flag else "true and false are for options without a value")
        return value
    if isinstance(value, list) and key in LISTS:
        if all(isinstance(part, str | int | float) and not isinstance(part, bool) for part in value):
            return LISTS[key].join(map(str, value))
        raise ValueError("expected a list of texts or numbers")
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("expected a text or a number")


Config = Annotated[
    Path | None,
    path_option(
        'Options in a TOML file: heads = ["gap", "fc"], batch_size = 32. Those on the command line replace them.',
        metavar="TOML",
        callback=_read,
    ),
]
