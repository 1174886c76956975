"""The judgement of a load, on records that are written by hand."""

from array import array
from pathlib import Path

from tests.support.loads.flows import Flow, Shape, Traffic, keys_of, traffic_of
from tests.support.loads.healing import served_again_s
from tests.support.loads.records import Arrivals, Read, Record, Records, Written
from tests.support.loads.verdicts import Verdict, verdict_of

#: One task of process a: to b's channel, to the group of both, to a normal channel, and again.
TRAFFIC = Traffic(
    flows=(Flow("a", "mixed", ("x.b!1", "group", "normal"), 0.1),),
    readers={"x.a!1": "a", "x.b!1": "b"},
    members={"group": ("x.a!1", "x.b!1")},
)
ALL = {"a": {"x.a!1": [1], "normal": [2]}, "b": {"x.b!1": [0, 1]}}


def judged(
    read: dict[str, dict[str, list[int]]],
    *,
    refused: dict[int, str] | None = None,
    unknown: dict[int, str] | None = None,
    left_out: tuple[str, ...] = (),
) -> Verdict:
    """Three messages were due at 0, 1 and 2 s; `read`: process -> channel -> numbers as they came.

    The records go through a file, as those of other processes do.
    """
    records = {"a": Record(), "b": Record()}
    records["a"].written[0] = Written(
        array("d", [0, 1, 2]), array("f", [0.1, 0.1, 0.1]), refused or {}, unknown or {}
    )
    for process, channels in read.items():
        for channel, numbers in channels.items():
            one = records[process].read[channel, 0] = Read()
            for number in numbers:
                one.note(number, 10.0)
                arrivals = records[process].arrivals
                arrivals.flow.append(0)
                arrivals.number.append(number)
                arrivals.at_s.append(10.0)
                arrivals.after_s.append(0.5)
    return verdict_of(TRAFFIC, Records(records), left_out=left_out)


def test_all_that_was_written_has_come() -> None:
    verdict = judged(ALL)
    assert verdict.flawless
    assert (verdict.writes, verdict.deliveries) == (3, 4)


def test_a_missing_message_is_lost_at_each_channel_that_has_not_got_it() -> None:
    verdict = judged({"a": {"normal": [2]}, "b": {"x.b!1": [0]}})
    assert [(one.number, one.channel) for one in verdict.lost] == [(1, "x.a!1"), (1, "x.b!1")]
    assert not verdict.flawless
    assert verdict.unharmed
    assert len(verdict.within(0.5, 1.5).lost) == 2
    assert not verdict.within(1.5, 2.5).lost


def test_losses_of_those_left_out_count_apart() -> None:
    verdict = judged({"a": {"normal": [2]}, "b": {"x.b!1": [0]}}, left_out=("b",))
    assert [one.channel for one in verdict.lost] == ["x.a!1"]
    assert [one.channel for one in verdict.lost_by_left_out] == ["x.b!1"]


def test_what_comes_twice_is_a_duplicate() -> None:
    """Also when two readers of a normal channel get it once each."""
    assert len(judged({**ALL, "b": {"x.b!1": [0, 0, 1]}}).duplicated) == 1
    assert len(judged({**ALL, "b": {"x.b!1": [0, 1], "normal": [2]}}).duplicated) == 1


def test_what_comes_late_is_out_of_order() -> None:
    verdict = judged({**ALL, "b": {"x.b!1": [1, 0]}})
    assert [(one.number, one.channel) for one in verdict.disordered] == [(0, "x.b!1")]
    assert not verdict.unharmed


def test_what_nobody_called_for_is_told() -> None:
    """Meant for others; refused; never written."""
    assert judged({**ALL, "a": {"x.a!1": [0, 1], "normal": [2]}}).uncalled
    assert judged(ALL, refused={2: "ChannelFull"}).uncalled
    assert judged({**ALL, "b": {"x.b!1": [0, 1, 3]}}).uncalled


def test_unknown_and_refused_messages_may_be_missing() -> None:
    missing = {"a": {"x.a!1": [1]}, "b": {"x.b!1": [0, 1]}}
    unknown = judged(missing, unknown={2: "DeliveryUnknown"})
    assert not unknown.lost
    assert unknown.unknown == {"DeliveryUnknown": 1}
    assert not unknown.flawless
    refused = judged(missing, refused={2: "ChannelFull"})
    assert not refused.lost
    assert refused.refused == {"ChannelFull": 1}
    assert not refused.flawless


def test_records_survive_their_file(tmp_path: Path) -> None:
    record = Record(strangers=["who?"], stats={"epoch": 3})
    record.written[7] = Written(array("d", [1.5]), array("f", [0.25]), {0: "ChannelFull"}, {})
    record.read["x.a!1", 7] = Read()
    for number in (1, 0, 1):
        record.read["x.a!1", 7].note(number, 2.0)
    record.arrivals = Arrivals(
        array("H", [7]), array("L", [1]), array("d", [2.0]), array("f", [0.5])
    )
    record.save(tmp_path / "a.record")
    assert Record.load(tmp_path / "a.record") == record


def test_a_target_is_served_again_when_all_its_readers_get_something() -> None:
    """Of a normal channel one reader is enough; what was due before says nothing."""
    records = {"a": Record(), "b": Record()}
    for process, number, at_s, after_s in (
        ("a", 1, 5.0, 1.0),
        ("b", 1, 6.0, 1.5),
        ("a", 2, 4.5, 2),
    ):
        arrivals = records[process].arrivals
        arrivals.flow.append(0)
        arrivals.number.append(number)
        arrivals.at_s.append(at_s)
        arrivals.after_s.append(after_s)
    served = served_again_s(TRAFFIC, Records(records), 3.0, ["group", "normal", "x.b!1"])
    assert served == {"group": 3.0, "normal": float("inf"), "x.b!1": float("inf")}


def test_every_process_writes_to_all_others_in_every_way() -> None:
    shape, names = Shape(), ["a", "b", "c"]
    channels = {name: {key: f"{key}.{name}!1" for key in keys_of(shape, names)} for name in names}
    traffic = traffic_of(shape, channels)
    for name in names:
        flows = [flow for flow in traffic.flows if flow.process == name]
        assert {flow.kind for flow in flows} == {"direct", "group", "normal", "mixed"}
        assert len(flows) == shape.tasks
        reached = {
            traffic.readers.get(channel)
            for flow in flows
            for target in flow.targets
            for channel in traffic.addressees(target)
        }
        assert reached >= set(names)
    rate = sum(1 / flow.every_s for flow in traffic.flows)
    assert round(rate) == shape.writes_per_s
    assert Traffic.from_json(traffic.as_json()) == traffic
