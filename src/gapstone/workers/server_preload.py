"""The fork server of training jobs imports this first, before torch: it changes to a folder without the user's files.

NVIDIA's libraries look for files in the working folder (`gapstone.runtime.working_folder`). multiprocessing changes the
processes that the server forks back to their parent's folder.
"""

import os

from gapstone.runtime.working_folder import ELSEWHERE

os.chdir(ELSEWHERE)
