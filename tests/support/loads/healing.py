"""When names are served again after a fault; pure."""

from __future__ import annotations

from collections.abc import Iterable

from tests.support.loads.flows import Traffic
from tests.support.loads.records import Records


def served_again_s(
    traffic: Traffic, records: Records, since_s: float, targets: Iterable[str]
) -> dict[str, float]:
    """Target -> how long after this moment all its readers had got what was written after it.

    A normal channel has one reader, whoever it is. Infinite: some reader got nothing.
    """
    first: dict[tuple[str, str], float] = {}
    for process, record in records.by_process.items():
        arrivals = record.arrivals
        for index, number, at_s, after_s in zip(
            arrivals.flow, arrivals.number, arrivals.at_s, arrivals.after_s, strict=True
        ):
            if at_s - after_s >= since_s:
                key = (traffic.flows[index].target_of(number), process)
                first[key] = min(at_s, first.get(key, at_s))
    served = {}
    for target in targets:
        readers = {traffic.readers.get(channel) for channel in traffic.addressees(target)}
        if readers == {None}:
            times = [at_s for (name, _), at_s in first.items() if name == target]
            latest = min(times, default=float("inf"))
        else:
            latest = max(first.get((target, str(reader)), float("inf")) for reader in readers)
        served[target] = latest - since_s
    return served
