"""The Argo engine: a plan as plain Argo Workflows, one pod a task; control through Argo, data through the store."""
