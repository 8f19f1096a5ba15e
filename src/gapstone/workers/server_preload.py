"""What the server of trials' processes imports first, before torch: it goes to a folder that holds no user's files.

NVIDIA's libraries look for files in the working folder (`gapstone.runtime.working_folder`); there are none in that one.
multiprocessing takes the processes that the server forks back to their parent's folder.
"""

import os

from gapstone.runtime.working_folder import ELSEWHERE

os.chdir(ELSEWHERE)
