"""Errors of this machine, wherever they turn up: a network that fails is another matter."""

from __future__ import annotations

import errno

OURS = {errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENAMETOOLONG, errno.ENFILE}
OURS |= {errno.ENOMEM, errno.ENOSPC, errno.EROFS}


def shortage_in(error: BaseException) -> OSError | None:
    """The error of this machine that libraries have wrapped, or that it is itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in OURS:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
