"""Tables as text for papers and pages: Markdown and LaTeX."""

import re
from collections.abc import Sequence
from typing import Literal, get_args

from gapstone.console.formatting import display

TableForm = Literal["markdown", "latex"]
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "−": "$-$", "×": r"$\times$", "·": r"$\cdot$", "±": r"$\pm$", "…": r"\ldots{}",
}  # fmt: skip


def written_table(titles: Sequence[str], rows: Sequence[Sequence[str]], form: TableForm) -> str:
    r"""A table; the first column is to the left, the others are to the right.

    >>> print(written_table(["head", "accuracy"], [["fc:dropout=0.5", "94.1 %"]], "markdown"))
    | head | accuracy |
    |:--|--:|
    | fc:dropout=0.5 | 94.1 % |
    >>> print(written_table(["head", "accuracy"], [["my_head", "94.1 %"]], "latex").splitlines()[4])
    my\_head & 94.1 \% \\

    Raises:
        ValueError: there is no such form.
    """
    if form not in get_args(TableForm):
        raise ValueError(f"--table {display(form)}: must be {' or '.join(get_args(TableForm))}.")
    if form == "markdown":
        lines = [[_markdown(cell) for cell in row] for row in (titles, *rows)]
        rule = "|" + "|".join([":--", *["--:"] * (len(titles) - 1)]) + "|"
        first, *others = ("| " + " | ".join(cells) + " |" for cells in lines)
        return "\n".join([first, rule, *others])
    first, *others = (" & ".join(map(_latex, row)) + r" \\" for row in (titles, *rows))
    columns = "l" + "r" * (len(titles) - 1)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", first, r"\midrule", *others, r"\bottomrule",
                      r"\end{tabular}"])  # fmt: skip


def _markdown(cell: str) -> str:
    """Marks of Markdown and HTML stand for themselves."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", display(cell))


def _latex(cell: str) -> str:
    """Wants the package booktabs; letters of other scripts are left to the document's fonts."""
    return "".join(_LATEX.get(letter, letter) for letter in display(cell))
