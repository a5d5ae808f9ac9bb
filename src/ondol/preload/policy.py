"""decision: which models stay in memory, which leave, and which are fetched ahead, from what was seen of their use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ondol.preload.ahead import Schedule
from ondol.preload.experts import Experts
from ondol.preload.gaps import GapPrior
from ondol.preload.proposal import ALONE, Proposal, Surroundings, Tally, without_needless
from ondol.preload.ranking import Ranking
from ondol.preload.track import UNKNOWN_BYTES, Track
from ondol.preload.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Generator

    from ondol.preload.gaps import GapHistogram
    from ondol.preload.track import RankEntry

__all__ = ["LEAST_GAPS", "LEAST_PROBABILITY", "KeepWarmPolicy"]

FREQUENCY_POWER: Final = 1.39
AGE_OFFSET: Final = 20.0
"""Of the frequency expert: count ** power / (events since the last use + offset)."""

LEAST_PROBABILITY: Final = 0.7
"""Of a use, for fetching ahead."""
LEAST_GAPS: Final = 3
VICTIM_MARGIN: Final = 1.5
FETCHED_BOOST: Final = 4.0
"""What was fetched ahead is worth so much more until it is used, or its room would be taken just before."""
_PROMISED: Final = 1e6
_FETCHED: Final = 1e5
_MOST_LOOKED_AT: Final = 256
_MOST_TRIED: Final = 4
"""A wish that finds no room does not hold up smaller ones; more than so many are not tried at once."""
_FIRST_INTERVAL_S: Final = 1.0
_LONGEST_INTERVAL_S: Final = 60.0
_NEW_SHARE: Final = 0.05
_MOST_UNREGISTERED: Final = 10_000


class KeepWarmPolicy:
    """Sees every use, load and leaving of models; answers who leaves first and what to fetch ahead.

    It has no clock: times are given, monotonic, and never run backwards. Not safe for several threads.

    Cost: each event is constant work on average, whatever the number of models.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        """Begin without any model; ``budget_bytes`` is what all may take together, ``None`` without a bound."""
        self.tracks: dict[str, Track] = {}
        self.events = 0
        self.tally = Tally()
        self.trust = Trust()
        self.prior = GapPrior()
        self.least_s = _FIRST_INTERVAL_S
        """The usual time between two loads for requests: nothing leaves sooner than that."""
        self.experts = Experts({"hazard": self._hazard, "frequency": self._frequency})
        self._budget_bytes = budget_bytes
        self._is_hazard_chosen = True
        self._ranking = Ranking(self.worth)
        self._schedule = Schedule()
        self._loaded_at_s: float | None = None
        self._is_share_due = False
        self._strangers: dict[str, None] = {}
        """Models that were used and are not registered (yet), the oldest first."""
        self._named: set[str] = set()
        """Who was named as the coldest when room was needed last."""
        self._giving_way: set[str] = set()
        """Who leaves for something that is fetched ahead."""

    # What there is

    def know(self, name: str, *, size_bytes: int | None, load_s: float | None, priority: int = 5) -> None:
        """Take in a model's figures, or others for it; what was learnt of its use stays."""
        track = self._track(name)
        self._strangers.pop(name, None)
        if track.size_bytes != (size_bytes or UNKNOWN_BYTES):
            self.experts.release(track)
            self._is_share_due = True
        track.describe(size_bytes, load_s, priority)

    def set_budget(self, budget_bytes: int | None) -> None:
        """Take another bound of all models together."""
        if budget_bytes != self._budget_bytes:
            self._budget_bytes = budget_bytes
            self._is_share_due = True

    def _track(self, name: str) -> Track:
        track = self.tracks.get(name)
        if track is None:
            if len(self._strangers) >= _MOST_UNREGISTERED:
                self._forget(next(iter(self._strangers)))
            track = Track(name)
            self.experts.admit(track, self.tracks.values())
            self._strangers[name] = None
            self.tracks[name] = track
            self._is_share_due = True
        return track

    def learn(self, name: str, gaps: GapHistogram, uses: int, last_s: float, age_events: int, now_s: float) -> bool:
        """Take over what another process learnt of a model, unless more is known here; return whether it was."""
        track = self._track(name)
        if track.count >= uses:
            return False
        track.gaps, track.count = gaps, uses
        if last_s > track.last_s:
            track.last_s, track.last_event = last_s, self.events - age_events
        track.curve = None
        if track.is_resident:
            self._ranking.place(track, now_s)
        self._plan_look(track, now_s)
        return True

    def take_over(self, prior: GapPrior, expert: str, least_s: float, events: int) -> None:
        """Take over what is common to all models from a process that has seen more."""
        for track in self.tracks.values():
            track.last_event += events - self.events  # the uses of another make nothing older here
        self.prior, self.events = prior, events
        self.least_s = min(least_s, _LONGEST_INTERVAL_S)
        if expert in self.experts.ghosts:
            self._choose(expert)

    def _forget(self, name: str) -> None:
        """Forget a model that was used and never registered."""
        del self._strangers[name]
        self.experts.dismiss(self.tracks.pop(name))

    # What happens

    def used(self, name: str, now_s: float) -> None:
        """Count a request: one that found the model in memory, or begins to wait for it."""
        track = self.tracks.get(name) or self._track(name)
        self.events += 1
        track.note_use(now_s, self.events, self.prior)
        if track.is_sampled and self._budget_bytes is not None:
            self._let_experts_see(track, now_s)
        is_there = track.is_resident or track.is_loading
        if track.is_fetched:
            track.is_fetched = False
            self.tally.used += 1
            self.tally.saved_s += track.load_s * track.is_resident
            self.trust.settle(track, is_won=True, is_real=True)
        elif track.bet is not None and not is_there:
            self.trust.settle(track, is_won=True)
        if track.is_resident:
            self._ranking.place(track, now_s)
        if track.due_s == math.inf:
            self._plan_look(track, now_s)
        self._ranking.look_on(now_s)

    def _let_experts_see(self, track: Track, now_s: float) -> None:
        if self._is_share_due:
            self._is_share_due = False
            self.experts.share(self._budget_bytes, self.tracks.values())
        if self.experts.request(track, now_s):
            self._choose(self.experts.chosen)
            self._ranking.look_at_all(now_s)

    def _choose(self, expert: str) -> None:
        self.experts.chosen = expert
        self._is_hazard_chosen = expert == "hazard"

    def loading(self, name: str, now_s: float, *, is_ahead: bool) -> None:
        """Note that a load begins, for a request or ahead of use."""
        track = self._track(name)
        track.is_loading = True
        if is_ahead:
            return
        if self._loaded_at_s is not None:
            interval_s = min(now_s - self._loaded_at_s, _LONGEST_INTERVAL_S)
            self.least_s += _NEW_SHARE * (interval_s - self.least_s)
        self._loaded_at_s = now_s

    def loaded(self, name: str, now_s: float) -> None:
        """Note that a model is in memory from now on."""
        track = self._track(name)
        track.is_loading, track.is_resident = False, True
        self._schedule.forget(track)
        self._ranking.place(track, now_s)
        self._plan_look(track, now_s)

    def failed(self, name: str, now_s: float) -> None:
        """Note that a load came to nothing."""
        track = self._track(name)
        track.is_loading = False
        if track.is_fetched:
            track.is_fetched = False
            self.tally.failed += 1
            self.trust.settle(track, is_won=False)  # or the same would be tried again at once
        track.bet = None
        self._giving_way.clear()
        self._plan_look(track, now_s)

    def left(self, name: str, now_s: float) -> None:
        """Note that a model is not in memory any more."""
        track = self._track(name)
        if name in self._giving_way:
            self._giving_way.discard(name)
        elif name in self._named:
            self.trust.note_leaving(self._hazard(track, now_s))
        track.is_resident = False
        self._ranking.remove(track)
        self._schedule.forget(track)
        if track.is_fetched:
            track.is_fetched = False
            self.tally.wasted += 1
            self.trust.settle(track, is_won=False, is_real=True)
        self._plan_look(track, now_s)

    def promise(self, name: str, until_s: float, now_s: float) -> None:
        """Keep a model until then if it is in memory, or once it is: somebody said that it is wanted."""
        track = self._track(name)
        track.promised_until_s = until_s
        if track.is_resident:
            self._ranking.place(track, now_s)
            self._schedule.look(track, until_s)

    def forbid(self, name: str, *, is_forbidden: bool) -> None:
        """Never fetch a model ahead, or do so again."""
        self._track(name).is_forbidden = is_forbidden

    # What it is worth

    def worth(self, track: Track, now_s: float) -> float:
        """Return what a byte of the model is worth keeping, in the unit of the expert that decides."""
        if now_s < track.promised_until_s:
            return _PROMISED
        worth = self._opinion(track, now_s)
        return self._fetched_worth(track, worth, now_s) if track.is_fetched else worth

    def _opinion(self, track: Track, now_s: float) -> float:
        """Return what the expert that decides thinks a byte of a model is worth."""
        return self._hazard(track, now_s) if self._is_hazard_chosen else self._frequency(track, now_s)

    def _fetched_worth(self, track: Track, worth: float, now_s: float) -> float:
        """Return what a model is worth that was fetched ahead: more, as long as what it was fetched for is foreseen."""
        if self._is_hazard_chosen:
            return worth * FETCHED_BOOST
        is_foreseen = self._hazard(track, now_s) > self.trust.margin_worth
        return _FETCHED if is_foreseen else worth  # by how often it was used it would leave at once

    def _hazard(self, track: Track, now_s: float) -> float:
        """Return the waiting that a byte-second of keeping it saves: the rate of its next use x density."""
        return track.draw(self.prior).rate(now_s - track.last_s, self.least_s) * track.density

    def _frequency(self, track: Track, now_s: float) -> float:  # noqa: ARG002  # its clock is the count of events
        """Source: hyperbolic caching (Blankstein, Sen, Freedman, USENIX ATC 2017), its age counted in events."""
        return float(track.count**FREQUENCY_POWER * track.density / (self.events - track.last_event + AGE_OFFSET))

    # Who leaves

    def coldest_first(self, now_s: float) -> Generator[str]:
        """Yield the models in memory, the least worth keeping first. Close it when enough have been seen."""
        self.look_at_due(now_s)
        taken: list[RankEntry] = []
        self._named.clear()
        try:
            while (entry := self._ranking.take(now_s)) is not None:
                taken.append(entry)
                self._named.add(entry[2].name)
                yield entry[2].name
        finally:
            self._ranking.put_back(taken)

    # What is fetched ahead

    def wake_at_s(self) -> float:
        """Return when something may be worth fetching; infinite when nothing is foreseen."""
        return self._schedule.wake_at_s()

    def propose(self, now_s: float, free_bytes: int | None, surroundings: Surroundings = ALONE) -> Proposal | None:
        """Return what to fetch ahead now, if anything is worth it; ``begin_ahead`` when it is done.

        What is proposed is wished for no more: it is either done, or comes up again with the next look at it.

        Args:
            now_s: the time.
            free_bytes: room without anybody leaving; ``None`` when there is no bound.
            surroundings: what else there is to know of models.
        """
        self.look_at_due(now_s)
        without_room: dict[Track, float] = {}
        found: Proposal | None = None
        while found is None and len(without_room) < _MOST_TRIED and (track := self._schedule.best_wish()) is not None:
            worth, probability = self.worth_ahead(track, now_s)
            is_wanted = worth > 0.0 and not (track.is_resident or track.is_loading or track in without_room)
            if not is_wanted or not self.trust.allows(track, worth):
                self._schedule.drop_wish()
            elif not self._schedule.lower_wish(track, worth):
                victims = self._victims_for(track, worth, free_bytes, now_s, surroundings)
                if victims is None:
                    without_room[track] = worth
                else:
                    found = Proposal(track.name, victims, probability)
                self._schedule.drop_wish()
        for track, worth in without_room.items():
            self._schedule.wish(track, worth)
        return found

    def begin_ahead(self, proposal: Proposal, now_s: float) -> None:
        """Note that the proposal is carried out."""
        track = self.tracks[proposal.name]
        track.is_fetched = True
        self._giving_way = set(proposal.victims)
        track.bet = self.trust.class_of(self.worth_ahead(track, now_s)[0])
        self.tally.fetched += 1

    def worth_ahead(self, track: Track, now_s: float) -> tuple[float, float]:
        """Return what fetching a model is worth in the unit of the hazard, and the probability of its use."""
        if track.count < LEAST_GAPS or track.is_forbidden or track.name in self._strangers:
            return 0.0, 0.0
        age_s = now_s - track.last_s + track.load_s
        rate, probability = track.draw(self.prior).sure_rate(age_s, self.least_s, LEAST_PROBABILITY)
        return rate * track.density, probability

    def _victims_for(
        self, wished: Track, worth: float, free_bytes: int | None, now_s: float, surroundings: Surroundings
    ) -> tuple[str, ...] | None:
        """Return who may leave for a model fetched ahead: each is worth clearly less; ``None`` when too few are."""
        if free_bytes is None:
            return ()
        needs = surroundings.needs(wished.name)
        missing_bytes = wished.size_bytes + needs.absent_bytes - free_bytes
        if missing_bytes <= 0:
            return ()
        taken: list[RankEntry] = []
        going: list[Track] = []
        freed_bytes = 0
        is_enough = False
        while len(taken) < _MOST_LOOKED_AT and (entry := self._ranking.take(now_s)) is not None:
            taken.append(entry)
            track = entry[2]
            is_promised = now_s < track.promised_until_s
            boost = FETCHED_BOOST if track.is_fetched else 1.0
            if is_promised or self._hazard(track, now_s) * boost * VICTIM_MARGIN > worth:
                break
            if track.name in needs.names or not surroundings.may_leave(track.name):
                continue
            going.append(track)
            freed_bytes += track.size_bytes
            if freed_bytes >= missing_bytes:
                is_enough = True
                break
        self._ranking.put_back(taken)
        return without_needless(going, freed_bytes - missing_bytes) if is_enough else None

    # What it thinks

    def worth_of(self, name: str, now_s: float) -> float:
        """Return what a byte of a model is worth, also of one that is not in memory; 0 for one never used."""
        track = self.tracks.get(name)
        if track is None or not track.count:
            return 0.0
        return self._opinion(track, now_s)

    # Looking at models when their time comes

    def _plan_look(self, track: Track, now_s: float) -> None:
        """Look at a model again when what it is worth changes by itself."""
        if track.is_loading or (not track.is_resident and track.count < LEAST_GAPS):
            return
        curve = track.draw(self.prior)
        age_s = now_s - track.last_s
        if track.is_resident:
            drop_s = curve.drop_after(age_s)
            if drop_s < math.inf:
                self._schedule.look(track, track.last_s + max(drop_s + 0.01, self.least_s, 2.0))
        else:
            edge_s = curve.edge_after(age_s + track.load_s + 0.01)
            if edge_s < math.inf:
                self._schedule.look(track, track.last_s + edge_s - track.load_s)

    def look_at_due(self, now_s: float) -> None:
        """Look at the models whose time has come; the other questions do so by themselves."""
        while (track := self._schedule.next_due(now_s)) is not None:
            if track.is_resident:
                self._ranking.place(track, now_s)
            elif not track.is_loading:
                self._bet(track, now_s)
            self._plan_look(track, now_s)

    def _bet(self, track: Track, now_s: float) -> None:
        """Say what fetching a model that is absent would be worth; a bet that is worth too little by now is lost."""
        worth, _ = self.worth_ahead(track, now_s)
        margin = self.trust.margin_worth
        if track.bet is not None and worth < margin:
            self.trust.settle(track, is_won=False)
        if track.bet is None and worth > margin * VICTIM_MARGIN:
            track.bet = self.trust.class_of(worth)
        if worth > 0.0 and self.trust.allows(track, worth):
            self._schedule.wish(track, worth)
