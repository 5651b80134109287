"""A compact set of hashes, to find repeated prompts and ids among millions of rows."""

from __future__ import annotations

from array import array


class Seen:
    """A set of 64-bit hashes in an open-addressed table: 10 to 15 bytes per hash; a Python set needs 60 and more."""

    def __init__(self) -> None:
        self._number = 0
        self._table = array("Q", bytes(8 * 1024))

    def add(self, key: int) -> bool:
        """Add a hash; False if the set has it already."""
        if not self._put(key or 1):  # 0 marks an empty slot
            return False
        self._number += 1
        if self._number * 5 > len(self._table) * 4:
            old, self._table = self._table, array("Q", bytes(8 * (len(self._table) * 3 // 2)))
            for stored in old:
                if stored:
                    self._put(stored)
        return True

    def _put(self, key: int) -> bool:
        table, size = self._table, len(self._table)
        slot = key % size
        while stored := table[slot]:
            if stored == key:
                return False
            slot = (slot + 1) % size
        table[slot] = key
        return True
