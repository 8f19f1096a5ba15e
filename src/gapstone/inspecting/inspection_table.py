"""Prints an inspection as tables, for 80 columns or more."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapstone.console.formatting import display
from gapstone.inspecting.amounts import cells, count, pixels, share, size
from gapstone.inspecting.network_costs import ModuleCosts, NetworkCosts
from gapstone.inspecting.other_heads import AS_IT_IS

MOST_ROWS = 50
"""By default modules are shown down to the depth that has at most so many rows."""
WIDE = 110  # terminal columns from which more is shown
DIM = "dim"


def show(console: Console, costs: NetworkCosts, depth: int | None = None) -> None:
    """Print the facts, the parts, the modules down to `depth` (None: see `MOST_ROWS`) and the other heads."""
    wide = console.width >= WIDE
    h, w = costs.size
    title = Text(display(costs.name), "bold")
    title.append(f"  {costs.channels}×{h}×{w} → {cells(costs.output)}", "not bold")
    console.print(title)
    ran = f"Run on zeros: {costs.real}." if costs.real else "Run on shapes alone: no weights read, no memory taken."
    console.print(Text(ran, "yellow" if costs.real else DIM))
    modules = _modules(costs, _default_depth(costs) if depth is None else depth, wide)
    for table in (_facts(costs), _parts(costs, wide), modules):
        console.print()
        console.print(table)
    console.print(Text(_legend(costs, wide), DIM))
    console.print()
    if costs.heads:
        console.print(_heads(costs))
    else:
        console.print(Text(f"Other heads: not told, as {display(costs.no_map or '')}.", "yellow"))


def _facts(costs: NetworkCosts) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def fact(name: str, text: str) -> None:
        table.add_row(Text(name), Text(display(text)))

    fact("parameters", f"{costs.parameters:,} ({size(costs.parameter_bytes)}, {costs.dtype})")
    if costs.head_parameters is not None:
        fact("  in the head", f"{costs.head_parameters:,}: {share(costs.head_parameters, costs.parameters)}")
    if costs.unused_parameters:
        fact("  unused", f"{costs.unused_parameters:,} take no part in the answer (heads of training, or dead)")
    in_head = f", {count(costs.head_macs)} of them in the head" if costs.head_macs is not None else ""
    macs = f"{costs.macs / 1e9:,.2f} G" if costs.macs >= 1e9 else count(costs.macs)
    fact("multiply-adds", macs + in_head)
    fact("other operations", f"{count(costs.pooled)} values read by pools; {count(costs.single)} made by all else")
    kept = costs.kept_bytes
    training = f"{size(kept)} of training activations" if kept is not None else "it does not train here"
    fact("memory, one image", f"{size(costs.peak_bytes)} for inference; {training} (besides the parameters)")
    if costs.last_map:
        last = costs.last_map
        sight = f"a cell sees {pixels(last.field)} px" if last.field else "what a cell sees is not known"
        if last.whole:
            sight = f"{sight}, and through averages the whole image" if last.field else "a cell sees the whole image"
        every = f", one every {pixels(last.stride)} px" if last.stride else ""
        fact("last map", f"{cells((last.channels, *last.cells))}: {sight}{every}")
    fact("image sizes", _sizes(costs))
    return table


def _sizes(costs: NetworkCosts) -> str:
    if costs.training_sizes == costs.sizes:
        return f"{costs.sizes}, in training too"
    if costs.training_sizes is None:
        return f"{costs.sizes}; none found that trains ({costs.not_trained})"
    reason = f"; here {costs.not_trained}" if costs.not_trained else ""
    return f"{costs.sizes}; in training {costs.training_sizes}{reason}"


def _parts(costs: NetworkCosts, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    bar_width = 16 if wide else 5
    name_width = 40 if wide else 20
    table.add_column("Where it is", no_wrap=True)
    table.add_column("output", no_wrap=True)
    columns = (
        ("parameters", [part.parameters for part in costs.parts], costs.parameters),
        ("multiply-adds", [part.macs for part in costs.parts], costs.macs),
        ("memory", [part.kept_bytes for part in costs.parts], costs.kept_bytes),
    )
    for title, _, _ in columns:
        table.add_column(title, no_wrap=True)
    for number, part in enumerate(costs.parts):
        head = part.head_parameters > part.parameters / 2
        bars = [_bar(values[number], whole, bar_width, head) for _, values, whole in columns]
        # the end of a long path says more than its start
        shown = display(part.name)
        name = shown if len(shown) <= name_width else f"…{shown[1 - name_width :]}"
        table.add_row(Text(name), Text(cells(part.output), DIM), *bars)
    return table


def _bar(value: int | None, whole: int | None, bar_width: int, head: bool) -> Text:
    if value is None or not whole:
        return Text("–", DIM)
    eighths = round(8 * bar_width * value / whole)
    full, rest = divmod(eighths, 8)
    bar = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return Text(f"{share(value, whole):>7} ").append(f"{bar:{bar_width}}", "magenta" if head else "cyan")


def _default_depth(costs: NetworkCosts) -> int:
    deepest = max(row.depth for row in costs.rows)
    return max((n for n in range(deepest + 1) if sum(row.depth <= n for row in costs.rows) <= MOST_ROWS), default=0)


def _modules(costs: NetworkCosts, depth: int, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("Module", no_wrap=True, overflow="ellipsis", max_width=44 if wide else 25)
    for name in ("output", "parameters", "MACs", *(["pools read"] if wide else []), "memory", "sees/every"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in costs.rows:
        if row.depth > depth:
            continue
        label = Text("  " * row.depth + display(row.path.rpartition(".")[2] or costs.name))
        label.append(f" {display(row.kind)}" if row.path else "", DIM)
        label.append(f" ×{row.calls}" if row.calls > 1 else "", "yellow")
        table.add_row(
            label,
            Text(cells(row.output), DIM if row.output is None else ""),
            f"{row.parameters:,}" if row.parameters else Text("–", DIM),
            count(row.macs) if row.macs else Text("–", DIM),
            *([count(row.pooled) if row.pooled else Text("–", DIM)] if wide else []),
            size(row.kept_bytes) if row.kept_bytes else Text("–", DIM),
            Text(_field_and_stride(row), "" if row.field or row.whole else DIM),
        )
    return table


def _field_and_stride(row: ModuleCosts) -> str:
    if row.field is None:
        return "all" if row.whole else "–" if row.stride is None else f"?/{pixels(row.stride)}"
    return f"{pixels(row.field)}{'+' * row.whole}/{pixels(row.stride)}"


def _legend(costs: NetworkCosts, wide: bool) -> str:
    sentences = ["MACs: multiply-adds." + " Pools read: k·k values for each answer of a k×k window." * wide]
    sentences.append("Memory: what training keeps for the backward pass, per image.")
    sentences.append("Sees/every: receptive field and stride in px")
    marks = {_field_and_stride(row)[-1:] if row.field is None else "+" * row.whole for row in costs.rows}
    sentences[-1] += "; +: and, through averages, the whole image" * ("+" in marks)
    sentences[-1] += "; all: the whole image" * any(row.field is None and row.whole for row in costs.rows)
    sentences[-1] += "; ?: not known" * any(_field_and_stride(row).startswith("?") for row in costs.rows)
    return " ".join(sentences) + "."


def _heads(costs: NetworkCosts) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("Other heads", no_wrap=True)
    for name in ("its parameters", "total", "its MACs", "file"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("image sizes", overflow="fold")
    for head in costs.heads:
        table.add_row(
            Text(head.head, "bold" if head.head == AS_IT_IS else ""),
            f"{head.parameters:,}",
            count(head.total),
            count(head.macs),
            size(head.bytes),
            Text(head.sizes),
        )
    return table
