"""The second step fails until a ConfigMap says that the gate is open."""

from kfp import dsl, kubernetes

from components.kit.component import add, gate


@dsl.pipeline(name="kfp-gated")
def gated(config: str, n: int = 1) -> int:
    task = gate(seconds=add(a=n, b=1).output)
    kubernetes.use_config_map_as_env(task, config, {"gate": "GATE"})
    return add(a=task.output, b=10).output
