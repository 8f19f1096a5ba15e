"""What a network does not see of photos of another shape, in a sentence."""

from gapstone.images.cropping import cropping_note
from gapstone.images.preprocessing import Preprocessing


def network(height: int, width: int) -> Preprocessing:
    return Preprocessing(3, (height, width), (height, width), (0.5,) * 3, (0.25,) * 3)


def test_photos_of_another_shape_are_counted_with_what_is_cut_off() -> None:
    said = cropping_note(network(224, 224), {(640, 480): 300, (480, 480): 20})
    assert said == (
        "300 of 320 images are not of the shape of the network's input (1:1) and are centre-cropped: 25 % of such an "
        "image (median) is cut off."
    )
    assert cropping_note(network(96, 128), {(640, 480): 300}) is None
    assert cropping_note(network(224, 224), {(484, 480): 300, (32, 32): 5}) is None  # a pixel or two
    assert cropping_note(network(224, 224), {}) is None


def test_one_image() -> None:
    said = cropping_note(network(224, 224), {(480, 960): 1})
    assert said == "Not of the shape of the network's input (1:1), so centre-cropped: 50 % of the image is cut off."
    said = cropping_note(network(100, 200), {(400, 200): 9, (300, 300): 1})
    assert said is not None
    assert said.startswith(
        "1 of 10 images is not of the shape of the network's input (2:1) and is centre-cropped: 50 %"
    )
