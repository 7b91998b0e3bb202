"""The tracker against a set of done offsets: the position is always the first one that is not done."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.engine.tracker import Span, Tracker


class TrackerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.next = 10
        self.tracker = Tracker(10)
        self.delivered: list[int] = []
        self.done: set[int] = set()
        self.spans: list[Span] = []

    @rule(gaps=st.lists(st.integers(1, 3), min_size=1, max_size=6))
    def deliver(self, gaps: list[int]) -> None:
        offsets = []
        for gap in gaps:
            offsets.append(self.next + gap - 1)
            self.next = offsets[-1] + 1
        self.spans.append(self.tracker.deliver(offsets, len(offsets), 0.0))
        self.delivered += offsets

    @precondition(lambda self: self.spans)
    @rule(data=st.data())
    def finish_one(self, data: st.DataObject) -> None:
        span = data.draw(st.sampled_from(self.spans))
        offset = data.draw(st.sampled_from(span.offsets))
        self.tracker.finish(span, offset)
        self.done.add(offset)

    @precondition(lambda self: self.spans)
    @rule(data=st.data())
    def finish_rest(self, data: st.DataObject) -> None:
        span = data.draw(st.sampled_from(self.spans))
        held = set(data.draw(st.lists(st.sampled_from(span.offsets), unique=True)))
        self.tracker.finish_rest(span, held)
        self.done |= set(span.offsets) - held

    @invariant()
    def the_position_never_passes_an_unfinished_record_and_never_stands_before_a_finished_one(self) -> None:
        open_ = [o for o in self.delivered if o not in self.done]
        if open_:
            before = [o for o in self.delivered if o < open_[0]]
            assert self.tracker.position <= open_[0]
            assert not before or self.tracker.position > before[-1]
        elif self.delivered:
            assert self.tracker.position == self.delivered[-1] + 1
        assert self.tracker.unfinished == len(open_)

    @invariant()
    def bytes_are_free_only_when_a_span_is_done_and_then_all_of_them(self) -> None:
        assert self.tracker.unfinished_bytes == sum(s.bytes_ for s in self.spans if set(s.offsets) - self.done)


TrackerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTracker = TrackerMachine.TestCase
