"""Channel or group name -> slot."""

from __future__ import annotations

from mmh3 import hash as murmur3

#: A power of two: the slot is the low bits of the hash.
SLOTS = 4096


def slot_of(name: str) -> int:
    """Slot of a channel or group: MurmurHash3 x86_32, seed 0, of the UTF-8 name, modulo 4096.

    Of a process-specific channel only the part up to and including ``!`` is hashed, so that all
    channels of one process have one home.
    """
    if "!" in name:  # the operator alone costs half of what find() does, and most names have none
        name = name[: name.index("!") + 1]
    # Python's & makes the low bits of a negative number those of its unsigned twin.
    return murmur3(name) & 4095
