"""A tiny model, and a few pictures."""

import pytest

from tests.explaining.tiny import make_model, make_pictures


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def pictures(tmp_path):
    return make_pictures(tmp_path / "photos", 5)
