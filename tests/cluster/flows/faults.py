"""Flows for what can happen to pods: each has a name of its own, by which its Workflow is found."""

from kfp import dsl, kubernetes

from tests.language.kit import component, say
from tests.language.test_retries_timeouts import sleep


@component
def eat(mega: int) -> int:
    return len(b"x" * (mega << 20))


@component
def fill(folder: str, mega: int):
    import time

    with open(folder + "/big", "wb") as f:
        f.write(b"x" * (mega << 20))
    time.sleep(120)


@component
def show(name: str) -> str:
    import os

    return os.environ[name]


@dsl.component(base_image="absent:1", install_kfp_package=False)
def nowhere() -> str:
    return "never"


def waiting(name: str, seconds: float) -> object:
    """Two steps around one that takes its time."""

    @dsl.pipeline(name=name)
    def flow() -> str:
        first = say(text=name)
        slow = sleep(seconds=seconds).after(first)
        return say(text=slow.output).output

    return flow


@dsl.pipeline(name="eats")
def eats():
    first = say(text="eats")
    eat(mega=400).after(first).set_memory_limit("200Mi")


@dsl.pipeline(name="fills")
def fills():
    task = fill(folder="/tmp/scratch", mega=50)
    kubernetes.empty_dir_mount(task, "scratch", "/tmp/scratch", size_limit="5Mi")


@dsl.pipeline(name="imageless")
def imageless() -> str:
    return say(text=nowhere().output).output


@dsl.pipeline(name="secretless")
def secretless(secret: str = "absent") -> str:
    task = show(name="SAID")
    kubernetes.use_secret_as_env(task, secret, {"key": "SAID"})
    return task.output


@dsl.pipeline(name="overtime", pipeline_config=dsl.PipelineConfig(active_deadline_seconds=40))
def overtime() -> str:
    first = say(text="overtime")
    return say(text=sleep(seconds=120.0).after(first).output).output


@dsl.pipeline(name="plain")
def plain(text: str = "plain") -> str:
    return say(text=text).output


# a pod has 30 s to end: what is deleted must not be able to finish in them
SECONDS = {"deleted": 45.0, "outlives": 20.0, "offline": 10.0, "restarted": 40.0, "stopped": 100.0}
FLOWS = [eats, fills, imageless, secretless, overtime, plain, *(waiting(n, s) for n, s in SECONDS.items())]
