"""Where heads look, on pictures whose object is known: bright squares on black, their colour the class."""

import io
import json
import shutil
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from rich.console import Console

from gapstone.comparing.boxed_images import LONGEST, BoxedImages
from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.map_localisation import baselines, localisation
from gapstone.comparing.predictor import ModelPredictor
from gapstone.comparing.report import report_page, report_terminal
from gapstone.comparing.run_comparison import compare
from gapstone.comparing.trials import Trial
from gapstone.heads import Head
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.classifier import Classifier
from gapstone.training.loop import TrainSettings
from gapstone.training.training_data import TrainOptions
from tests.comparing.fake_results import save
from tests.schemas import check

RED, GREEN, DIM = (255, 0, 0), (0, 255, 0), (0, 90, 0)


# --- the measure, on a model made by hand: the map of class k is colour k, in cells of 4 px

SEEN = Preprocessing(3, (48, 48), (54, 54), (0.0,) * 3, (1.0,) * 3)


def by_hand(head="gap", **options):
    model = Classifier("nin", "gap", ("red", "green"), SEEN, **options).eval()
    model.features = torch.nn.AvgPool2d(4)
    model.head = Head(head, channels=3, classes=2, size=(12, 12))
    with torch.no_grad():
        linear = next(module for module in model.head.modules() if isinstance(module, torch.nn.Linear))
        linear.bias.zero_()
        linear.weight.copy_(torch.eye(3)[:2])
    return model.eval()


class Pictures:
    """Originals of different sizes, stored as the network is to see them."""

    def __init__(self, originals, labels):
        self.images = np.stack([SEEN.fit(picture) for picture in originals])
        self.labels = np.array(labels)


def black(height, width, *squares):
    picture = np.zeros((height, width, 3), np.uint8)
    for (x0, y0, x1, y1), colour in squares:
        picture[y0:y1, x0:x1] = colour
    return picture


PLACES = [  # size (H, W) and a box that the centre crop sees: shapes, scales and corners
    ((54, 54), (8, 12, 28, 30)), ((108, 160), (60, 20, 110, 70)), ((200, 100), (20, 60, 60, 100)),
    ((54, 80), (40, 20, 62, 44)), ((300, 300), (150, 40, 270, 150)),
]  # fmt: skip


def hand_made():
    originals = [black(*size, (box, (RED, GREEN)[i % 2])) for i, (size, box) in enumerate(PLACES)]
    objects = tuple(BoxedImages(i, size, (tuple(map(float, box)),), i % 2) for i, (size, box) in enumerate(PLACES))
    return Pictures(originals, [i % 2 for i in range(len(PLACES))]), objects


@pytest.mark.parametrize("head", ["gap", "gmp"])
def test_a_model_that_looks_at_the_object_finds_it_in_the_original(head):
    pictures, objects = hand_made()
    rows = np.arange(len(PLACES))
    facts, arrays = localisation(ModelPredictor(by_hand(head), pictures, batch_size=2), objects, rows, rows[:0])
    if head == "gap":
        assert facts["gt_known"] == facts["gt_known_30"] == facts["top1"] == facts["max_box_acc"] == 1
        assert facts["energy"] > 0.6
        assert facts["max_box_acc_v2"] > 0.9
        assert arrays["found"].all()
    else:  # of the maximum a single cell is shown: it lies on the object, and is no box of it
        assert arrays["found"].mean() < 0.5
    assert facts["pointing"] == facts["pointing_15"] == 1
    assert (facts["pictures"], facts["without_evidence"], facts["tuned"]) == (len(PLACES), 0, None)
    idle = baselines(objects)
    assert facts["energy"] > max(entry["energy"] for entry in idle)
    assert max(entry["gt_known"] for entry in idle) < 1


def test_the_map_of_the_true_class_counts_whatever_is_answered():
    big, small = (10, 10, 44, 44), (46, 46, 50, 50)
    originals = [
        black(54, 54, (big, DIM), (small, RED)),  # green fills more of it, red is brighter
        black(54, 54, (big, RED), (small, DIM)),  # green is there but hardly
        black(54, 54, (big, RED)),  # nothing green at all
    ]
    pictures = Pictures(originals, [1, 1, 1])
    objects = tuple(BoxedImages(i, (54, 54), (box,), 1) for i, box in enumerate((big, big, big)))
    facts, arrays = localisation(ModelPredictor(by_hand(), pictures), objects, np.arange(3), np.arange(0))
    assert arrays["found"].tolist() == [True, False, False]
    assert facts["gt_known"] == pytest.approx(1 / 3)
    assert facts["top1"] == pytest.approx(1 / 3)
    assert facts["top5"] == pytest.approx(1 / 3)
    assert facts["without_evidence"] == 1
    # the answer must be right for top-1: with the red square larger, the map stays and the answer is lost
    pictures = Pictures([black(54, 54, (big, DIM), ((4, 46, 54, 54), RED), ((46, 0, 54, 46), RED))], [1])
    facts, arrays = localisation(ModelPredictor(by_hand(), pictures), objects[:1], np.arange(1), np.arange(0))
    assert (facts["gt_known"], facts["top1"], facts["top5"]) == (1, 0, 1)


def test_a_threshold_is_tuned_on_ten_validation_images_and_never_on_fewer():
    pictures, objects = hand_made()
    images = np.concatenate([pictures.images] * 4)
    pictures.images, pictures.labels = images, np.concatenate([pictures.labels] * 4)
    objects = tuple(one._replace(row=one.row + 5 * turn) for turn in range(4) for one in objects)
    test, rows = np.arange(5), np.arange(5, 20)
    for count, tuned in ((9, None), (10, 1.0)):
        facts, _ = localisation(ModelPredictor(by_hand(), pictures), objects, test, rows[:count])
        assert facts["tuned"] == tuned
        assert facts["pictures"] == 5
    # the validation images' threshold, not the test images': there, the boxes are so small that none will do
    tiny = tuple(one if one.row < 5 else one._replace(boxes=((25.0, 25.0, 26.0, 26.0),)) for one in objects)
    facts, _ = localisation(ModelPredictor(by_hand(), pictures), tiny, test, rows[:10])
    assert facts["tuned_threshold"] == 0.0  # the lowest of the equally good
    assert facts["max_box_acc_threshold"] > 0


def test_each_class_of_an_image_is_judged_by_its_own_map_against_its_own_boxes():
    left, right = (6, 10, 24, 28), (30, 26, 48, 44)
    originals = [
        black(54, 54, (left, RED), (right, GREEN)),
        black(54, 54, (left, GREEN)),
        black(54, 54, (left, RED), (right, DIM)),
    ]
    pictures = Pictures(originals, np.array([[1, 1], [0, 1], [1, 1]], bool))
    boxes = {(0, 0): left, (0, 1): right, (1, 1): right, (2, 0): left, (2, 1): right}  # the third is elsewhere
    objects = tuple(BoxedImages(row, (54, 54), (box,), k) for (row, k), box in boxes.items())
    model = by_hand(multi_label=True)
    with torch.no_grad():
        next(module for module in model.head.modules() if isinstance(module, torch.nn.Linear)).bias.fill_(
            -0.1
        )  # a dim square is too little to be answered
    rows = np.arange(3)
    facts, arrays = localisation(ModelPredictor(model, pictures, batch_size=2), objects, rows, rows[:0])
    assert arrays["found"].tolist() == arrays["pointed"].tolist() == [True, True, False, True, True]
    assert (facts["pictures"], facts["gt_known"], facts["pointing"]) == (5, 0.8, 0.8)
    assert (facts["top1"], facts["top5"], facts["reference"]) == (0.6, None, None)
    # each as if it were alone: nothing is subtracted, and no other class's boxes count
    for one, found in zip(objects, arrays["found"], strict=True):
        alone, _ = localisation(ModelPredictor(model, pictures), (one,), rows, rows[:0])
        assert alone["gt_known"] == found


def test_no_boxes_among_the_test_images():
    pictures, objects = hand_made()
    assert localisation(ModelPredictor(by_hand(), pictures), objects, np.arange(0), np.arange(5)) == (None, {})


def test_large_pictures_are_scored_on_a_grid():
    factor, grid, boxes = BoxedImages(0, (1500, 4096), ((400.0, 0.0, 800.0, 1000.0),), 0).scaled()
    assert (factor, grid, boxes.tolist()) == (0.25, (375, LONGEST), [[100, 0, 200, 250]])
    assert BoxedImages(0, (1024, 7), ((0.0, 0.0, 1.0, 1.0),), 0).scaled()[:2] == (1, (1024, 7))
    # the same picture, six times as large, is found as well, and scores the same but for rounding
    pictures, objects = hand_made()
    large = tuple(
        one._replace(
            size=(one.size[0] * 9, one.size[1] * 9), boxes=tuple(tuple(9 * v for v in box) for box in one.boxes)
        )
        for one in objects
    )
    both = [
        localisation(ModelPredictor(by_hand(), pictures), some, np.arange(5), np.arange(0))[0]
        for some in (objects, large)
    ]
    assert both[0]["energy"] == pytest.approx(both[1]["energy"], abs=0.02)
    assert both[1]["gt_known"] == 1


def test_baselines_by_hand():
    objects = (
        BoxedImages(
            0, (100, 200), ((0.0, 0.0, 200.0, 60.0),), 0
        ),  # 60 % of the picture, not its middle point … at y 50, it is
        BoxedImages(1, (100, 100), ((60.0, 60.0, 70.0, 70.0), (0.0, 0.0, 10.0, 10.0)), 0),
    )
    whole, middle = baselines(objects)
    assert (whole["gt_known"], whole["gt_known_30"], whole["gt_known_70"]) == (0.5, 0.5, 0.0)
    assert whole["energy"] == whole["pointing"] == pytest.approx((0.6 + 0.02) / 2)
    assert middle["pointing"] == 0.5
    # of the middle 70 %, y from 15 to 85: 45 of 70 rows; the second holds one of two 10×10 boxes
    assert middle["energy"] == pytest.approx((45 / 70 + 100 / 4900) / 2)
    assert middle["max_box_acc_v2"] == pytest.approx(
        np.mean([middle[k] for k in ("gt_known", "gt_known_30", "gt_known_70")])
    )


# --- what a trial depends on

ROWS = np.arange(4)
PLAIN = Trial(
    backbone="nin", pretrained=False, head="gap", labels=("a", "b"),
    preprocessing=Preprocessing(1, (16, 16), (16, 16), (0.5,), (0.25,)), settings=TrainSettings(epochs=3),
    seed=1, fold=None,
    threads=1, device="cpu", data="0123456789abcdef", train=ROWS, validation=ROWS + 4, test=ROWS + 8,
    shown=ROWS[:2] + 8,
)  # fmt: skip


def test_trials_without_boxes_keep_the_name_they_had():
    software = {"torch": "2.15.0", "loader": 1, "timm": None, "gpu": None}
    with mock.patch.object(Trial, "_made_by", return_value=software):
        assert PLAIN.id == "2e9c07dea040412d"  # with another VERSION it is another: all trials are trained again
        ids = {
            replace(PLAIN, objects=objects).id
            for objects in (
                None,
                (),
                (BoxedImages(8, (16, 16), ((1.0, 1.0, 5.0, 5.0),), 0),),
                (BoxedImages(8, (16, 16), ((1.0, 1.0, 5.0, 6.0),), 0),),
                (BoxedImages(8, (16, 17), ((1.0, 1.0, 5.0, 5.0),), 0),),
                (BoxedImages(9, (16, 16), ((1.0, 1.0, 5.0, 5.0),), 0),),
            )
        }
        assert "0c82eafe49b8babe" in ids  # of boxes without classes
        several = replace(PLAIN, multi_label=True, objects=(BoxedImages(8, (16, 16), ((1.0, 1.0, 5.0, 5.0),), 0),))
        assert several.id != replace(several, objects=(several.objects[0]._replace(label=1),)).id
    assert len(ids) == 6


# --- a whole comparison


def squares(folder, count=64):
    """An .npz of 32×32 pictures with a train and a test split, and a table of where the squares are."""
    rng = np.random.default_rng(0)
    labels, images = np.arange(count) % 2, np.zeros((count, 32, 32, 3), np.uint8)
    test = np.arange(count) >= count * 3 // 4
    rows = ["path,class,x0,y0,x1,y1,width,height", "elsewhere.png,red,1,1,2,2,32,32"]
    for i in range(count):
        side, (y, x) = rng.integers(10, 15), rng.integers(0, 17, 2)
        images[i] = rng.integers(0, 40, (32, 32, 3))
        images[i, y : y + side, x : x + side, labels[i]] = rng.integers(180, 255)
        rows.append(
            f"{'test' if test[i] else 'train'} #{i},{('red', 'green')[labels[i]]},{x},{y},{x + side},{y + side},32,32"
        )
    split = np.where(test, "test", "train")
    np.savez(folder / "squares.npz", images=images, labels=labels, classes=np.array(["red", "green"]), split=split)
    (folder / "boxes.csv").write_text("\n".join(rows), "utf-8")
    return folder / "squares.npz", folder / "boxes.csv"


def request(data, boxes, **more):
    choices = TrainOptions(str(data), epochs=1, batch_size=16, precision="float32", learning_rate=0.02)
    return CompareRequest(choices, ("gap", "fc:8"), 2, boxes=boxes, quick=True, **more)


def quiet():
    return Console(file=io.StringIO(), width=100)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares")
    data, boxes = squares(folder)
    console = quiet()
    results = compare(request(data, boxes), folder / "out", console)
    return folder, data, boxes, results, console.file.getvalue()


def test_the_results_hold_what_was_measured(run):
    folder, _, _, results, said = run
    assert "16 of 16 test images have boxes of their class" in said
    assert "1 row of images that are not in DATA" in said
    about = results["localisation"]
    assert (about["pictures"], about["boxes"]) == (16, 16)
    assert [idle["name"] for idle in about["baselines"]] == ["whole image", "centre box, 70 %"]
    gap, fc = (head["localisation"] for head in results["heads"])
    assert (gap["additive"], fc["additive"]) == (True, False)
    for head in (gap, fc):
        assert all(
            len(stat["values"]) == 2 for key, stat in head.items() if isinstance(stat, dict) and "values" in stat
        )
        assert head["gt_known_70"]["mean"] <= head["gt_known"]["mean"] <= head["gt_known_30"]["mean"]
        assert head["top1"]["mean"] <= head["gt_known"]["mean"] <= head["max_box_acc"]["mean"]
    (pair,) = results["localisation_pairs"]
    assert (pair["a"], pair["b"]) == ("fc:8", "gap")
    assert pair["difference"] == pytest.approx(100 * (fc["gt_known"]["mean"] - gap["gt_known"]["mean"]))
    assert "16 images" in pair["method"]
    for trial in results["trials"]:
        with np.load(folder / "out" / "trials" / trial["id"] / "arrays.npz") as arrays:
            facts = json.loads((folder / "out" / "trials" / trial["id"] / "trial.json").read_text("utf-8"))
            assert arrays["found"].mean() == pytest.approx(facts["localisation"]["gt_known"])
            assert arrays["placement"].tolist() == [[4, 4], [0, 0]]  # two 3×3 convolutions of stride 2, padded by 1
    json.dumps(results, allow_nan=False)
    check("results", json.loads((folder / "out" / "results.json").read_text("utf-8")))


def test_the_page_and_the_terminal_say_it(run):
    folder, _, _, results, said = run
    page = (folder / "out" / "report.html").read_text("utf-8")
    assert 'id="localisation"' in page
    assert "looks at nothing" in page
    assert 'class="box"' in page
    for head in results["heads"]:
        share = f"{100 * head['localisation']['gt_known']['mean']:.1f}"
        assert f"<b>{share}" in page
        assert share in said[said.index("GT-known") :]
    assert "fc:8 *" in said
    assert "*: the map does not add up to the logit" in " ".join(said.split())
    with np.load(folder / "out" / "pictures.npz") as arrays:
        assert sorted(set(arrays["boxes"][:, 0].astype(int))) == list(range(len(arrays["images"])))
        for place, x0, y0, x1, y1, _ in arrays["boxes"].astype(
            int
        ):  # shown as large as they are: the box is the square
            bright = arrays["images"][place].max(2) > 100
            assert bright[y0:y1, x0:x1].all()
            assert not bright.sum() - bright[y0:y1, x0:x1].sum()


@pytest.mark.slow
def test_what_is_repeated_gives_the_same_numbers(run):
    folder, data, boxes, results, _ = run
    out = folder / "again"
    shutil.copytree(folder / "out", out, copy_function=shutil.copy2)
    one = results["trials"][0]["id"]
    shutil.rmtree(out / "trials" / one)
    again = compare(request(data, boxes), out, quiet())
    for key in ("localisation", "localisation_pairs", "verdict"):
        assert again[key] == results[key]
    assert [head["localisation"] for head in again["heads"]] == [head["localisation"] for head in results["heads"]]
    with (
        np.load(folder / "out" / "trials" / one / "arrays.npz") as a,
        np.load(out / "trials" / one / "arrays.npz") as b,
    ):
        assert a.files == b.files
        assert all(np.array_equal(a[key], b[key]) for key in a.files)


def test_results_from_before_there_were_boxes_are_shown_as_before(run, tmp_path):
    folder, _, _, results, _ = run
    old = {key: value for key, value in results.items() if not key.startswith("localisation")}
    old["heads"] = [{key: value for key, value in head.items() if key != "localisation"} for head in old["heads"]]
    with np.load(folder / "out" / "pictures.npz") as arrays:
        kept = {key: arrays[key] for key in arrays.files if key != "boxes" and not key.startswith("placement")}
    np.savez(tmp_path / "pictures.npz", **kept)
    save(tmp_path, old)
    page = report_page.write(tmp_path).read_text("utf-8")
    assert 'id="maps"' in page
    assert 'id="localisation"' not in page
    assert 'class="box"' not in page
    console = quiet()
    report_terminal.render(old, console)
    assert "map on the object" not in console.file.getvalue()


def test_boxes_that_can_measure_nothing_end_it_early(run, tmp_path):
    _, data, boxes, _, _ = run
    training = [line for line in boxes.read_text("utf-8").splitlines() if not line.startswith("test")]
    (tmp_path / "boxes.csv").write_text("\n".join(training), "utf-8")
    with pytest.raises(ValueError, match=r"none of the 16 test images has a box .* 4\d of the other images have one"):
        compare(request(data, tmp_path / "boxes.csv"), tmp_path / "out", quiet())
    with pytest.raises(ValueError, match="there is no such file"):
        compare(request(data, tmp_path / "nowhere.csv"), tmp_path / "out", quiet())
