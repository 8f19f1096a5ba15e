"""What DATA may be, and what is said where it is not."""

import gzip
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gapstone.data.open_source import open_source
from gapstone.data.sources import DataError
from gapstone.images.load import ImageError

Make = Callable[..., Path]
Find = Callable[[str], Path]


def test_digits_are_built_in() -> None:
    s = open_source("digits")
    assert (s.kind, len(s), s.classes) == ("digits", 1797, tuple("0123456789"))
    assert s.array is not None
    assert (int(s.array.min()), int(s.array.max())) == (0, 255)
    assert s.pixels(5).shape == (8, 8, 1)
    assert s.pixels(5, 3).shape == (8, 8, 3)
    assert pickle.loads(pickle.dumps(s)).items[3] == s.items[3]


def test_a_folder_of_classes(class_folder: Make) -> None:
    root = class_folder({"cat": 2, "dog/small": 1, "dog": 1})
    (root / "README.md").write_text("x")
    (root / "cat" / ".DS_Store").write_bytes(b"x")
    (root / "cat" / "._0.png").write_bytes(b"x")
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "empty").mkdir()
    s = open_source(root)
    assert (s.kind, s.classes, s.splits) == ("folder", ("cat", "dog"), ())
    assert [i.name for i in s.items] == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/small/0.png"]
    assert s.notes == (
        "1 file outside any class folder ignored: README.md",
        "1 class folder with folders of their own, whose images count as the outer class: dog (small)",
        "3 hidden or system entries ignored (.DS_Store, ._x.jpg, Thumbs.db, …)",
        "1 class folder without any file: empty",
    )


def test_numbers_as_classes_are_in_their_order(class_folder: Make) -> None:
    assert open_source(class_folder({"10": 1, "9": 1, "1": 1})).classes == ("1", "9", "10")


@pytest.mark.parametrize("word", ["val", "valid", "validation"])
def test_a_folder_of_splits(class_folder: Make, word: str) -> None:
    root = class_folder({"train/a": 3, "train/b": 2, f"{word}/a": 1, f"{word}/b": 1, "other/a": 1})
    s = open_source(root)
    assert (s.kind, s.splits, len(s)) == ("split folder", ("train", "val"), 7)
    assert any("beside train, val and test ignored: other" in n for n in s.notes)


def test_train_may_be_a_class(class_folder: Make) -> None:
    assert open_source(class_folder({"bus": 1, "car": 1, "train": 1})).classes == ("bus", "car", "train")


def test_names_of_any_script_and_of_no_script_at_all(class_folder: Make) -> None:
    root = class_folder({"한국어": 1, "عربي": 1, "sp ace": 1})
    odd = os.path.join(os.fsencode(root), b"caf\xe9")
    os.mkdir(odd)
    Image.new("RGB", (4, 4)).save(root / "x.png")
    os.rename(root / "x.png", os.path.join(odd, b"\xff\n.png"))
    s = open_source(root)
    assert set(s.classes) == {"한국어", "عربي", "sp ace", "caf\\xe9"}
    (item,) = [i for i in s.items if "caf" in i.name]
    assert item.name == "caf\\xe9/\\xff\\n.png"
    assert s.pixels(s.items.index(item)).shape == (4, 4, 3)


def test_links_in_a_circle_end(class_folder: Make) -> None:
    root = class_folder({"a": 1, "b": 1})
    (root / "a" / "again").symlink_to(root / "a", target_is_directory=True)
    (root / "b" / "up").symlink_to(root, target_is_directory=True)
    (root / "b" / "self.png").symlink_to(root / "b" / "self.png")
    s = open_source(root)
    names = [i.name for i in s.items]
    assert len(names) == len(set(names)) < 20
    assert any("not followed" in n for n in s.notes)
    with pytest.raises(ImageError):
        s.pixels(names.index("b/self.png"))


def test_links_to_a_folder_above_are_not_followed(class_folder: Make) -> None:
    """Not within a class, and not as a class: else each class holds the images of all others."""
    root = class_folder({"a": 2, "b": 2})
    (root / "b" / "up").symlink_to(root, target_is_directory=True)
    (root / "a" / "over").symlink_to(root.parent, target_is_directory=True)
    (root / "all").symlink_to(root, target_is_directory=True)
    s = open_source(root)
    assert (s.classes, [i.name for i in s.items]) == (("a", "b"), ["a/0.png", "a/1.png", "b/0.png", "b/1.png"])
    assert any("3 links back to a folder above" in n for n in s.notes)


def test_one_word_in_two_forms_of_unicode_is_one_class(class_folder: Make) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    s = open_source(class_folder({f"train/{composed}": 2, "train/tea": 2, f"test/{decomposed}": 1, "test/tea": 1}))
    assert s.classes == (composed, "tea")
    assert s.labels.tolist().count(0) == 3
    assert any("two ways of Unicode" in n for n in s.notes)


@pytest.mark.parametrize(
    ("classes", "alike"),
    [
        ("Cat cat dog", "'Cat' and 'cat'"),
        ("01 1 2", "'01' and '1'"),
        ("1 1.0 2", "'1' and '1.0'"),
        ("red_fox red-fox b", "'red-fox' and 'red_fox'"),
        ("-1 1 10", ""),
        ("a b", ""),
    ],
)
def test_classes_that_may_be_one(class_folder: Make, classes: str, alike: str) -> None:
    notes = [n for n in open_source(class_folder(dict.fromkeys(classes.split(), 1))).notes if "differ only" in n]
    assert [alike in note for note in notes] == ([True] if alike else [])


def test_a_twin_without_train_images_is_named(class_folder: Make) -> None:
    with pytest.raises(DataError, match="'Cat' and 'cat' differ only in their spelling"):
        open_source(class_folder({"train/Cat": 1, "train/b": 1, "test/cat": 1, "test/b": 1}))


def test_a_folder_named_like_an_image_is_a_folder(class_folder: Make) -> None:
    s = open_source(class_folder({"a": 1, "a/dir.jpg": 1, "b": 1}))
    assert "a/dir.jpg/0.png" in [i.name for i in s.items]
    assert any("named like an image" in n for n in s.notes)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"only": 2}, "only one class, 'only'"),
        ({"data/cat": 1, "data/dog": 1}, "Did you mean"),
        ({}, "does not exist"),
        ({"train/a": 1, "train/b": 1, "test/a": 1, "test/c": 1}, "no train images of 'c'"),
        ({"train/a": 1, "val/a": 1, "valid/a": 1}, "mean the same split"),
    ],
)
def test_folders_that_cannot_be_used(class_folder: Make, counts: dict[str, int], says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_source(class_folder(counts))


def test_flat_and_empty_folders_name_the_five_forms(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"empty(.|\n)*digits(.|\n)*\.csv(.|\n)*idx(.|\n)*\.npz"):
        open_source(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="labels are unknown"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="One image is not enough"):
        open_source(tmp_path / "a.jpg")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv(class_folder: Make, tmp_path: Path, encoding: str, delimiter: str) -> None:
    class_folder({"a": 2, "ü": 1})
    lines = ["Path,Label,split", "data/a/0.png,ja,train", "data/a/1.png,ja,Test", '"data/ü/0.png",nein,train', ""]
    table = tmp_path / "t.csv"
    table.write_text("\r\n".join(lines).replace(",", delimiter), encoding)
    s = open_source(table)
    assert (s.kind, s.classes, s.splits) == ("csv", ("ja", "nein"), ("train", "test"))
    assert [(i.name, i.labels, i.row) for i in s.items][2] == ("data/ü/0.png", (1,), 4)
    assert s.pixels(2).shape == (48, 64, 3)


def test_a_csv_from_windows(class_folder: Make, tmp_path: Path) -> None:
    class_folder({"a": 2, "cafe\u0301": 1})
    table = tmp_path / "t.csv"
    lines = ["sep=;", "path;label;Set", r"data\a\0.png;x;1", r"data\a\1.png;y;1", "data\\caf\u00e9\\0.png;y;2"]
    for encoding in ("utf-8-sig", "utf-16"):
        table.write_text("\r\n".join(lines), encoding)
        s = open_source(table)
        assert [s.pixels(i).shape for i in range(3)] == [(48, 64, 3)] * 3
        assert s.notes == (
            "column 'set' is not read (path, label and split are); named split, it would say which images train, "
            "validate and test",
            "3 paths with backslashes, as Windows writes them, read as with /",
        )
        assert s.items[2].row == 5


def test_a_backslash_that_is_in_the_name_stays(class_folder: Make, tmp_path: Path) -> None:
    root = class_folder({"a": 2})
    (root / "a" / "0.png").rename(root / r"a\0.png")
    (tmp_path / "t.csv").write_text("path,label\ndata/a\\0.png,x\ndata/a/1.png,y\n")
    s = open_source(tmp_path / "t.csv")
    assert s.pixels(0).shape == (48, 64, 3)
    assert s.notes == ()


@pytest.mark.parametrize(
    ("header", "read"),
    [
        ("Filename,class", ["Filename", "class"]),
        ("image,label", ["image"]),
        ("image_id,dx,age", ["image_id", "dx"]),
        ("id,file_name,y,name", ["file_name", "y"]),
        ("img_path,target,subset", ["img_path", "target", "subset"]),
    ],
)
def test_other_headers(class_folder: Make, tmp_path: Path, header: str, read: list[str]) -> None:
    class_folder({"a": 4})
    columns = header.split(",")
    cells = {"subset": ["train", "train", "test", "test"], "age": ["1", "2", "3", "4"], "id": ["1", "2", "3", "4"]}
    cells |= {read[0]: [f"data/a/{n}.png" for n in range(4)], "name": ["x"] * 4}
    label = next(name for name in columns if name in (*read[1:2], "label"))
    cells[label] = ["cat", "dog", "cat", "dog"]
    rows = [",".join(cells[name][n] for name in columns) for n in range(4)]
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
    s = open_source(tmp_path / "t.csv")
    assert (s.classes, s.splits) == (("cat", "dog"), ("train", "test") if "subset" in read else ())
    assert [note.split("'")[1] for note in s.notes if "is read as" in note] == read


def test_ids_without_a_suffix(class_folder: Make, tmp_path: Path) -> None:
    class_folder({"a": 2})
    (tmp_path / "t.csv").write_text("image_id,dx\ndata/a/0,x\ndata/a/1,y\n")
    s = open_source(tmp_path / "t.csv")
    assert [item.name for item in s.items] == ["data/a/0.png", "data/a/1.png"]
    assert s.notes[-1] == "paths without a suffix, read with .png"


@pytest.mark.parametrize("label", ["Gänseblümchen", "Größe", "coupé", "l’été"])
def test_a_csv_in_windows_1252(class_folder: Make, tmp_path: Path, label: str) -> None:
    class_folder({"a": 2})
    (tmp_path / "t.csv").write_text(f"path;label\ndata/a/0.png;{label}\ndata/a/1.png;b\n", "cp1252")
    s = open_source(tmp_path / "t.csv")
    assert set(s.classes) == {label, "b"}
    assert f"read as Windows-1252 (line 2: {label})" in s.notes[0]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_csv_in_utf_16_without_a_mark(class_folder: Make, tmp_path: Path, encoding: str) -> None:
    class_folder({"a": 2})
    (tmp_path / "t.csv").write_text("path,label\ndata/a/0.png,고양이\ndata/a/1.png,개\n", encoding)
    s = open_source(tmp_path / "t.csv")
    assert s.classes == ("개", "고양이")
    assert f"read as {encoding.upper()}" in s.notes[0]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("кошка", "cp1251"), ("γάτα", "cp1253"), ("狗", "gbk"), ("猫", "shift-jis"), ("고양이", "euc-kr"),
        ("개", "euc-kr"), ("biały", "cp1250"), ("café", "mac-roman"), ("été", "cp437"),
    ],
)  # fmt: skip
def test_other_encodings_are_not_taken_for_windows_1252(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes(b"path,label\nx.png," + text.encode(encoding))
    with pytest.raises(DataError, match="line 2: no UTF-8"):
        open_source(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"thing,label\na,b\n", "must name the columns path,label"),
        (b"", "must name the columns"),
        (b"path,label\n", "no rows"),
        (b"path,label\nx.png,\n", "line 2: the label is empty"),
        (b"path,label,split\nx.png,a,fold 3\n", "line 2: split 'fold 3'"),
        (b"path,label\nx.png,a,b\n", "line 2: 3 cells, but 2 columns"),
        (b"path,label\nx.png,a\ny.png,b\n", "none of its 2 paths exists"),
        (b"path,label,label\nx.png,a,b\n", "column 'label' is there 2 times"),
        (b"filename,image,class\nx.png,y.png,a\n", "is 'filename' or 'image' the path"),
        (b"path,class,species\nx.png,a,b\n", "is 'class' or 'species' the label"),
    ],
)
def test_csv_files_that_cannot_be_used(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(DataError, match=says):
        open_source(tmp_path / "t.csv")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(n * 6, dtype=np.uint8).reshape(n, 2, 3)
    y = np.arange(n, dtype=np.uint8) % 2 + 5
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x)))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(y))
    (folder / "t10k-images.idx3-ubyte").write_bytes(idx(x[:2]))
    (folder / "t10k-labels.idx1-ubyte").write_bytes(idx(y[:2]))
    return x, y


def test_idx_files(tmp_path: Path) -> None:
    x, _ = write_idx(tmp_path)
    s = open_source(tmp_path)
    assert (s.kind, s.classes, s.splits, len(s)) == ("idx", ("5", "6"), ("train", "test"), 6)
    assert np.array_equal(s.pixels(3)[..., 0], x[3])
    assert s.items[5].name == "test #1"


def test_damaged_idx_files(tmp_path: Path) -> None:
    x, y = write_idx(tmp_path)
    images, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "train-labels-idx1-ubyte"
    packed = gzip.compress(idx(x))
    for content, says in [
        (packed[:-12], "damaged or cut off"),
        (gzip.compress(idx(x)[:-1]), "only 23"),
        (gzip.compress(idx(x) + b"x"), "has more"),
        (gzip.compress(b"\0\0\x0d\3" + idx(x)[4:]), "starts with 00 00 0d 03"),
        (gzip.compress(b"\0\0\x08\3" + struct.pack(">3I", 10**9, 28, 28)), "cannot fit"),
        (gzip.compress(b"\0\0\x08\3\0"), "ends within its header"),
        (b"<html>", "damaged"),
    ]:
        images.write_bytes(content)
        with pytest.raises(DataError, match=says):
            open_source(tmp_path)
    images.write_bytes(packed)
    labels.write_bytes(idx(y[:3]))
    with pytest.raises(DataError, match=r"4 images, .* 3 labels"):
        open_source(tmp_path)
    labels.unlink()
    with pytest.raises(DataError, match="none with the labels"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="give their folder"):
        open_source(images)


def test_npz(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    x = np.linspace(0, 1, 4 * 6 * 5).reshape(4, 6, 5)
    np.savez(file, images=x, labels=np.array(["b", "a", "b", "a"]), split=np.array(["train", "train", "train", "test"]))
    s = open_source(file)
    assert (s.kind, s.classes, s.splits) == ("npz", ("a", "b"), ("train", "test"))
    assert s.pixels(3).shape == (6, 5, 1)
    assert int(s.pixels(3).max()) == 255
    np.savez(file, images=np.zeros((3, 4, 4, 3), np.uint8), labels=[0, 2, 0], classes=["x", "y", "z"])
    s = open_source(file)
    assert s.classes == ("x", "z")  # y has no images
    assert [i.labels for i in s.items] == [(0,), (1,), (0,)]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros(3)}, "has no 'labels' array; it has x"),
        ({"a": np.zeros(3)}, "has no 'images' array; it has a"),
        (
            {"images": np.zeros((3, 4, 8, 8), np.uint8), "labels": [0, 1, 0]},
            r"\(3, 4, 8, 8\): 4 channels that come first, or 8",
        ),
        ({"images": np.zeros((3, 8, 8), np.complex64), "labels": [0, 1, 0]}, "complex64"),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": [0, 1]}, r"expected \(3,\)"),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": [0, 5, 0], "classes": ["a", "b"]}, "label '5'"),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": np.array([0, "a", None], object)}, "never loaded"),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": [0.5, 1, 0]}, "whole numbers or strings"),
        (
            {"images": np.zeros((2, 8, 8), np.uint8), "labels": [0, 1], "split": ["train", "later"]},
            "split.1. is 'later'",
        ),
    ],
)
def test_npz_files_that_cannot_be_used(tmp_path: Path, arrays: dict[str, object], says: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=says):
        open_source(tmp_path / "d.npz")
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match="cannot be read"):
        open_source(tmp_path / "d.npz")


def test_real_folders(real_images: Find) -> None:
    mnist = open_source(real_images("mnist"))
    assert (mnist.kind, len(mnist), mnist.splits) == ("idx", 70_000, ("train", "test"))
    flowers = open_source(real_images("flowers128"))
    assert (flowers.kind, len(flowers), flowers.splits) == ("split folder", 4309, ("train", "val"))
    assert [i.name for i in flowers.items] == [i.name for i in open_source(real_images("flowers128")).items]


def test_what_packs_too_well_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2.6 MB that would take 2.6 GB; a small file may pack as well as it likes."""
    monkeypatch.setattr("gapstone.data.memory_limits.FREE", 1 << 20)
    blank = np.zeros((4, 1000, 1000), np.uint8)
    file, folder = tmp_path / "d.npz", tmp_path / "idx"
    np.savez_compressed(file, images=blank, labels=np.arange(4), other=np.zeros(1 << 22))
    with pytest.raises(DataError, match=r"unpacks to 0\.0 GB, \d\d\d times its own size; at most"):
        open_source(file)
    folder.mkdir()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(blank)))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(4, dtype=np.uint8)))
    with pytest.raises(DataError, match=r"times its own size; at most"):
        open_source(folder)
    monkeypatch.undo()
    assert len(open_source(file)) == len(open_source(folder)) == 4
    monkeypatch.setattr("gapstone.data.memory_limits.memory", lambda: 5_000_000)
    for data in (file, folder):
        with pytest.raises(DataError, match="more than half of this machine's"):
            open_source(data)
    table = tmp_path / "t.csv"
    table.write_text("path,label\n" + "a.png,x\n" * 40_000)
    with pytest.raises(DataError, match="a table has at most"):
        open_source(table)


def npz(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("shape", ["(9999999, 99999, 99)", "(3, 4, 5)", "(4, 4, 5, 1, 1)", "(-4, -4, 5)", "(4, 4, 4)"])
def test_npz_headers_that_claim_what_is_not_there(shape: str, tmp_path: Path) -> None:
    images = npy(np.zeros((4, 4, 5), np.uint8))
    header = images.replace(b"(4, 4, 5), }", f"{shape}, }}".encode(), 1)
    header = header[:10] + header[10:].replace(b" " * (len(header) - len(images)), b"", 1)
    file = npz(tmp_path / "d.npz", images=header, labels=npy(np.arange(4)))
    with pytest.raises(DataError, match=r"as its header says|images has shape|cannot be read"):
        open_source(file)


def test_damaged_npz_files_are_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 8, 8), np.uint8)
    refused = 0
    for save in (np.savez, np.savez_compressed):
        save(file, images=images, labels=np.array(["a", "b"] * 3), classes=np.array(["a", "b"]))
        whole = file.read_bytes()
        for _ in range(400):
            data = bytearray(whole)
            for at in random.integers(0, len(data), random.integers(1, 4)):
                data[at] = random.integers(0, 256)
            file.write_bytes(data[: random.integers(1, len(data))] if random.random() < 0.1 else data)
            try:
                open_source(file)
            except DataError:
                refused += 1
    assert refused > 400


def damaged(member: str, data: bytes, **change: int) -> bytes:
    """The archive with another method or flags for a member, in both of its headers."""
    raw = bytearray(data)
    name = f"{member}.npy".encode()
    at = raw.index(name) - 30
    central = raw.rindex(name) - 46
    for field, (local, listed) in {"flags": (6, 8), "method": (8, 10)}.items():
        if field in change:
            raw[at + local : at + local + 2] = raw[central + listed : central + listed + 2] = struct.pack(
                "<H", change[field]
            )
    return bytes(raw)


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    images, labels = npy(np.zeros((4, 4, 5), np.uint8)), npy(np.arange(4))
    file = npz(tmp_path / "d.npz", images=images, labels=b"1,2,3,4")
    with pytest.raises(DataError, match="its member 'labels' is no array"):
        open_source(file)
    whole = npz(tmp_path / "d.npz", images=images, labels=labels).read_bytes()
    for method in (1, 12, 14, 93, 99):  # shrunk, bzip2, LZMA, Zstandard, encrypted
        file.write_bytes(damaged("labels", whole, method=method))
        with pytest.raises(DataError, match=r"packed in a way that cannot be read|cannot be read as \.npz"):
            open_source(file)
    file.write_bytes(damaged("labels", whole, flags=1))
    with pytest.raises(DataError, match=r"cannot be read as \.npz \(.*encrypted"):
        open_source(file)
    np.savez(file, images=np.zeros((2, 4, 4), np.uint8), labels=[0, 1], classes=np.array("ab"))
    with pytest.raises(DataError, match=r"classes has shape \(\)"):
        open_source(file)


def test_damage_is_not_called_pickled(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    np.savez(file, images=np.zeros((4, 4, 5), np.uint8), labels=np.arange(4.0))
    whole = file.read_bytes()
    for data in (b"XX" + whole[2:], whole.replace(b"'|u1'", b"'|O1'"), whole.replace(b"'<f8'", b"'|O8'")):
        file.write_bytes(data)
        with pytest.raises(DataError, match="cannot be read") as error:
            open_source(file)
        assert "pickle" not in str(error.value)
