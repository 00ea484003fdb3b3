from tidegate.rollout.judge import ALARM, CONTINUE, HEALTHY, Arm, Look, Rules, Weights, begin, look
from tidegate.rollout.router import LATENCY_EDGES

TABLE = [[1500 if a == b else 0 for a in range(10)] for b in range(10)]


def arm(requests: int, errors: int = 0, slow: float = 0.04) -> Arm:
    """Answers of 1 ms, some of 10 ms, scores evenly over ten bins."""
    answered = requests - errors
    late = int(answered * slow)
    latency = [0] * (len(LATENCY_EDGES) + 1)
    latency[7], latency[17] = answered - late, late
    return Arm(requests, errors, tuple(latency), (answered // 10,) * 9 + (answered - 9 * (answered // 10),))


def seen(second: int, errors: int = 0, slow: float = 0.04) -> Look:
    return Look(second, arm(500 * second, errors * second, slow), arm(500 * second), arm(9000 * second))


def test_a_canary_like_its_control_is_healthy_once_there_is_evidence_and_not_before() -> None:
    judged = begin(Rules(), Weights(500, 500, 9000), TABLE)
    verdicts = []
    for second in range(1, 61):
        judged = look(judged, seen(second))
        verdicts.append(judged.verdict)
    assert verdicts[:9] == [CONTINUE] * 9
    assert verdicts[-1] == HEALTHY
    assert ALARM not in verdicts


def test_an_alarm_stays() -> None:
    judged = begin(Rules(), Weights(500, 500, 9000), TABLE)
    for second in range(1, 4):
        judged = look(judged, seen(second, errors=20))
    assert judged.verdict == ALARM
    assert look(judged, seen(60)).verdict == ALARM
