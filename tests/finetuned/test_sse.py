from finetuned.sse import ServerSentEvent
from tests.support.sse import parse_events


def test_event_has_a_type_data_and_id() -> None:
    assert list(parse_events(["event: metric", "id: 3.12", 'data: {"step": 12}', ""])) == [
        ServerSentEvent("metric", '{"step": 12}', "3.12")
    ]


def test_comments_and_unknown_fields_are_dropped() -> None:
    lines = [": keep-alive", "", "retry: 10", "colour: red", "data: x", ""]
    assert [event.data for event in parse_events(lines)] == ["x"]


def test_data_on_several_lines_is_one_text() -> None:
    assert [event.data for event in parse_events(["data: a", "data:b", "data", ""])] == ["a\nb\n"]


def test_only_one_blank_follows_the_colon() -> None:
    assert [event.data for event in parse_events(["data:  two", ""])] == [" two"]


def test_event_that_the_end_cuts_off_is_dropped() -> None:
    assert list(parse_events(["data: whole", "", "data: half"])) == [ServerSentEvent("message", "whole", "")]


def test_id_holds_for_the_events_after_it() -> None:
    events = parse_events(["id: 1.0", "data: a", "", "data: b", "", "id: 2.0", "data: c", ""])
    assert [event.id for event in events] == ["1.0", "1.0", "2.0"]


def test_type_holds_for_one_event_alone() -> None:
    events = parse_events(["event: log", "", "data: a", ""])
    assert [event.event for event in events] == ["message"]
