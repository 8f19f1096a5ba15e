"""The result in a few sentences."""

from typing import Any


def sentence(results: dict[str, Any]) -> str:
    """What the pairs say, strongest first; then what those under shifts and on boxes say, where that is sure.

    >>> sentence(results)
    'fc is worse than gap by 4.1 points (95 % interval 2.0 to 6.2); whether gmp and gap differ, these data cannot tell.'
    """
    heads = [head for head in results["heads"] if head["test_accuracy"]["mean"] is not None]
    baseline = results["settings"]["baseline"]
    if not heads:
        return "No trial finished: there is nothing to compare."
    if baseline not in [head["head"] for head in heads]:
        return f"No trial of the baseline {baseline} finished: the other heads have nothing to be compared with."
    if len(heads) == 1:
        accuracy = 100 * heads[0]["test_accuracy"]["mean"]
        return f"{heads[0]['head']} reaches {accuracy:.1f} % on the test images; there is no other head to compare."
    margin = results["settings"]["margin_pp"]
    text = _findings(results["pairs"], baseline, margin)
    text = text.replace("whether", "Whether", 1) if text.startswith("whether") else text
    if moved := [pair for pair in results["shift_pairs"] if pair["verdict"] in ("better", "worse")]:
        text += f" When test images are shifted, {_findings(moved, baseline, margin)}"
    if found := [pair for pair in results.get("localisation_pairs", []) if pair["verdict"] in ("better", "worse")]:
        text += f" In finding the object, {_findings(found, baseline, margin)}"
    return text


def _findings(pairs: list[dict[str, Any]], baseline: str, margin: float) -> str:
    by_verdict: dict[str, list[dict[str, Any]]] = {}
    for pair in sorted(pairs, key=lambda pair: -abs(pair["difference_pp"] or 0)):
        by_verdict.setdefault(pair["verdict"], []).append(pair)
    parts = []
    for verdict in ("better", "worse"):
        for pair in by_verdict.get(verdict, []):
            low, high = sorted(abs(end) for end in pair["ci95"])
            parts.append(
                f"{pair['a']} is {verdict} than {baseline} by {abs(pair['difference_pp']):.1f} points "
                f"(95 % interval {low:.1f} to {high:.1f})"
            )
    if same := [pair["a"] for pair in by_verdict.get("equivalent", [])]:
        parts.append(f"{_list(same, 'and')} and {baseline} are equivalent (within {margin:g} points)")
    if unknown := [pair["a"] for pair in by_verdict.get("cannot tell", [])]:
        parts.append(f"whether {_list(unknown, 'or')} and {baseline} differ, these data cannot tell")
    return "; ".join(parts) + "."


def _list(names: list[str], word: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
