"""`split_name` recognises the folder names or table cells that mean train, val or test, in the usual spellings."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")

_WORDS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval", "learn", "learning", "훈련", "학습"),
    "val": ("val", "valid", "validation", "validate", "validating", "vld", "dev", "devel", "development", "검증"),
    "test": ("test", "testing", "tests", "tst", "테스트", "시험"),
}
_STRONG = {word: split for split, words in _WORDS.items() for word in words}
# their meaning depends on the other names: train + eval, train + dev + eval, train + eval + test
_WEAK: dict[str, tuple[SplitName, SplitName]] = {
    "eval": ("val", "test"),
    "evaluation": ("val", "test"),
    "evaluate": ("val", "test"),
    "evaluating": ("val", "test"),
    "holdout": ("test", "val"),
}
_NOISE = frozenset(
    (
        *("set", "sets", "data", "dataset", "datasets", "split", "splits", "subset", "part", "partition", "x", "y"),
        *("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "sample"),
        *("samples", "file", "files", "folder", "folders", "dir", "labeled", "labelled", "unlabeled", "unlabelled"),
        *("final", "new", "original", "raw", "processed", "resized", "cropped"),
    )
)
_FUSED = re.compile(r"(?<=.)(data)?(sets?|images?|imgs?|data|split|folder|files)$")
_PHRASES = (
    (re.compile(r"h[oe]ld[\W_]*out"), "holdout"),
    (re.compile(r"train(ing)?[\W_]*(and|\+|&)?[\W_]*val(id|idation)?(?![a-z])"), "trainval"),
    (re.compile(r"cross[\W_]*(validation|val)(?![a-z])"), "validation"),
)


@dataclass(frozen=True)
class _Parsed:
    word: str  # one of _STRONG or _WEAK
    rest: tuple[str, ...]  # the other words of the name: "flowers" in "flowers_train"


def split_name(names: Iterable[str]) -> dict[str, SplitName]:
    """The names that mean a split, with their splits, in the order train, val, test; other names are left out.

    ```python
    split_name(["Training_Set", "test_set", "notes"])   # {'Training_Set': 'train', 'test_set': 'test'}
    split_name(["train", "dev", "eval"])                # … 'dev': 'val', 'eval': 'test'
    split_name(["flowers_train", "flowers_test"])       # {'flowers_train': 'train', 'flowers_test': 'test'}
    split_name(["train_station", "test_tube"])          # {}
    ```
    """
    names = list(dict.fromkeys(names))
    parsed = {name: p for name in names if (p := _parse(name))}
    by_rest: dict[tuple[str, ...], dict[str, str]] = {}
    for name, p in parsed.items():
        by_rest.setdefault(p.rest, {})[name] = p.word
    candidates = [_resolve(words) for words in by_rest.values()]
    bare = _resolve(by_rest.get((), {}))
    # a name with other words ("flowers_train") counts only if the same words occur with another split
    several = [splits for splits in candidates if len(set(splits.values())) > 1]
    best = bare if len(set(bare.values())) > 1 or not several else max(several, key=len)
    return dict(sorted(best.items(), key=lambda item: SPLITS.index(item[1])))


def resembles(name: str) -> bool:
    """Whether a name contains a word for a split, as in "train_day" or "new-tests-2"."""
    return any(word in _STRONG or word in _WEAK for word in _tokens(name))


def _resolve(words: dict[str, str]) -> dict[str, SplitName]:
    """The split of each name, given its word; weak words get the split that is still free."""
    splits: dict[str, SplitName] = {name: _STRONG[word] for name, word in words.items() if word in _STRONG}
    for name, word in words.items():
        if word in _WEAK:
            first, second = _WEAK[word]
            taken = {split for other, split in splits.items() if words[other] != word}
            splits[name] = second if first in taken and second not in taken else first
    return splits


def _parse(name: str) -> _Parsed | None:
    tokens = _tokens(name)
    words = [t for t in tokens if t in _STRONG or t in _WEAK]
    if len(words) != 1:
        return None
    return _Parsed(words[0], tuple(t for t in tokens if t != words[0]))


def _tokens(name: str) -> list[str]:
    """The words of a name, without numbers and without words that any folder of images may have."""
    text = unicodedata.normalize("NFKC", name)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()
    for pattern, word in _PHRASES:
        text = pattern.sub(f" {word} ", text)
    tokens = []
    for token in re.findall(r"[^\W\d_]+", text):
        if token not in _STRONG and token not in _WEAK:
            short = _FUSED.sub("", token)  # trainset, testdata
            token = short if short in _STRONG or short in _WEAK else token
        if token not in _NOISE:
            tokens.append(token)
    return tokens
