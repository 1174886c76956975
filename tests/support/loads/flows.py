"""Who writes what to whom; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("direct", "group", "normal", "mixed")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the traffic of a load consists of; numbers of tasks and channels are per process."""

    direct_channels: int = 3
    direct_tasks: int = 4
    groups: int = 6  # in all; every process has a member in each
    group_tasks: int = 1
    normal_channels: int = 6  # in all; every process reads each
    normal_tasks: int = 2
    mixed_tasks: int = 2
    writes_per_s: float = 1000.0  # of all processes together

    @property
    def tasks(self) -> int:
        return self.direct_tasks + self.group_tasks + self.normal_tasks + self.mixed_tasks


@dataclass(frozen=True, slots=True)
class Flow:
    """One writing task: its message number n goes to ``targets[n % len(targets)]``."""

    process: str
    kind: str
    targets: tuple[str, ...]  # channels and groups
    every_s: float

    def target_of(self, number: int) -> str:
        return self.targets[number % len(self.targets)]


@dataclass(frozen=True, slots=True)
class Traffic:
    """All flows; `readers`: process-specific channel -> its process, `members`: of each group."""

    flows: tuple[Flow, ...]
    readers: Mapping[str, str]
    members: Mapping[str, tuple[str, ...]]

    def addressees(self, target: str) -> tuple[str, ...]:
        """The channels that a message to this channel or group must reach."""
        return self.members.get(target, (target,))

    def targets(self) -> set[str]:
        """All that is written to."""
        return {target for flow in self.flows for target in flow.targets}

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Traffic:
        flows = [Flow(**{**flow, "targets": tuple(flow["targets"])}) for flow in value["flows"]]
        members = {group: tuple(names) for group, names in value["members"].items()}
        return cls(tuple(flows), dict(value["readers"]), members)


def keys_of(shape: Shape, processes: Sequence[str]) -> dict[str, str | None]:
    """The channels that every process opens, by a key, and the group that each one joins."""
    keys: dict[str, str | None] = {f"direct{i}": None for i in range(shape.direct_channels)}
    keys |= {f"member{i}": f"group-{i}" for i in range(shape.groups)}
    for process in processes:
        for task in range(shape.mixed_tasks):
            keys[f"mixed-{process}-{task}"] = f"mixed-{process}-{task}"
    return keys


def normal_channels(shape: Shape) -> list[str]:
    return [f"normal-{i}" for i in range(shape.normal_channels)]


def traffic_of(shape: Shape, channels: Mapping[str, Mapping[str, str]]) -> Traffic:
    """`channels`: process -> key -> the channel that it has opened."""
    every_s = len(channels) * shape.tasks / shape.writes_per_s
    groups = [f"group-{i}" for i in range(shape.groups)]
    flows = []
    for process in channels:
        others = [name for other in channels if other != process for name in (channels[other],)]
        direct = [one[f"direct{i}"] for i in range(shape.direct_channels) for one in others]
        for kind, tasks, targets in (
            ("direct", shape.direct_tasks, direct),
            ("group", shape.group_tasks, groups),
            ("normal", shape.normal_tasks, normal_channels(shape)),
        ):
            flows += [Flow(process, kind, tuple(targets), every_s)] * (tasks if targets else 0)
        for task in range(shape.mixed_tasks):
            # To one member, to all of them, to the next member, to all of them ...
            key = f"mixed-{process}-{task}"
            mixed = [name for one in channels.values() for name in (one[key], key)]
            flows.append(Flow(process, "mixed", tuple(mixed), every_s))
    members: dict[str, list[str]] = {}
    for key, group in keys_of(shape, list(channels)).items():
        if group is not None:
            members[group] = [one[key] for one in channels.values()]
    return Traffic(
        flows=tuple(flows),
        readers={name: process for process, one in channels.items() for name in one.values()},
        members={group: tuple(names) for group, names in members.items()},
    )
