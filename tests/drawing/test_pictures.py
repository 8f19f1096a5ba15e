"""Pictures of maps: in their place, on one scale, readable by everyone, and saying what they do not know."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gapstone.drawing import captions, colourbar, colours, lettering, sheet
from gapstone.drawing.evidence import Evidence
from gapstone.drawing.pictures import SheetRow, contact_sheet, largest, overlay, side_by_side
from gapstone.drawing.upsample import upsample
from gapstone.images.load import load
from gapstone.localisation.cam_boxes import Box
from gapstone.tracing.placement import Placement

CROP = Placement((10.0, 10.0), (15.0, 25.0), ((10, 50), (20, 60)), exact=True)  # 4 × 4 cells in 60 × 80 pixels


def evidence(map, index=0, label="cat", size=(60, 80), placement=CROP, **changes):
    map = np.asarray(map, np.float32)
    values = {"logit": 1.0, "probability": 0.5, "bias": 0.1, "additive": True, "completeness": 0.0}
    return Evidence(index=index, label=label, map=map, placement=placement, size=size, **(values | changes))


def hot(value=1.0, row=1, column=2, **changes):
    map = np.zeros((4, 4))
    map[row, column] = value
    return evidence(map, **changes)


def grey(size=(60, 80), value=128):
    return np.full((*size, 3), value, np.uint8)


def changed(picture, pixels):
    """Where a picture differs from the grey one beneath it."""
    return (np.asarray(picture) != np.asarray(overlay(pixels, hot(0), 1.0))).any(2)


# --- colours


def test_zero_is_clear_and_signs_have_their_colours():
    found = colours.rgba(np.array([[0.0, 2.0, -2.0]]), 2.0)
    top = round(255 * colours.STRONGEST)
    assert found[0, 0, 3] == 0
    assert found[0, 1].tolist() == [*colours.ABOVE, top]
    assert found[0, 2].tolist() == [*colours.BELOW, top]


def test_opacity_grows_with_the_root_of_the_value_and_stays_at_the_end():
    values = np.linspace(-3, 3, 601)
    alpha = colours.rgba(values, 2.0, strength=1.0)[:, 3].astype(float)
    np.testing.assert_allclose(alpha, 255 * np.sqrt(np.abs(values) / 2).clip(0, 1), atol=3)
    assert (np.diff(alpha[300:]) >= 0).all()
    assert (alpha == alpha[::-1]).all()
    assert colours.opacity(np.array([0.25]), 2.0) == pytest.approx(0.125**0.5)
    assert colours.opacity(np.array([0.25]), 2.0, power=1 / 3) == pytest.approx(0.5)


def test_a_table_in_pieces_is_the_same_everywhere():
    values = np.random.default_rng(0).normal(size=(300, 700)).astype(np.float32)  # more than three pieces
    found = colours.rgba(values, 1.0)
    assert found.shape == (300, 700, 4)
    for y, x in [(0, 0), (93, 436), (93, 437), (150, 3), (299, 699)]:
        np.testing.assert_array_equal(found[y, x], colours.rgba(values[y : y + 1, x : x + 1], 1.0)[0, 0])
    assert ((found[..., :3] == colours.ABOVE).all(2) == (values > 0))[np.abs(values) > 1e-3].all()


def test_another_colormap_shows_what_speaks_for_the_class():
    import matplotlib

    found = colours.rgba(np.array([-1.0, 0.0, 0.5, 1.0]), 1.0, 0.8, "magma")
    assert found[:, 3].tolist() == [0, 0, round(255 * 0.8 * 0.5**0.5), round(255 * 0.8)]
    assert found[3, :3].tolist() == list(matplotlib.colormaps["magma"](1.0, bytes=True)[:3])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"largest": 0.0}, "above 0"),
        ({"largest": -1.0}, "above 0"),
        ({"largest": float("nan")}, "above 0"),
        ({"largest": float("inf")}, "above 0"),
        ({"largest": 1.0, "strength": 0.0}, "opacity"),
        ({"largest": 1.0, "strength": 1.1}, "opacity"),
        ({"largest": 1.0, "cmap": "magmma"}, "no colormap of that name"),
    ],
)
def test_colours_of_bad_input(arguments, words):
    with pytest.raises(ValueError, match=words):
        colours.rgba(np.ones((2, 2)), **arguments)


def test_everyone_tells_the_two_colours_apart():
    """Also by lightness alone, and as someone without red or green cones sees them (Viénot, Brettel, Mollon 1999)."""
    linear = [(np.array(c) / 255) ** 2.2 for c in (colours.ABOVE, colours.BELOW)]
    red_blind = [np.array([0.11238 * c[0] + 0.88762 * c[1]] * 2 + [c[2]]) for c in linear]
    green_blind = [np.array([0.29275 * c[0] + 0.70725 * c[1]] * 2 + [c[2]]) for c in linear]
    for above, below in (linear, red_blind, green_blind):
        assert np.abs(above ** (1 / 2.2) - below ** (1 / 2.2)).max() > 0.4
    luminance = [c @ [0.2126, 0.7152, 0.0722] for c in linear]
    assert (luminance[0] + 0.05) / (luminance[1] + 0.05) > 1.5


# --- the colour bar


@pytest.mark.parametrize("cmap", [None, "viridis"])
def test_the_bar_shows_exactly_the_colours(cmap):
    strip = np.asarray(colourbar.strip(101, 10, 4.0, 0.7, cmap)).astype(float)
    low = -4.0 if cmap is None else 0.0
    for x in (0, 30, 50, 70, 100):
        value = low + (x + 0.5) / 101 * (4.0 - low)
        colour = colours.rgba(np.array([value]), 4.0, 0.7, cmap)[0].astype(float)
        for y, ground in ((2, colourbar.LIGHT), (7, colourbar.DARK)):
            share = colour[3] / 255
            np.testing.assert_allclose(strip[y, x], share * colour[:3] + (1 - share) * ground, atol=1)


def test_the_bar_stands_in_the_sheet_and_its_numbers_are_logits():
    assert "logits per cell" in colourbar.TITLE
    assert [text for _, text in colourbar.ticks(2.4, None)] == ["−2.40", "−1.20", "0", "+1.20", "+2.40"]
    assert [text for _, text in colourbar.ticks(0.0124, "magma")] == ["0", "+0.0031", "+0.0062", "+0.0093", "+0.0124"]
    page = np.asarray(side_by_side(grey(), [hot(2.0)], alpha=0.7))
    bar = np.asarray(colourbar.strip(colourbar.WIDTH, 26, 2.0, 0.7, None))
    places = [
        (y, x)
        for y, x in np.argwhere((page[:-26, :110] == bar[0, 0]).all(2)).tolist()
        if (page[y : y + 26, x : x + colourbar.WIDTH] == bar).all()
    ]
    assert len(places) == 1


# --- overlay


@pytest.mark.parametrize("how", ["smooth", "cells"])
def test_a_hot_cell_lands_at_its_centre(how):
    picture = overlay(grey(), hot(1.0), how=how)
    assert picture.size == (80, 60)
    assert picture.mode == "RGB"
    y, x = np.nonzero(changed(picture, grey()))
    assert ((y.min() + y.max()) / 2, (x.min() + x.max()) / 2) == pytest.approx((25, 45), abs=0.5)
    beneath = 40 + 128 * 190 / 255
    share = round(255 * colours.STRONGEST) / 255
    expected = share * np.array(colours.ABOVE) + (1 - share) * round(beneath)
    np.testing.assert_allclose(np.asarray(picture)[25, 45], expected, atol=1)


def test_nothing_is_drawn_outside_what_the_network_saw_but_its_border():
    picture = np.asarray(overlay(grey(), evidence(np.ones((4, 4)))))
    beneath = np.asarray(overlay(grey(), hot(0), 1.0))[0, 0]
    inside = np.zeros((60, 80), bool)
    inside[10:50, 20:60] = True
    assert (picture[~inside] == beneath).all()
    assert (picture[10, 20:60] == 160).all()  # the border is what was seen itself
    assert (picture[11:49, 21:59] != beneath).any(2).all()


def test_no_border_where_all_was_seen():
    whole = evidence(np.zeros((4, 4)), placement=Placement.even((4, 4), (60, 80)))
    assert len(np.unique(np.asarray(overlay(grey(), whole)).reshape(-1, 3), axis=0)) == 1


def test_the_picture_beneath_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    before = pixels.copy()
    pixels.flags.writeable = False
    picture = np.asarray(overlay(pixels, hot(1.0, placement=replace(CROP, seen=((0, 60), (0, 80)))), grey=False))
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(picture[40:], pixels[40:])  # beyond the neighbours of the hot cell
    assert (picture[25, 45] != pixels[25, 45]).any()


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 1)])
def test_gray_pictures(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 1), dtype=np.uint8)
    expected = overlay(np.repeat(pixels, 3, 2), hot(1.0))
    np.testing.assert_array_equal(np.asarray(overlay(pixels.reshape(shape), hot(1.0))), np.asarray(expected))


def test_one_cell_and_one_pixel():
    one = evidence([[0.5]], size=(1, 1), placement=Placement.even((1, 1), (1, 1)))
    assert overlay(np.zeros((1, 1, 3), np.uint8), one).size == (1, 1)
    assert side_by_side(np.zeros((1, 1, 3), np.uint8), [one]).width > 400


def test_the_scale_is_the_largest_of_all():
    assert largest([hot(1.5), hot(-2.5)]) == 2.5
    assert largest([hot(0.0)]) == 1.0
    assert largest([]) == 1.0
    weak = np.asarray(overlay(grey(), hot(0.5), 2.5))
    assert (weak != np.asarray(overlay(grey(), hot(0.5)))).any()
    np.testing.assert_array_equal(weak, np.asarray(overlay(grey(), hot(1.0), 5.0)))


def test_boxes_are_drawn_on_their_edges():
    picture = np.asarray(overlay(grey(), hot(0), 1.0, box=[Box(30.0, 20.0, 50.0, 40.0, 9, 1.0, 1.0)]))
    assert (picture[20, 30:50] == 0).all()
    assert (picture[39, 30:50] == 0).all()
    assert (picture[20:40, 30] == 0).all()
    assert (picture[20:40, 49] == 0).all()
    assert (picture[21, 31:49] == 255).all()
    frame = np.ones((60, 80), bool)
    frame[20:40, 30:50] = False
    assert not (picture[frame] == 0).any()


@pytest.mark.parametrize(
    ("pixels", "changes", "words"),
    [
        (grey().astype(np.float32), {}, "float32.*uint8"),
        (np.zeros((60, 80, 17), np.uint8), {}, "uint8 array"),
        (np.zeros((0, 80, 3), np.uint8), {}, "uint8 array"),
        (Image.new("RGB", (80, 60)), {}, "pixels: Image"),
        (grey((80, 60)), {}, "80×60.*60×80"),
        (grey(), {"alpha": 1.5}, "opacity"),
        (grey(), {"largest": 0.0}, "above 0"),
        (grey(), {"how": "cubic"}, "smooth, cells"),
        (grey(), {"cmap": "no such"}, "no such"),
    ],
)
def test_bad_input(pixels, changes, words):
    with pytest.raises(ValueError, match=words):
        overlay(pixels, hot(1.0), **changes)


def test_a_map_that_is_no_number():
    with pytest.raises(ValueError, match="NaN or infinity"):
        overlay(grey(), hot(np.nan), 1.0)


# --- sheets


def panels(page, side=400, size=(60, 80)):
    """The pictures of a sheet's first line, as arrays, from left to right."""
    tall, wide = (round(n * side / max(size)) for n in size)
    pixels, step = np.asarray(page), max(sheet.COLUMN, side) + sheet.GAP
    return [pixels[20 : 20 + tall, x : x + wide] for x in range(20, page.width - wide, step)]


def test_one_scale_across_panels():
    """The same value has the same colour in two panels, also where the other map holds much more."""
    first, second = hot(1.0, 1, 2, index=0), evidence(hot(1.0, 2, 1).map + hot(-4.0, 0, 0).map, index=1)
    picture, one, two = panels(side_by_side(grey(), [first, second], how="cells"))
    assert picture.shape == one.shape == (300, 400, 3)
    assert (picture == 128).all()
    np.testing.assert_array_equal(one[125, 225], two[175, 175])
    assert one[125, 225, 0] > one[125, 225, 2]
    assert two[75, 125, 2] > two[75, 125, 0]


def test_cells_stay_in_place_when_the_picture_is_resized():
    _, one = panels(side_by_side(grey(), [hot(1.0)], how="cells"))
    beneath = one[0, 0]
    y, x = np.nonzero((one != beneath).any(2) & (one[..., 0] != one[..., 2]))
    assert (y.min(), y.max() + 1, x.min(), x.max() + 1) == (102, 152, 202, 252)  # 5 × (20.5, 30.5, 40.5, 50.5)


def test_tiny_pictures_are_enlarged_pixel_for_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    row = SheetRow.of(
        pixels, [evidence(np.ones((2, 2)), size=(8, 8), placement=Placement.even((2, 2), (8, 8)))], side=250
    )
    assert row.picture.shape == (248, 248, 3)
    np.testing.assert_array_equal(row.picture[::31, ::31, :1], pixels)
    np.testing.assert_array_equal(row.picture[30::31, 30::31, :1], pixels)
    assert row.evidences[0].size == (248, 248)
    placed = upsample(row.evidences[0].map, row.evidences[0].placement, (248, 248))
    assert (placed == 1).all()


def test_rows_hold_small_pictures_with_everything_in_its_place():
    row = SheetRow.of(
        grey((600, 800)), [hot(1.0, size=(600, 800))], "a.jpg", {0: [Box(80.0, 60.0, 160.0, 120.0, 9, 1, 1)]}
    )
    assert row.picture.shape == (204, 272, 3)
    assert row.boxes[0][0].edges == pytest.approx((27.2, 20.4, 54.4, 40.8))
    np.testing.assert_allclose(row.evidences[0].placement.seen, ((3.4, 17.0), (6.8, 20.4)))
    with pytest.raises(ValueError, match="side=0"):
        SheetRow.of(grey(), [hot(1.0)], side=0)
    with pytest.raises(ValueError, match="60×80"):
        SheetRow.of(grey((10, 10)), [hot(1.0)])


def test_contact_sheets_share_one_scale_and_go_on_on_the_next_page():
    rows = [SheetRow.of(grey(), [hot(value)], f"{value}.jpg") for value in (1.0, 4.0, 1.0, 1.0, 1.0)]
    pages = list(contact_sheet(rows, how="cells", per_page=2))
    assert len(pages) == 3
    assert pages[0].height == pages[1].height > pages[2].height
    first, other = (panels(page, side=sheet.LISTED)[1] for page in pages[:2])
    np.testing.assert_array_equal(first, other)
    strong = panels(next(contact_sheet(rows[1:], how="cells")), side=sheet.LISTED)[1]
    assert (strong != first).any()
    assert strong[85, 153, 0].astype(int) - strong[85, 153, 2] > first[85, 153, 0].astype(int) - first[85, 153, 2]


def test_contact_sheet_of_nothing():
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
    with pytest.raises(ValueError, match="per_page=0"):
        contact_sheet([SheetRow.of(grey(), [hot(1.0)])], per_page=0)


@pytest.mark.parametrize(("classes", "width"), [(0, 2), (1, 2), (4, 5), (5, 4), (9, 4)])
def test_many_classes_stand_in_even_lines(classes, width):
    page = side_by_side(grey(), [hot(1.0, index=k) for k in range(classes)])
    assert page.width >= 2 * 20 + width * 400 + (width - 1) * 16 - 400 * (classes == 0)
    assert page.width <= 2 * 20 + width * 400 + (width - 1) * 16
    assert [sheet.per_line(n, 4) for n in range(1, 10)] == [1, 2, 3, 4, 3, 3, 4, 4, 3]


def test_no_caption_runs_into_the_next_panel():
    long = "a_very_long_label_" * 20
    one = [hot(1.0, label=long, additive=False, completeness=1234.5, logit=-1234.56, bias=-1234.56)]
    page = np.asarray(side_by_side(grey(), [*one, *one], name=long))
    bottom = 20 + 300
    for x in (20 + 400, 20 + 400 + 16 + 400):  # the gaps between the columns
        assert (page[bottom : bottom + 80, x + 1 : x + 15] == 255).all()
    assert (page[bottom : bottom + 80, 450:800] < 128).any()


# --- what is said


def said(one):
    return ["".join(span.text for span in line).strip() for line in captions.caption(one)]


def test_the_caption_adds_up():
    one = evidence([[2.0, -0.5]], logit=1.6, probability=0.931, bias=0.1)
    assert said(one) == ["cat", "93.1 %  ·  logit +1.60", "+2.00 for  −0.50 against  +0.10 bias"]


def test_what_was_subtracted_is_said():
    mean = evidence([[2.0]], logit=3.1, probability=0.931, reference="the mean of all classes")
    assert said(mean)[1] == "93.1 %  ·  logit 3.10 above the mean"
    assert repr(mean) == "Evidence('cat', 93.1 %, logit 3.10 above the mean, map 1×1)"
    rival = evidence([[2.0]], logit=-0.35, reference="big\ndog")
    assert said(rival)[1] == "50.0 %  ·  logit 0.35 below big\\ndog"
    notes = captions.remarks([mean, mean, evidence([[1.0]])])
    assert notes[0] == "Maps, logits and biases minus the mean of all classes: softmax sees only how classes differ."
    assert len(notes) == 2
    assert "minus" not in captions.remarks([evidence([[1.0]])])[0]


def test_what_must_not_be_missed_is_said():
    assert "no positive evidence" in said(evidence([[0.0, -0.5]]))
    assert "no positive evidence" not in said(evidence([[1e-6, -0.5]]))
    one = evidence([[1.0]], additive=False, completeness=0.4213)
    assert said(one)[-1] == "not additive: the map leaves 0.42 of the logit unexplained"


def test_such_words_make_the_sheet_longer():
    plain = side_by_side(grey(), [hot(1.0)])
    assert side_by_side(grey(), [hot(-1.0)]).height == plain.height + 19
    assert side_by_side(grey(), [hot(1.0, placement=replace(CROP, exact=False))]).height == plain.height + 19


def test_remarks():
    assert captions.remarks([hot(1.0)]) == ["Thin line: the part of the picture that the network saw."]
    even = evidence([[1.0]], placement=Placement.even((1, 1), (60, 80)))
    assert captions.remarks([even]) == [
        "Where exactly this network's cells look is not known: they share evenly what it saw."
    ]
    assert captions.remarks([replace(even, placement=replace(even.placement, exact=True))]) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (4.123, "+4.12"),
        (-0.35, "−0.35"),
        (-2e-7, "−0.00"),
        (-123.44, "−123.4"),
        (99.996, "+100.0"),
        (12345.6, "+12346"),
        (-3e9, "−3e+09"),
    ],
)
def test_signed(value, text):
    assert captions.signed(value) == text


def test_the_sum_fits_the_narrowest_column():
    """A number that lost its middle would be another number."""
    for one in (-12345.6, 999.95, -99.89, 1e8):
        spans = captions.caption(evidence([[abs(one), -abs(one)]], bias=one))[2]
        assert lettering.font(sheet.LETTERS).getlength("".join(span.text for span in spans)) < sheet.COLUMN


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0.0 %"), (1e-9, "< 0.1 %"), (0.5, "50.0 %"), (0.99999, "> 99.9 %"), (1, "100.0 %")]
)
def test_percent(value, text):
    assert captions.percent(value) == text


# --- letters


def test_letters_are_drawn_or_escaped_never_boxes():
    assert lettering.drawable("Löwenzahn − Ж Ω") == "Löwenzahn − Ж Ω"
    assert lettering.drawable("e\u0301") == "é"
    assert lettering.drawable("猫 cat") == "\\u732b cat"
    assert lettering.drawable("שלום") == "\\u05e9\\u05dc\\u05d5\\u05dd"
    assert lettering.drawable("سلام").startswith("\\u0633")  # would stand from left to right


@pytest.mark.parametrize("width", [40, 60, 100, 300])
def test_long_names_lose_their_middle(width):
    text = "n02123045_tabby_cat_left_side"
    short = lettering.fit(text, 13, width, bold=True)
    assert lettering.font(13, True).getlength(short) <= width
    head, found, tail = short.partition("…")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert found or short == text


def test_words_are_wrapped():
    text = "not additive: the map leaves 0.42 of the logit unexplained"
    lines = lettering.wrap(text, 13, 200, bold=True)
    assert " ".join(lines) == text
    assert len(lines) > 1
    assert all(lettering.font(13, True).getlength(line) <= 200 for line in lines)


# --- real photos


def test_a_real_photo_at_its_own_resolution(real_images):
    photo = load(sorted(real_images("microcontrollers").glob("val/*/*.jpg"))[0]).pixels
    size = photo.shape[:2]
    placement = Placement((size[0] / 4, size[1] / 4), (10.0, 10.0), ((0, size[0]), (0, size[1])), exact=True)
    one = hot(1.0, size=size, placement=placement)
    assert overlay(photo, one).size == (size[1], size[0])
    picture, *_ = panels(side_by_side(photo, [one]), size=size)
    assert picture.std() > 10
