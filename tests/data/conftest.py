"""Made images and class folders for the tests of this room."""

from tests.picture_fixtures import class_folder as class_folder
from tests.picture_fixtures import own_cache as own_cache
from tests.picture_fixtures import picture as picture
