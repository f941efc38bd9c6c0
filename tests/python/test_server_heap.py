"""Threads of a server share few heaps of the C library."""

import os
import platform
import subprocess
import sys

import pytest

THREADS_THAT_ALLOCATE = """
import ctypes, sys, threading
import xml.etree.ElementTree as ElementTree
from foundry.server.heap import share_arenas

told = share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.open_memstream.restype = ctypes.c_void_p
together = threading.Barrier(12)

def allocate():
    together.wait()
    libc.malloc(100)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
text, size = ctypes.c_char_p(), ctypes.c_size_t()
stream = ctypes.c_void_p(libc.open_memstream(ctypes.byref(text), ctypes.byref(size)))
libc.malloc_info(0, stream)
libc.fclose(stream)
print(told, len(ElementTree.fromstring(text.value).findall("heap")))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has such heaps")
@pytest.mark.parametrize(("set_by_user", "expected"), [(None, "True 2"), ("3", "False 3")])
def test_threads_share_two_heaps_unless_the_user_says_otherwise(set_by_user: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    if set_by_user is not None:
        environment["MALLOC_ARENA_MAX"] = set_by_user
    done = subprocess.run(
        [sys.executable, "-c", THREADS_THAT_ALLOCATE], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
