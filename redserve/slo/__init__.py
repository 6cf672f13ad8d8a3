"""What a promise counts: pure functions from the end of a request to good and bad events.

Neither clocks nor I/O: whoever drives it says what time it is, in seconds of any clock that never
goes back.
"""

from redserve.slo.ended import End, Ended, EndedItem, ItemEnd, end_of
from redserve.slo.judge import judge
from redserve.slo.judged import Judged, judged_of
from redserve.slo.objective import INDICATORS, Indicator, Objective
from redserve.slo.recent import Percentiles, RecentValues
from redserve.slo.scoreboard import WINDOWS_S, Scoreboard, Standing, Verdict
from redserve.slo.tally import Tally
from redserve.slo.traffic import Traffic, TrafficFigures
from redserve.slo.windows import SlidingSums

__all__ = [
    "INDICATORS",
    "WINDOWS_S",
    "End",
    "Ended",
    "EndedItem",
    "Indicator",
    "ItemEnd",
    "Judged",
    "Objective",
    "Percentiles",
    "RecentValues",
    "Scoreboard",
    "SlidingSums",
    "Standing",
    "Tally",
    "Traffic",
    "TrafficFigures",
    "Verdict",
    "end_of",
    "judge",
    "judged_of",
]
