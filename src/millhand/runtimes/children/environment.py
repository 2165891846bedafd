"""The environment of a Python job: one block for the C library, and `os.environ` once somebody reads it."""

import ctypes
import os


class Environment:
    """The environment of this process, changed all at once.

    Setting 25 variables one by one took a child 0.25 ms: the C library keeps each in a tree of its own. Having them in
    `os.environ` takes 0.15 ms more, and most jobs never look: it is filled when somebody does.
    """

    SIZE = 1024  # variables
    BYTES = bytes.__basicsize__ - 1  # from a bytes object's address to its content

    def __init__(self):
        self.n_before = len(os.environ._data)
        self.table = (ctypes.c_size_t * self.SIZE)()
        self.table_address = ctypes.addressof(self.table)
        self.environ = ctypes.c_size_t.in_dll(ctypes.CDLL(None), "environ")
        self.environ_before = self.environ.value
        self.look_again()

    def look_again(self):
        """Note the values of the variables that there are."""
        ctypes.memmove(self.table, self.environ.value, self.n_before * ctypes.sizeof(ctypes.c_size_t))
        ENVIRON.__class__ = ENVIRONB.__class__ = UnreadEnviron

    def add(self, block, places):
        """Add variables: `NAME=value`, each ended by a NUL, and where each begins; without that they may be known ones."""
        if not block:
            return
        if not places or self.n_before + len(places) >= self.SIZE:
            os.environ.update({os.fsdecode(name): os.fsdecode(value) for name, value in _variables(block)})
            return
        _unread[0] = block
        table, number, at = self.table, self.n_before, id(block) + self.BYTES
        for place in places:
            table[number] = at + place
            number += 1
        table[number] = 0
        self.environ.value = self.table_address

    def restore(self):
        """Have the environment be as it was: nobody has read it."""
        _unread[0] = b""
        self.environ.value = self.environ_before


ENVIRON, ENVIRONB, Environ = os.environ, os.environb, type(os.environ)
_unread = [b""]  # variables that are to be added to `os.environ` when somebody looks into it


class UnreadEnviron(Environ):
    """`os.environ` and `os.environb` until somebody looks into them."""

    @property
    def _data(self):
        ENVIRON.__class__ = ENVIRONB.__class__ = Environ
        ENVIRON._data.update(_variables(_unread[0]))
        return ENVIRON._data


def _variables(block):
    """Return names and values."""
    return [line.split(b"=", 1) for line in block.split(b"\0")[:-1]]
