"""Deletion and insertion against a loop that changes one pixel after the other."""

import numpy as np
import pytest
import torch

from gapstone.localisation.deletion_insertion import Curve, deletion, insertion


def sums(weights):
    """A model whose logits are weighted sums of pixels: (N, C, H, W) → (N, K)."""
    return lambda images: torch.einsum("nchw,kchw->nk", images, weights)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 5, generator=generator)
    weights = torch.randn(4, 2, 3, 5, generator=generator)
    map = torch.randint(-2, 3, (3, 5), generator=generator).numpy()  # with many ties
    return image, sums(weights), map


def one_by_one(model, start, end, map, target):
    order = sorted(range(map.size), key=lambda i: (-map.flat[i], i))  # ties row by row, from the left
    now, answers = start.clone(), []
    for i in [None, *order]:
        if i is not None:
            y, x = divmod(i, map.shape[1])
            now[:, y, x] = end[:, y, x]
        answers.append(model(now[None])[0])
    return torch.stack(answers)


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_every_step_is_one_more_pixel(case, batch):
    image, model, map = case
    fill = torch.full_like(image, 0.3)
    down = one_by_one(model, image, fill, map, 2)
    up = one_by_one(model, fill, image, map, 2)
    found = deletion(model, image, map, 2, steps=15, fill=0.3, answer="logit", batch=batch)
    np.testing.assert_allclose(found.answers, down[:, 2], atol=1e-5)
    np.testing.assert_allclose(found.fractions, np.arange(16) / 15)
    found = insertion(model, image, map, 2, steps=15, fill=fill, batch=batch)
    np.testing.assert_allclose(found.answers, up.softmax(1)[:, 2], atol=1e-5)
    found = insertion(model, image, map, 2, steps=15, fill=fill, batch=batch, multi_label=True)
    np.testing.assert_allclose(found.answers, up.sigmoid()[:, 2], atol=1e-5)


def test_fewer_steps_take_more_pixels_each(case):
    image, model, map = case
    every = deletion(model, image, map, 1, steps=15)
    some = deletion(model, image, map, 1, steps=4)
    counts = [0, 4, 8, 11, 15]  # 3.75, 7.5 and 11.25 rounded, halves to even
    np.testing.assert_allclose(some.answers, every.answers[counts], atol=1e-6)
    np.testing.assert_allclose(some.fractions, np.array(counts) / 15)
    many = deletion(model, image, map, 1, steps=60)  # more steps than pixels
    assert len(many.answers) == 61
    assert many.auc == pytest.approx(every.auc)  # steps without a new pixel have no width


def test_area():
    assert Curve(np.array([0, 0.5, 1]), np.array([1.0, 0.5, 0.0])).auc == 0.5
    assert Curve(np.array([0, 0.1, 1]), np.array([1.0, 0.0, 0.0])).auc == pytest.approx(0.05)


def test_a_good_map_is_better_than_its_opposite():
    image = torch.ones(1, 8, 12)
    weights = torch.zeros(2, 1, 8, 12)
    weights[1, 0, 2:5, 3:9] = 1.0
    model, map = sums(weights), weights[1, 0].numpy()
    assert deletion(model, image, map, 1).auc < 0.62 < 0.9 < deletion(model, image, -map, 1).auc
    assert insertion(model, image, map, 1, fill=0.0).auc > 0.9 > 0.62 > insertion(model, image, -map, 1, fill=0.0).auc


def test_ends_are_the_image_and_the_fill(case):
    image, model, map = case
    gone, come = (f(model, image, map, 0, fill="blur", answer="logit").answers for f in (deletion, insertion))
    assert gone[0] == come[-1] == pytest.approx(model(image[None])[0, 0].item(), abs=1e-5)
    assert gone[-1] == come[0] != gone[0]


@pytest.mark.parametrize("size", [(3, 5), (1, 1), (40, 31)])
def test_blur(size):
    torch.manual_seed(0)
    image = torch.rand(3, *size)
    seen = []

    def model(images):
        seen.append(images.clone())
        return torch.zeros(len(images), 2)

    insertion(model, image, np.zeros(size), 0, steps=1)
    blurred = seen[0][0]
    x = np.arange(-5, 6)
    weights = np.exp(-(x**2) / 50)
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    padded = np.pad(image[1].numpy(), 5, mode="edge")
    y, x = size[0] // 2, size[1] - 1
    assert blurred[1, y, x].item() == pytest.approx((padded[y : y + 11, x : x + 11] * kernel).sum(), abs=1e-5)
    assert torch.equal(seen[0][1], image)
    flat = torch.full((1, *size), 0.7)
    seen.clear()
    insertion(model, flat, np.zeros(size), 0, steps=1)
    torch.testing.assert_close(seen[0][0], flat)  # edges are no darker


def test_the_model_and_its_mode_are_the_callers():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3), torch.nn.Dropout(0.5)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    image = torch.rand(1, 3, 4, requires_grad=True)
    answers = deletion(model, image, np.arange(12.0).reshape(3, 4), 1).answers
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert image.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert len(answers) == 101


def test_mistakes(case):
    image, model, map = case
    for call in (deletion, insertion):
        with pytest.raises(ValueError, match="place the map"):
            call(model, image, map.T, 0)
        with pytest.raises(ValueError, match="NaN"):
            call(model, image, np.full((3, 5), np.nan), 0)
        with pytest.raises(ValueError, match="one image"):
            call(model, image[None], map, 0)
        with pytest.raises(ValueError, match="uint8"):
            call(model, image.to(torch.uint8), map, 0)
        with pytest.raises(ValueError, match="target 4"):
            call(model, image, map, 4)
        with pytest.raises(ValueError, match="target -1"):
            call(model, image, map, -1)
        with pytest.raises(ValueError, match="model's answer"):
            call(lambda images: images.sum((1, 2, 3)), image, map, 0)
        with pytest.raises(ValueError, match="steps=0"):
            call(model, image, map, 0, steps=0)
        with pytest.raises(ValueError, match="grey"):
            call(model, image, map, 0, fill="grey")
        with pytest.raises(ValueError, match="fill is"):
            call(model, image, map, 0, fill=torch.zeros(2, 5, 3))
        with pytest.raises(ValueError, match="answer"):
            call(model, image, map, 0, answer="logits")
