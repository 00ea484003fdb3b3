"""Expressions of cron mean what they mean to Argo's controller.

The moments below are what the controller's own library (robfig/cron 3.0.1) answers.
"""

from datetime import UTC, datetime
from itertools import islice

import pytest

from tidegate import cron
from tidegate.errors import UsageError

# expression, zone, after, the next three moments in UTC
SEEN = """
0 3 * * * | Europe/Berlin | 2026-03-27T12:00 | 2026-03-28T02:00 2026-03-29T01:00 2026-03-30T01:00
30 2 * * * | Europe/Berlin | 2026-03-27T12:00 | 2026-03-28T01:30 2026-03-30T00:30 2026-03-31T00:30
30 2 * * * | Europe/Berlin | 2026-10-24T12:00 | 2026-10-25T00:30 2026-10-25T01:30 2026-10-26T01:30
*/20 2 * * * | Europe/Berlin | 2026-10-25T00:10 | 2026-10-25T00:20 2026-10-25T00:40 2026-10-25T01:00
0 * * * * | America/New_York | 2026-03-08T06:30 | 2026-03-08T07:00 2026-03-08T08:00 2026-03-08T09:00
0 0 13 * 5 | UTC | 2026-02-01T00:00 | 2026-02-06T00:00 2026-02-13T00:00 2026-02-20T00:00
0 0 13 * * | UTC | 2026-02-01T00:00 | 2026-02-13T00:00 2026-03-13T00:00 2026-04-13T00:00
0 0 */2 * 1 | UTC | 2026-02-01T00:00 | 2026-02-02T00:00 2026-02-03T00:00 2026-02-05T00:00
0 0 * * 1-5/2 | UTC | 2026-02-01T00:00 | 2026-02-02T00:00 2026-02-04T00:00 2026-02-06T00:00
0 0 29 2 * | UTC | 2026-03-01T00:00 | 2028-02-29T00:00 2032-02-29T00:00 2036-02-29T00:00
5/20 8-10 ? * MON,fri | Asia/Kolkata | 2026-11-24T00:00 | 2026-11-27T02:35 2026-11-27T02:55 2026-11-27T03:15
0 12 1 jan,JUL * | Asia/Tokyo | 2026-11-24T00:00 | 2027-01-01T03:00 2027-07-01T03:00 2028-01-01T03:00
59 23 31 12 * | UTC | 2026-12-31T23:59 | 2027-12-31T23:59 2028-12-31T23:59 2029-12-31T23:59
* * * * * | UTC | 2026-11-24T19:00:30 | 2026-11-24T19:01 2026-11-24T19:02 2026-11-24T19:03
0 0 31 * * | UTC | 2026-01-31T00:00 | 2026-03-31T00:00 2026-05-31T00:00 2026-07-31T00:00
@yearly | UTC | 2026-11-24T00:00 | 2027-01-01T00:00 2028-01-01T00:00 2029-01-01T00:00
@monthly | Europe/Berlin | 2026-11-24T00:00 | 2026-11-30T23:00 2026-12-31T23:00 2027-01-31T23:00
@weekly | UTC | 2026-11-24T00:00 | 2026-11-29T00:00 2026-12-06T00:00 2026-12-13T00:00
@daily | America/Sao_Paulo | 2026-11-24T00:00 | 2026-11-24T03:00 2026-11-25T03:00 2026-11-26T03:00
@hourly | UTC | 2026-11-24T00:00 | 2026-11-24T01:00 2026-11-24T02:00 2026-11-24T03:00
"""
REFUSED = """
0 0 * * 7
60 * * * *
0 24 * * *
0 0 0 * *
5-1 * * * *
*/0 * * * *
0 0 L * *
0 0 * * 5#1
@often
* * * *
* * * * * *
"""


@pytest.mark.parametrize("line", SEEN.strip().splitlines())
def test_an_expression_names_the_moments_at_which_the_controller_starts_runs(line: str) -> None:
    text, zone, after, expected = (part.strip() for part in line.split("|"))
    began = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = islice(cron.moments(cron.parse(text), cron.zone(zone), began), 3)
    assert [f"{m:%Y-%m-%dT%H:%M}" for m in found] == expected.split()[:3]


@pytest.mark.parametrize("text", REFUSED.strip().splitlines())
def test_what_the_controller_refuses_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        cron.parse(text)
    assert refused.value.code == "cron-invalid"
    assert "Five fields" in refused.value.allowed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("TZ=Europe/Berlin 0 3 * * *", "names a time zone"),
        ("CRON_TZ=UTC @daily", "names a time zone"),
        ("@every 1h", "whenever the controller started"),
        ("0 0 31 2,4,6,9,11 *", "never comes"),
        ("0,,5 * * * *", "as minute"),
        ("", "has 0 fields"),
        ("٣ * * * *", "as minute"),
    ],
)
def test_what_the_controller_reads_as_nothing_or_as_something_else_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        cron.parse(text)


@pytest.mark.parametrize("name", ["Europe/Berlim", "Local", "", "../etc/passwd", "europe/berlin", "CET+1"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        cron.zone(name)
    assert refused.value.code == "timezone-unknown"
