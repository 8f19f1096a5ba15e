"""What a reader is told beside the numbers, and a head that learned nothing does not spoil everyone's maps."""

import numpy as np
import pytest

from gapstone.comparing.remarks import learned_with, remarks
from gapstone.comparing.report import report_page, report_pictures
from gapstone.training.learning_checks import few_validation, learned, majority
from gapstone.training.loop import History
from tests.comparing.fake_results import make, save
from tests.comparing.test_report import Page, decoded


@pytest.fixture
def results(tmp_path):
    return make(tmp_path, heads=("gap", "fc"), shown=2)


def test_where_all_is_well_nothing_is_said(results):
    assert results["remarks"] == []


def test_the_majority_class_is_what_a_head_must_beat():
    assert majority([55, 45]) == 0.55
    assert not learned(0.58, 0.55)  # the customer's head: 58 % train where the majority is 55 %
    assert not learned(0.15, 0.10)
    assert learned(0.70, 0.55)
    assert learned(0.30, 0.10)


def test_a_head_hardly_better_than_the_largest_class_is_named(results):
    results["data"]["counts"] = {"train": [55, 45], "test": [50, 50]}
    results["heads"][1]["train_accuracy"]["mean"] = 0.58
    (said,) = remarks(results)
    assert said.startswith(
        "fc is hardly better than always predicting the largest class: 58.0 % of the training images, the largest "
        "class is 55.0 %."
    )
    results["heads"][1]["train_accuracy"]["mean"] = 0.99  # learned by heart, and no better on others
    results["heads"][1]["test_accuracy"]["mean"] = 0.49
    (said,) = remarks(results)
    assert "no better than always predicting the largest class: 49.0 % of the test images" in said


def test_its_maps_do_not_set_the_scale_of_all_others(results, tmp_path):
    """Its maps of ±572 turned everyone's maps grey."""
    with np.load(tmp_path / "pictures.npz") as arrays:
        kept = dict(arrays) | {"seed": np.array(0), "maps_1": arrays["maps_1"] * 572 / np.abs(arrays["maps_1"]).max()}
    np.savez(tmp_path / "pictures.npz", **kept)
    save(tmp_path, results)
    most = majority(results["data"]["counts"]["train"])
    for trial in results["trials"]:
        if trial["head"] == "fc":
            trial["train_accuracy"] = most + 0.03
    assert learned_with(results, 0) == [True, False]
    classes = results["data"]["classes"]
    fair, _ = report_pictures.read(tmp_path / "pictures.npz", classes, 2, lambda seed: learned_with(results, seed))
    spoilt, _ = report_pictures.read(tmp_path / "pictures.npz", classes, 2)
    assert spoilt.largest > 100 > 1 > fair.largest
    strongest = [decoded(m.uri)[..., 3].max() for row in fair.rows for m in row.cells[0]]
    assert max(strongest) == round(255 * report_pictures.STRONGEST)
    assert fair.learned == [True, False]
    save(tmp_path, results)
    said = Page(report_page.write(tmp_path).read_text("utf-8")).text
    assert "fc is hardly better than the largest class in this trial" in said
    # where nobody learned anything, somebody's maps must set it
    for trial in results["trials"]:
        trial["train_accuracy"] = most
    nobody, _ = report_pictures.read(tmp_path / "pictures.npz", classes, 2, lambda seed: learned_with(results, seed))
    assert nobody.largest == spoilt.largest


def test_a_best_epoch_chosen_on_few_images_is_told():
    assert few_validation(29) == (
        "The best epoch was chosen on 29 validation images, where one image is 3.4 percentage points: which epoch is "
        "best is partly luck."
    )
    assert "on 1 validation image, where" in few_validation(1)
    assert few_validation(29, tuned=True) == (
        "Learning rate, weight decay and epoch were chosen on 29 validation images, where one image is 3.4 percentage "
        "points: which are best is partly luck."
    )
    assert few_validation(0) is None  # none was chosen
    assert few_validation(100) is None


def test_unequal_numbers_of_epochs_are_told(results):
    for trial in results["trials"]:
        if trial["head"] == "gap":
            trial["epochs"] = 12 + trial["seed"]
    (said,) = remarks(results)
    ran = results["trials"][-1]["epochs"]
    assert f"unequal numbers of epochs (of 20): gap 12 to 16 and fc {ran}." in said


def test_cropped_photos_stand_among_them_and_on_the_page(results, tmp_path):
    results["data"]["cropped"] = "300 of 320 images are not of the shape …"
    results["remarks"] = remarks(results)
    assert results["remarks"] == [results["data"]["cropped"]]
    save(tmp_path, results)
    assert results["data"]["cropped"] in Page(report_page.write(tmp_path).read_text("utf-8")).text


def test_progress_says_what_it_shows():
    from gapstone.evaluating.train_model import _validation_text

    history = History(validation_accuracy=[0.25, 0.5], validation_loss=[0.7, 0.6543])
    assert _validation_text(history, multi_label=False) == "validation accuracy 50.0 %"
    assert _validation_text(history, multi_label=True) == "validation loss 0.654"
    assert _validation_text(History(), multi_label=False) == _validation_text(History(), multi_label=True) == ""
