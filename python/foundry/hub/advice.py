"""What helps against an error about a model's file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundry.errors import MemoryLimitError, ModelFormatError
from foundry.files import part_by_name_alone
from foundry.hub.cache import name_of
from foundry.memory import default_memory_limit, format_bytes


@contextmanager
def telling_how_to_mend(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors about the file say what helps: fetching again where ``pull`` put it there, all parts where it is one.
    Want of memory is a MemoryLimitError."""
    try:
        yield
    except MemoryError as error:
        size, left = os.path.getsize(path), default_memory_limit()
        raise MemoryLimitError(
            f"{os.fsdecode(path)}: the system has no memory for it: needed about {format_bytes(size)}, available at"
            f" most {format_bytes(left)}",
            size,
            left,
        ) from error
    except ModelFormatError as error:
        if (part := part_by_name_alone(path)) is not None:
            raise ModelFormatError(
                f"{error} (by its name this is part {part[0]} of {part[1]}. All {part[1]} parts, joined into one file,"
                " are needed)"
            ) from error
        name = name_of(Path(os.fsdecode(path)))
        if name is None:
            raise
        raise ModelFormatError(f"{error} (`foundry pull {name}` checks the file and fetches it again)") from error
