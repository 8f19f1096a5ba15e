"""How often the same test images have been compared in a folder: every look pays for itself with a part of the level.

Who adds seeds until something is significant finds differences that do not exist, so later looks are judged at a
smaller level (`look_level`). A look is a plan of trials, a baseline, a metric, a margin and the groups that are
counted: the same command again, after a stop or a failed trial, is the same look. Who tries margins finds one.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gapstone.comparing.plan import ComparisonPlan
from gapstone.statistics.compare_pairs import look_level
from gapstone.storage.sealed_json import DamagedError, read_sealed, write_sealed

FILE = "looks.json"


def record_look(plan: ComparisonPlan, out: Path, log: Callable[[str], None]) -> int:
    """Note in OUT that this plan is looked at. Returns which look at these images it is: 1 for the first."""
    try:
        looks: list[dict[str, Any]] = read_sealed(out / FILE, "looks")["looks"]
    except FileNotFoundError:
        looks = []
    except DamagedError as error:
        log(f"{error}: how often these images were compared before is not known; this counts as the first time.")
        looks = []
    now = _look(plan)
    if not any(look["plan"] == now["plan"] for look in looks):
        looks.append(now | {"at": datetime.now().astimezone().isoformat(timespec="seconds")})
        write_sealed(out / FILE, {"looks": looks}, "looks")
    same_images = [look["plan"] for look in looks if look["data"] == now["data"]]
    return same_images.index(now["plan"]) + 1


def _look(plan: ComparisonPlan) -> dict[str, Any]:
    metric, _ = plan.metric
    # what --quick leaves out is no other look at the test images
    ids = sorted(replace(trial, quick=False).id for trial in plan.trials)
    groups = [plan.prepared.groups.tolist()] if plan.prepared.source.grouping is not None else []
    asked = [metric.name, metric.digest, plan.request.margin]
    facts = json.dumps([plan.baseline, *filter(None, asked), ids, *groups])
    return {
        "plan": hashlib.sha256(facts.encode()).hexdigest()[:16],
        "data": plan.prepared.hash,
        "baseline": plan.baseline,
        "metric": metric.name,
        "heads": list(plan.request.heads),
        "seeds": plan.request.folds or plan.request.seeds,
    }


def said(look: int, confidence: float) -> str | None:
    """A sentence on a look that is not the first.

    >>> said(2, 0.95)
    'These test images have been compared 2 times in this folder: verdicts are made at 1.25 % instead of 5 %, so that …'
    """
    if look == 1:
        return None
    first, now = (100 * look_level(number, 1 - confidence) for number in (1, look))
    return (
        f"These test images have been compared {look} times in this folder: verdicts are made at {now:.3g} % instead "
        f"of {first:.3g} %, so that looking again does not make findings."
    )
