"""The result of a comparison in a few sentences; the first fits on one line of a phone."""

from collections.abc import Sequence
from typing import Any

from gapstone.console.formatting import count_noun, signed
from gapstone.statistics.by_group import FEWEST

SHORT = 60
"""Longest headline that names the heads, in characters; a longer one counts them instead."""

Pair = dict[str, Any]


def sentences(results: dict[str, Any]) -> tuple[str, list[str]]:
    """A headline, and sentences on each head that differs from the baseline, the largest difference first.

    >>> sentences(results)
    ('fc is worse than gap: −4.1 percentage points.', ['This difference: 95 % CI −6.2 to −2.0.'])
    """
    heads = [head for head in results["heads"] if head["test_accuracy"]["mean"] is not None]
    baseline = results["settings"]["baseline"]
    if not heads:
        return "No trial finished: there is nothing to compare.", []
    if baseline not in [head["head"] for head in heads]:
        return "No trial of the baseline finished.", [
            f"The other heads have nothing to be compared with: the baseline is {baseline}."
        ]
    if len(heads) == 1:
        return f"{heads[0]['head']} reaches {_alone(heads[0], results)}.", ["There is no other head to compare."]
    pairs = results["pairs"]
    kind = "fold" if results["settings"]["folds"] else "seed"
    of = _metric_of(results["metrics"][0])
    details = [entry["sentence"] for entry in results["collapsed"]] + _details(pairs, baseline, kind, of)
    for pairs_of, where in (
        (results["shift_pairs"], "On shifted test images"),
        (results.get("localisation_pairs", []), "In localisation (GT-known)"),
    ):
        details += [
            f"{where}, {pair['a']} is {pair['verdict']} than {baseline}: {_numbers(pair, pairs_of, kind)}."
            for pair in _apart(pairs_of)
        ]
    details += (results.get("curve") or {"findings": []})["findings"]
    return _headline(pairs, baseline, kind, of, _few_groups(results.get("data", {}))), details


def _alone(head: dict[str, Any], results: dict[str, Any]) -> str:
    """What one head has: its accuracy, or with several labels per image its mean average precision."""
    if results.get("data", {}).get("multi_label"):
        return f"a mean average precision of {100 * head['metrics']['average_precision']['mean']:.1f} %"
    return f"an accuracy of {100 * head['test_accuracy']['mean']:.1f} %"


def _headline(pairs: Sequence[Pair], baseline: str, kind: str, of: str, few: str | None) -> str:
    better, worse, same = (
        [p["a"] for p in pairs if p["verdict"] == word] for word in ("better", "worse", "equivalent")
    )
    if not better and not worse:
        if len(same) == len(pairs):
            return _fitting(
                f"{listed(same)} and {baseline} are equivalent.",
                f"All {len(pairs)} heads are equivalent to {baseline}.",
            )
        if not any(pair["p"] is not None for pair in pairs):
            if few is not None:
                return few
            repeats = max(pair["repeats"] for pair in pairs)
            return f"{count_noun(repeats, kind)} {'is' if repeats == 1 else 'are'} too few to tell the heads apart."
        if len(pairs) == 1:
            return f"{pairs[0]['a']} and {baseline} do not differ detectably."
        return f"No head differs detectably from {baseline}."
    apart = _apart(pairs)
    if len(apart) == 1:
        (pair,) = apart
        return f"{pair['a']} is {pair['verdict']} than {baseline}: {_difference(pair)}{of}."
    named = counted = ""
    for heads, word in ((better, "better"), (worse, "worse")):
        if heads:
            than = "" if named else f" than {baseline}"
            named += f"{', ' * bool(named)}{listed(heads)} {'is' if len(heads) == 1 else 'are'} {word}{than}"
            number = count_noun(len(heads), "head")
            counted += f"{', ' * bool(counted)}{number} {'is' if len(heads) == 1 else 'are'} {word}{than}"
    return _fitting(f"{named}.", f"{counted}.")


def _few_groups(data: dict[str, Any]) -> str | None:
    groups = data.get("groups")
    if groups is None or groups["refused"] is None:
        return None
    if groups["test"] >= FEWEST:
        few = min(groups["of_class"]) < FEWEST
        return f"{'A class has too few test groups' if few else 'The test groups are too unequal'} to tell heads apart."
    return (
        f"{count_noun(groups['test'], 'test group')} {'is' if groups['test'] == 1 else 'are'} too few to compare heads."
    )


def _fitting(named: str, counted: str) -> str:
    return named if len(named) <= SHORT else counted


def _details(pairs: Sequence[Pair], baseline: str, kind: str, of: str) -> list[str]:
    apart = _apart(pairs)
    details = [
        f"{pair['a']}: {_difference(pair)}{'' if place else of} ({_interval(pair, pairs, kind)})."
        for place, pair in enumerate(apart)
    ]
    if len(apart) == 1:  # the headline has the difference
        details = [f"This difference: {_interval(apart[0], pairs, kind)}."]
    if same := [pair["a"] for pair in pairs if pair["verdict"] == "equivalent"]:
        details.append(f"{listed([*same, baseline])} are equivalent (within ±{_margin(pairs[0])}).")
    unknown = [pair["a"] for pair in pairs if pair["verdict"] == "cannot tell"]
    if unknown and (apart or same):  # otherwise the headline says so
        verb = "does" if len(unknown) == 1 else "do"
        details.append(f"{listed(unknown)} {verb} not differ detectably from {baseline}.")
    return details


def _apart(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that differ, the largest difference first."""
    different = [pair for pair in pairs if pair["verdict"] in ("better", "worse")]
    return sorted(different, key=lambda pair: -abs(pair["difference"]))


def _numbers(pair: Pair, pairs: Sequence[Pair], kind: str) -> str:
    return f"{_difference(pair)} ({_interval(pair, pairs, kind)})"


def _difference(pair: Pair) -> str:
    return f"{signed(pair['difference'], pair['digits'])} {pair['unit']}".strip()


def _margin(pair: Pair) -> str:
    return f"{pair['margin']:g} {pair['unit']}".strip()


def _metric_of(metric: dict[str, Any]) -> str:
    """What the headline's difference is of; nothing needs to be said of accuracy.

    >>> _metric_of({"name": "nll", "words": "negative log-likelihood", "lower_is_better": True})
    ' of negative log-likelihood (lower is better)'
    """
    lower = " (lower is better)" if metric["lower_is_better"] else ""
    return "" if metric["name"] == "accuracy" else f" of {metric['words']}{lower}"


def _interval(pair: Pair, pairs: Sequence[Pair], kind: str) -> str:
    """How far the difference is known: who reads of the largest difference needs an interval for all of them together.

    >>> _interval(pair, pairs, "seed")
    '95 % CI +1.1 to +7.2, for all 4 heads together'
    """
    if pair["ci95_together"] is None:
        low, high = (signed(end, pair["digits"]) for end in pair["range"])
        return f"{low} to {high} in {count_noun(pair['repeats'], kind)}: take 5"
    tested = sum(one["p"] is not None for one in pairs)
    low, high = (signed(end, pair["digits"]) for end in pair["ci95_together"])
    together = (
        "" if tested == 1 else ", for both heads together" if tested == 2 else f", for all {tested} heads together"
    )
    return f"95 % CI {low} to {high}{together}"


def listed(names: Sequence[str]) -> str:
    """>>> listed(["gap", "gmp", "nin"])
    'gap, gmp and nin'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
