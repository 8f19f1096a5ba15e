"""The `gapstone` program: its commands, its exit codes, and how an error is told.

Nothing heavy is imported before a command needs it: `gapstone --help` takes less than 0.3 s.
"""

import os
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import gapstone
from gapstone.commands import evaluating_commands, machine_commands, model_commands, training_commands
from gapstone.console.formatting import lines, one_line, show_warnings
from gapstone.runtime import interrupts
from gapstone.storage.paths import sentence


class _StoppedError(Exception):
    """Carries KeyboardInterrupt and EOFError past typer, which would end in "Aborted." or without a word."""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError) as error:
            raise _StoppedError from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compare the heads of image classifiers on your own images, with honest statistics.",
)


@app.callback(invoke_without_command=True)
def version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"gapstone {gapstone.__version__}")
        raise typer.Exit


for command in (
    training_commands.compare,
    training_commands.report,
    training_commands.check,
    training_commands.train,
    evaluating_commands.evaluate,
    model_commands.predict,
    model_commands.explain,
    model_commands.inspect,
    model_commands.convert,
    model_commands.export,
    model_commands.serve,
    machine_commands.doctor,
    machine_commands.bench,
):
    app.command()(command)


def main() -> int:
    """Run a command; the exit code. What the user can mend is told in a sentence (GAPSTONE_TRACEBACK=1 for all)."""
    # a file name that is not UTF-8 is printed with an escape, instead of a crash after hours of work
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show_warnings()
    # a command's numbers repeat: it waits for its kernels, and so do its processes (gapstone.loops.background)
    os.environ.setdefault("GAPSTONE_WAIT_FOR_KERNELS", "command")
    try:
        return int(app(standalone_mode=False) or 0)
    except BrokenPipeError:  # `gapstone … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _ended(error)


def _ended(error: Exception) -> int:
    """Say why a command ended; the exit code."""
    cause: BaseException = error
    if isinstance(error, _StoppedError) and error.__cause__ is not None:
        cause = error.__cause__
    # in the middle of an import a KeyboardInterrupt may turn into another error
    if interrupts.stop_requested() or isinstance(cause, KeyboardInterrupt):
        return _say(interrupts.stop_message(cause), interrupts.exit_code())
    wrong: Any = error  # typer's errors have other bases in other versions
    if type(error).__name__ == "NoArgsIsHelpError":  # `gapstone` alone
        wrong.show()
        return 2
    if hasattr(error, "format_message"):  # a wrong option
        said = wrong.format_message().replace(": Value error, ", ": ")  # pydantic's word, which typer keeps
        return _say(f"{said} See gapstone --help, or gapstone COMMAND --help.", 2)
    expected = isinstance(cause, ValueError | OSError | ImportError) or type(cause).__module__.startswith("gapstone")
    if not expected or os.environ.get("GAPSTONE_TRACEBACK"):
        import traceback

        print(lines("".join(traceback.format_exception(cause)).rstrip()), file=sys.stderr, flush=True)
        return 1
    more = getattr(cause, "more", "")  # a table of our own below the sentence
    text = sentence(cause) if isinstance(cause, OSError) else str(cause)
    return _say(text.removesuffix(more), 1, more)


def _say(text: str, code: int, more: str = "") -> int:
    """In one line: an error may quote what a file holds, which must not begin a line of its own."""
    print(f"gapstone: {one_line(text)}{more}", file=sys.stderr, flush=True)
    return code
