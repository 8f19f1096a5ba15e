"""`--split 0.7/0.15/0.15`."""

from types import SimpleNamespace

import numpy as np
import pytest

from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.data.split import split
from gapstone.data.split_shares import Shares, parse_shares, shares_for

NONE_GIVEN = SimpleNamespace(splits=())


def test_shares():
    assert parse_shares("0.7/0.15/0.15") == parse_shares("70/15/15") == Shares(0.7, 0.15, 0.15)
    assert shares_for(None, NONE_GIVEN, None) == {}
    found = shares_for("60/20/20", NONE_GIVEN, None)
    assert found == {"test_share": pytest.approx(0.2), "validation_share": pytest.approx(0.25)}
    assert shares_for("60/20/20", SimpleNamespace(splits=("train",)), None) == found


@pytest.mark.parametrize("text", ["", "0.7", "0.7/0.3", "0.7/0.2/0.2", "1/0/0", "a/b/c", "-1/1/1", "nan/1/0", "7/2/1"])
def test_shares_that_make_no_sense(text):
    with pytest.raises(ValueError, match=r"--split .*: expected the shares of training, validation and test images"):
        parse_shares(text)


def test_where_something_else_says_it():
    with pytest.raises(ValueError, match="--split 70/15/15 and --folds 3: folds test every image once, 1/3 at a time"):
        shares_for("70/15/15", NONE_GIVEN, 3)
    with pytest.raises(ValueError, match="DATA says itself which images are train and val"):
        shares_for("70/15/15", SimpleNamespace(splits=("train", "val")), None)


def test_the_digits_in_these_shares():
    """Test images are those of the default and more: each is chosen by its own content."""
    source = open_source("digits")
    scanned = scan(source)
    plain, asked = split(source, scanned), split(source, scanned, **shares_for("50/20/30", source, None))
    total = len(source)
    assert len(asked.test) / total == pytest.approx(0.3, abs=0.03)
    assert len(asked.validation) / (total - len(asked.test)) == pytest.approx(0.2 / 0.7, abs=0.01)
    assert set(plain.test) <= set(asked.test)
    assert len(np.unique(np.concatenate([asked.train, asked.validation, asked.test]))) == total
