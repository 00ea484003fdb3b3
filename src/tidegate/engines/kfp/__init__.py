"""The Kubeflow Pipelines engine: a plan through kfp's own client; tidegate's own steps use the shared store from inside."""
