"""What pools are called in other libraries: torch, timm, Keras, torch-geometric, papers."""

import re

NAMES = {
    "mean": "avg average gap ave fast fastavg pooledmean aavg",
    "max": "gmp maximum mac fastmax amax hardmax",
    "min": "minimum amin",
    "sum": "add spoc total addition",
    "gem": "generalizedmean generalisedmean powermean",
    "l2": "norm l2norm euclidean",
    "lp": "lpnorm pnorm power",
    "logsumexp": "lse logavgexp logmeanexp logsumexponential smoothmax",
    "softmax": "softpool soft",
    "topk": "kmax ktop wildcat kmaxavg",
    "variance": "var",
    "std": "stddev standarddeviation stdev sigma statistics",
    "attention": "attn abmil attentive mil att",
    "median": "med",
    "quantile": "percentile",
    "avgmax": "fastavgmax meanmax maxavg",
    "catavgmax": "fastcatavgmax concat concatpool adaptiveconcat catmax",
}
KNOWN = {other: own for own, others in NAMES.items() for other in (own, *others.split())}


def called_elsewhere(name: str) -> str | None:
    """gapstone's name of it.

    >>> called_elsewhere("AdaptiveAvgPool2d")
    'mean'
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if plain in KNOWN:
        return KNOWN[plain]
    return KNOWN.get(re.sub(r"adaptive|global|pool(ing|2d|1d|3d)?|[123]d|^nn|^f(?=avg|max)|select|layer", "", plain))
