"""Whatever comes, in whatever order: what a device may run, and what it never forgets.

Hypothesis plays director, shell, publishers and mains supply against policy and install machine;
the model here knows only what was tried and what failed.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgefleet_agent import install, policy, transitions
from edgefleet_agent.device import Device, Installed
from edgefleet_agent.install_commands import Reconsider
from edgefleet_agent.install_events import (
    Activated,
    Begin,
    Booted,
    Downloaded,
    Event,
    Interrupted,
    KeptDying,
    OrderRejected,
    OrderTaken,
    ProbationPassed,
    RollbackFailed,
    RolledBack,
    ServeFailed,
    Staged,
    StepFailed,
    TrialPassed,
    TrustSeen,
    Withdrawn,
)
from edgefleet_contract.bundle import Digest
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.orders import MAX_ORDER_LIFE_S, Order, Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import TrustFloors
from tests.contract.makers import order_of

SLOTS = ("a", "b")
DAY = 86_400
NOW = 1_795_392_000
CLOCKS = st.sampled_from([0, 1_577_836_800, NOW, NOW + 3 * DAY, 4_102_444_800])
ROLES = ("root", "timestamp", "snapshot", "targets")


def target(slot: str, version: int) -> Target:
    return Target(slot, "m", version, Digest(f"{version:064x}"), Digest("b" * 64), 100)


versions = st.none() | st.integers(1, 4)
targets = st.tuples(versions, versions).map(
    lambda pair: tuple(target(slot, n) for slot, n in zip(SLOTS, pair, strict=True) if n)
)


class Attack(RuleBasedStateMachine):
    """A device, and what is known about it from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.device = Device()
        self.passed: frozenset[Digest] = frozenset()
        self.newest = 0  # of the one model, committed last in any slot
        self.oldest = dict.fromkeys(SLOTS, 0)  # that an order taken now may bring to a slot

    def feed(self, event: Event) -> None:
        """One step, held against what must be so of every step."""
        before = self.device
        try:
            after, commands = install.step(before, event)
        except install.IllegalStep:
            return
        self.device = after
        if isinstance(event, TrialPassed):
            assert before.install is not None
            self.passed = frozenset(item.target.bundle_sha256 for item in before.install.chosen)
        assert after.seq >= before.seq
        assert after.time_floor >= before.time_floor
        assert all(getattr(after.trust, role) >= getattr(before.trust, role) for role in ROLES)
        fresh = {
            slot: item
            for slot, item in after.slots.items()
            if item not in (m.get(slot) for m in (before.slots, before.previous, before.fallback))
        }
        if fresh:
            self.check_commit(before, fresh)
        if after.phase is Phase.COMMITTED and before.phase is not Phase.COMMITTED:
            self.remember(before)
        if isinstance(event, OrderTaken) and after.phase is Phase.ACCEPTED:
            self.oldest = {slot: self.least(slot, before) for slot in SLOTS}
        if isinstance(event, OrderTaken):
            self.passed = self.passed if before.phase in CRITICAL else frozenset()
        for command in commands:
            if isinstance(command, Reconsider):
                self.reconsider(command.order)

    def reconsider(self, order: Order) -> None:
        """As the shell does."""
        match policy.judge_waited(order, self.device, None, order.issued):
            case policy.Accept():
                self.feed(OrderTaken(order))
            case policy.Refuse(reason, detail):
                self.feed(OrderRejected(order, reason, detail))

    def check_commit(self, before: Device, fresh: dict[str, Installed]) -> None:
        assert before.phase is Phase.PROBATION
        assert before.install is not None
        order = before.install.order
        for slot, item in fresh.items():
            assert item.target in order.targets
            assert item.target.bundle_sha256 in self.passed
            assert item.target.bundle_sha256 not in before.quarantined
            assert item.target.version >= self.oldest[slot] or order.allow_downgrade

    def least(self, slot: str, before: Device) -> int:
        """What serves when an order is taken: what takes its place later was had before."""
        old = before.slots.get(slot)
        return old.target.version if old else self.newest

    def remember(self, before: Device) -> None:
        """What was committed, also where all of it served before: that order is done at once."""
        assert before.install is not None
        order = before.install.order
        top = max((target.version for target in order.targets), default=0)
        self.newest = top if order.allow_downgrade else max(top, self.newest)

    @rule(
        wanted=targets,
        step=st.integers(-2, 4),
        issued=st.sampled_from([0, NOW - 2 * DAY, NOW, NOW + DAY]),
        life=st.sampled_from([-1, 0, DAY, MAX_ORDER_LIFE_S, MAX_ORDER_LIFE_S + 1]),
        clock=CLOCKS,
        back=st.booleans(),
        pardon=st.booleans(),
        device=st.sampled_from(["pi-1"] * 7 + ["pi-2"]),
    )
    def order(  # type: ignore[no-untyped-def] # hypothesis fills them in
        self, wanted, step, issued, life, clock, back, pardon, device
    ) -> None:
        self.judge(wanted, step, issued, life, clock, back, pardon, device)

    def judge(  # type: ignore[no-untyped-def] # the same
        self, wanted, step, issued, life, clock, back, pardon, device
    ) -> None:
        found = order_of(
            *wanted,
            seq=self.device.seq + step,
            issued=issued,
            expires=issued + life,
            allow_downgrade=back,
            policy=Policy(probation_s=0, retry_quarantined=pardon),
            device=device,
        )
        before = self.device
        verdict = policy.judge(found, before, fleet="demo", name="pi-1", clock=clock)
        match verdict:
            case policy.Accept():
                assert device == "pi-1"
                assert found.seq > before.seq
                assert max(clock, before.time_floor) <= found.expires
                assert life <= MAX_ORDER_LIFE_S
                self.feed(OrderTaken(found))
            case policy.Refuse(reason, detail, spent=True):
                self.feed(OrderRejected(found, reason, detail))

    @rule(
        wanted=targets.filter(len),
        back=st.booleans(),
        pardon=st.booleans(),
        steps=st.integers(0, 9),
    )
    def timely_order(  # type: ignore[no-untyped-def] # hypothesis fills them in
        self, wanted, back, pardon, steps
    ) -> None:
        issued = max(NOW, self.device.time_floor)
        self.judge(wanted, 1, issued, DAY, 0, back, pardon, "pi-1")
        self.advance(steps)

    @rule(event=st.sampled_from([Begin(), Staged(), TrialPassed(), Activated(), ProbationPassed()]))
    def guess(self, event: Event) -> None:
        self.feed(event)

    @rule(steps=st.integers(1, 9))
    def go_on(self, steps: int) -> None:
        self.advance(steps)

    def advance(self, steps: int) -> None:
        """As the shell does where nothing fails: chance alone would hardly ever commit."""
        for _ in range(steps):
            if self.device.phase is Phase.DOWNLOADING:
                assert self.device.install is not None
                wanted = transitions.changed(self.device, self.device.install.order)
                self.feed(Downloaded(tuple(Installed(one, "v", "onnxruntime") for one in wanted)))
            elif self.device.phase in NEXT:
                self.feed(NEXT[self.device.phase])

    @rule(event=st.sampled_from([Booted(), RolledBack(), RollbackFailed("x")]))
    def recover(self, event: Event) -> None:
        self.feed(event)

    @rule(reason=st.sampled_from(list(Reason)), slot=st.sampled_from([*SLOTS, ""]))
    def fail(self, reason: Reason, slot: str) -> None:
        self.feed(StepFailed(reason, "", slot))

    @rule(now=CLOCKS)
    def break_off(self, now: int) -> None:
        self.feed(Interrupted("cut", now, 0.5))

    @rule(slot=st.sampled_from(SLOTS))
    def lose(self, slot: str) -> None:
        self.feed(ServeFailed(slot))

    @rule(slot=st.sampled_from(SLOTS), version=st.integers(1, 4))
    def keep_dying(self, slot: str, version: int) -> None:
        guilty = target("a", version).bundle_sha256
        before = self.device.slots.get(slot)
        self.feed(KeptDying(slot, guilty))
        if before is not None:
            after = self.device.slots[slot]
            assert after == before or guilty in self.device.quarantined

    @rule(versions=st.tuples(*[st.integers(0, 9)] * 4), now=CLOCKS)
    def see_metadata(self, versions: tuple[int, int, int, int], now: int) -> None:
        self.feed(TrustSeen(TrustFloors(*versions), now))

    @rule(version=st.integers(1, 4), back=st.booleans())
    def take_back(self, version: int, back: bool) -> None:
        digest = target("a", version).bundle_sha256
        self.feed(Withdrawn((digest,), go_back=back))
        if self.device.phase not in CRITICAL:  # a swap is waited for
            assert all(digest != item.target.bundle_sha256 for item in self.device.kept)

    @invariant()
    def what_runs_is_known(self) -> None:
        assert set(self.device.slots) <= set(SLOTS)
        assert self.device.pending is None or self.device.phase in CRITICAL


NEXT: dict[Phase, Event] = {
    Phase.ACCEPTED: Begin(),
    Phase.VERIFIED: Staged(),
    Phase.STAGED: Begin(),
    Phase.SELFTEST: TrialPassed(),
    Phase.ACTIVATING: Activated(),
    Phase.PROBATION: ProbationPassed(),
    Phase.ROLLING_BACK: RolledBack(),
}
CRITICAL = (Phase.ACTIVATING, Phase.PROBATION, Phase.ROLLING_BACK)

TestAttack = Attack.TestCase
TestAttack.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
