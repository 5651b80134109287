"""TODO."""

from __future__ import annotations

from array import array


class Seen:
    """A set of 64-bit hashes in an open-addressed table: 10 to 15 bytes each, where Python's own takes 60 and more."""

    def __init__(self) -> None:
        self._number = 0
        self._table = array("Q", bytes(8 * 1024))

    def add(self, key: int) -> bool:
        """False where it was there already."""
        if not self._put(key or 1):  # 0 is an empty place
            return False
        self._number += 1
        if self._number * 5 > len(self._table) * 4:
            old, self._table = self._table, array("Q", bytes(8 * (len(self._table) * 3 // 2)))
            for one in old:
                if one:
                    self._put(one)
        return True

    def _put(self, key: int) -> bool:
        table, size = self._table, len(self._table)
        at = key % size
        while one := table[at]:
            if one == key:
                return False
            at = (at + 1) % size
        table[at] = key
        return True
