"""Names that :mod:`typing` lacks in Python 3.10; :func:`typing.get_type_hints` needs them at run time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Generic, TypeVar

__all__ = ["Self", "Unpack"]

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack
elif sys.version_info >= (3, 11):
    from typing import Self, Unpack
else:
    Self = TypeVar("Self")

    class Unpack(Generic[Self]):
        """Replaces ``typing.Unpack`` in annotations."""
