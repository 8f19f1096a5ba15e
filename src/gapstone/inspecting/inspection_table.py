"""An inspection as a person reads it, from 80 columns on; plain text where it goes to a file."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapstone.console.formatting import display
from gapstone.inspecting.amounts import cells, count, pixels, share, size
from gapstone.inspecting.network_costs import ModuleCosts, NetworkCosts
from gapstone.inspecting.other_heads import AS_IT_IS

MOST_ROWS = 50
"""Modules are shown as deep as these allow."""
WIDE = 110  # columns from which there is room for more
DIM = "dim"


def show(console: Console, found: NetworkCosts, depth: int | None = None) -> None:
    """Print it: the facts, the parts, the modules down to `depth` (None: as many as can be read), the other heads."""
    wide = console.width >= WIDE
    h, w = found.size
    title = Text(display(found.name), "bold")
    title.append(f"  {found.channels}×{h}×{w} → {cells(found.output)}", "not bold")
    console.print(title)
    ran = f"Run on zeros: {found.real}." if found.real else "Run on shapes alone: no weights read, no memory taken."
    console.print(Text(ran, "yellow" if found.real else DIM))
    console.print()
    console.print(_facts(found))
    console.print()
    console.print(_parts(found, wide))
    console.print()
    console.print(_modules(found, _deep(found) if depth is None else depth, wide))
    console.print(Text(_legend(found, wide), DIM))
    console.print()
    if found.heads:
        console.print(_heads(found))
    else:
        console.print(Text(f"Other heads: not told, as {display(found.no_map or '')}.", "yellow"))


def _facts(found: NetworkCosts) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def fact(name: str, text: str) -> None:
        table.add_row(Text(name), Text(display(text)))

    fact("parameters", f"{found.parameters:,} ({size(found.parameter_bytes)}, {found.dtype})")
    if found.head_parameters is not None:
        fact("  in the head", f"{found.head_parameters:,}: {share(found.head_parameters, found.parameters)}")
    if found.unused_parameters:
        fact("  unused", f"{found.unused_parameters:,} take no part in the answer (heads of training, or dead)")
    in_head = f", {count(found.head_macs)} of them in the head" if found.head_macs is not None else ""
    macs = f"{found.macs / 1e9:,.2f} G" if found.macs >= 1e9 else count(found.macs)
    fact("multiply-adds", macs + in_head)
    fact("other operations", f"{count(found.pooled)} values read by pools; {count(found.single)} made by all else")
    kept = found.kept_bytes
    training = f"{size(kept)} of training activations" if kept is not None else "it does not train here"
    fact("memory, one image", f"{size(found.peak_bytes)} for inference; {training} (besides the parameters)")
    if found.last_map:
        last = found.last_map
        sees = f"a cell sees {pixels(last.field)} px" if last.field else "what a cell sees is not known"
        if last.whole:
            sees = f"{sees}, and through averages the whole image" if last.field else "a cell sees the whole image"
        every = f", one every {pixels(last.stride)} px" if last.stride else ""
        fact("last map", f"{cells((last.channels, *last.cells))}: {sees}{every}")
    fact("image sizes", _sizes(found))
    return table


def _sizes(found: NetworkCosts) -> str:
    if found.training_sizes == found.sizes:
        return f"{found.sizes}, in training too"
    if found.training_sizes is None:
        return f"{found.sizes}; none found that trains ({found.not_trained})"
    why = f"; here {found.not_trained}" if found.not_trained else ""
    return f"{found.sizes}; in training {found.training_sizes}{why}"


def _parts(found: NetworkCosts, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    long = 16 if wide else 5
    longest = 40 if wide else 20
    table.add_column("Where it is", no_wrap=True)
    table.add_column("output", no_wrap=True)
    columns = (
        ("parameters", [part.parameters for part in found.parts], found.parameters),
        ("multiply-adds", [part.macs for part in found.parts], found.macs),
        ("memory", [part.kept_bytes for part in found.parts], found.kept_bytes),
    )
    for title, _, _ in columns:
        table.add_column(title, no_wrap=True)
    for number, part in enumerate(found.parts):
        head = part.head_parameters > part.parameters / 2
        bars = [_bar(values[number], whole, long, head) for _, values, whole in columns]
        # of a long path the end says more
        shown = display(part.name)
        name = shown if len(shown) <= longest else f"…{shown[1 - longest :]}"
        table.add_row(Text(name), Text(cells(part.output), DIM), *bars)
    return table


def _bar(value: int | None, whole: int | None, long: int, head: bool) -> Text:
    if value is None or not whole:
        return Text("–", DIM)
    eighths = round(8 * long * value / whole)
    full, rest = divmod(eighths, 8)
    bar = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return Text(f"{share(value, whole):>7} ").append(f"{bar:{long}}", "magenta" if head else "cyan")


def _deep(found: NetworkCosts) -> int:
    deepest = max(row.depth for row in found.rows)
    return max((n for n in range(deepest + 1) if sum(row.depth <= n for row in found.rows) <= MOST_ROWS), default=0)


def _modules(found: NetworkCosts, depth: int, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("Module", no_wrap=True, overflow="ellipsis", max_width=44 if wide else 25)
    for name in ("output", "parameters", "MACs", *(["pools read"] if wide else []), "memory", "sees/every"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        if row.depth > depth:
            continue
        label = Text("  " * row.depth + display(row.path.rpartition(".")[2] or found.name))
        label.append(f" {display(row.kind)}" if row.path else "", DIM)
        label.append(f" ×{row.calls}" if row.calls > 1 else "", "yellow")
        table.add_row(
            label,
            Text(cells(row.output), DIM if row.output is None else ""),
            f"{row.parameters:,}" if row.parameters else Text("–", DIM),
            count(row.macs) if row.macs else Text("–", DIM),
            *([count(row.pooled) if row.pooled else Text("–", DIM)] if wide else []),
            size(row.kept_bytes) if row.kept_bytes else Text("–", DIM),
            Text(_sees(row), "" if row.field or row.whole else DIM),
        )
    return table


def _sees(row: ModuleCosts) -> str:
    if row.field is None:
        return "all" if row.whole else "–" if row.stride is None else f"?/{pixels(row.stride)}"
    return f"{pixels(row.field)}{'+' * row.whole}/{pixels(row.stride)}"


def _legend(found: NetworkCosts, wide: bool) -> str:
    said = ["MACs: multiply-adds." + " Pools read: k·k values for each answer of a k×k window." * wide]
    said.append("Memory: what training keeps for the backward pass, per image.")
    said.append("Sees/every: receptive field and stride in px")
    marks = {_sees(row)[-1:] if row.field is None else "+" * row.whole for row in found.rows}
    said[-1] += "; +: and, through averages, the whole image" * ("+" in marks)
    said[-1] += "; all: the whole image" * any(row.field is None and row.whole for row in found.rows)
    said[-1] += "; ?: not known" * any(_sees(row).startswith("?") for row in found.rows)
    return " ".join(said) + "."


def _heads(found: NetworkCosts) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("Other heads", no_wrap=True)
    for name in ("its parameters", "total", "its MACs", "file"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("image sizes", overflow="fold")
    for head in found.heads:
        table.add_row(
            Text(head.head, "bold" if head.head == AS_IT_IS else ""),
            f"{head.parameters:,}",
            count(head.total),
            count(head.macs),
            size(head.bytes),
            Text(head.sizes),
        )
    return table
