"""The result in one or two sentences."""

from typing import Any


def sentence(results: dict[str, Any]) -> str:
    """What the pairs say, strongest first.

    >>> sentence(results)
    'gap is better than fc by 4.1 points (95 % interval 2.0 to 6.2). For gmp the data cannot tell.'
    """
    heads = [head for head in results["heads"] if head["test_accuracy"]["mean"] is not None]
    baseline = results["settings"]["baseline"]
    if not heads:
        return "No trial finished: there is nothing to compare."
    if baseline not in [head["head"] for head in heads]:
        return f"No trial of the baseline {baseline} finished: the other heads have nothing to be compared with."
    if len(heads) == 1:
        accuracy = 100 * heads[0]["test_accuracy"]["mean"]
        return (
            f"{heads[0]['head']} reaches {accuracy:.1f} % on the test images; there is no other head to compare with."
        )
    pairs = {
        pair["verdict"]: [p for p in results["pairs"] if p["verdict"] == pair["verdict"]] for pair in results["pairs"]
    }
    parts = []
    for verdict in ("better", "worse"):
        for pair in sorted(pairs.get(verdict, []), key=lambda p: -abs(p["difference_pp"])):
            low, high = sorted(abs(end) for end in pair["ci95"])
            parts.append(
                f"{pair['a']} is {verdict} than {pair['b']} by {abs(pair['difference_pp']):.1f} points "
                f"(95 % interval {low:.1f} to {high:.1f})"
            )
    if same := [pair["a"] for pair in pairs.get("equivalent", [])]:
        margin = results["settings"]["margin_pp"]
        parts.append(f"{_and(same)} and {baseline} are equivalent (within {margin:g} points)")
    if unknown := [pair["a"] for pair in pairs.get("cannot tell", [])]:
        parts.append(f"whether {_and(unknown, 'or')} and {baseline} differ, these data cannot tell")
    text = "; ".join(parts)
    return text.replace("whether", "Whether", 1) + "." if text.startswith("whether") else text + "."


def _and(names: list[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
