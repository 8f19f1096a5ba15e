"""A short line, a notebook's cell with the pictures, a sheet; of explanations and of what other reports say."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageShow
from torch import nn

import gapstone as gs
from gapstone.images.preprocessing import Preprocessing
from gapstone.maps.explain import explain_head


def model(*more: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *more, nn.Linear(8, 1000)
    ).eval()


def test_the_line_is_short_and_says_what_matters():
    x = torch.randn(6, 3, 20, 28)
    assert repr(gs.explain(model(), x)) == "Explanation(6 images, 1,000 classes, maps 10×14, additive)"
    normed = gs.explain(nn.Sequential(model(nn.LayerNorm(8)), nn.Softmax(1)), x[:1], top_k=3)
    assert repr(normed) == (
        "Explanation(1 image, 3 of 1,000 classes, maps 10×14, additive, held: the norm's standard deviation, of the "
        "logits before the softmax)"
    )
    hidden = gs.explain(model(nn.Linear(8, 8), nn.GELU()), x[:2], [5])
    assert re.fullmatch(
        r"Explanation\(2 images, 1 of 1,000 classes, maps 10×14, not additive: up to \S+ of a logit unexplained\)",
        repr(hidden),
    )
    assert re.fullmatch(
        r"Evidence\('5', (< )?\S+ %, logit [+−]\S+, map 10×14, not additive\)", repr(hidden.evidence(0, (20, 28))[0])
    )


def picture_of(html: str) -> np.ndarray:
    (uri,) = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', html)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB"))


def test_a_notebooks_cell_has_the_pictures():
    x = torch.rand(6, 3, 20, 28)
    x[0] = 0
    x[0, 0] = 1.0  # red
    explained = gs.explain(model(), x, top_k=2)
    html = explained._repr_html_()
    assert "Explanation(6 images" in html
    assert "The first 4 of 6" in html
    shown = picture_of(html)
    assert (np.abs(shown.astype(int) - [255, 0, 0]) < 8).all(2).sum() > 100 * 200  # the picture as it is
    assert shown.shape[0] > 4 * 160  # four of them


def test_a_sheet_of_what_was_asked_and_pictures_of_ones_own():
    x = torch.randn(3, 3, 20, 28)
    explained = gs.explain(model(), x, top_k=5)
    assert explained.sheet(2, 5).width > explained.sheet(2, 1).width
    assert explained.sheet([0, 2], 1).height > explained.sheet([2], 1).height
    green = [np.full((20, 28, 3), (0, 255, 0), np.uint8)] * 3
    assert (np.asarray(explained.sheet(1, 1, green)) == [0, 255, 0]).all(2).sum() > 100 * 200
    with pytest.raises(ValueError, match="uint8 of 20×28 px"):
        explained.sheet(1, 1, [np.zeros((8, 8, 3), np.uint8)])
    with pytest.raises(ValueError, match="of 3 images, from 0"):
        explained.sheet([3])


def test_what_is_no_picture_has_a_line_and_a_reason():
    explained = explain_head(gs.Head("gap", 8, 4), torch.randn(2, 8, 5, 5))
    assert "no pictures" in explained._repr_html_()
    with pytest.raises(ValueError, match="give pictures="):
        explained.show()


def test_pictures_of_a_classifier_look_as_they_did():
    preprocessing = Preprocessing(3, (32, 32), (32, 32), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    classifier = gs.Classifier("nin", "gap", ("a", "b"), preprocessing)
    pixels = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    explained = gs.explain(classifier, [pixels])
    assert np.array_equal(explained.seen.pixels(0), pixels)


def test_show_opens_a_window_or_says_what_to_do(monkeypatch):
    explained = gs.explain(model(), torch.rand(1, 3, 20, 28), top_k=1)
    shown = []
    monkeypatch.setattr(ImageShow, "show", lambda image, title: shown.append(image.size) or True)
    explained.show()
    assert shown == [explained.sheet().size]
    monkeypatch.setattr(ImageShow, "show", lambda *_: False)
    with pytest.raises(RuntimeError, match=r"explained\.sheet"):
        explained.show()


def test_other_reports_are_short_and_have_a_cell():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 64, 10)).eval()
    swapped = gs.swapped(gs.swap_head(network, "gap", 3, images=torch.rand(2, 3, 32, 32)))
    accelerated = gs.accelerated(gs.accelerate(network))
    found = gs.inspect(network, size=32, name="<b>mine</b>")
    assert repr(swapped) == ("Swapped(Sequential: head 'gap' of 3 classes at '2', 5,354 parameters before, 251 after)")
    assert repr(accelerated) == "Acceleration(1 module changed, 0 left)"
    assert repr(found).startswith("Inspection(<b>mine</b>, 5,354 parameters, ")
    for report in (swapped, accelerated, found):
        html = report._repr_html_()
        assert html.startswith("<pre")
        assert len(repr(report)) < 200
        assert "<b>" not in html
    assert picture_of(found._repr_html_()).shape[1] > 400
