"""Freed memory is kept for the next tensors."""

import os
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import ctypes, resource, sys, torch
from genie_env.world_model.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
torch.set_num_threads(1)
# Pages of 4 KiB whatever the machine's setting: one of 2 MiB would hide five hundred of them.
PR_SET_THP_DISABLE = 41
assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0

def step():
    return sum(float(tensor[0]) for tensor in [torch.ones(750_000) for _ in range(6)])

step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Large blocks go back at once. By default that depends on what happens to lie above them."""


def page_faults(how):
    done = subprocess.run(
        [sys.executable, "-c", PAGE_FAULTS, how],
        env=os.environ | GIVE_BACK,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_steps_cost_no_fresh_pages():
    assert page_faults("keep") < page_faults("leave") / 4
