"""Exit handlers, what runs after a failure, tries, and time limits."""

from kfp import dsl, kubernetes

from tests.language.kit import add, component, fail, say
from tests.language.test_exit_handlers import either
from tests.language.test_retries_timeouts import after_tries, sleep


@component
def told(status: dsl.PipelineTaskFinalStatus) -> list:
    return [status.state, status.pipeline_task_name, status.error_message]


@dsl.pipeline(name="ends")
def ends():
    with dsl.ExitHandler(told(), name="guarded"):
        add(a=1, b=2)
        broken = fail(text="it's {{workflow.name}} 😀 broken")
        say(text=say(text="after").after(broken).output)
    with dsl.ExitHandler(told(), name="calm"):
        add(a=3, b=4)
    either(text=fail(text="swept").output).ignore_upstream_failure()


@dsl.pipeline(name="twice")
def twice(file: str) -> int:
    return add(a=after_tries(file=file, needed=2).output, b=1).output


@dsl.pipeline(name="tries")
def tries() -> int:
    """What is tried again counts its tries in a volume that outlives the pods."""
    task = after_tries(file="/tmp/claim/tries", needed=2)
    task.set_retry(num_retries=3, backoff_duration="1s", backoff_factor=2, backoff_max_duration="4s")
    kubernetes.mount_pvc(task, "work", "/tmp/claim")
    hopeless = fail(text="again").set_retry(num_retries=1)
    either(text=hopeless.output).ignore_upstream_failure()
    return task.output


@dsl.pipeline(name="late")
def late():
    slow = sleep(seconds=120.0)
    kubernetes.set_timeout(slow, seconds=8)
    say(text=slow.output)


FLOWS = [ends, tries, late]
