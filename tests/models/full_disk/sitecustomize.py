"""With this folder in PYTHONPATH, a process finds the disk full as soon as it writes what it downloads."""

import builtins
import errno
import io
import os

_open = io.open
DOWNLOADS = ".whl"  # pip's


def open_on_a_full_disk(file, mode="r", *args, **kwargs):
    if str(file).endswith(DOWNLOADS) and set(mode) & set("wax"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
    return _open(file, mode, *args, **kwargs)


builtins.open = io.open = open_on_a_full_disk
