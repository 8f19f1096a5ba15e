"""/api/explain and /api/models in this process: what is answered, and what is refused and how."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import gapstone.serve.explain_json_api
from gapstone.images.load import load
from gapstone.maps.open_model import ImageModel, open_model
from gapstone.serve.app import application
from gapstone.serve.client_limits import ClientLimits
from gapstone.serve.explain_json_api import Explainer
from gapstone.serve.guard import HEADERS
from gapstone.serve.read_picture import UploadedPicture
from tests.serve.serving import LABELS, Client, encoded, picture, small

PNG = {"Content-Type": "image/png"}


def explain(client: TestClient, data: bytes, kind: str = "image/png", query: str = "") -> dict[str, Any]:
    response = client.post(f"/api/explain{query}", content=data, headers={"Content-Type": kind})
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def refused(client: TestClient, status: int, **request: Any) -> str:
    response = client.post("/api/explain", **request)
    assert response.status_code == status, response.text
    document = response.json()
    assert set(document) == {"schema", "error"}
    assert document["schema"] == 1
    return str(document["error"])


def maps_of(model: dict[str, Any]) -> np.ndarray:
    maps = model["maps"]
    return np.frombuffer(base64.b64decode(maps["base64"]), maps["dtype"]).reshape(maps["shape"])


# --- what is answered


def test_the_document_says_what_the_library_says(client: Client, model_files: tuple[Path, Path]) -> None:
    data = encoded(picture())
    document = explain(client(2), data)
    assert document["schema"] == 1
    assert document["picture"] == {"size": [48, 64], "notes": [], "preview": None}
    assert set(document["seconds"]) == {"upload", "read", "network"}
    assert [model["name"] for model in document["models"]] == ["one.safetensors", "two.safetensors"]
    for path, model in zip(model_files, document["models"], strict=True):
        [expected] = open_model(str(path)).look([load(data).pixels])
        maps = maps_of(model)
        assert len(expected) == len(maps) == len(model["classes"]) == len(LABELS)
        for evidence, told, values in zip(expected, model["classes"], maps, strict=True):
            assert (told["index"], told["label"]) == (evidence.index, evidence.label)
            for name in ("logit", "probability", "bias"):
                assert told[name] == pytest.approx(getattr(evidence, name), rel=1e-5, abs=1e-7)
            assert told["completeness"] < 1e-4
            np.testing.assert_allclose(values, evidence.map, rtol=1e-5, atol=1e-6)
            assert values.sum(dtype=np.float64) + told["bias"] == pytest.approx(told["logit"], abs=1e-4)
            placement = evidence.placement
            assert model["placement"] == {
                "stride": list(placement.stride),
                "start": list(placement.start),
                "seen": [list(edges) for edges in placement.seen],
                "exact": placement.exact,
            }
        mean = np.frombuffer(base64.b64decode(model["mean"]["base64"]), "<f4").reshape(maps.shape[1:])
        np.testing.assert_allclose(mean, maps.mean(0), atol=1e-6)
        for name in ("logit", "bias"):
            assert model["mean"][name] == pytest.approx(np.mean([told[name] for told in model["classes"]]), abs=1e-6)
        probabilities = [told["probability"] for told in model["classes"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["a.png", "../../../etc/passwd", "C:\\boot.ini", "/etc/shadow", "a\0b", "x" * 2000])
def test_a_form_is_the_same_and_its_file_name_is_ignored(client: Client, name: str) -> None:
    data = encoded(picture())
    response = client().post("/api/explain", files={"image": (name, data, "image/png")})
    assert response.status_code == 200, response.text
    raw = explain(client(), data)
    assert response.json()["models"] == raw["models"]
    assert "passwd" not in response.text


def test_a_forms_other_fields_are_ignored(client: Client) -> None:
    files = {"image": ("a", encoded(picture()), "application/x-anything")}
    response = client().post("/api/explain", files=files, data={"path": "/etc/passwd", "url": "http://example.org/"})
    assert response.status_code == 200


def test_the_preview_is_the_picture_as_loaded(client: Client) -> None:
    image = picture(48, 64)
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side
    data = encoded(image, "PNG", exif=exif)
    document = explain(client(), data, query="?preview=1")
    kind, _, text = document["picture"]["preview"].partition(",")
    assert kind == "data:image/png;base64"
    assert document["picture"]["size"] == [64, 48]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    np.testing.assert_array_equal(shown, load(data).pixels)
    np.testing.assert_array_equal(shown, np.rot90(np.asarray(image), -1))


def test_a_large_preview_is_a_small_jpeg(client: Client) -> None:
    document = explain(client(), encoded(picture(900, 2400)), query="?preview=1")
    kind, _, text = document["picture"]["preview"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(text))).size == (1280, 480)
    assert document["picture"]["size"] == [900, 2400]


def test_what_browsers_cannot_show_has_a_preview_and_notes(client: Client, real_images: Any) -> None:
    folder = real_images("awkward")
    data = (folder / "16bit" / "16bit.cropped.tif").read_bytes()
    document = explain(client(), data, "image/tiff", "?preview=1")
    assert document["picture"]["preview"].startswith("data:image/png")
    pages = (folder / "animated" / "multipage.tiff").read_bytes()
    [note, *_] = explain(client(), pages, "application/octet-stream")["picture"]["notes"]
    assert "the first of" in note


def test_models_are_named_without_their_folder(client: Client, model_files: tuple[Path, Path]) -> None:
    response = client(2).get("/api/models")
    document = response.json()
    assert document["schema"] == 1
    assert [model["name"] for model in document["models"]] == ["one.safetensors", "two.safetensors"]
    assert document["models"][0] == {
        "name": "one.safetensors",
        "labels": list(LABELS),
        "size": [32, 32],
        "channels": 3,
    }
    assert document["limits"]["upload"] == ClientLimits().upload
    assert str(model_files[0].parent) not in response.text


def test_heads_that_do_not_add_up_say_so_and_few_classes_get_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gapstone.serve.explain_json_api, "MOST_GRADIENTS", 3)
    model = small(3, "lse", tuple(f"class {i}" for i in range(9)))
    explainer = Explainer(ImageModel("x", model, model.labels, model.preprocessing), "x")
    with TestClient(application([explainer], ClientLimits(), "127.0.0.1"), base_url="http://localhost") as client:
        [told] = explain(client, encoded(picture()))["models"]
    assert told["additive"] is False
    assert maps_of(told).shape[0] == 3
    assert len(told["classes"]) == 9
    logits = [each["logit"] for each in told["classes"]]
    assert logits == sorted(logits, reverse=True)
    assert [each["completeness"] is not None for each in told["classes"]] == [True] * 3 + [False] * 6


def test_many_classes_send_as_many_maps_as_a_document_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(4)
    cells = (
        ImageModel("x", model, model.labels, model.preprocessing).look([np.zeros((36, 36, 3), np.uint8)])[0][0].map.size
    )
    monkeypatch.setattr(gapstone.serve.explain_json_api, "MOST_VALUES", 2 * cells + 1)
    explainer = Explainer(ImageModel("x", model, model.labels, model.preprocessing), "x")
    with TestClient(application([explainer], ClientLimits(), "127.0.0.1"), base_url="http://localhost") as client:
        [told] = explain(client, encoded(picture()))["models"]
    assert maps_of(told).shape[0] == 2
    assert len(told["classes"]) == len(LABELS)


# --- what is refused


def test_what_is_no_picture_is_named(client: Client) -> None:
    assert "cannot be read" in refused(
        client(), 422, content=b"dear diary " * 100, headers={"Content-Type": "image/jpeg"}
    )
    whole = encoded(picture(300, 300), "JPEG")
    told = refused(client(), 422, content=whole[: len(whole) // 2], headers={"Content-Type": "image/jpeg"})
    assert "truncated" in told
    assert "is empty" in refused(client(), 400, content=b"", headers=PNG)
    assert "Content-Type is text/html" in refused(client(), 415, content=whole, headers={"Content-Type": "text/html"})
    assert "missing" in refused(client(), 415, content=whole)
    form = "multipart/form-data"
    assert "'image'" in refused(client(), 400, files={"photo": ("a", whole)})
    assert "'image'" in refused(client(), 400, data={"image": "/etc/passwd"}, files={"other": ("a", whole)})
    assert "cannot be read" in refused(client(), 400, content=b"x", headers={"Content-Type": form})
    assert "cannot be read" in refused(client(), 400, content=b"x", headers={"Content-Type": f"{form}; boundary=a"})
    assert "0 or 1" in client().post("/api/explain?preview=yes", content=whole, headers=PNG).json()["error"]


def test_programs_are_not_pictures(client: Client) -> None:
    """An EPS file is a program, an SVG a document: neither reaches anything that would run it."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%stdout) (w) file pop\n%%EOF\n"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    for data in (eps, svg):
        assert "cannot be read" in refused(client(), 422, content=data, headers={"Content-Type": "image/svg+xml"})


def test_bombs_are_refused_before_they_are_decoded(client: Client, real_images: Any) -> None:
    for path in sorted((real_images("awkward") / "bomb").iterdir()):
        if path.suffix != ".fli":
            told = refused(client(pixels=1_000_000), 422, content=path.read_bytes(), headers=PNG)
            assert "cannot be read" in told, path.name
    image = encoded(Image.new("1", (1200, 1000)))
    told = refused(client(pixels=1_000_000), 422, content=image, headers=PNG)
    assert "1200×1000 is 1,200,000 pixels, more than the limit of 1,000,000" in told


def test_the_body_is_counted_and_content_length_not_believed(client: Client) -> None:
    def endless() -> Any:
        for sent in range(1000):
            assert sent < 200, "the server went on reading far beyond its limit"
            yield b"x" * 1000

    small_limit = client(upload=50_000)
    told = "The file is too large: at most 49 kB are taken."
    assert refused(small_limit, 413, content=b"x" * 50_001, headers=PNG) == told
    assert "is empty" not in refused(small_limit, 422, content=b"x" * 50_000, headers=PNG)
    lying = {"Content-Type": "image/png", "Content-Length": "10"}
    assert refused(small_limit, 413, content=b"x" * 60_000, headers=lying) == told
    assert refused(small_limit, 413, files={"image": ("a", b"x" * 60_000)}) == told


def test_a_full_server_says_when_to_come_back(client: Client) -> None:
    for full in (client(jobs=0), client(held=10)):
        response = full.post("/api/explain", content=encoded(picture()), headers=PNG)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "2"
        assert "busy" in response.json()["error"]


def test_memory_is_given_back_whatever_happens(client: Client) -> None:
    data = encoded(picture())
    room_for_one = client(held=int(len(data) * 1.5), upload=len(data))
    for _ in range(3):
        explain(room_for_one, data)
        refused(room_for_one, 422, content=data[:-100], headers=PNG)
        refused(room_for_one, 413, content=data + b"x", headers=PNG)
    explain(room_for_one, data)


def test_an_answer_that_is_not_a_number_is_told(client: Client) -> None:
    model = small(5)
    explainer = Explainer(ImageModel("broken", model, model.labels, model.preprocessing), "broken")
    next(model.head.parameters()).data[:] = np.nan
    app = application([explainer], ClientLimits(), "127.0.0.1")
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client_:
        assert "NaN" in refused(client_, 500, content=encoded(picture()), headers=PNG)


# --- who may ask, and the headers


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("127.0.0.1:8765", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("[::1]:8765", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8765", False),
        ("evil@127.0.0.1", False),
        ("192.168.1.5:8765", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_the_host_is_checked(client: Client, host: str, fine: bool) -> None:
    response = client().get("/api/models", headers={"Host": host})
    assert response.status_code == (200 if fine else 421)
    if not fine:
        assert "127.0.0.1 or localhost" in response.json()["error"]


@pytest.mark.parametrize(
    ("host", "fine"), [("192.168.1.5:8765", True), ("127.0.0.1", True), ("evil.example", False), ("[fe80::1]", True)]
)
def test_names_are_refused_on_other_addresses_too(client: Client, host: str, fine: bool) -> None:
    response = client(host="0.0.0.0").get("/api/models", headers={"Host": host})
    assert response.status_code == (200 if fine else 421)


@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ({"Origin": "http://127.0.0.1:8765"}, True),
        ({"Origin": "http://127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:9999"}, False),
        ({"Origin": "http://localhost:8765"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_other_pages_cannot_ask(client: Client, headers: dict[str, str], fine: bool) -> None:
    data = encoded(picture())
    for request in ({"content": data, "headers": headers | PNG}, {"files": {"image": data}, "headers": headers}):
        response = client().post("/api/explain", **request)
        assert response.status_code == (200 if fine else 403), response.text
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_every_answer_has_the_strict_headers(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    here = client()
    answers = [
        here.get("/"),
        here.get("/style.css"),
        here.get("/nothing"),
        here.get("/api/explain"),
        here.options(
            "/api/explain", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        ),
        here.get("/", headers={"Host": "evil.example"}),
        here.post("/api/explain", content=b"x", headers=PNG),
        here.post("/api/explain", content=encoded(picture()), headers=PNG),
    ]
    monkeypatch.setattr(gapstone.serve.app, "response_document", lambda *_: 1 / 0)
    answers.append(here.post("/api/explain", content=encoded(picture()), headers=PNG))
    assert [answer.status_code for answer in answers] == [200, 200, 404, 405, 403, 421, 422, 200, 500]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (answer.request.url, name)
        assert "server" not in answer.headers
    assert answers[-1].json()["error"].startswith("The server failed")
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/../app.py",
        "/..%2fapp.py",
        "/page/index.html",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/style.css/",
        "/app.py",
    ],
)
def test_nothing_but_the_page_is_served(client: Client, path: str) -> None:
    response = client().get(path, follow_redirects=False)
    assert response.status_code in (404, 307)
    assert "import" not in response.text


def test_the_page_asks_nobody_else(client: Client) -> None:
    """No address in any of its files but the SVG's name of its own language; no script and no style within the HTML."""
    here = client()
    html = here.get("/").text
    names = [part.split('"')[0] for key in ('src="', 'href="') for part in html.split(key)[1:]]
    scripts = ["answer.js", "figure.js", "maps.js", "save.js"]
    assert sorted(names) == ["base.css", "icon.svg", "script.js", "style.css"]
    for name in ["", *names, *scripts]:
        response = here.get(f"/{name}")
        assert response.status_code == 200
        text = response.text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text
    assert "style=" not in html
    assert " on" not in html.replace(" on ", " ").replace(" one", " ").split("<body>")[0]


def test_the_document_is_strict_json(client: Client) -> None:
    response = client().post("/api/explain", content=encoded(picture()), headers=PNG)
    assert response.headers["content-type"] == "application/json"
    json.loads(response.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_multi_label_model_says_so_and_its_maps_are_each_classs_own() -> None:
    classifier = small(1)
    classifier.multi_label = True
    several = Explainer(ImageModel("m", classifier, LABELS, classifier.preprocessing, multi_label=True), "m")
    assert several.about()["multi_label"] is True
    one = Explainer(ImageModel("m", classifier, LABELS, classifier.preprocessing), "m")
    data, (height, width) = np.zeros((32, 32, 3), np.uint8), classifier.preprocessing.stored
    fitted = classifier.preprocessing.fit(data)
    assert fitted.shape[:2] == (height, width)
    uploaded = UploadedPicture((32, 32), (), (fitted,), None)
    documents = [each.document(0, uploaded) for each in (several, one)]
    assert documents[0]["multi_label"] is True
    assert documents[0]["mean"] is None
    assert "multi_label" not in documents[1]
    assert "multi_label" not in one.about()
    for told in documents[0]["classes"]:
        assert told["probability"] == pytest.approx(1 / (1 + np.exp(-told["logit"])), rel=1e-5)
    np.testing.assert_array_equal(maps_of(documents[0]), maps_of(documents[1]))
