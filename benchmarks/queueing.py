"""The arithmetic of questions that are answered together: how long those wait that come at random.

    python -m benchmarks.queueing                                       # by what answering together gains
    python -m benchmarks.queueing --lone 2.5 --rate 918 --together 26   # of one measurement of benchmarks.server

A server takes all questions that wait, 32 at most, and answers them in `fixed + each * number` milliseconds. A lone
client in a closed loop has `fixed + each`, and many clients have `number / (fixed + each * number)` answers per
millisecond: two measurements give both values. Nothing else is assumed, neither threads nor other work on the cores.
"""

from __future__ import annotations

import argparse
import random
from bisect import bisect_right
from statistics import median
from typing import NamedTuple

MOST = 32
_COUNT = 100_000


class Service(NamedTuple):
    """How long a server takes for questions that it answers together.

    Attributes:
        fixed: milliseconds, whatever their number.
        each: milliseconds per question.
    """

    fixed: float
    each: float

    @property
    def lone(self) -> float:
        """Milliseconds of a lone question."""
        return self.fixed + self.each

    @property
    def rate(self) -> float:
        """Answers per millisecond, where as many wait as are answered together."""
        return MOST / (self.fixed + self.each * MOST)

    @classmethod
    def of(cls, lone: float, rate: float, together: float) -> Service:
        """The service with such a lone question, and such a rate at so many together."""
        each = (together / rate - lone) / (together - 1)
        return cls(lone - each, each)


def random_arrivals(service: Service, rate: float, *, most: int = MOST, count: int = _COUNT) -> list[float]:
    """Milliseconds from arrival to answer of questions that come at random times, sorted.

    Args:
        service: of the server.
        rate: arrivals per millisecond.
        most: questions that are answered together.
        count: number of arrivals.
    """
    chance, now, came = random.Random(5), 0.0, []
    for _ in range(count):
        now += chance.expovariate(rate)
        came.append(now)
    first, free, times = 0, 0.0, []
    while first < count:
        begin = max(free, came[first])
        end = min(bisect_right(came, begin, first), first + most)
        free = begin + service.fixed + service.each * (end - first)
        times += [free - one for one in came[first:end]]
        first = end
    return sorted(times)


def expected(service: Service, rate: float) -> float:
    """The median of random arrivals at half of a rate, in lone questions."""
    return median(random_arrivals(service, rate / 2)) / service.lone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lone", type=float, help="milliseconds of a lone client's question")
    parser.add_argument("--rate", type=float, help="answers per second to many clients")
    parser.add_argument("--together", type=float, default=MOST, help="questions per run at this rate")
    options = parser.parse_args()
    if options.lone is not None and options.rate is not None:
        service = Service.of(options.lone, options.rate / 1000, options.together)
        print(f"{service.fixed:.2f} ms + {service.each:.2f} ms per question; ", end="")
        print(f"random arrivals at half of the rate: {expected(service, options.rate / 1000):.2f} lone questions")
        return
    print("| gain of answering 32 together | share of a lone question that is fixed | median at half of that rate |")
    print("|---:|---:|---:|")
    for gain in (1.1, 1.5, 1.75, 2.0, 2.3, 3.0, 4.0):
        service = Service.of(1.0, gain, MOST)
        print(f"| {gain} | {service.fixed:.2f} | {expected(service, service.rate):.2f} |")


if __name__ == "__main__":
    main()
