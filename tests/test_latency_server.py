"""The open-loop server on a clock that does what it is told: every latency can be worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from graph2mlp.errors import ConfigError
from graph2mlp.latency.server import Search, Server, highest_rate


class FakeServer:
    """Answers a batch in a given time, on a clock that moves only while it waits or answers."""

    def __init__(self, us: Callable[[int], float]) -> None:
        self.now = 5_000
        self.cpu = 0
        self.us = us
        self.batches: list[int] = []

    def serve(self, rows: np.ndarray) -> None:
        spent = int(1000 * self.us(len(rows)))
        self.batches.append(len(rows))
        self.now, self.cpu = self.now + spent, self.cpu + spent

    def wait(self, due: int) -> None:
        waited = max(0, due - self.now)
        self.now, self.cpu = self.now + waited, self.cpu + waited

    def server(self, *, max_batch: int = 64, requests: int = 10) -> Server:
        return Server(
            serve=self.serve,
            requests=requests,
            max_batch=max_batch,
            clock=lambda: self.now,
            cpu_clock=lambda: self.cpu,
            wait=self.wait,
        )


def arrivals_us(rate: float, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(1e9 / rate, count).cumsum().astype(np.int64) / 1000


def test_waiting_times_are_lindleys() -> None:
    """One server, one request at a time: the waiting times of queueing theory, to the nanosecond."""
    rate, count = 8000.0, 5000
    arrivals = arrivals_us(rate, count)
    free, expected = 0.0, []
    for arrival in arrivals:
        free = max(free, arrival) + 100
        expected.append(free - arrival)
    found = FakeServer(lambda size: 100).server(max_batch=1).play(rate, count, slo_us=1e9)
    assert found.n == count
    assert found.mean_batch == 1
    for share, value in ((50, found.p50_us), (90, found.p90_us), (95, found.p95_us), (99, found.p99_us)):
        assert value == pytest.approx(np.percentile(expected, share), abs=0.01)


def test_a_stall_counts_for_everyone_who_arrived_meanwhile() -> None:
    """Counting from when the server took a request would hide the stall behind one slow answer."""
    stall = iter([10_000.0] + [100.0] * 100_000)
    fake = FakeServer(lambda size: next(stall))
    arrivals = arrivals_us(10_000, 1000)
    found = fake.server(max_batch=1000).play(10_000, 1000, slo_us=1e9)
    met = int((arrivals < arrivals[0] + 10_000).sum())
    assert fake.batches[:2] == [1, met - 1]  # all that had arrived are one batch
    # They waited from their own arrival on, evenly from the whole stall down to nothing; a tenth of all requests did.
    assert met == pytest.approx(100, abs=20)
    assert found.p95_us > 3000
    assert found.p99_us > 8000
    assert found.p50_us < 300


def test_a_batch_is_bounded_and_never_waits_to_fill() -> None:
    """Overload must not make one batch of everything; an idle server must not hold a request back."""
    fake = FakeServer(lambda size: 1000.0)
    fake.server(max_batch=8).play(100_000, 500, slo_us=1e9)
    assert max(fake.batches) == 8
    idle = FakeServer(lambda size: 1.0)
    found = idle.server().play(10, 700, slo_us=1e9)
    assert set(idle.batches) == {1}
    assert found.p99_us == pytest.approx(1)


def test_an_attempt_that_has_failed_ends() -> None:
    """The rest of an overloaded attempt would take minutes and change nothing."""
    found = FakeServer(lambda size: 100).server(max_batch=1).play(50_000, 100_000, slo_us=500)
    assert not found.valid
    assert 662 <= found.n < 2000
    assert found.p99_us is not None
    early = FakeServer(lambda size: 100).server(max_batch=1).play(50_000, 5000, slo_us=500)
    assert early.n < 662
    assert early.p99_us is None


@pytest.mark.parametrize("max_batch", [1, 64])
@pytest.mark.parametrize("count", [662, 20_000])
def test_a_queue_that_grows_is_invalid(max_batch: int, count: int) -> None:
    """Within a long promise nobody is late when an overloaded attempt ends; in the next minute everybody would be."""
    bears = max_batch * 10_000.0  # a batch takes 100 us
    over, under = (
        FakeServer(lambda size: 100.0).server(max_batch=max_batch).play(share * bears, count, slo_us=1e9)
        for share in (1.15, 0.85)
    )
    assert over.n == under.n == count
    assert (over.kept_up, over.valid) == (False, False)
    assert (under.kept_up, under.valid) == (True, True)


def test_a_queue_that_only_the_end_of_the_arrivals_empties_is_invalid() -> None:
    """All have arrived while the first is answered: the queue then gets empty at any rate whatever."""
    found = FakeServer(lambda size: 1000.0).server(max_batch=8).play(1e9, 700, slo_us=1e9)
    assert found.mean_batch > 7
    assert not found.kept_up


def test_when_the_server_falls_behind_decides() -> None:
    """A stall that is worked off is forgiven within the promise; a server that gets too slow at the end is not."""
    stalled, slower = iter(range(10**6)), iter(range(10**6))
    found = FakeServer(lambda size: 20_000.0 if next(stalled) == 500 else 10.0).server(max_batch=1)
    assert found.play(20_000, 4000, slo_us=1e9).valid
    found = FakeServer(lambda size: 10.0 if next(slower) < 2500 else 60.0).server(max_batch=1)
    assert not found.play(20_000, 4000, slo_us=1e9).kept_up


def search(us: Callable[[int], float], slo_us: float, *, max_batch: int = 64) -> Search:
    single = us(1)
    server = FakeServer(us).server(max_batch=max_batch)
    return highest_rate(server, slo_us=slo_us, seconds=1.0, single_us=single, fastest_us=single)


def test_highest_rate_lies_between_what_held_and_what_did_not() -> None:
    """Without batches no server answers more than one request per service time; near that its queue grows."""
    found = search(lambda size: 100.0, 1000.0, max_batch=1)
    assert found.best is not None
    assert found.best.valid
    assert found.best.p99_us <= 1000
    assert 7_000 < found.best.rate < 10_000
    assert found.rate_failed is not None
    assert 1 < found.rate_failed / found.best.rate <= 1.05


@pytest.mark.parametrize("seconds", [0.001, 0.05, 1.0])
def test_the_highest_rate_can_be_sustained(seconds: float) -> None:
    """With a promise as long as the attempt, or longer, twice the rate that the server bears once was VALID."""
    server = FakeServer(lambda size: 100.0).server()  # 64 in 100 us
    found = highest_rate(server, slo_us=50_000, seconds=seconds, single_us=100.0, fastest_us=100.0)
    assert found.best is not None
    assert found.rate_failed is not None
    assert 0.8 * 640_000 < found.best.rate < 1.1 * 640_000


def test_batches_raise_the_rate() -> None:
    """What dynamic batching is for: the same 100 us answer 64 at once."""
    one = search(lambda size: 100.0, 1000.0, max_batch=1)
    many = search(lambda size: 100.0, 1000.0)
    assert one.best is not None
    assert many.best is not None
    assert many.best.rate > 30 * one.best.rate
    assert many.best.mean_batch > 10


def test_a_promise_shorter_than_one_answer_is_invalid() -> None:
    """No rate can keep it, and none needs to be tried."""
    found = search(lambda size: 100.0, 99.0)
    assert found == Search(best=None, rate_failed=None, last=None, attempts=0)


def test_a_server_that_often_stalls_is_invalid_at_any_rate() -> None:
    """Two stalls in a hundred answers break the promise however slowly requests come; the search must end."""
    calls = iter(range(1, 10**9))
    found = search(lambda size: 5000.0 if next(calls) % 50 == 0 else 10.0, 1000.0)
    assert found.best is None
    assert found.last is not None
    assert not found.last.valid


def test_interrupted_attempts_are_repeated() -> None:
    """A neighbour's time slice of a few milliseconds is not the server's fault, and is seen in its CPU time."""
    fake = FakeServer(lambda size: 10.0)
    stolen = iter([True, True, False])
    play_times = []

    class Interrupted(Server):
        def play(self, rate: float, count: int, slo_us: float, *, seed: int = 0):  # type: ignore[no-untyped-def]
            play_times.append(rate)
            if next(stolen, False):
                fake.now += 10**9
                fake.us = lambda size: 5000.0
            found = super().play(rate, count, slo_us, seed=seed)
            fake.us = lambda size: 10.0
            return found

    server = Interrupted(
        serve=fake.serve, requests=3, clock=lambda: fake.now, cpu_clock=lambda: fake.cpu // 2, wait=fake.wait
    )
    highest_rate(server, slo_us=1000, seconds=0.1, single_us=10, fastest_us=10)
    assert play_times[0] == play_times[1] == play_times[2]
    assert play_times[3] == 2 * play_times[2]


def test_every_request_is_asked() -> None:
    """A few lucky requests, again and again, would sit in the cache."""
    seen: set[int] = set()
    fake = FakeServer(lambda size: 1.0)
    server = fake.server(requests=50)
    object.__setattr__(server, "serve", lambda rows: (seen.update(rows.tolist()), fake.serve(rows)))
    server.play(1000, 200, slo_us=1e9)
    assert seen == set(range(50))


def test_a_real_clock_agrees() -> None:
    """The busy loop itself: an answer that costs nothing is not late, and takes the schedule's time."""
    found = Server(serve=lambda rows: None, requests=3).play(20_000, 700, slo_us=1e9)
    assert found.n == 700
    assert 0 <= found.p50_us < 1e6


@pytest.mark.parametrize("wrong", [{"slo_us": 0.0}, {"seconds": 0.0}, {"single_us": 0.0}, {"fastest_us": -1.0}])
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    """A rate of infinity or of nothing would never end."""
    settings = {"slo_us": 1.0, "seconds": 1.0, "single_us": 1.0, "fastest_us": 1.0} | wrong
    with pytest.raises(ConfigError, match="above 0"):
        highest_rate(FakeServer(lambda size: 1.0).server(), **settings)
    with pytest.raises(ConfigError, match="at least 1"):
        FakeServer(lambda size: 1.0).server(requests=0)


def test_numpy_is_enough() -> None:
    """The scenario runs on devices: neither torch nor onnxruntime is needed for the load itself."""
    code = "import sys, graph2mlp.latency.server as m; assert not {'torch', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
