"""What a pod has beside its inputs: settings of kfp.kubernetes, resources; and artifacts from outside."""

from kfp import dsl, kubernetes

from tests.language.kit import component, outputs, read

OUT = outputs(seen=dict, kept=dict, text=str, folder=list)


@component
def look(names: list, folders: list) -> dict:
    import os

    files = {f: {n: open(os.path.join(f, n)).read() for n in sorted(os.listdir(f)) if n[0] != "."} for f in folders}
    return {"env": {n: os.environ.get(n) for n in names}, "files": files, "there": bool(os.environ.get("POD_NAME"))}


@component
def put(file: str, text: str) -> str:
    with open(file, "w") as f:
        f.write(text)
    return file


@component
def names(data: dsl.Input[dsl.Dataset]) -> list:
    import os

    return sorted(os.listdir(data.path))


@dsl.pipeline(name="pods")
def pods(given: str, folder_given: str, secret: str = "db") -> OUT:
    seen = look(names=["USER_NAME", "MODE"], folders=["/tmp/secret", "/tmp/config", "/tmp/scratch"])
    kubernetes.use_secret_as_env(seen, secret, {"user": "USER_NAME"})
    kubernetes.use_secret_as_volume(seen, "db", "/tmp/secret")
    kubernetes.use_config_map_as_env(seen, "app", {"mode": "MODE"})
    kubernetes.use_config_map_as_volume(seen, "app", "/tmp/config")
    kubernetes.empty_dir_mount(seen, "scratch", "/tmp/scratch", size_limit="10Mi")
    kubernetes.use_field_path_as_env(seen, "POD_NAME", "metadata.name")
    kubernetes.add_pod_label(seen, "team", "tides")
    kubernetes.add_pod_annotation(seen, "note", "it's")
    kubernetes.add_node_selector(seen, "kubernetes.io/os", "linux")
    kubernetes.add_toleration(seen, key="spot", operator="Exists", effect="NoSchedule")
    kubernetes.set_image_pull_policy(seen, "IfNotPresent")
    seen.set_cpu_request("10m").set_cpu_limit("1").set_memory_request("16Mi").set_memory_limit("512Mi")
    kept = put(file="/tmp/claim/kept", text="it stays")
    kubernetes.mount_pvc(kept, "work", "/tmp/claim", sub_path="below")
    again = look(names=[], folders=["/tmp/claim"]).after(kept)
    kubernetes.mount_pvc(again, "work", "/tmp/claim", sub_path="below")
    file = dsl.importer(artifact_uri=given, artifact_class=dsl.Dataset, metadata={"from": given})
    folder = dsl.importer(artifact_uri=folder_given, artifact_class=dsl.Dataset)
    return OUT(seen.output, again.output, read(data=file.output).output, names(data=folder.output).output)


FLOWS = [pods]
