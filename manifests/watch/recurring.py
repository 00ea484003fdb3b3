"""A watcher as a recurring run of Kubeflow Pipelines: its one step resolves the reference, and ends where nothing is new.

Copy this file, set what is marked, and (docs/new-data.md)::

    tidegate compile PIPELINE --to ir -o pipeline.yaml
    kubectl create configmap tidegate-watch -n NAMESPACE --from-file=pipeline.yaml
    tidegate schedule apply recurring.py --engine kfp --name watch-sentiment --cron "*/5 * * * *" -p data=data=s3://…
"""

from kfp import dsl, kubernetes

IMAGE = "registry.example/team/watch@sha256:" + 64 * "0"  # set: from images.lock, the family watch
API = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"  # set: where KFP's API answers in the cluster
EXPERIMENT = "Default"  # set: where the runs are to be
SECRET = "tidegate-store-submit"
KEYS = ("TIDEGATE_STORE", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")  # set


@dsl.container_component
def look(data: str):
    """Look once; start what is new, and wait for its end."""
    command = ["tidegate", "watch", "/watch/pipeline.yaml", "--engine", "kfp", "--no-mirror", "--once", "--data"]
    return dsl.ContainerSpec(image=IMAGE, command=[*command, data])


@dsl.pipeline(name="tidegate-watch")
def tidegate_watch(data: str):
    """Start a pipeline where its data is new: PARAMETER=REFERENCE."""
    step = look(data=data)
    step.set_caching_options(False)  # KFP would take the second look for the first
    own = {"TIDEGATE_KFP_HOST": API, "TIDEGATE_KFP_EXPERIMENT": EXPERIMENT, "TIDEGATE_USER": "tidegate-watch"}
    for name, value in {**own, "HOME": "/tmp"}.items():
        step.set_env_variable(name, value)
    kubernetes.use_secret_as_env(step, SECRET, {key: key for key in KEYS})
    kubernetes.use_config_map_as_volume(step, "tidegate-watch", "/watch")
