"""What the server of trials' processes imports first, before torch: it goes to a folder that holds no user's files.

What NVIDIA's libraries look for in the working folder (`gapstone.working_folder`) is not found there. multiprocessing
takes the processes that the server forks back to their parent's folder.
"""

import os

from gapstone.working_folder import ELSEWHERE

os.chdir(ELSEWHERE)
