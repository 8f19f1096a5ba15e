"""No image that --weights was trained on is tested: on the same DATA, on a grown one, on another one."""

import numpy as np
import pytest
import torch
from PIL import Image

import gapstone as gs
from gapstone.data.open_source import open_source
from gapstone.data.scan import scan
from gapstone.data.split import DataSplitError
from gapstone.images.preprocessing import Preprocessing
from gapstone.models.trained_on import NOTHING, TrainedOn
from gapstone.training.training_data import TrainOptions, plan_training


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAPSTONE_CACHE", str(tmp_path / "cache"))


def pictures(folder, count, seed=0, kind="png"):
    """So many of each of two classes, all different."""
    random = np.random.default_rng(seed)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 256, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{seed}-{number}.{kind}")
    return folder


def planned(data, weights=None, k=None, **options):
    said = []
    given = TrainOptions(str(data), backbone=None if weights else "nin", duplicate_threshold=1.0, **options)
    plan = plan_training(given, (0, 1), k, said.append, lambda name: lambda *done: None, weights)
    return plan, said


def model(path, trained_on):
    torch.manual_seed(0)
    made = gs.Classifier("nin", "gap", ("a", "b"), Preprocessing(3, (12, 12), (12, 12), (0.5,) * 3, (0.3,) * 3))
    made.trained_on = trained_on
    return made.save(path)


def of_split(plan, split):
    return {plan.source.items[row].name for row in plan.used[plan.splits[split].test]}


def test_on_the_same_folder_the_same_images_are_tested_also_when_it_has_grown(tmp_path):
    data = pictures(tmp_path / "data", 60)
    first, _ = planned(data)
    parts = first.splits[1]
    weights = model(tmp_path / "m.safetensors", first.trained_on(parts.train, parts.validation))
    again, said = planned(data, weights)
    assert of_split(again, 0) == of_split(first, 0)
    assert again.trained_before.complete
    assert not any("left out" in line for line in said)
    pictures(data, 40, seed=1)
    grown, said = planned(data, weights)
    assert {name for name in of_split(grown, 0) if "/0-" in name} == of_split(first, 0)
    assert len(of_split(grown, 0)) > len(of_split(first, 0))
    assert not any("left out" in line for line in said)


def test_images_it_was_trained_on_are_left_out_under_other_names_and_formats(tmp_path):
    before = planned(pictures(tmp_path / "before", 60))[0]
    parts = before.splits[0]
    everything = before.trained_on(parts.train, parts.validation, parts.test)
    weights = model(tmp_path / "m.safetensors", everything)
    data = pictures(tmp_path / "data", 60, kind="bmp")  # the same pictures
    pictures(data, 60, seed=1)
    plain, _ = planned(data)
    plan, said = planned(data, weights)
    old = {name for name in of_split(plain, 0) if "/0-" in name}
    assert len(old) > 5
    for split in (0, 1):
        assert of_split(plan, split) == of_split(plain, 0) - old
    of_all = f"{len(old)} of {len(of_split(plain, 0))} test images"
    note = f"{of_all} are left out, as --weights {weights} was trained on them"
    assert sum(note in line for line in said) == 1
    assert all(note in split.described for split in plan.splits)
    assert [len(split.train) for split in plan.splits] == [len(split.train) for split in plain.splits]


def test_a_class_of_which_none_is_left_is_refused(tmp_path):
    data = pictures(tmp_path / "data", 20)
    source = open_source(str(data))
    hashes = scan(source).content_hashes()
    weights = model(tmp_path / "m.safetensors", NOTHING.union(hashes[source.labels == 1]))
    with pytest.raises(DataSplitError, match=r"was trained on \d+ of \d+ test images, and none is left of 'b'"):
        planned(data, weights)
    everything = model(tmp_path / "n.safetensors", NOTHING.union(hashes))
    with pytest.raises(DataSplitError, match="none is left at all"):
        planned(data, everything)


def test_folds_test_what_was_not_trained_on(tmp_path):
    data = pictures(tmp_path / "data", 30)
    first = planned(data)[0]
    seen = first.trained_on(first.splits[0].train, first.splits[0].validation)
    plan, said = planned(data, model(tmp_path / "m.safetensors", seen), k=2)
    assert of_split(plan, 0) | of_split(plan, 1) == of_split(first, 0)
    assert any("of 60 test images are left out" in line for line in said)


def test_near_copies_of_seen_images_are_left_out_too(tmp_path):
    rng = np.random.default_rng(0)
    images = np.kron(rng.integers(0, 256, (40, 6, 6, 3)), np.ones((1, 6, 6, 1))).astype(np.uint8)
    copies = np.clip(images[:10].astype(int) + 2, 0, 255).astype(np.uint8)  # a little brighter
    labels = np.arange(40) % 2
    split = np.array(["train"] * 20 + ["test"] * 20 + ["test"] * 10)
    path = tmp_path / "d.npz"
    np.savez(path, images=np.concatenate([images, copies]), labels=np.concatenate([labels, labels[:10]]), split=split)
    weights = model(tmp_path / "m.safetensors", TrainedOn(np.sort(scan(open_source(str(path))).content_hashes()[:10])))
    options = TrainOptions(str(path), duplicates="group")
    plan = plan_training(options, (0,), None, lambda line: None, lambda name: lambda *done: None, weights)
    kept = TrainOptions(str(path), duplicates="keep")
    apart = plan_training(kept, (0,), None, lambda line: None, lambda name: lambda *done: None, weights)
    assert sorted(plan.used[plan.splits[0].test]) == list(range(20, 40))
    assert sorted(apart.used[apart.splits[0].test]) == list(range(20, 50))
