#!/usr/bin/env python3
"""Plant one fault at a time in a copy of the source, and see that the test meant to catch it goes red.

``scripts/planted_faults.py [WORD]`` runs those whose name holds WORD. Exit code 1 when a fault goes unnoticed, or when
its patch does not apply any more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Fault:
    """What is broken, where, how, and which tests must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str


FAULTS = (
    Fault(
        "drop fsync of the file",
        "store/local.py",
        "            self._disk.fsync(fd)\n",
        "",
        "tests/crash/test_power_cut.py tests/store/test_local.py",
    ),
    Fault(
        "drop fsync of the folder",
        "store/local.py",
        '            self._disk.fsync_folder(target.parent)\n        except OSError as e:\n            raise self._trouble(f"write {key}", e) from e\n        return created',
        '        except OSError as e:\n            raise self._trouble(f"write {key}", e) from e\n        return created',
        "tests/crash/test_power_cut.py tests/store/test_local.py",
    ),
    Fault(
        "ignore a short write",
        "store/local.py",
        "                    left = left[self._disk.write(fd, left) :]",
        "                    self._disk.write(fd, left)\n                    break",
        "tests/store/test_local.py tests/crash",
    ),
    Fault(
        "skip the hash on a hit",
        "store/blobs.py",
        "        if found.hexdigest() != digest[7:]:",
        "        if False:",
        "tests/store/test_blobs.py",
    ),
    Fault(
        "believe a damaged cache entry",
        "store/cache.py",
        "if checksum != _checksum(body) or body.get",
        "if body.get",
        "tests/store/test_blobs.py tests/crash",
    ),
    Fault(
        "a condition without a value is false",
        "engines/graph.py",
        "            self.ended.append(Ended(node.path, FAILED, error=e.as_json()))\n            return self._end(node, FAILED, Values(), e.as_json())",
        "            return self._skip(node, 'no value')",
        "tests/engines/test_graph.py",
    ),
    Fault(
        "NaN may be compared",
        "ir/condition.py",
        "    if isinstance(value, float) and not math.isfinite(value):",
        "    if False:",
        "tests/ir/test_condition.py",
    ),
    Fault(
        "an inner loop sees the item for an outer output",
        "engines/graph.py",
        "                return _pick(scope.inputs.parameters.get(name), path)",
        "                return _pick(next(reversed(scope.inputs.parameters.values()), None), path)",
        "tests/engines/test_graph.py tests/engines/test_random_plans.py",
    ),
    Fault(
        "a dag output comes from the last source that ran",
        "engines/graph.py",
        "if s.output in scope.nodes[s.task].outputs.parameters and name not in parameters:",
        "if s.output in scope.nodes[s.task].outputs.parameters:",
        "tests/engines/test_random_plans.py",
    ),
    Fault(
        "a helper's edit is not in the key",
        "author/closure.py",
        'lines = (f"{_file_sha256(root / f)} {f}\\n" for f in files)',
        'lines = (f"{f}\\n" for f in files)',
        "tests/author/test_component.py",
    ),
    Fault(
        "artifact digests are not in the key",
        "plan/key.py",
        "[[a.digest or a.uri, dict(a.metadata)] for a in found]",
        "[[dict(a.metadata)] for a in found]",
        "tests/engines/test_local.py",
    ),
    Fault(
        "resume keeps steps whose inputs changed",
        "engines/kept.py",
        "    if not record or json.dumps(record.inputs",
        "    if not record or False and json.dumps(record.inputs",
        "tests/engines/test_resume.py",
    ),
    Fault(
        "resume does not look whether the definition changed",
        "api.py",
        "    if record.plan_digest != prepared.plan.digest:",
        "    if False:",
        "tests/engines/test_resume.py",
    ),
    Fault(
        "garbage collection does not look at leases",
        "store/gc.py",
        '        yield f"sha256:{digest}"\n',
        "        yield from ()\n",
        "tests/store/test_gc.py",
    ),
    Fault(
        "garbage collection forgets what directories hold",
        "store/gc.py",
        "    return digests.union(*(blobs.members(d) for d in digests))",
        "    return digests",
        "tests/store/test_gc.py",
    ),
    Fault(
        "garbage collection does not look again",
        "store/gc.py",
        "        if digest in wanted and not store.find(blob_key(digest)):",
        "        if False:",
        "tests/store/test_gc.py",
    ),
    Fault(
        "NaN passes the gate",
        "registry/gate.py",
        "math.isfinite",
        "bool",
        "tests/registry/test_gate.py",
    ),
    Fault(
        "the child of a step survives it",
        "engines/local/forkserver.py",
        "        end_group(ended.si_pid, signal.SIGKILL)\n",
        "",
        "tests/engines/test_local.py",
    ),
    Fault(
        "a step beyond its deadline goes on",
        "engines/local/worker.py",
        "    if limits.seconds and seconds > limits.seconds:",
        "    if False:",
        "tests/engines/test_kubernetes.py",
    ),
    Fault(
        "argo: the sidecar follows what leads out of the step's folder",
        "engines/files.py",
        "    if within and not path.resolve()",
        "    if False and not path.resolve()",
        "tests/engines/argo/test_beside.py",
    ),
    Fault(
        "argo: the sidecar reads whatever stands in the place of the log",
        "engines/argo/shim.py",
        "    if not stat.S_ISREG(log.lstat().st_mode):",
        "    if False:",
        "tests/engines/argo/test_beside.py",
    ),
    Fault(
        "argo: secrets of a command beside are not masked",
        "engines/pod/step.py",
        "if name.startswith(MASKED)",
        "if name.startswith('x' + MASKED)",
        "tests/engines/argo/test_beside.py",
    ),
    Fault(
        "argo: braces of values are left to Argo",
        "engines/argo/control.py",
        r'.replace("{", "\\u007b").replace("}", "\\u007d")',
        "",
        "tests/engines/argo/test_any_value.py",
    ),
    Fault(
        "argo: what is submitted twice runs twice",
        "engines/argo/engine.py",
        "            if not self._is_ours():\n                raise\n",
        "            raise\n",
        "tests/engines/argo/test_engine.py",
    ),
    Fault(
        "argo: a condition without a value is false",
        "engines/argo/expression.py",
        "NO_VALUE = 'fromJSON(\"no value\")'",
        'NO_VALUE = "false"',
        "tests/engines/argo/test_condition.py tests/engines/argo/test_any_value.py",
    ),
    Fault(
        "let a taken-over run register again",
        "registry/model.py",
        "return next(made, None) if run and step else None",
        "return None",
        "tests/trigger/test_watch.py tests/registry/test_model.py",
    ),
    Fault(
        "claim without asking who was first",
        "trigger/claim.py",
        "        if not self.store.put_new(epoch_key(work, lease.epoch), lease.body()):\n            return None\n",
        "        self.store.put(epoch_key(work, lease.epoch), lease.body())\n",
        "tests/trigger",
    ),
    Fault(
        "keep a lease that is over",
        "trigger/claim.py",
        "        return not self.lost\n\n    def beat",
        "        return True\n\n    def beat",
        "tests/trigger",
    ),
    Fault(
        "run data that is not quiet",
        "trigger/watch.py",
        "return max(0.0, sight.since + quiet - now)",
        "return 0.0",
        "tests/trigger/test_watch.py",
    ),
    Fault(
        "take a stranger's call for a hint",
        "trigger/webhook.py",
        "        if not is_genuine(self.headers, body, self.server.secret):",
        "        if False:",
        "tests/trigger/test_webhook.py",
    ),
    Fault(
        "take any bearer for the secret's",
        "trigger/webhook.py",
        "hmac.compare_digest(_bytes(token.strip()), secret)",
        "bool(token)",
        "tests/trigger/test_webhook.py",
    ),
    Fault(
        "lose the hint that comes during a look",
        "trigger/hint.py",
        "        hinted = self._given.wait(seconds)\n",
        "        self._given.clear()\n        hinted = self._given.wait(seconds)\n",
        "tests/trigger/test_hint.py",
    ),
    Fault(
        "look as often as hints come",
        "trigger/hint.py",
        "            self.pause(early)\n",
        "            pass\n",
        "tests/trigger/test_hint.py",
    ),
    Fault(
        "take a bucket's list for a stream",
        "trigger/minio.py",
        "answer.headers.get_content_type() != STREAM",
        "False",
        "tests/trigger/test_minio.py",
    ),
    Fault(
        "let what had its run settle first",
        "trigger/watch.py",
        "        if view.done:\n            return self._not_new(self._keep(work, view.done))\n        if not view.epoch and (turn := self._not_yet(work, pins)):",
        "        if turn := self._not_yet(work, pins):",
        "tests/trigger/test_watch.py",
    ),
    Fault(
        "replace the outcome that is kept",
        "trigger/claim.py",
        "self.claims.store.put_new(done_key",
        "self.claims.store.put(done_key",
        "tests/trigger/test_claim.py",
    ),
    Fault(
        "judge: take missing data for none",
        "rollout/judge.py",
        "    if why := _absent(grown, seen):",
        "    if why := None:",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: count what is no count",
        "rollout/judge.py",
        "    if why := _unusable(judgement, seen):",
        "    if why := None:",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: compare the slowest answers only",
        "rollout/judge.py",
        "        found[WHOLE] = np",
        "        found['none'] = np",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: keep the ranks of the first answers",
        "rollout/judge.py",
        "if WHOLE in events and usual.any() else",
        "if False else",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: compare answers of arms that answer unlike many",
        "rollout/judge.py",
        "        if _answer_alike(before):",
        "        if True:",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "bets: let no answer be slower",
        "rollout/bets.py",
        "np.interp(np.arange(len(rank)) + tolerance,",
        "np.interp(np.arange(len(rank)) + 0,",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: let a late look be healthy",
        "rollout/judge.py",
        "        return replace(judgement, verdict=CONTINUE)\n",
        "        return judgement\n",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: be healthy without exposure",
        "rollout/findings.py",
        "    return Finding(PASS if enough else CANNOT_TELL, text, numbers)",
        "    return Finding(PASS, text, numbers)",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: be healthy without a bound",
        "rollout/findings.py",
        "    outcome = PASS if log >= threshold else CANNOT_TELL",
        "    outcome = PASS",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: promote whatever is refused",
        "rollout/judgement.py",
        "REFUSED = 2.0",
        "REFUSED = 200.0",
        "tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "front: take what is refused for answers",
        "rollout/front/configuration.py",
        "    http-response track-sc1 int({REFUSED}) table tally_{arm} if {drawn}refused\n",
        "",
        "tests/rollout/front/test_shield.py",
    ),
    Fault(
        "front: call what Envoy has not merged yet slow",
        "rollout/front/envoy.py",
        "            took[number] += n\n",
        "            took[number] += n\n        took[-1] += good[key] - sum(latency.get(key, ()))\n",
        "tests/rollout/front/test_envoy.py",
    ),
    Fault(
        "front: serve whatever has the number",
        "serve/server.py",
        "        if digest and version.digest != digest:",
        "        if False:",
        "tests/serve/test_server.py",
    ),
    Fault(
        "front: let logs grow",
        "rollout/front/supervisor.py",
        "        self._tried(self._put_logs_aside)\n",
        "",
        "tests/rollout/front/test_supervisor.py",
    ),
    Fault(
        "rollback: wait for a store that hangs",
        "rollout/session.py",
        "    if not wait([answer], within).done:",
        "    if not wait([answer]).done:",
        "tests/rollout/test_session.py",
    ),
    Fault(
        "judge: give every step all of alpha",
        "rollout/judgement.py",
        "    whole = rules.alpha / (rules.steps + 1)",
        "    whole = rules.alpha",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: use stable's predictions of other requests",
        "rollout/judge.py",
        "if seen.stable is not None and _alike(before):",
        "if seen.stable is not None:",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: believe the table to the last row",
        "rollout/judge.py",
        '    unsure = bets.uncertainty(counts, judgement.alphas["predictions"])',
        "    unsure = 0.0",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: let an alarm pass",
        "rollout/judge.py",
        "    if judgement.verdict == ALARM:\n",
        "    if False:\n",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: take a burst for evidence",
        "rollout/wealth.py",
        "    grown = np.minimum(events @ wealth.gains.T, wealth.cap)",
        "    grown = events @ wealth.gains.T",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: never begin afresh",
        "rollout/wealth.py",
        "    if moment <= wealth.moment:",
        "    if True:",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: place more than there is",
        "rollout/wealth.py",
        "        kept=wealth.kept + back - stake,",
        "        kept=wealth.kept + back,",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: forget the tolerance of a ratio",
        "rollout/bets.py",
        "k = np.array([r for r in RATIOS if r <= most]), odds * (1 + tolerance)",
        "k = np.array([r for r in RATIOS if r <= most]), odds",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "judge: forget the tolerance of shares",
        "rollout/bets.py",
        "    room = np.where(excess > 1, 1 + tolerance, 1 / (1 + tolerance))",
        "    room = np.ones_like(excess)",
        "tests/rollout/test_judge.py tests/rollout/test_wealth.py tests/rollout/test_judge_statistics.py",
    ),
    Fault(
        "let predictions move unmeasured",
        "registry/gate.py",
        '        return Finding(CANNOT_TELL, f"{text}; it must be at most {bound:g}")',
        '        return Finding(PASS, f"{text}; it must be at most {bound:g}")',
        "tests/registry/test_gate.py",
    ),
)


def noticed(fault: Fault, source: Path) -> bool:
    """Run the tests on the copy with the fault planted; say whether one of them failed."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *fault.tests.split()]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode == 1


def planted(fault: Fault, source: Path) -> str:
    """Plant a fault, run its tests, mend it; say how it went."""
    file = source / "tidegate" / fault.file
    text = file.read_text()
    if fault.old not in text:
        return "DOES NOT APPLY"
    file.write_text(text.replace(fault.old, fault.new, 1))
    try:
        return "caught" if noticed(fault, source) else "UNNOTICED"
    finally:
        file.write_text(text)


def main() -> None:
    """Plant every fault in turn."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [f for f in FAULTS if word in f.name]
    ends = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        for fault in chosen:
            ends.append(planted(fault, source))
            print(f"{ends[-1]:<15} {fault.name}", flush=True)
    caught = ends.count("caught")
    print(f"{caught} of {len(chosen)} caught")
    raise SystemExit(caught < len(chosen))


if __name__ == "__main__":
    main()
