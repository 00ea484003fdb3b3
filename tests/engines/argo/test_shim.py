"""The program that wraps a command in a foreign image: each promise of shim.c, on the compiled binary."""

import functools
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tidegate.engines.argo.container import AWAIT, SHIM
from tidegate.engines.argo.shim import ended, install, leave, release

SOURCE = Path(__file__).parents[3] / "src/tidegate/engines/argo/shim.c"
STRICT = "-Wall -Wextra -Werror -Wshadow -Wconversion".split()
HELLO = """#include <stdio.h>
int main(int argc, char **argv) { return argc == 2 && printf("hello %s", argv[1]) ? 7 : 1; }"""


def compiled(source: Path, out: Path, *flags: str) -> Path:
    subprocess.run(["gcc", "-static", "-Os", "-s", "-D_GNU_SOURCE", *STRICT, *flags, "-o", out, source], check=True)
    return out


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(SOURCE, tmp_path_factory.mktemp("shim") / "shim")


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with shorter deadlines."""
    flags = ["-DGRACE_MS=400", "-DDRAIN_MS=200", "-DSILENT_MS=2000", "-DPATIENCE_MS=300"]
    return compiled(SOURCE, tmp_path_factory.mktemp("hasty") / "shim", *flags)


def encoded(*words: str | bytes) -> bytes:
    return b"".join(os.fsencode(w) + b"\0" for w in (str(len(words)), *words))


def eventually(true: Callable[[], object], within: float = 10) -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


@dataclass
class Pod:
    """A folder as the containers of a pod share it, and the shim running beside it."""

    folder: Path
    shim: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, *words: str | bytes, job: bytes | None = None, prefix: Sequence[str] = (), **options
    ) -> subprocess.Popen:
        if job is None:
            job = encoded(*words)
        (self.folder / "job").write_bytes(job)
        env = {**options.pop("env", os.environ), "TIDEGATE_SHIM_FOLDER": str(self.folder)}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        self.running.append(subprocess.Popen([*prefix, self.shim], env=env, **options))
        return self.running[-1]

    def run(self, *words: str | bytes, done: str = "0\n", **options) -> tuple[int, bytes, bytes]:
        """Run to the end; `done` is there from the beginning."""
        (self.folder / "done").write_text(done)
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=20)
        return process.returncode, out, err

    def finish(self, code: int = 0) -> None:
        (self.folder / "done.part").write_text(f"{code}\n")
        (self.folder / "done.part").rename(self.folder / "done")

    def await_file(self, name: str) -> str:
        eventually((self.folder / name).exists)
        return (self.folder / name).read_text()

    @property
    def exit(self) -> str:
        return (self.folder / "exit").read_text()

    @property
    def log(self) -> bytes:
        return (self.folder / "log").read_bytes()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[Path], Pod]]:
    pods: list[Pod] = []

    def made(shim: Path) -> Pod:
        pods.append(Pod(tmp_path / f"pod{len(pods)}", shim))
        pods[-1].folder.mkdir()
        return pods[-1]

    yield made
    for process in (p for pod in pods for p in pod.running):
        process.kill()
        process.communicate()


@pytest.fixture
def pod(make: Callable[[Path], Pod], shim: Path) -> Pod:
    return make(shim)


@pytest.fixture
def hasty_pod(make: Callable[[Path], Pod], hasty: Path) -> Pod:
    return make(hasty)


def sh(script: str, *args: str) -> tuple[str, ...]:
    return ("sh", "-c", script, *args)


def py(script: str, *args: str) -> tuple[str, ...]:
    say = "say = lambda *a: os.write(1, ' '.join(map(str, a)).encode() + b'\\n')"
    return (sys.executable, "-SEc", f"import os, signal, sys, time\n{say}\n{script}", *args)


def answering(**answers: str) -> tuple[str, ...]:
    """A command that says `up`, and does something on each signal until one ends it."""
    handlers = "".join(f"signal.signal(signal.{n}, lambda *_: ({what}))\n" for n, what in answers.items())
    return py(f"{handlers}say('up')\nwhile 1: signal.pause()")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# The job


def test_the_binary_needs_nothing_of_the_image(shim: Path) -> None:
    header = shim.read_bytes()
    (offset,), (size, count) = struct.unpack_from("<Q", header, 32), struct.unpack_from("<HH", header, 54)
    types = {struct.unpack_from("<I", header, offset + i * size)[0] for i in range(count)}
    assert 1 in types  # PT_LOAD: it is read right
    assert not types & {2, 3}  # PT_DYNAMIC, PT_INTERP


def test_an_empty_job_ends_at_once_with_success(pod: Pod) -> None:
    assert pod.start().wait(5) == 0
    assert sorted(p.name for p in pod.folder.iterdir()) == ["job"]


def test_the_words_arrive_as_they_are(pod: Pod) -> None:
    words = ["", "a b", "'\"$HOME`\\", "\n\t", "ü✓", b"\xff\xfe"]
    code = "import sys, os; print([os.fsencode(a) for a in sys.argv[1:]])"
    assert pod.run(*py(code), *words)[1].decode() == f"{[os.fsencode(w) for w in words]}\n"


def test_a_job_of_many_words_is_read_whole(pod: Pod) -> None:
    words = ["x" * 100_000] * 14 + ["last"]
    assert pod.run(*sh('echo $# "${15}"', "sh"), *words)[1] == b"15 last\n"


def test_a_job_too_large_for_the_kernel_is_126_and_says_so(pod: Pod) -> None:
    code, out, err = pod.run("true", "x" * 5_000_000, done="3")
    assert (code, out, pod.exit) == (3, b"", "126")
    assert b"tidegate: cannot run true: Argument list too long\n" == err == pod.log


@pytest.mark.parametrize(
    ("job", "said"),
    {
        b"": b"cut off",
        b"1\0true": b"cut off",
        b"1": b"cut off",
        b"\0": b"number",
        b"one\0true\0": b"number",
        b"-1\0": b"number",
        b"1 \0true\0": b"number",
        b"2\0true\0": b"2 words announced, 1 found",
        b"0\0true\0": b"0 words announced, 1 found",
        b"1\0true\0x\0": b"1 words announced, 2 found",
        b"99999999999999999999999\0true\0": b"number",
    }.items(),
)
def test_a_damaged_job_is_refused(pod: Pod, job: bytes, said: bytes) -> None:
    code, out, err = pod.run(job=job)
    assert (code, out) == (70, b"")
    assert err.startswith(b"tidegate: job: ")
    assert said in err
    assert not (pod.folder / "exit").exists()


def test_a_missing_folder_is_refused(tmp_path: Path, shim: Path) -> None:
    folder = tmp_path / "none"
    done = subprocess.run([shim], env={"TIDEGATE_SHIM_FOLDER": str(folder)}, capture_output=True, timeout=5)
    assert (done.returncode, done.stderr) == (
        70,
        b"tidegate: " + os.fsencode(folder) + b": No such file or directory\n",
    )


def waiting(folder: Path, shim: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([shim], env={**os.environ, "TIDEGATE_SHIM_FOLDER": str(folder)}, stderr=subprocess.PIPE)


def test_a_job_is_waited_for(tmp_path: Path, shim: Path) -> None:
    process = waiting(tmp_path, shim)
    time.sleep(0.1)
    assert process.poll() is None
    (tmp_path / "part").write_bytes(encoded("sh", "-c", "exit 3"))
    (tmp_path / "part").rename(tmp_path / "job")
    eventually((tmp_path / "exit").exists)
    (tmp_path / "done").write_text("3")
    assert (process.wait(10), (tmp_path / "exit").read_text()) == (3, "3")
    process.communicate()


def test_who_waits_for_a_job_ends_when_told(tmp_path: Path, shim: Path) -> None:
    process = waiting(tmp_path, shim)
    time.sleep(0.1)
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 143


def test_nobody_waits_for_the_dead(tmp_path: Path, hasty: Path) -> None:
    process = waiting(tmp_path, hasty)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (70, b"tidegate: job: whoever writes it is gone\n")
    (tmp_path / "alive").touch()
    os.utime(tmp_path / "alive", (time.time() - 60,) * 2)
    (tmp_path / "job").write_bytes(encoded("true"))
    process = waiting(tmp_path, hasty)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (70, b"tidegate: done: whoever writes it is gone\n")


def test_an_empty_job_beside_a_code_ends_with_it(pod: Pod) -> None:
    assert pod.run(job=b"0\0", done="3")[0] == 3


def test_it_installs_itself(tmp_path: Path, shim: Path) -> None:
    for _ in range(2):
        subprocess.run([shim, "install"], env={"TIDEGATE_SHIM_FOLDER": str(tmp_path)}, check=True)
    made = tmp_path / "bin" / "shim"
    assert made.read_bytes() == shim.read_bytes()
    assert os.access(made, os.X_OK)


def test_the_folder_is_tidegate_unless_named(shim: Path) -> None:
    if Path("/tidegate").exists():
        pytest.skip("there is a /tidegate here")
    for env in {}, {"TIDEGATE_SHIM_FOLDER": ""}:
        done = subprocess.run([shim], env=env, capture_output=True, timeout=5)
        assert (done.returncode, done.stderr) == (70, b"tidegate: /tidegate: No such file or directory\n")


# The command


def test_the_command_inherits_environment_folder_and_stdin(pod: Pod, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"input")
    os.close(write)
    got = pod.run(*sh('cat; echo " $PWD $X"'), env={**os.environ, "X": "y"}, cwd=tmp_path, stdin=read)[1]
    os.close(read)
    assert got == f"input {tmp_path} y\n".encode()


def test_the_command_is_found_by_path(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\necho found\n")
    (tmp_path / "tool").chmod(0o755)
    assert pod.run("tool", env={"PATH": f"/none:{tmp_path}"})[1] == b"found\n"


def test_the_command_gets_no_file_and_no_blocked_or_ignored_signal_of_ours(pod: Pod) -> None:
    assert pod.run("ls", "/proc/self/fd", stdin=subprocess.DEVNULL)[1].split() == [b"0", b"1", b"2", b"3"]  # 3 is ls's
    signals = ("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")  # a parent of ours may have left some ignored
    assert pod.run(*signals)[1] == subprocess.run(signals, capture_output=True, check=True).stdout


def test_standard_files_that_are_closed_do_not_become_others(pod: Pod) -> None:
    (pod.folder / "done").write_text("0")
    job = encoded(
        *py("os.write(2, b'err '); time.sleep(.05); os.write(1, b'out '); print(os.readlink('/proc/self/fd/0'))")
    )
    process = pod.start(job=job, prefix=["sh", "-c", 'exec "$0" <&- >&- 2>&-'], stdout=None, stderr=None)
    assert process.wait(5) == 0
    assert (pod.exit, pod.log) == ("0", b"err out /dev/null\n")


@pytest.mark.parametrize(
    ("script", "exit_"),
    [("exit 0", "0"), ("exit 7", "7"), ("exit 255", "255"), ("kill -9 $$", "-9"), ("kill -11 $$", "-11")],
)
def test_exit_says_how_the_command_ended_and_done_how_we_end(pod: Pod, script: str, exit_: str) -> None:
    assert pod.run(*sh(script), done="5\n")[0] == 5
    assert pod.exit == exit_
    assert sorted(p.name for p in pod.folder.iterdir()) == ["done", "exit", "job", "log"]


def test_a_command_that_is_not_there_is_127(pod: Pod) -> None:
    code, out, err = pod.run("no-such-program", done="1")
    assert (code, out, pod.exit) == (1, b"", "127")
    assert err == pod.log == b"tidegate: cannot run no-such-program: No such file or directory\n"


def test_a_command_that_may_not_be_run_is_126(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    pod.run(str(tmp_path / "data"))
    assert (pod.exit, pod.log) == ("126", f"tidegate: cannot run {tmp_path}/data: Permission denied\n".encode())


def test_a_command_whose_interpreter_is_not_there_says_so(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/no/such/interpreter\n")
    (tmp_path / "tool").chmod(0o755)
    pod.run(str(tmp_path / "tool"))
    assert (pod.exit, b"the interpreter or loader it needs is not in this image" in pod.log) == ("127", True)


# Output


def test_stdout_and_stderr_go_their_ways_and_both_into_the_log(pod: Pod) -> None:
    (pod.folder / "log").write_bytes(b"before\n")
    said = pod.run(*sh("echo one; sleep .05; echo two >&2; sleep .05; printf three"))
    assert said == (0, b"one\nthree", b"two\n")
    assert pod.log == b"before\none\ntwo\nthree"


def test_output_appears_while_the_command_runs(pod: Pod) -> None:
    process = pod.start(*sh("echo now; exec sleep 60"))
    assert process.stdout.readline() == b"now\n"
    assert pod.log == b"now\n"


def test_huge_output_on_both_streams_arrives_whole(pod: Pod) -> None:
    code = "import threading as t\n" + "".join(
        f"t.Thread(target=lambda: [sys.{s}.buffer.write(b'{c}' * 100_003) for _ in range(100)]).start()\n"
        for s, c in (("stdout", "o"), ("stderr", "e"))
    )
    status, out, err = pod.run(*py(code))
    assert (status, len(out), set(out), len(err), set(err)) == (0, 10_000_300, set(b"o"), 10_000_300, set(b"e"))
    assert (pod.log.count(b"o"), pod.log.count(b"e")) == (10_000_300, 10_000_300)


def test_bytes_are_copied_as_they_are(pod: Pod) -> None:
    assert pod.run(*py("sys.stdout.buffer.write(bytes(range(256)) * 999)"))[1] == bytes(range(256)) * 999 == pod.log


def test_a_reader_who_has_gone_stops_neither_the_command_nor_the_log(pod: Pod) -> None:
    read, write = os.pipe()
    os.close(read)
    assert pod.run(*sh("seq 100000; echo end >&2"), stdout=write)[::2] == (0, b"end\n")
    os.close(write)
    assert (pod.exit, len(pod.log)) == ("0", 588_895 + 4)


def test_a_reader_who_reads_nothing_keeps_neither_signals_nor_the_log_waiting(hasty_pod: Pod) -> None:
    read, write = os.pipe()
    os.write(write, b"x" * 5000)  # so that less fits than is read at once
    process = hasty_pod.start(*py("print('x' * 999_999)"), stdout=write)
    eventually(lambda: len(hasty_pod.log) >= 65536 if (hasty_pod.folder / "log").exists() else False)
    process.send_signal(signal.SIGTERM)
    assert hasty_pod.await_file("exit") == "-15"
    assert len(hasty_pod.log) >= 2 * 65536  # what was read, and what stood in the pipe
    hasty_pod.finish(1)
    assert process.wait(5) == 1
    os.close(read)
    os.close(write)


def test_a_command_that_closes_its_output_goes_on(pod: Pod) -> None:
    process = pod.start(*sh("echo last; exec >&- 2>&-; sleep .3; exit 4"))
    assert (process.stdout.read(5), pod.await_file("exit")) == (b"last\n", "4")
    used = os.sysconf("SC_CLK_TCK") * 0.2
    assert sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13])) < used
    pod.finish()


def test_a_log_that_cannot_be_written_does_not_stop_the_command(pod: Pod) -> None:
    (pod.folder / "log").symlink_to("/dev/full")
    code, out, err = pod.run(*sh("seq 20000; sleep .1; echo end; exit 3"), done="0")
    assert (code, len(out), out[-4:], pod.exit) == (0, 108_894 + 4, b"end\n", "3")
    assert err == b"tidegate: the log cannot be written: No space left on device; the command goes on\n"


def test_a_log_that_cannot_be_opened_does_not_stop_the_command(pod: Pod) -> None:
    (pod.folder / "log").mkdir()
    assert pod.run("echo", "x") == (0, b"x\n", b"tidegate: log: Is a directory; the command goes on without\n")


def test_the_place_for_exit_is_taken_before_the_command_fills_the_disk(pod: Pod) -> None:
    process = pod.start(*sh("echo; exec sleep 60"))
    process.stdout.readline()
    (part,) = pod.folder.glob("exit*")
    assert part.stat().st_blocks * 512 >= 16 or part.stat().st_size == 16
    inode = part.stat().st_ino
    process.terminate()
    assert (pod.await_file("exit"), (pod.folder / "exit").stat().st_ino) == ("-15", inode)


def test_an_exit_that_cannot_be_written_is_70_with_a_line(pod: Pod) -> None:
    (pod.folder / "exit").mkdir()
    assert pod.run("true")[::2] == (70, b"tidegate: exit: Is a directory\n")


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_goes_to_the_whole_group_of_the_command(pod: Pod, number: signal.Signals) -> None:
    process = pod.start(*py("signal.signal(2, signal.SIG_DFL); os.fork(); say(os.getpid()); signal.pause()"))
    pids = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(number)
    assert pod.await_file("exit") == f"-{number.value}"
    eventually(lambda: all(map(gone, pids)))
    pod.finish(128 + number)
    assert process.wait(5) == 128 + number


def test_a_command_may_answer_the_signal_in_its_own_time(pod: Pod) -> None:
    process = pod.start(*answering(SIGTERM="time.sleep(.3), say('bye'), sys.exit(9)"))
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert (pod.await_file("exit"), pod.log) == ("9", b"up\nbye\n")


def test_a_command_that_ignores_the_signal_is_killed_after_the_grace(hasty_pod: Pod) -> None:
    process = hasty_pod.start(*answering(SIGTERM="None"))
    process.stdout.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert hasty_pod.await_file("exit") == "-9"
    assert time.monotonic() - began > 0.39


def test_the_deadlines_are_20_and_2_seconds() -> None:
    source = SOURCE.read_text()
    assert ("#define GRACE_MS 20000 " in source, "#define DRAIN_MS 2000 " in source) == (True, True)


def test_other_signals_are_passed_on_and_do_not_end_us(pod: Pod) -> None:
    process = pod.start(*answering(SIGUSR1="say('one')", SIGUSR2="say('two')", SIGQUIT="sys.exit(6)"))
    process.stdout.readline()
    for number, said in (signal.SIGUSR1, b"one\n"), (signal.SIGUSR2, b"two\n"):
        process.send_signal(number)
        assert process.stdout.readline() == said
    process.send_signal(signal.SIGQUIT)
    assert pod.await_file("exit") == "6"


def test_a_signal_before_the_command_starts_is_not_lost(pod: Pod) -> None:
    # blocked, then sent, then inherited as pending by exec: it is there before main() is
    early = "signal.pthread_sigmask(0, [15]); os.kill(os.getpid(), 15); os.execv(sys.argv[1], sys.argv[1:])"
    script = py("signal.pthread_sigmask(1, [15]); signal.pause()")
    process = pod.start(*script, prefix=[*py(early)])
    assert pod.await_file("exit") == "-15"
    pod.finish(143)
    assert process.wait(5) == 143


def test_a_command_that_left_its_group_still_gets_the_signal(hasty_pod: Pod) -> None:
    # it joins the group of its child, as a shell's job control may do
    leave = (
        "p = os.fork() or (signal.alarm(3), signal.pause())\nos.setpgid(p, p), os.setpgid(0, p), say(p)\nsignal.pause()"
    )
    process = hasty_pod.start(*py(leave))
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert hasty_pod.await_file("exit") == "-15"


def test_many_children_ending_at_once_lose_no_end(pod: Pod) -> None:
    for _ in range(5):
        assert pod.run(*sh("for i in 1 2 3 4 5 6 7 8; do (exit $i) & done; wait; exit 8"))[0] == 0
        assert pod.exit == "8"


def test_an_ignored_sigchld_is_no_trouble(pod: Pod) -> None:
    assert pod.run(*sh("exit 3"), preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))[0] == 0
    assert pod.exit == "3"


def test_when_we_are_killed_the_command_dies_too(pod: Pod) -> None:
    process = pod.start(*sh("echo $$; exec sleep 60"))
    pid = int(process.stdout.readline())
    process.kill()
    eventually(lambda: gone(pid))


# The end


def test_what_the_command_leaves_in_its_group_is_killed(pod: Pod) -> None:
    began = time.monotonic()
    process = pod.start(*sh("sleep 60 & echo $!; exit 2"))
    pid = int(process.stdout.readline())
    assert pod.await_file("exit") == "2"
    eventually(lambda: gone(pid))
    assert time.monotonic() - began < 1.5  # nobody holds the pipes, nobody waits


DAEMON = "os.fork() and (os.wait(), os._exit(5)); os.setsid(); os.fork() and os._exit(0); {}\ntime.sleep(60)"


def test_a_daemon_that_holds_the_pipes_is_not_waited_for(shim: Path, make: Callable[[Path], Pod], hasty: Path) -> None:
    for binary, least, most in (hasty, 0.2, 1.5), (shim, 2.0, 3.5):
        pod = make(binary)
        process = pod.start(*py(DAEMON.format("say(os.getpid())")))
        pid = int(process.stdout.readline())
        began = time.monotonic()
        assert pod.await_file("exit") == "5"
        assert least - 0.1 < time.monotonic() - began < most
        os.kill(pid, signal.SIGKILL)


def test_a_daemon_that_never_stops_talking_keeps_nobody(hasty_pod: Pod) -> None:
    talk = "print(os.getpid(), file=open('pid', 'w'), flush=True)\nwhile 1: os.write(1, b'x' * 999)\n"
    (hasty_pod.folder / "alive").touch()
    os.utime(hasty_pod.folder / "alive", (time.time() + 60,) * 2)  # a busy machine is no reason to give up
    process = hasty_pod.start(*py(DAEMON.format(talk)), cwd=hasty_pod.folder, stdout=subprocess.DEVNULL)
    assert hasty_pod.await_file("exit") == "5"
    size = len(hasty_pod.log)
    pid = int(hasty_pod.await_file("pid"))
    eventually(lambda: gone(pid))  # nobody reads its pipe
    assert len(hasty_pod.log) == size
    hasty_pod.finish()
    assert process.wait(5) == 0


def test_we_wait_for_done_without_using_the_processor(pod: Pod) -> None:
    process = pod.start("true")
    pod.await_file("exit")
    time.sleep(0.3)
    assert process.poll() is None
    (pod.folder / "done").write_bytes(b"")  # still being written
    time.sleep(0.1)
    assert process.poll() is None
    pod.finish(12)
    assert process.wait(1) == 12


@pytest.mark.parametrize("text", ["x", "256", "-1", "1 2", "0x1", "1\n\n"])
def test_a_done_that_is_no_exit_code_is_70(pod: Pod, text: str) -> None:
    assert pod.run("true", done=text)[::2] == (70, b"tidegate: done: no exit code\n")


def test_one_signal_while_waiting_leaves_done_its_time(pod: Pod) -> None:
    process = pod.start("true")
    pod.await_file("exit")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert process.poll() is None
    pod.finish(0)
    assert process.wait(1) == 0


def test_a_second_signal_ends_the_wait(pod: Pod) -> None:
    process = pod.start(*sh("echo; exec sleep 60"))
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert pod.await_file("exit") == "-15"
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(1) == 143


# Where it runs


def test_an_empty_environment_is_enough(pod: Pod) -> None:
    (pod.folder / "done").write_text("0")
    process = pod.start("/bin/echo", "x", prefix=["env", "-i", f"TIDEGATE_SHIM_FOLDER={pod.folder}"])
    assert (process.communicate(timeout=5)[0], process.returncode, pod.exit) == (b"x\n", 0, "0")


@functools.cache
def may_unshare() -> bool:
    return (
        subprocess.run(["unshare", "-r", "--pid", "--fork", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture
def scratch(tmp_path: Path, shim: Path) -> Path:
    """A root file system with the shim, its folder, and one static program."""
    if not may_unshare():
        pytest.skip("no user namespaces here")
    root = tmp_path / "root"
    (root / "tidegate/bin").mkdir(parents=True)
    (root / "tidegate/bin/shim").hardlink_to(shim)
    (tmp_path / "hello.c").write_text(HELLO)
    compiled(tmp_path / "hello.c", root / "hello")
    (root / "tidegate/done").write_text("0")
    return root


def in_scratch(root: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """As PID 1, with no environment, no /proc, no /dev, no shell."""
    (root / "tidegate/job").write_bytes(encoded(*words))
    command = ["env", "-i", "/usr/bin/unshare", "-r", "--pid", "--fork", "--root", root, "/tidegate/bin/shim"]
    return subprocess.run(command, capture_output=True, timeout=10, check=False)


def test_it_runs_as_pid_1_in_an_image_with_nothing_in_it(scratch: Path) -> None:
    done = in_scratch(scratch, "/hello", "world")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello world", b"")
    assert (scratch / "tidegate/exit").read_text() == "7"
    assert (scratch / "tidegate/log").read_bytes() == b"hello world"
    done = in_scratch(scratch, "sh", "-c", "true")
    assert (done.returncode, done.stderr) == (0, b"tidegate: cannot run sh: No such file or directory\n")


def test_as_pid_1_it_obeys_signals_and_reaps_what_daemons_leave(hasty_pod: Pod) -> None:
    if not may_unshare():
        pytest.skip("no user namespaces here")
    code = "os.fork() or (os.fork(), os._exit(0)); os.wait(); say(os.getpid()); signal.pause()"
    process = hasty_pod.start(*py(code), prefix=["unshare", "-r", "--pid", "--fork", "--kill-child"])
    assert process.stdout.readline() == b"2\n"
    (inner,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    eventually(lambda: len(Path(f"/proc/{inner}/task/{inner}/children").read_text().split()) == 1)
    os.kill(int(inner), signal.SIGTERM)
    assert hasty_pod.await_file("exit") == "-15"
    hasty_pod.finish(143)
    assert process.wait(5) == 143


def test_variables_left_for_the_command_come_over_those_of_the_image(pod: Pod) -> None:
    (pod.folder / "env").write_bytes(b"A=from the step\n{{x}}\0B=\0")
    code, out, _ = pod.run("sh", "-c", 'printf "%s|%s|%s" "$A" "$B" "$C"', env={**os.environ, "A": "old", "C": "kept"})
    assert (code, out) == (0, b"from the step\n{{x}}||kept")


@pytest.mark.parametrize("program", ["sh", "bash", "python3"])
def test_an_image_with_a_shell_or_python_waits_for_the_shim_that_the_sidecar_brings(
    tmp_path: Path, shim: Path, program: str
) -> None:
    script = AWAIT[program].replace(SHIM, str(tmp_path / "bin/shim"))
    leave(["sh", "-c", "echo ran; exit 3"], tmp_path)
    with subprocess.Popen(
        [program, "-c", script], env={**os.environ, "TIDEGATE_SHIM_FOLDER": str(tmp_path)}, stdout=subprocess.PIPE
    ) as process:
        install(shim, tmp_path)
        assert ended(tmp_path, []) == (3, False)
        release(tmp_path, 3)
        assert (process.wait(10), process.stdout.read() if process.stdout else b"") == (3, b"ran\n")


@pytest.mark.parametrize("program", ["sh", "bash", "python3"])
def test_a_pod_that_is_told_to_end_while_it_waits_for_the_shim_runs_nothing(tmp_path: Path, program: str) -> None:
    script = AWAIT[program].replace(SHIM, str(tmp_path / "bin/shim"))
    with subprocess.Popen([program, "-c", script]) as process:
        caught = Path(f"/proc/{process.pid}/status")
        eventually(lambda: int(caught.read_text().split("SigCgt:")[1].split()[0], 16) & 1 << (signal.SIGTERM - 1))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143  # what was not caught would be -15, and nothing at all in a pod


def test_a_shell_in_an_image_without_sleep_waits_for_the_shim_as_long_as_others(tmp_path: Path, shim: Path) -> None:
    script = AWAIT["sh"].replace(SHIM, str(tmp_path / "bin/shim"))
    leave([], tmp_path)
    bare = {"PATH": str(tmp_path), "TIDEGATE_SHIM_FOLDER": str(tmp_path)}
    with subprocess.Popen(["/bin/sh", "-c", script], env=bare, stderr=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)  # more turns than it would have if it counted them
        install(shim, tmp_path)
        assert (process.wait(10), process.stderr.read() if process.stderr else b"") == (0, b"")


def test_a_shim_that_is_there_stays_as_it_is(tmp_path: Path, shim: Path) -> None:
    install(shim, tmp_path)
    before = (tmp_path / "bin/shim").stat()
    install(shim, tmp_path)
    assert (tmp_path / "bin/shim").stat().st_ino == before.st_ino
    assert os.access(tmp_path / "bin/shim", os.X_OK)
